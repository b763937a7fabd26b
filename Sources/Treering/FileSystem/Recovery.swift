// From a store's files to a core that can go on: superblock, index of the last checkpoint, and the log after it. Used by mount
// and, without writing anything, by check and read-only mounts.

/// Brings index pages into memory on demand, waiting for each.
struct PageLoader<D: Device> {
    let device: D
    let file: DeviceFile

    /// Runs a query as often as it misses a page.
    func run<Result>(_ tree: Index, _ body: () throws(PageMiss) -> Result) throws(MountError) -> Result {
        var pins: [PagePin] = []
        defer { for pin in pins { tree.unpin(pin) } }
        while true {
            do throws(PageMiss) { return try body() } catch {
                let fetch = tree.beginFetch(error)
                let completion = device.perform(
                    Submission(.read, file, offset: error.offsetInFile, fetch.buffer, tag: 0))
                guard completion.result == fetch.buffer.count else {
                    tree.cancelFetch(fetch)
                    let reason = completion.error.map { "\($0)" } ?? "the file ends before it"
                    throw MountError(.damaged, "index page \(error.address.rawValue) cannot be read: \(reason)")
                }
                do throws(CorruptionReport) { try tree.install(fetch) } catch {
                    throw MountError(
                        .damaged, "\(error); `treering check --rebuild-index` makes a new index from the log")
                }
                if let pin = tree.pin(error.address) { pins.append(pin) }
            }
        }
    }

    /// The bitmap of a checkpoint's index.
    func bitmap(_ root: IndexRoot, _ uuid: StoreUUID) throws(MountError) -> BitmapLoad {
        var load = BitmapLoad(root: root, uuid: uuid)
        let buffer = AlignedBuffer(byteCount: IndexPage.byteCount)
        while let next = load.next {
            let offset = UInt64(next.address.rawValue) * UInt64(IndexPage.byteCount)
            let completion = device.perform(Submission(.read, file, offset: offset, buffer.bytes, tag: 0))
            guard completion.result == buffer.bytes.count else {
                throw MountError(.damaged, "bitmap page \(next.address.rawValue) of the index cannot be read")
            }
            do throws(CorruptionReport) { try load.add(buffer.bytes) } catch {
                throw MountError(.damaged, error.description)
            }
        }
        return load
    }
}

/// What a mount has open that recovers its own store because the log failed under it.
struct MountedFiles {
    var indexFile: DeviceFile
    var segments: [SegmentNumber: DeviceFile]
    /// The last one that was written whole. The other slot may hold what a failed write has left, and must not be gone by.
    var superblock: Superblock
    /// No checkpoint before this one may have left pages in the index file.
    var building: CheckpointNumber
}

/// A store opened and brought to its latest state in memory.
final class Recovery<D: Device> {
    let device: D
    let pair: SuperblockPair
    let superblock: Superblock
    let indexFile: DeviceFile
    let index: RecordIndex
    let table: SegmentTable
    let reader: BatchReader<D>
    let loader: PageLoader<D>
    private(set) var headers: [SegmentNumber: WalkSegment] = [:]
    private(set) var position: LogPosition
    /// The log is known to have been durable through here.
    private(set) var settled: BatchSequence
    private(set) var epoch: MountEpoch
    private(set) var nextSequence: RecordSequence
    private(set) var nextInode: InodeNumber
    /// Where the batches lie that `replay` found, and that nothing says are durable.
    private(set) var unsettledBatches: [(batch: BatchSequence, segment: SegmentNumber, offset: Int, byteCount: Int)] =
        []
    /// Segments that the log runs through after the checkpoint.
    private(set) var walkedSegments: Set<SegmentNumber> = []
    private(set) var replayedRecordCount = 0
    /// Whether the last batch closed its segment.
    private(set) var endsSegment = false
    /// Segment files with a torn header that nothing refers to.
    private(set) var tornSegments: [SegmentNumber] = []
    private let openSegmentFiles: [SegmentNumber: DeviceFile]
    let log: @Sendable (String) -> Void

