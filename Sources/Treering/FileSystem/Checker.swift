// `treering check`: verifies a store that is not mounted, without changing it. Everything that it finds is a report with an address.

/// What a check found.
struct CheckReport: Sendable {
    var problems: [CorruptionReport] = []
    /// Things worth knowing that are no damage ("recovered 12 operations from the log").
    var notes: [String] = []
    var inodeCount: UInt64 = 0
    var entryCount: UInt64 = 0
    var recordCount = 0
    var livingByteCount: Int64 = 0
    var dataBlockCount = 0
    var isClean: Bool { problems.isEmpty }

    static let problemLimit = 100

    mutating func add(_ problem: CorruptionReport) {
        if problems.count < Self.problemLimit { problems.append(problem) }
    }

    mutating func add(_ place: String, _ reason: String) { add(CorruptionReport(place: place, reason: reason)) }
}

/// Verifies a store: superblock, every page of the index, the log and every checksum in it, that the index equals what the log
/// says, that names, links and payloads agree.
struct Checker<D: Device> {
    let device: D
    private(set) var report = CheckReport()

    /// - Parameter readsData: also read every living payload block and verify its checksum.
    static func check(
        _ device: D, readsData: Bool, indexCacheByteCount: Int = 256 << 20
    ) throws(MountError) -> CheckReport {
        var checker = Checker(device: device)
        try checker.run(readsData: readsData, indexCacheByteCount)
        return checker.report
    }

    private init(device: D) { self.device = device }

    private mutating func run(readsData: Bool, _ indexCacheByteCount: Int) throws(MountError) {
        let notes = NoteBox()
        let recovery = try Recovery(device, indexCacheByteCount: indexCacheByteCount) { notes.lines.append($0) }
        verifyPages(recovery)
        guard report.isClean else { return }
        try recovery.replay()
        if recovery.replayedRecordCount > 0 {
            notes.lines.append(
                "not cleanly unmounted: \(recovery.replayedRecordCount) operations lie in the log after the checkpoint; the next mount takes them in"
            )
        }
        report.notes = notes.lines
        try recovery.index.settle(recovery.loader)
        try compareWithLog(recovery)
        var books = Books()
        try books.read(recovery, &report)
        books.compare(recovery, &report)
        if readsData { try verifyData(recovery) }
        report.inodeCount = recovery.index.inodeCount
        report.entryCount = recovery.index.tree.entryCount
        report.livingByteCount = recovery.table.livingByteCount
    }

    private mutating func verifyPages(_ recovery: Recovery<D>) {
        var damage: [CorruptionReport] = []
        let file = recovery.indexFile
        let device = self.device
        _ = IndexVerifier.verify(
            root: recovery.superblock.indexRoot, uuid: recovery.superblock.uuid,
            read: { address, buffer in
                let completion = device.perform(
                    Submission(
                        .read, file, offset: UInt64(address.rawValue) * UInt64(IndexPage.byteCount), buffer, tag: 0))
                return completion.error ?? (completion.result == buffer.count ? nil : .input)
            },
            onDamage: { damage.append($0) })
        for problem in damage { report.add(problem) }
    }

    private mutating func compareWithLog(_ recovery: Recovery<D>) throws(MountError) {
        let rebuild = try Rebuild(
            recovery.reader, recovery.rebuildSources(), uuid: recovery.superblock.uuid,
            segmentCountLimit: recovery.table.countLimit, through: recovery.position.lastBatch,
            building: CheckpointNumber(1))
        for problem in rebuild.problems { report.add(problem) }
        for problem in try rebuild.differences(from: recovery.index, recovery.loader) { report.add(problem) }
        if rebuild.nextInode > recovery.nextInode {
            report.add(
                "next inode number",
                "\(rebuild.nextInode.rawValue) by the log, \(recovery.nextInode.rawValue) by the superblock")
        }
        report.recordCount = rebuild.recordCount
    }

    private mutating func verifyData(_ recovery: Recovery<D>) throws(MountError) {
        var targets: [(SegmentNumber, UInt32, UInt32, Range<Int>?)] = []
        try recovery.collect(.payloads) { key, value in
            guard let entry = PayloadEntry(decoding: value) else { return }
            entry.forEachStored { index, _, named in
                guard named > 0 else { return }
                targets.append(
                    (
                        entry.blocksSegment, entry.position(ofStored: index), entry.checksum(ofStored: index),
                        entry.isInline ? 0..<Int(entry.length) : nil
                    ))
            }
        }
        let buffer = AlignedBuffer(byteCount: 4 * blockByteCount)
        for (segment, position, checksum, inline) in targets {
            guard let file = recovery.table[segment].file else { continue }
            report.dataBlockCount += 1
            let start = Int(position) / blockByteCount * blockByteCount
            let lead = Int(position) - start
            let count =
                (lead + (inline?.count ?? blockByteCount) + blockByteCount - 1) / blockByteCount * blockByteCount
            let bytes = buffer.bytes.part(0, count)
            let completion = device.perform(Submission(.read, file, offset: UInt64(start), bytes, tag: 0))
            let place = "segment \(segment.rawValue) at \(position)"
            guard completion.result == count else {
                report.add(place, completion.error.map { "cannot be read: \($0)" } ?? "the file ends before it")
                continue
            }
            let data = UnsafeRawBufferPointer(bytes).part(lead, inline?.count ?? blockByteCount)
            if Checksum.crc32c(data) != checksum { report.add(place, "the checksum of the data does not match") }
        }
    }
}

