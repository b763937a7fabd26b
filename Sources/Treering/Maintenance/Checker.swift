// `treering check`: verifies a store that is not mounted, without changing it. Each finding has a place, the file that
// it concerns, and what it means. Checker+Accounting compares the tree with its accounting; Checker+Data reads the
// data.

/// Verifies a store: superblock, every page of the index, the log and every checksum in it, that the index equals what the log
/// says, that names, links and payloads agree.
///
/// Its memory is bounded by the cache that it is given and a few bits per inode, however large the store is.
struct Checker<D: Device> {
    let device: D
    var report = CheckReport()
    private let cacheByteCount: Int
    private let staging: (StoreUUID) -> [StagingHeader]

    /// - Parameter readsData: also read every live payload block and verify its checksum.
    static func check(
        _ device: D, readsData: Bool, indexCacheByteCount: Int = 256 << 20,
        staging: @escaping (StoreUUID) -> [StagingHeader] = { _ in [] }
    ) throws(MountError) -> CheckReport {
        var checker = Checker(device: device, indexCacheByteCount, staging)
        try checker.run(readsData: readsData)
        return checker.report
    }

    private init(device: D, _ cacheByteCount: Int, _ staging: @escaping (StoreUUID) -> [StagingHeader]) {
        self.device = device
        self.staging = staging
        self.cacheByteCount = cacheByteCount
    }

    private mutating func run(readsData: Bool) throws(MountError) {
        let notes = NoteBox()
        defer { report.notes = notes.lines + report.notes }
        let pair = try SuperblockPair.readOrDerive(device, staging: staging)
        let superblock = try pair.newest()
        checkSlots(pair, superblock, notes)
        try checkCopies(superblock)
        let live = verifyPages(superblock) ? try openLive(pair, notes) : nil
        report.hasIndex = live != nil
        let recovery: Recovery<D>
        if let live { recovery = live } else { recovery = try Self.openLog(device, pair) }
        noteEnd(recovery, isLive: live != nil, notes)
        noteStaging(superblock, recovery, notes)
        let rebuild = try RebuiltIndex(
            device, recovery.reader, recovery.rebuildSources(), uuid: superblock.blockUUID,
            segmentCountLimit: recovery.table.countLimit, through: recovery.position,
            salvager: recovery.salvager, .init(cacheByteCount: cacheByteCount))
        report.recordCount = rebuild.recordCount
        try compare(live, rebuild, recovery)
        let view = live.map { StoreView($0) } ?? StoreView(rebuild, device)
        try checkAccounting(
            view, readsUsage: live != nil && recovery.salvager!.salvages.isEmpty && recovery.missingSegments.isEmpty)
        if readsData { try verifyData(view) }
        report.inodeCount = view.index.inodeCount
        report.entryCount = view.index.tree.entryCount
        report.liveByteCount = view.table.liveByteCount
        report.fillPaths(view)
    }

    // MARK: Superblock and index

    /// A power cut may leave a torn slot. After a clean unmount a torn slot is damage.
    private mutating func checkSlots(_ pair: SuperblockPair, _ superblock: Superblock, _ notes: NoteBox) {
        if let derived = pair.derived {
            report.derived = derived
            report.notes += derived.doubts
            return report.add(
                .superblock, "superblock", derived.loss,
                effect: derived.isComplete
                    ? "a repair makes a new one from \(derived.source)" : "a repair cannot make a new one")
        }
        guard let complaint = pair.complaint else { return }
        report.needs.insert(.superblock)
        guard superblock.isClean else { return notes.lines.append(complaint) }
        report.add(.superblock, "superblock", complaint, effect: "nothing is lost; a repair or a mount writes it anew")
    }

    /// Checks the copies of the superblock, which serve when both slots are lost. Stores of earlier versions have none.
    private mutating func checkCopies(_ superblock: Superblock) throws(MountError) {
        guard superblock.isClean, let copies = try? SuperblockPair.readCopies(device) else { return }
        let found = copies.slots.map { try? $0.get() }
        let isOld = copies.slots.allSatisfy { $0 == .failure(.foreign) }
        guard !isOld, !found.contains(superblock) else { return }
        report.add(
            .superblock, "index", "the copy of the superblock in it is damaged or old",
            effect: "nothing is lost; a repair or a mount writes it anew")
    }