    /// Opens files, index and segment table as of the last checkpoint. What is open already is used and not opened again.
    init(
        _ device: D, indexCacheByteCount: Int, withIndex: Bool = true, open: MountedFiles? = nil,
        log: @escaping @Sendable (String) -> Void
    ) throws(MountError) {
        self.device = device
        self.log = log
        pair = try SuperblockPair.read(device)
        if let open { superblock = open.superblock } else { superblock = try pair.newest() }
        if open == nil, let complaint = pair.complaint { log(complaint) }
        openSegmentFiles = open?.segments ?? [:]
        do throws(Errno) { indexFile = try Self.open(.index, device, open?.indexFile) } catch {
            throw MountError(
                .damaged,
                "the file `index` cannot be opened (\(error)); `treering check --rebuild-index` makes a new one from the log"
            )
        }
        loader = PageLoader(device: device, file: indexFile)
        let segmentByteCount = Int(superblock.segmentByteCount)
        table = SegmentTable(segmentByteCount: segmentByteCount, countLimit: superblock.segmentCountLimit)
        reader = BatchReader(device: device, uuid: superblock.uuid, segmentByteCount: segmentByteCount)
        // One number is left out at each mount: a checkpoint that the dead mount had begun may have written pages under it.
        let building = max(pair.summary.map(\.checkpoint).max()!.next.next, open?.building ?? .zero)
        let tree =
            withIndex
            ? Index(
                uuid: superblock.uuid, cacheLimitByteCount: indexCacheByteCount, root: superblock.indexRoot,
                building: building)
            : Index(uuid: superblock.uuid, cacheLimitByteCount: indexCacheByteCount, building: building)
        index = RecordIndex(tree: tree, table: table)
        position = superblock.position
        settled = position.lastBatch
        epoch = superblock.checkpointEpoch
        nextSequence = superblock.highestSequence.next
        nextInode = superblock.nextInode
        try openSegments()
        if withIndex {
            try adoptBitmaps()
            try loadBooks()
        }
    }

    private static func open(_ file: StoreFile, _ device: D, _ present: DeviceFile?) throws(Errno) -> DeviceFile {
        if let present { return present }
        return try device.open(file, create: false)
    }

    private func adoptBitmaps() throws(MountError) {
        let live = try loader.bitmap(superblock.indexRoot, superblock.uuid)
        var other: BitmapLoad?
        for case .success(let slot) in pair.slots where slot.checkpoint != superblock.checkpoint {
            other = try? loader.bitmap(slot.indexRoot, slot.uuid)
        }
        do throws(CorruptionReport) { try index.tree.adopt(live: live, other: other) } catch {
            throw MountError(.damaged, error.description)
        }
    }

    /// Opens every segment file and reads its header.
    private func openSegments() throws(MountError) {
        do throws(Errno) {
            for case .segment(let number) in try device.list() where table.contains(number) {
                let file = try Self.open(.segment(number), device, openSegmentFiles[number])
                table.note(number, file: file, incarnation: 0)
                do throws(SegmentProblem) {
                    if let header = try reader.segmentHeader(number, file) {
                        headers[number] = WalkSegment(header: header, file: file)
                    } else {
                        tornSegments.append(number)
                    }
                } catch {
                    tornSegments.append(number)
                }
            }
        } catch {
            throw MountError("the segments cannot be opened", error)
        }
    }

    /// Loads segment usage, removals and the number of inodes from the index.
    private func loadBooks() throws(MountError) {
        index.inodeCount = superblock.inodeCount
        index.reservedByteCount = superblock.reservedByteCount
        var usages: [(SegmentNumber, UsageEntry)] = []
        try collect(.usage) { key, value in
            if let usage = UsageEntry(decoding: value) { usages.append((SegmentNumber(UInt32(key.object)), usage)) }
        }
        for (number, usage) in usages {
            guard table.contains(number) else {
                throw MountError(.damaged, "the index names segment \(number.rawValue), beyond the capacity")
            }
            let header = headers[number]?.header
            // A head without a record has no header yet: in the same incarnation it may have become the head of something else since.
            let isSameLife =
                header?.state == .inUse && header?.incarnation == usage.incarnation
                && header?.firstBatch == usage.firstBatch && header?.role == usage.role
            if usage.state == .inUse, isSameLife {
                table.restore(number, usage)
                // Its end may have been declared after the checkpoint.
                if let end = header?.end, end != usage.end {
                    table[number].end = end
                    table[number].isChanged = true
                }
            } else {
                guard usage.living == 0 else {
                    throw MountError(
                        .damaged,
                        "segment \(number.rawValue) is missing or damaged, and \(usage.living) bytes in it are in use")
                }
                table.note(number, file: table[number].file, incarnation: usage.incarnation)
            }
        }
        var pending: [(InodeNumber, PendingRemoval)] = []
        try collect(.removals) { key, value in
            if let range = RemovalEntry(decoding: value) {
                let removal = PendingRemoval(sequence: RecordSequence(key.subkey), range: range, cursor: range.from)
                pending.append((InodeNumber(key.object), removal))
            }
        }
        for (inode, removal) in pending { index.removals[inode, default: []].append(removal) }
    }

