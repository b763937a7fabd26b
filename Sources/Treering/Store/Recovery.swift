// Recovery: from a store's files to a core that can go on, by the superblock, the index of the last checkpoint, and the
// log after it. Used by mounts, and, without writing anything, by checks and read-only mounts.

/// A store that was opened and brought to its latest state in memory.
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
    /// The epoch of the log's last batch, as far as it is known.
    private(set) var lastBatchEpoch: MountEpoch
    private(set) var nextSequence: RecordSequence
    private(set) var nextInode: InodeNumber
    /// The replayed batches of which nothing says that they are durable, and where they lie.
    private(set) var unsettledBatches: [(batch: BatchSequence, checksum: UInt32, segment: SegmentNumber, offset: Int)] =
        []
    /// The segments of the log after the checkpoint.
    private(set) var walkedSegments: Set<SegmentNumber> = []
    private(set) var replayedRecordCount = 0
    /// Bytes written to the log since formatting.
    private(set) var written = WrittenByteCounts()
    /// Whether the last batch closed its segment.
    private(set) var endsSegment = false
    /// Segment files with a torn header that nothing refers to.
    private(set) var tornSegments: [SegmentNumber] = []
    /// Finds what is left of damaged batches. Nil unless a check or a repair asked for it.
    let salvager: Salvager<D>?
    /// Segments whose files were closed and given back to the host.
    private(set) var forgotten: [SegmentNumber] = []
    /// Segment files that were opened or made during a relocation and that the mount does not have. Closed with the
    /// recovery, unless the mount adopts it.
    var ownFiles: [SegmentNumber: DeviceFile] = [:]
    /// Segments whose files are gone although entries of the index lie in them.
    private(set) var missingSegments: [SegmentNumber: UsageEntry] = [:]
    /// Damage that cannot be salvaged. The log was followed only up to it.
    private(set) var damage: CorruptionReport?
    /// The place where the log breaks off because its next segment is gone.
    private(set) var gap: LogGap?
    /// Whether the segment table is that of the index.
    private(set) var hasAccounting = false
    private let openSegmentFiles: [SegmentNumber: DeviceFile]?
    let log: @Sendable (String) -> Void

    /// Opens files, index and segment table as of the last checkpoint. Files in `open` are used and not opened again.
    init(
        _ device: D, indexCacheByteCount: Int, withIndex: Bool = true, salvages: Bool = false,
        needsIndexFile: Bool = true, open: MountedFiles? = nil, pair: SuperblockPair? = nil,
        log: @escaping @Sendable (String) -> Void
    ) throws(MountError) {
        self.device = device
        self.log = log
        if let pair {
            self.pair = pair
        } else {
            self.pair = try SuperblockPair.read(device, open: open?.superblockFile)
        }
        if let open { superblock = open.superblock } else { superblock = try self.pair.newest() }
        if open == nil, let complaint = self.pair.complaint { log(complaint) }
        openSegmentFiles = open?.segments
        do throws(Errno) {
            let file: StoreFile = needsIndexFile ? .index : .scratch
            indexFile = try Self.open(file, device, open?.indexFile, create: !needsIndexFile)
        } catch {
            throw MountError(
                .damaged,
                "the file `index` cannot be opened (\(error)); `treering check --repair` makes a new one from the log"
            )
        }
        let segmentByteCount = Int(superblock.segmentByteCount)
        table = SegmentTable(segmentByteCount: segmentByteCount, countLimit: superblock.segmentCountLimit)
        reader = BatchReader(device: device, uuid: superblock.blockUUID, segmentByteCount: segmentByteCount)
        salvager = salvages ? Salvager(reader) : nil
        // Each mount leaves out one checkpoint number: the dead mount may have begun that checkpoint and written pages
        // under it.
        let building = max(self.pair.summary.map(\.checkpoint).max()!.next.next, open?.building ?? .zero)
        let tree = Index(
            uuid: superblock.blockUUID, cacheLimitByteCount: indexCacheByteCount,
            root: withIndex ? superblock.indexRoot : nil, building: building)
        index = RecordIndex(tree: tree, table: table)
        loader = PageLoader(device, indexFile, tree)
        written = superblock.written
        position = superblock.position
        settled = position.lastBatch
        epoch = superblock.checkpointEpoch
        lastBatchEpoch = epoch
        nextSequence = superblock.highestSequence.next
        nextInode = superblock.nextInode
        try openSegments()
        if withIndex {
            try adoptBitmaps()
            try loadAccounting()
            hasAccounting = true
        } else if salvager != nil {
            for number in tornSegments { try salvageHeaderByBatches(number) }
        }
        loader.fetchForModifications()
    }

    deinit { for file in ownFiles.values { device.close(file) } }

    private static func open(
        _ file: StoreFile, _ device: D, _ present: DeviceFile?, create: Bool = false
    ) throws(Errno) -> DeviceFile {
        if let present { return present }
        return try device.open(file, create: create)
    }

    private func adoptBitmaps() throws(MountError) {
        let live = try device.bitmap(of: superblock.indexRoot, superblock.blockUUID, in: indexFile)
        var other: BitmapLoad?
        for case .success(let slot) in pair.slots where slot.checkpoint != superblock.checkpoint {
            other = try? device.bitmap(of: slot.indexRoot, slot.blockUUID, in: indexFile)
        }
        do throws(CorruptionReport) { try index.tree.adopt(live: live, other: other) } catch {
            throw MountError(.damaged, error.description)
        }
    }

    /// Opens every segment file and reads its header.
    private func openSegments() throws(MountError) {
        do throws(Errno) {
            for case .segment(let number) in try device.list() where table.contains(number) {
                let file = try Self.open(.segment(number), device, openSegmentFiles?[number])
                table.note(number, file: file, incarnation: 0)
                if let openSegmentFiles, openSegmentFiles[number] == nil { ownFiles[number] = file }
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
    private func loadAccounting() throws(MountError) {
        index.inodeCount = superblock.inodeCount
        index.reservedByteCount = superblock.reservedByteCount
        index.sharedByteCount = superblock.sharedByteCount
        var usages: [(SegmentNumber, UsageEntry)] = []
        try loader.forEach(.usage) { key, value in
            if let usage = UsageEntry(decoding: value) { usages.append((SegmentNumber(UInt32(key.object)), usage)) }
        }
        for (number, usage) in usages {
            guard table.contains(number) else {
                throw MountError(.damaged, "the index names segment \(number.rawValue), beyond the capacity")
            }
            if salvager != nil, usage.state == .inUse, usage.live > 0 || tornSegments.contains(number) {
                try salvageHeader(number, usage)
            }
            let header = headers[number]?.header
            // A head that never got a record has no header on disk. The same incarnation may have been opened again for
            // another use.
            let isSameIncarnation =
                header?.state == .inUse && header?.incarnation == usage.incarnation
                && header?.firstBatch == usage.firstBatch && header?.role == usage.role
            if usage.state == .inUse, isSameIncarnation {
                table.restore(number, usage)
                // The segment's end may have been declared after the checkpoint.
                if let end = header?.end, end != usage.end {
                    table[number].end = end
                    table[number].isChanged = true
                }
            } else {
                guard usage.live == 0 || missingSegments[number] != nil else {
                    throw MountError(
                        .damaged,
                        "segment \(number.rawValue) is missing or damaged, and \(usage.live) bytes in it are in use")
                }
                table.note(number, file: table[number].file, incarnation: usage.incarnation)
            }
        }
        var pending: [(InodeNumber, PendingRemoval)] = []
        try loader.forEach(.removals) { key, value in
            if let range = RemovalEntry(decoding: value) {
                let removal = PendingRemoval(sequence: RecordSequence(key.subkey), range: range, cursor: range.from)
                pending.append((InodeNumber(key.object), removal))
            }
        }
        for (inode, removal) in pending { index.removals[inode, default: []].append(removal) }
    }

    // MARK: The log

    /// Applies the log after the checkpoint up to a batch that is known to be durable, and nothing beyond it.
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
        while true {
            while let batch = try Self.reading({ () throws(Errno) in try walk.next() }) {
                let header = batch.header
                unsettledBatches.append((header.sequence, batch.checksum, header.segment, batch.offset))
                try apply(batch)
            }
            position = walk.position
            let torn = tornSegments.compactMap { number in table[number].file.map { (number: number, file: $0) } }
            epoch = max(epoch, walk.epoch)
            let found = try Self.reading({ () throws(Errno) in try walk.evidenceOfDamage(torn: torn) })
            guard let found else { break }
            guard salvager != nil else {
                throw MountError(
                    .damaged,
                    "the log is damaged: \(found). Nothing was changed; `treering check` tells what would be lost")
            }
            if try !salvage(&walk) {
                damage = found
                break
            }
        }
        settled = walk.durable
        lastBatchEpoch = walk.epoch
        unsettledBatches.removeAll { $0.batch <= settled }
        sealBlocks(through: position.lastBatch)
        if walk.abandonedBatchCount > 0 {
            log(
                "the log ends at batch \(position.lastBatch.rawValue): the next one is not whole, and \(walk.abandonedBatchCount) later ones are given up with it. That is what a power cut leaves of writes that were not synced; if there was none, the store is damaged"
            )
        }
        for segment in headers.values { epoch = max(epoch, segment.header.epoch) }
        // A dead mount has raised the epoch in its superblock slot, perhaps without leaving a segment or checkpoint of
        // that epoch.
        for case .success(let slot) in pair.slots { epoch = max(epoch, slot.epoch) }
    }

    /// Notes that a segment has no file any more.
    func forget(_ number: SegmentNumber) {
        headers[number] = nil
        ownFiles[number] = nil
        forgotten.append(number)
    }

    // MARK: Salvage

    /// Whether the index knows of an incarnation of this segment.
    func isNamed(_ number: SegmentNumber) -> Bool { table[number].incarnation > 0 || missingSegments[number] != nil }

    /// Salvages the place where the log breaks off although later parts are durable. False where that cannot be done.
    private func salvage(_ walk: inout LogWalk<D>) throws(MountError) -> Bool {
        guard let salvager else { return false }
        if let torn = walk.tornEvidence {
            try salvageHeaderByBatches(torn)
            guard let segment = headers[torn] else { return false }
            walk.add(segment)
            return true
        }
        guard let (segment, offset) = walk.expectedPlace() else {
            if walk.nextFirstBatch() != nil { gap = LogGap(first: walk.position.lastBatch.next, epoch: walk.epoch) }
            return false
        }
        // This place was salvaged before and still cannot be followed. It is not tried again.
        guard !salvager.salvages.contains(where: { $0.segment == segment.header.number && $0.range.contains(offset) })
        else { return false }
        var context = LogContext(
            before: walk.position.lastBatch.next, checksum: walk.position.lastChecksum,
            lastRecord: RecordSequence(nextSequence.rawValue - 1), nextInode: nextInode, epoch: walk.epoch)
        context.durable = walk.durable
        let last = walk.nextFirstBatch().map { BatchSequence($0.rawValue - 1) }
        let header = segment.header
        return try Self.reading { () throws(Errno) in
            try salvager.salvage(
                header.segmentID, segment.file, at: offset,
                end: header.end == 0 ? reader.segmentByteCount : Int(header.end), after: context, last: last,
                through: last ?? BatchSequence(counterLimit), mustExist: true)
        }
    }

    /// Restores the header of a segment in use from what the index knows, where the header on disk is damaged or stale.
    private func salvageHeader(_ number: SegmentNumber, _ usage: UsageEntry) throws(MountError) {
        if let header = headers[number]?.header {
            // The same incarnation goes on, or a later one began after the checkpoint.
            if header.incarnation >= usage.incarnation { return }
        }
        let header = SegmentHeader(
            state: .inUse, role: usage.role, uuid: superblock.blockUUID, number: number, incarnation: usage.incarnation,
            epoch: usage.epoch, firstBatch: usage.firstBatch, segmentByteCount: UInt32(table.segmentByteCount),
            end: usage.end)
        guard let file = table[number].file else {
            missingSegments[number] = usage
            return
        }
        put(header, file, "the header of segment \(number.rawValue) is damaged; the index remembers it")
    }

    /// Restores a segment's header from its first whole batch, where nothing else tells what it was.
    private func salvageHeaderByBatches(_ number: SegmentNumber) throws(MountError) {
        guard headers[number] == nil, let file = table[number].file else { return }
        let found = try Self.reading { () throws(Errno) -> BatchHeader? in
            var cursor = BatchCursor(reader, anyIncarnationOf: number, file)
            while !cursor.isOver {
                if case .batch(let batch) = try cursor.read() { return batch.header }
                try cursor.skip()
            }
            return nil
        }
        guard let found else { return }
        let header = SegmentHeader(
            state: .inUse, uuid: superblock.blockUUID, number: number, incarnation: found.incarnation,
            epoch: found.epoch, firstBatch: found.sequence, segmentByteCount: UInt32(table.segmentByteCount))
        put(header, file, "the header of segment \(number.rawValue) is damaged; its batches tell what it was")
    }

    private func put(_ header: SegmentHeader, _ file: DeviceFile, _ reason: String) {
        let block = AlignedBuffer(byteCount: SegmentHeader.byteCount)
        header.encode(into: block.bytes)
        var salvage = Salvage(segment: header.number, file: file, range: 0..<SegmentHeader.byteCount, reason: reason)
        salvage.patches = [(0, Array(block.bytes))]
        salvager?.add(salvage)
        headers[header.number] = WalkSegment(header: header, file: file)
        tornSegments.removeAll { $0 == header.number }
    }

    /// Follows the log to its end without applying it. For a rebuild.
    func findEnd() throws(MountError) {
        var walk = LogWalk(reader: reader, segments: headers, from: position, epoch: epoch)
        defer { lastBatchEpoch = walk.epoch }
        while true {
            while let batch = try Self.reading({ () throws(Errno) in try walk.next() }) {
                nextInode = max(nextInode, batch.header.nextInode)
                nextSequence = max(nextSequence, batch.header.lastRecord.next)
            }
            position = walk.position
            let torn = tornSegments.compactMap { number in table[number].file.map { (number: number, file: $0) } }
            let found = try Self.reading({ () throws(Errno) in try walk.evidenceOfDamage(torn: torn) })
            guard let found else { return }
            if try !salvage(&walk) {
                damage = found
                return
            }
        }
    }

    /// Seals the cold segment that the dead mount's cleaner was filling.
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

    /// Applies a batch. Calls `prepare` with each record before the record is applied.
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

    /// Revises a record that is appended again, so that what it says of older changes holds in the new log.
    func revise(_ record: UnsafeMutableRawBufferPointer, _ revised: RevisedLog) throws(MountError) {
        let index = self.index
        try loader.run { () throws(PageMiss) in
            try Record.revise(record) { change, since throws(PageMiss) in
                try index.since(of: change, since, in: revised)
            }
        }
    }

    /// Has `makeDurable` void a segment with a torn header. Its incarnation is the one that the running mount knows.
    func voidTorn(_ number: SegmentNumber, incarnation: UInt32) {
        guard let file = table[number].file else { return }
        tornSegments.removeAll { $0 == number }
        let header = SegmentHeader(
            state: .inUse, uuid: superblock.blockUUID, number: number, incarnation: incarnation, epoch: epoch,
            firstBatch: position.lastBatch.next, segmentByteCount: UInt32(table.segmentByteCount))
        headers[number] = WalkSegment(header: header, file: file)
    }

    /// Puts a batch's segment in use, if this is its first batch.
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
            firstBatch: segment.header.firstBatch, lastBatch: .zero, epoch: segment.header.epoch, live: 0,
            incarnation: segment.header.incarnation, end: segment.header.end, state: .inUse, role: segment.header.role)
        table.restore(header.segment, usage)
        table[header.segment].isChanged = true
    }

    /// Puts the cold segments in use to which a record of the cleaner has moved blocks.
    func enterBlocks(of record: Record) throws(MountError) {
        guard record.movesAnything else { return }
        try record.forEachChange { change, _, _ throws(MountError) in
            guard case .move(let move) = change, case .payload(let payload) = move.change, !payload.isInline else {
                return
            }
            let number = move.blocksSegmentID.number
            let header = headers[number]?.header
            guard table.contains(number), table[number].state != .inUse else { return }
            guard let header, header.state == .inUse, header.role == .cold, header.segmentID == move.blocksSegmentID
            else {
                throw MountError(
                    .damaged, "segment \(number.rawValue) is missing or damaged, and the log has moved blocks to it")
            }
            let usage = UsageEntry(
                firstBatch: header.firstBatch, lastBatch: .zero, epoch: header.epoch, live: 0,
                incarnation: header.incarnation, end: 0, state: .inUse, role: .cold)
            table.restore(number, usage)
            table[number].isChanged = true
        }
    }

    func apply(_ record: Record, _ place: RecordPlace) throws(MountError) {
        try enterBlocks(of: record)
        let index = self.index
        try loader.run { () throws(PageMiss) in try index.touch(record) }
        index.apply(record, at: place)
        while let inode = index.replacedInode {
            _ = try loader.run { () throws(PageMiss) in try index.continueRemovals(of: inode) }
            index.tree.evict()
        }
        replayedRecordCount += 1
        written = written + record.written
        index.tree.evict()
    }
}