    mutating func verifyPages(_ superblock: Superblock) -> Bool {
        let file: DeviceFile
        do throws(Errno) { file = try device.open(.index, create: false) } catch {
            report.add(
                .index, "index", "the file cannot be opened: \(error)",
                effect: "nothing is lost while the log is whole; a repair makes it anew from the log")
            return false
        }
        defer { device.close(file) }
        var damage: [CorruptionReport] = []
        var damageCount = 0
        _ = IndexVerifier.verify(
            root: superblock.indexRoot, uuid: superblock.blockUUID, read: device.pages(of: file),
            onDamage: {
                damageCount += 1
                if damage.count < 20 { damage.append($0) }
            })
        for problem in damage { report.add(.index, problem.place, problem.reason) }
        if damageCount > 0 {
            report.add(
                .index, "index", "\(damageCount) places of it are damaged",
                effect: "nothing is lost while the log is whole; a repair makes it anew from the log")
        }
        return damageCount == 0
    }

    /// Opens the index and replays the log after it. Nil where that fails because of damage.
    private mutating func openLive(_ pair: SuperblockPair, _ notes: NoteBox) throws(MountError) -> Recovery<D>? {
        do throws(MountError) {
            let recovery = try Recovery(device, indexCacheByteCount: cacheByteCount, salvages: true, pair: pair) {
                notes.lines.append($0)
            }
            try recovery.replay()
            try recovery.index.settle(recovery.loader)
            return recovery
        } catch {
            guard error.kind == .damaged else { throw error }
            report.add(.index, "index", error.description, effect: "a repair makes it anew from the log")
            return nil
        }
    }

    /// Opens the log alone, without the index.
    static func openLog(_ device: D, _ pair: SuperblockPair? = nil) throws(MountError) -> Recovery<D> {
        let recovery = try Recovery(
            device, indexCacheByteCount: 1 << 20, withIndex: false, salvages: true, needsIndexFile: false,
            pair: pair
        ) { _ in }
        try recovery.findEnd()
        return recovery
    }

    private mutating func noteEnd(_ recovery: Recovery<D>, isLive: Bool, _ notes: NoteBox) {
        if isLive, recovery.replayedRecordCount > 0 {
            notes.lines.append(
                "not cleanly unmounted: \(recovery.replayedRecordCount) operations lie in the log after the checkpoint; the next mount takes them in"
            )
        }
        if let damage = recovery.damage {
            report.add(
                .log, damage.place, damage.reason,
                effect: "what was written after it cannot be followed and is lost")
        }
        for (number, usage) in recovery.missingSegments.sorted(by: { $0.key < $1.key }) {
            report.add(
                .log, "segment \(number.rawValue)", "its file is gone, and \(usage.live) bytes in it are in use",
                effect: "a repair keeps the names that the index remembers; the data in it is lost")
        }
    }

    /// Notes which operations of killed mounts may be missing from the log.
    private func noteStaging(_ superblock: Superblock, _ recovery: Recovery<D>, _ notes: NoteBox) {
        if superblock.staging.passedCount > 0 {
            notes.lines.append(
                "\(superblock.staging.passedCount) killed mounts were passed over since formatting: their staging was not seen by the mount after them, and what they had acknowledged and not synced is lost"
            )
        }
        let headers = staging(superblock.uuid)
        for header in headers {
            let standing = superblock.staging.standing(
                of: header.epoch, next: recovery.nextSequence, last: recovery.lastBatchEpoch)
            notes.lines.append(
                "the staging of killed mount \(header.epoch.rawValue) is here: "
                    + (standing == .void
                        ? "the store has gone on without it, and what it holds and the store does not is lost"
                        : "the next mount here takes in what it holds"))
        }
        guard !superblock.isClean, superblock.stagingIdentity != 0, superblock.bootID == HostStaging.bootID(),
            !headers.contains(where: { $0.identity == superblock.stagingIdentity })
        else { return }
        notes.lines.append(
            "its last mount was killed, and the staging of that is not seen here: another user's, in another container, or removed. A mount for writing here goes on without it, and what it had acknowledged and not synced would be lost"
        )
    }