    /// Walks one space of the index.
    func collect(_ space: KeySpace, _ body: (IndexKey, UnsafeRawBufferPointer) -> Void) throws(MountError) {
        var cursor = IndexKey(space: space, object: 0, kind: 0, subkey: 0)
        let last = IndexKey(space: space, object: .max, kind: UInt8.max, subkey: .max)
        let tree = index.tree
        while cursor <= last {
            var next = IndexKey.max
            let start = cursor
            try loader.run(tree) { () throws(PageMiss) in
                guard let entry = try tree.next(atOrAfter: start), entry.key <= last else { return }
                body(entry.key, entry.value)
                next = entry.key.next
            }
            if next == .max { return }
            cursor = next
            tree.evict()
        }
    }

    // MARK: The log

    /// Applies what the log holds after the checkpoint through a batch that is known to be durable, and nothing beyond it.
    func replay(through last: BatchSequence) throws(MountError) {
        var walk = LogWalk(reader: reader, segments: headers, from: position, epoch: epoch)
        while walk.position.lastBatch < last {
            guard let batch = try Self.reading({ () throws(Errno) in try walk.next() }) else {
                throw MountError(
                    .damaged, "batch \(walk.position.lastBatch.next.rawValue), which was durable, cannot be read")
            }
            try apply(batch)
        }
        position = walk.position
        settled = last
        epoch = max(epoch, walk.epoch)
    }

    /// Applies what the log holds after the checkpoint.
    func replay() throws(MountError) {
        var walk = LogWalk(reader: reader, segments: headers, from: position, epoch: epoch)
        while let batch = try Self.reading({ () throws(Errno) in try walk.next() }) {
            let header = batch.header
            unsettledBatches.append((header.sequence, header.segment, batch.offset, header.byteCount))
            try apply(batch)
        }
        position = walk.position
        settled = walk.durable
        unsettledBatches.removeAll { $0.batch <= settled }
        sealBlocks(through: position.lastBatch)
        let torn = tornSegments.compactMap { number in table[number].file.map { (number: number, file: $0) } }
        epoch = max(epoch, walk.epoch)
        if let damage = try Self.reading({ () throws(Errno) in try walk.evidenceOfDamage(torn: torn) }) {
            throw MountError(.damaged, "the log is damaged: \(damage). Nothing was changed")
        }
        if walk.abandonedBatchCount > 0 {
            log(
                "the log ends at batch \(position.lastBatch.rawValue): the next one is not whole, and \(walk.abandonedBatchCount) later ones are given up with it. That is what a power cut leaves of writes that were not synced; if there was none, the store is damaged"
            )
        }
        for segment in headers.values { epoch = max(epoch, segment.header.epoch) }
        // A mount that died has raised the epoch, though what it took in is of an earlier one and not in a checkpoint yet.
        for case .success(let slot) in pair.slots { epoch = max(epoch, slot.epoch) }
    }

    /// What a dead cleaner was filling is not filled further.
    func sealBlocks(through last: BatchSequence) {
        for index in table.segments.indices {
            let number = SegmentNumber(UInt32(index))
            if table[number].state == .inUse, table[number].role == .cold, table[number].lastBatch == .zero {
                table.seal(number, lastBatch: last)
            }
        }
    }