private final class NoteBox: @unchecked Sendable {
    var lines: [String] = []
}

/// What names, links, extents and payloads say of each other.
private struct Books {
    private var inodes: [UInt64: (mode: UInt32, linkCount: UInt32, derived: UInt64)] = [:]
    private var names: [UInt64: UInt32] = [:]
    private var subdirectories: [UInt64: UInt32] = [:]
    private var entries: [UInt64: UInt64] = [:]
    private var extents: [UInt64: UInt64] = [:]
    private var namedBytes: [UInt64: UInt64] = [:]
    private var payloads: [UInt64: UInt64] = [:]
    private var orphans: Set<UInt64> = []
    private var living: [UInt32: Int64] = [:]

    mutating func read<D: Device>(_ recovery: Recovery<D>, _ report: inout CheckReport) throws(MountError) {
        var books = self
        var problems: [CorruptionReport] = []
        for space in [KeySpace.tree, .payloads, .orphans, .tombstones] {
            try recovery.collect(space) { key, value in books.take(key, value, &problems) }
        }
        for problem in problems { report.add(problem) }
        self = books
    }

    private mutating func take(_ key: IndexKey, _ value: UnsafeRawBufferPointer, _ problems: inout [CorruptionReport]) {
        guard let charge = RecordIndex.charge(key, value) else {
            problems.append(CorruptionReport(place: "\(key)", reason: "malformed entry"))
            return
        }
        living[charge.segment.rawValue, default: 0] += Int64(charge.byteCount)
        if charge.blocksByteCount > 0 {
            living[charge.blocksSegment.rawValue, default: 0] += Int64(charge.blocksByteCount)
        }
        switch (key.space, key.kind) {
        case (.tree, .inode):
            if let entry = InodeEntry(inode: InodeNumber(key.object), decoding: value) {
                inodes[key.object] = (entry.record.mode, entry.record.linkCount, entry.derived)
            }
        case (.tree, .dirent):
            if let entry = DirentEntry(decoding: value) {
                names[entry.inode.rawValue, default: 0] += 1
                entries[key.object, default: 0] += 1
                if entry.type == 4 { subdirectories[key.object, default: 0] += 1 }
            }
        case (.tree, .extent):
            if let entry = ExtentEntry(decoding: value) {
                extents[key.object, default: 0] += UInt64(entry.length)
                namedBytes[entry.payload.rawValue, default: 0] += UInt64(entry.length)
            }
        case (.tree, .xattr):
            if let entry = XattrEntry(decoding: value), case .payload(let id, let count) = entry.value {
                namedBytes[id.rawValue, default: 0] += UInt64(count)
            }
        case (.payloads, .payload):
            if let entry = PayloadEntry(decoding: value) {
                payloads[key.object] = entry.namedByteCount
            }
        case (.orphans, _): orphans.insert(key.object)
        default: break
        }
    }

    func compare<D: Device>(_ recovery: Recovery<D>, _ report: inout CheckReport) {
        for (number, inode) in inodes {
            let isDirectory = inode.mode & 0o170000 == 0o040000
            let count = names[number] ?? 0
            let isRoot = number == InodeNumber.root.rawValue
            let expected = !isDirectory ? count : count == 0 && !isRoot ? 0 : 2 + (subdirectories[number] ?? 0)
            if inode.mode == 0 { report.add("inode \(number)", "it has entries but no record") }
            if inode.linkCount != expected {
                report.add("inode \(number)", "its link count is \(inode.linkCount), but \(expected) by its names")
            }
            if inode.linkCount == 0, !orphans.contains(number) {
                report.add("inode \(number)", "it has no name and is no orphan")
            }
            let derived = isDirectory ? entries[number] ?? 0 : extents[number] ?? 0
            if derived != inode.derived {
                report.add(
                    "inode \(number)",
                    "it counts \(inode.derived) \(isDirectory ? "entries" : "bytes"), there are \(derived)")
            }
        }
        for number in names.keys where inodes[number] == nil {
            report.add("inode \(number)", "a name leads to it, but it is not there")
        }
        for number in orphans where inodes[number]?.linkCount != 0 {
            report.add("orphan \(number)", "it is not there, or has names")
        }
        if inodes[InodeNumber.root.rawValue] == nil { report.add("inode 1", "there is no root directory") }
        for (id, count) in namedBytes where payloads[id] != count {
            report.add(
                "payload \(id)",
                "\(count) bytes of it are named, it counts \(payloads[id].map(String.init) ?? "nothing: it is not there")"
            )
        }
        for id in payloads.keys where namedBytes[id] == nil { report.add("payload \(id)", "nothing names it") }
        for index in recovery.table.segments.indices {
            let stored = recovery.table.segments[index].living
            let counted = living[UInt32(index)] ?? 0
            if stored != counted {
                report.add("segment \(index)", "\(stored) living bytes on the books, \(counted) by the entries")
            }
        }
    }
}