    // MARK: The log

    private mutating func compare(
        _ live: Recovery<D>?, _ rebuild: RebuiltIndex<D>, _ recovery: Recovery<D>
    ) throws(MountError) {
        let salvages = recovery.salvager!.salvages
        for salvage in salvages { report.add(finding(salvage, hasIndex: live != nil)) }
        if !salvages.isEmpty { report.needs.insert(.log) }
        for problem in rebuild.problems
        where !salvages.contains(where: { problem.place.contains("segment \($0.segment.rawValue) ") }) {
            report.add(.log, problem.place, problem.reason, effect: "what was written after it cannot be followed")
        }
        guard let live else { return }
        let damage = LogDamage(
            rebuild.lost, missing: rebuild.lostSegments.union(recovery.missingSegments.keys),
            lossy: rebuild.lossySegments)
        let isLostInLog = damage.isEmpty ? false : try reportLost(live, damage)
        // Entries of damaged records are in only one of the two indexes, so comparing them would tell nothing.
        if salvages.isEmpty && !isLostInLog && rebuild.problems.isEmpty {
            for problem in try rebuild.differences(from: live.index, live.loader) {
                report.add(
                    .index, problem.place, problem.reason, effect: "the log is right; a repair makes the index anew")
            }
        }
        if rebuild.nextInode > live.nextInode {
            report.add(
                .index, "next inode number",
                "\(rebuild.nextInode.rawValue) by the log, \(live.nextInode.rawValue) by the superblock",
                effect: "a repair goes by the log")
        }
    }

    private func finding(_ salvage: Salvage, hasIndex: Bool) -> Finding {
        let place = "segment \(salvage.segment.rawValue) at \(salvage.range.lowerBound)..<\(salvage.range.upperBound)"
        guard salvage.range.lowerBound > 0 else {
            return Finding(place: place, reason: salvage.reason, effect: "a repair writes it anew")
        }
        guard !salvage.lost.isEmpty else {
            return Finding(
                place: place, reason: salvage.reason,
                effect: "all \(salvage.savedRecordCount) operations in it can be saved; damaged data blocks give EIO")
        }
        let names = salvage.lost.prefix(4).map {
            $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)–\($0.upperBound)"
        }.joined(separator: ", ")
        return Finding(
            place: place, reason: salvage.reason,
            effect:
                "\(salvage.lostRecordCount) operations in it are lost (\(names)), \(salvage.savedRecordCount) can be saved; "
                + (hasIndex
                    ? "what the index remembers of them is kept, what it does not is in an older state"
                    : "files that they changed last are in an older state"))
    }

    /// Reports the entries of the index whose records the log has lost.
    private mutating func reportLost(_ live: Recovery<D>, _ damage: LogDamage) throws(MountError) -> Bool {
        let view = StoreView(live)
        var counts: [UInt64: (entries: Int, bytes: UInt64)] = [:]
        let payloads = try view.payloads(in: damage)
        try view.forEach(.tree) { key, value in
            guard damage.covers(key, value, payloads),
                counts.count < CheckReport.unreadableLimit || counts[key.object] != nil
            else { return }
            counts[key.object, default: (0, 0)].entries += 1
            if key.kind == .extent, let extent = ExtentEntry(decoding: value), !extent.isReserved {
                counts[key.object]!.bytes += UInt64(extent.length)
            }
        }
        for (inode, count) in counts.sorted(by: { $0.key < $1.key }) {
            let data = count.bytes > 0 ? "; the data of \(count.bytes) bytes may be damaged" : ""
            report.add(
                .restore, "\(count.entries) entries", "the log has lost the operations that made them", inode: inode,
                effect: "the index remembers them, and a repair writes them to the log again\(data)")
        }
        return !counts.isEmpty
    }
}

/// Collects the lines that a recovery logs.
private final class NoteBox: @unchecked Sendable {
    var lines: [String] = []
}
