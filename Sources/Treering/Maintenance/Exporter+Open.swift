// Opens the files of a store for an export. Normally it reads the index, the log after it, and the staging of a killed
// mount. If the index is damaged, it makes one from what is left of the log.

extension StoreView {
    /// Opens the files of a store that nobody has mounted, without changing it.
    static func open(
        _ device: D, _ given: SuperblockPair? = nil, allStaged: () -> [StagedRecords] = { [] },
        indexCacheByteCount: Int = 256 << 20,
        log: @escaping @Sendable (String) -> Void
    ) throws(MountError) -> StoreView<D> {
        let pair: SuperblockPair
        if let given { pair = given } else { pair = try SuperblockPair.readOrDerive(device) }
        let superblock = try pair.newest()
        if let derived = pair.derived {
            log("no slot of the superblock is whole: its place is taken by \(derived.source)")
        }
        if let view = try openIndex(device, pair, superblock, allStaged, indexCacheByteCount, log) { return view }
        let recovery = try Checker.openLog(device, pair)
        let rebuild = try RebuiltIndex(
            device, recovery.reader, recovery.rebuildSources(), uuid: superblock.blockUUID,
            segmentCountLimit: recovery.table.countLimit, through: recovery.position,
            salvager: recovery.salvager, .init(cacheByteCount: indexCacheByteCount))
        tell(recovery, log)
        for problem in rebuild.problems { log("the log is damaged: \(problem)") }
        let view = StoreView(rebuild, device)
        view.keeper = recovery
        if recovery.choose(allStaged()).firstEpoch != nil {
            log("the staging of a killed mount is left out, since the index is damaged; repair the store to have it")
        }
        return view
    }

    private static func openIndex(
        _ device: D, _ pair: SuperblockPair, _ superblock: Superblock, _ allStaged: () -> [StagedRecords],
        _ indexCacheByteCount: Int, _ log: @escaping @Sendable (String) -> Void
    ) throws(MountError) -> StoreView<D>? {
        let recovery: Recovery<D>
        do throws(MountError) {
            recovery = try Recovery(
                device, indexCacheByteCount: indexCacheByteCount, salvages: true, pair: pair, log: log)
            var damageCount = 0
            _ = IndexVerifier.verify(
                root: superblock.indexRoot, uuid: superblock.blockUUID, read: device.pages(of: recovery.indexFile),
                onDamage: { _ in damageCount += 1 })
            guard damageCount == 0 else {
                throw MountError(.damaged, "the index is damaged in \(damageCount) places")
            }
            try recovery.replay()
        } catch {
            guard error.kind == .damaged else { throw error }
            log("\(error): the files are taken from the log alone")
            return nil
        }
        tell(recovery, log)
        let view = StoreView(recovery)
        let choice = recovery.choose(allStaged())
        for (tail, reason) in choice.left {
            log("left the staging of mount \(tail.header.epoch.rawValue) alone: \(reason)")
        }
        if choice.misses(superblock, bootID: HostStaging.bootID()) {
            log(
                "the last mount was killed and its staging is not seen here: what it acknowledged and did not sync is missing"
            )
        }
        try view.take(choice.taken, recovery, log)
        try recovery.index.settle(recovery.loader)
        return view
    }

    private static func tell(_ recovery: Recovery<D>, _ log: (String) -> Void) {
        if let damage = recovery.damage { log("the log is damaged and was followed only so far: \(damage)") }
        for salvage in recovery.salvager?.salvages ?? [] where salvage.lostRecordCount > 0 {
            log(
                "segment \(salvage.segment.rawValue) at \(salvage.range.lowerBound): \(salvage.reason); \(salvage.lostRecordCount) operations are lost, files that they changed last are in an older state"
            )
        }
    }

    /// Applies, in memory only, what killed mounts had acknowledged and not written.
    private func take(_ allStaged: [StagedRecords], _ recovery: Recovery<D>, _ log: (String) -> Void) throws(MountError)
    {
        var sequence = recovery.nextSequence
        var count = 0
        while let (record, payload) = allStaged.lazy.compactMap({ $0.record(sequence) }).first {
            record.forEachChange { change, _, _ in
                guard case .payload(let found) = change else { return }
                residents[found.id] = Array(payload ?? found.inlineBytes)
            }
            let place = RecordPlace(
                segment: recovery.position.segment, recordPosition: 4096, payloadAreaPosition: 4096)
            try recovery.apply(record, place)
            sequence = sequence.next
            count += 1
        }
        self.allStaged = allStaged
        if count > 0 { log("\(count) operations come from the staging of a killed mount") }
    }
}
