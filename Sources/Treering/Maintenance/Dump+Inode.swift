// `treering dump` of one inode, in words: its entries in the index of the last checkpoint, and its changes in the log
// after it.

extension Dump {
    /// Shows an inode with all its entries, the places of its data, and the changes to it after the last checkpoint.
    static func inode(_ device: D, _ number: UInt64, _ line: @escaping (String) -> Void) throws(MountError) {
        try InodeDump(Dump(device: device, line: line), InodeNumber(number)).run()
    }
}

private struct InodeDump<D: Device> {
    let dump: Dump<D>
    let number: InodeNumber
    let superblock: Superblock

    init(_ dump: Dump<D>, _ number: InodeNumber) throws(MountError) {
        self.dump = dump
        self.number = number
        superblock = try SuperblockPair.read(dump.device).newest()
    }

    func run() throws(MountError) {
        dump.line(
            "inode \(number.rawValue) at checkpoint \(superblock.checkpoint.rawValue) (the log through batch \(superblock.position.lastBatch.rawValue))"
        )
        do throws(MountError) { try entries() } catch { dump.line("DAMAGED \(error)") }
        try laterChanges()
    }

    private func entries() throws(MountError) {
        let file = try dump.openIndex()
        defer { dump.device.close(file) }
        let payloads = PayloadFinder(dump.device, file, superblock)
        let dump = self.dump
        var count = 0
        for space in [KeySpace.tree, .orphans, .tombstones, .removals] {
            let first = IndexKey(space: space, object: number.rawValue, kind: 0, subkey: 0)
            let last = IndexKey(
                word0: first.word0, word1: first.word1 | 0xFFFF_FFFF, word2: .max)
            _ = dump.walk(superblock, file, within: first...last) { key, value in
                count += 1
                let name = space == .tree ? "" : "\(space), "
                dump.line(
                    "  \(name)\(key.kind.map { "\($0)" } ?? "kind \(key.rawKind)") \(key.subkey): \(Dump<D>.describe(key, value))"
                )
                if let payload = Self.payload(of: key, value) { dump.line("    \(payloads.place(of: payload))") }
            }
        }
        if count == 0 { dump.line("  the index has no entry of it") }
    }

    private static func payload(of key: IndexKey, _ value: UnsafeRawBufferPointer) -> PayloadID? {
        switch (key.space, key.kind) {
        case (.tree, .extent): return ExtentEntry(decoding: value).flatMap { $0.isReserved ? nil : $0.payload }
        case (.tree, .xattr):
            if case .payload(let id, _)? = XattrEntry(decoding: value)?.value { return id }
            return nil
        default: return nil
        }
    }

    // MARK: The log after the checkpoint

    private func laterChanges() throws(MountError) {
        do throws(Errno) {
            let reader = BatchReader(
                device: dump.device, uuid: superblock.blockUUID, segmentByteCount: Int(superblock.segmentByteCount))
            var segments: [SegmentNumber: WalkSegment] = [:]
            defer { for segment in segments.values { dump.device.close(segment.file) } }
            for case .segment(let number) in try dump.device.list() {
                let file = try dump.device.open(.segment(number), create: false)
                if let header = try? reader.segmentHeader(number, file) {
                    segments[number] = WalkSegment(header: header, file: file)
                } else {
                    dump.device.close(file)
                }
            }
            var walk = LogWalk(reader: reader, segments: segments, from: superblock.position, epoch: superblock.epoch)
            var count = 0
            while let batch = try walk.next() {
                batch.forEachRecord { record, place in count += show(record, place, batch.header.sequence) }
            }
            dump.line(
                "the log after that, through batch \(walk.position.lastBatch.rawValue): \(count == 0 ? "no change of it" : "\(count) changes of it")"
            )
            if let damage = try walk.evidenceOfDamage() { dump.line("DAMAGED \(damage)") }
        } catch { throw MountError("the log cannot be read", error) }
    }

    /// Shows the changes of a record that concern the inode. Gives how many there are.
    private func show(_ record: Record, _ place: RecordPlace, _ batch: BatchSequence) -> Int {
        var count = 0
        var payload: String?
        record.forEachChange { change, offset, _ in
            if case .payload = change { payload = Dump<D>.describe(change, place, offset) }
            guard concerns(change) else { return }
            count += 1
            let origin =
                "record \(record.sequence.rawValue) at \(place.recordPosition) of segment \(place.segment.rawValue), batch \(batch.rawValue)"
            dump.line("  \(origin): \(Dump<D>.describe(change, place, offset))")
            if case .extent = change, let payload { dump.line("    \(payload)") }
        }
        return count
    }

    private func concerns(_ change: Change) -> Bool {
        switch change {
        case .inode(let record): return record.inode == number
        case .dirent(let directory, _, _, let inode, _, _): return directory == number || inode == number
        case .removeDirent(let inode, _, _), .removeXattr(let inode, _, _), .removeInode(let inode, _),
            .orphan(let inode):
            return inode == number
        case .xattr(let inode, _, _, _, _): return inode == number
        case .extent(let inode, _, _, _, _): return inode == number
        case .removeRange(let inode, _, _, _), .reserve(let inode, _, _): return inode == number
        case .move(let move): return concerns(move.change)
        case .payload, .skipped: return false
        }
    }
}

/// Looks up payloads in the index of a checkpoint, through a small page cache.
private struct PayloadFinder<D: Device> {
    private let loader: PageLoader<D>
    private let tree: Index

    init(_ device: D, _ file: DeviceFile, _ superblock: Superblock) {
        tree = Index(
            uuid: superblock.blockUUID, cacheLimitByteCount: 4 << 20, root: superblock.indexRoot,
            building: superblock.indexRoot.checkpoint.next)
        loader = PageLoader(device, file, tree)
    }

    func place(of id: PayloadID) -> String {
        do throws(MountError) {
            defer { tree.evict() }
            return try loader.run { () throws(PageMiss) in
                try tree.withValue(of: PayloadEntry.key(id)) { value in
                    guard let value else { return "payload \(id.rawValue): DAMAGED: the index has no such payload" }
                    guard let entry = PayloadEntry(decoding: value) else { return "payload \(id.rawValue): MALFORMED" }
                    return "payload \(id.rawValue): \(Dump<D>.place(entry))"
                }
            }
        } catch { return "payload \(id.rawValue): DAMAGED \(error)" }
    }
}