    static func reading<Result>(_ body: () throws(Errno) -> Result) throws(MountError) -> Result {
        do throws(Errno) { return try body() } catch { throw MountError("the log cannot be read", error) }
    }

    /// Applies a batch, each of its records after `prepare` has seen it.
    func apply(
        _ batch: FoundBatch,
        _ prepare: (Record, RecordPlace) throws(MountError) -> Void = { (_, _) throws(MountError) in }
    ) throws(MountError) {
        let header = batch.header
        enter(header)
        nextInode = max(nextInode, header.nextInode)
        nextSequence = max(nextSequence, header.lastRecord.next)
        endsSegment = header.endsSegment
        try batch.forEachRecord { (record, place) throws(MountError) in
            try prepare(record, place)
            try self.apply(record, place)
        }
        if header.endsSegment {
            table[header.segment].lastBatch = header.sequence
            table[header.segment].isChanged = true
        }
    }

    /// Has a record that is appended again say of older changes what holds now.
    func revise(_ record: UnsafeMutableRawBufferPointer, _ revised: RevisedLog) throws(MountError) {
        let index = self.index
        try loader.run(index.tree) { () throws(PageMiss) in
            try Record.revise(record) { change, since throws(PageMiss) in
                try index.since(of: change, since, in: revised)
            }
        }
    }

    /// Takes a segment whose header is torn, in the life that a running mount knows, as one that `makeDurable` voids.
    func voidTorn(_ number: SegmentNumber, incarnation: UInt32) {
        guard let file = table[number].file else { return }
        tornSegments.removeAll { $0 == number }
        let header = SegmentHeader(
            state: .inUse, uuid: superblock.uuid, number: number, incarnation: incarnation, epoch: epoch,
            firstBatch: position.lastBatch.next, segmentByteCount: UInt32(table.segmentByteCount))
        headers[number] = WalkSegment(header: header, file: file)
    }

    /// Puts the segment of a batch in use, if this is its first.
    func enter(_ header: BatchHeader) {
        walkedSegments.insert(header.segment)
        guard table[header.segment].state != .inUse, let segment = headers[header.segment] else { return }
        for index in table.segments.indices
        where table.segments[index].state == .inUse && table.segments[index].role == .hot
            && table.segments[index].lastBatch == .zero
        {
            table[SegmentNumber(UInt32(index))].lastBatch = BatchSequence(header.sequence.rawValue - 1)
            table[SegmentNumber(UInt32(index))].isChanged = true
        }
        let usage = UsageEntry(
            firstBatch: segment.header.firstBatch, lastBatch: .zero, epoch: segment.header.epoch, living: 0,
            incarnation: segment.header.incarnation, end: segment.header.end, state: .inUse, role: segment.header.role)
        table.restore(header.segment, usage)
        table[header.segment].isChanged = true
    }

    /// Puts the segments in use again to which a record of the cleaner has moved blocks.
    func enterBlocks(of record: Record) throws(MountError) {
        guard record.movesAnything else { return }
        try record.forEachChange { change, _, _ throws(MountError) in
            guard case .move(let move) = change, case .payload(let payload) = move.change, !payload.isInline else {
                return
            }
            let number = move.blocksSegment
            let header = headers[number]?.header
            guard table.contains(number), table[number].state != .inUse else { return }
            guard let header, header.state == .inUse, header.role == .cold,
                header.incarnation == move.blocksIncarnation
            else {
                throw MountError(
                    .damaged, "segment \(number.rawValue) is missing or damaged, and the log has moved blocks to it")
            }
            let usage = UsageEntry(
                firstBatch: header.firstBatch, lastBatch: .zero, epoch: header.epoch, living: 0,
                incarnation: header.incarnation, end: 0, state: .inUse, role: .cold)
            table.restore(number, usage)
            table[number].isChanged = true
        }
    }

    func apply(_ record: Record, _ place: RecordPlace) throws(MountError) {
        try enterBlocks(of: record)
        let index = self.index
        try loader.run(index.tree) { () throws(PageMiss) in try index.touch(record) }
        index.apply(record, at: place)
        replayedRecordCount += 1
        index.tree.evict()
    }
}
