// The index made anew from the segments alone: for `check`, which compares it with the live one, and `--rebuild-index`.

/// Builds a `RecordIndex` from what the segments in use hold.
final class RebuiltIndex<D: Device> {
    let builder: OfflineIndex<D>
    let table: SegmentTable
    var index: RecordIndex { builder.index }
    private(set) var nextSequence = RecordSequence(1)
    private(set) var nextInode = InodeNumber(2)
    private(set) var recordCount = 0
    /// The log's last batch.
    private(set) var position: LogPosition
    private(set) var problems: [CorruptionReport] = []
    /// Segments whose last batch says so.
    private(set) var endedSegments: Set<SegmentNumber> = []
    /// Records that repaired batches have lost, and segments that have lost all of theirs.
    private(set) var lost: [ClosedRange<UInt64>] = []
    private(set) var lostSegments: Set<SegmentNumber> = []
    /// Segments that have lost some, and the first record of each: what is older there was moved to it by the cleaner.
    private(set) var lossySegments: [SegmentNumber: UInt64] = [:]
    private var firstRecord: UInt64 = 0
    private let reader: BatchReader<D>
    private let salvager: Salvager<D>?
    private var context: LogContext?

    /// What is known of a segment in use before its batches are read.
    struct Source {
        var number: SegmentNumber
        var header: SegmentHeader
        var file: DeviceFile
        /// The batch it must end with, 0 if unknown.
        var lastBatch: BatchSequence
    }

    struct Options {
        /// More than this of the new index goes to `file`.
        var cacheByteCount = 256 << 20
        var building = CheckpointNumber(1)
        var file = StoreFile.scratch
    }

    /// Reads every segment in `sources`. What lies beyond `end` is not part of the log. With a salvager, what is damaged is left
    /// out and the rest taken; without, reading a segment ends there.
    init(
        _ device: D, _ reader: BatchReader<D>, _ sources: [Source], uuid: StoreUUID, segmentCountLimit: Int,
        through end: LogPosition, salvager: Salvager<D>? = nil, _ options: Options = Options()
    ) throws(MountError) {
        self.reader = reader
        self.salvager = salvager
        table = SegmentTable(segmentByteCount: reader.segmentByteCount, countLimit: segmentCountLimit)
        builder = OfflineIndex(
            device, uuid: uuid, table: table, cacheByteCount: options.cacheByteCount, building: options.building,
            in: options.file)
        position = LogPosition(
            lastBatch: .zero, lastChecksum: 0, segment: SegmentNumber(0), incarnation: 0, offsetInSegment: 4096)
        for source in sources {
            table.note(source.number, file: source.file, incarnation: source.header.incarnation)
            table.restore(
                source.number,
                UsageEntry(
                    firstBatch: source.header.firstBatch,
                    lastBatch: source.header.role == .cold ? source.header.firstBatch : .zero,
                    epoch: source.header.epoch, live: 0,
                    incarnation: source.header.incarnation, end: source.header.end, state: .inUse,
                    role: source.header.role))
        }
        let ordered = sources.filter { $0.header.role == .hot }.sorted { $0.header.firstBatch < $1.header.firstBatch }
        // The cleaner may have moved a payload beyond what names it: all of them are there before anything names one.
        for pass in [RecordIndex.Pass.payloads, .names] {
            index.pass = pass
            context = nil
            for (order, source) in ordered.enumerated() {
                let next = order + 1 < ordered.count ? ordered[order + 1].header : nil
                try read(source, through: end, next)
            }
        }
        try builder.settle()
        try builder.dropUnreferencedPayloads()
        index.pass = .live
    }

    private func read(_ source: Source, through logEnd: LogPosition, _ next: SegmentHeader?) throws(MountError) {
        let lastBatch = logEnd.lastBatch
        var cursor = BatchCursor(reader, source.header.segmentID, source.file, end: source.header.end)
        var last = BatchSequence(source.header.firstBatch.rawValue - 1)
        var checksum: UInt32?
        // What a later segment begins with was not written here, whatever a damaged header has forgotten of this one's end.
        let limit = min(lastBatch, next.map { BatchSequence($0.firstBatch.rawValue - 1) } ?? lastBatch)
        while !cursor.isOver, last < lastBatch {
            let outcome = try Recovery<D>.reading { () throws(Errno) in try cursor.read() }
            guard case .batch(let batch) = outcome, batch.header.follows(last),
                checksum == nil || batch.header.previousChecksum == checksum
            else {
                if try salvages(source, cursor, last, limit, logEnd) { continue }
                if case .broken(let header, let reason) = outcome, header.follows(last) {
                    note("segment \(source.number.rawValue) at \(cursor.offset)", reason)
                }
                break
            }
            context = LogContext(batch)
            if cursor.offset == SegmentHeader.byteCount { firstRecord = batch.header.firstRecord.rawValue }
            if batch.header.isSalvaged, index.pass == .payloads {
                noteLost(batch, isFirst: last.rawValue + 1 == source.header.firstBatch.rawValue)
            }
            try batch.forEachRecord { (record, place) throws(MountError) in
                if index.pass == .names { recordCount += 1 }
                try builder.apply(record, at: place)
            }
            last = batch.header.sequence
            checksum = batch.checksum
            nextSequence = max(nextSequence, batch.header.lastRecord.next)
            nextInode = max(nextInode, batch.header.nextInode)
            cursor.pass(batch.header)
            if cursor.hasEnded { endedSegments.insert(source.number) }
        }
        if last > position.lastBatch {
            position = LogPosition(
                lastBatch: last, lastChecksum: checksum ?? 0, segment: source.number,
                incarnation: source.header.incarnation,
                offsetInSegment: UInt32(cursor.offset))
        }
        let isWhole = cursor.isOver || last >= lastBatch || (source.header.end == 0 && next == nil)
        if !isWhole || (source.lastBatch != .zero && last != source.lastBatch) {
            note(
                "segment \(source.number.rawValue) at \(cursor.offset)",
                "batch \(last.next.rawValue) is missing or damaged")
        }
        table[source.number].lastBatch = last
    }

    /// A repaired batch tells for ever what it has lost: void records stand there, in the place of those whose sequences
    /// are missing. Sequences that are missing between two records without that were left out when it was closed.
    private func noteLost(_ batch: FoundBatch, isFirst: Bool) {
        var next = batch.header.firstRecord.rawValue
        var count = 0
        let before = lost.count
        var isVoidBefore = false
        batch.forEachRecord(withSkipped: true) { record, _ in
            if record.isSkipped {
                isVoidBefore = true
                return
            }
            if isVoidBefore, record.sequence.rawValue > next { lost.append(next...record.sequence.rawValue - 1) }
            isVoidBefore = false
            next = max(next, record.sequence.rawValue &+ 1)
            count += 1
        }
        if next <= batch.header.lastRecord.rawValue { lost.append(next...batch.header.lastRecord.rawValue) }
        if lost.count > before { lossySegments[batch.header.segment] = firstRecord }
        if isFirst, count == 0 { lostSegments.insert(batch.header.segment) }
    }

    /// The second pass meets everything that the first one has met.
    private func note(_ place: String, _ reason: String) {
        if index.pass == .payloads { problems.append(CorruptionReport(place: place, reason: reason)) }
    }

    /// Tries to repair the place where a batch should be, so that it can be read again.
    private func salvages(
        _ source: Source, _ cursor: BatchCursor<D>, _ last: BatchSequence, _ limit: BatchSequence, _ logEnd: LogPosition
    ) throws(MountError) -> Bool {
        guard let salvager, last < limit else { return false }
        // A place that was repaired and still cannot be read is not tried again.
        guard !salvager.salvages.contains(where: { $0.segment == source.number && $0.range.contains(cursor.offset) })
        else {
            return false
        }
        var context =
            self.context
            ?? LogContext(
                before: last.next, checksum: 0, lastRecord: .zero, nextInode: nextInode, epoch: source.header.epoch)
        if context.sequence != last {
            context.checksum = 0
            context.durable = .zero
        }
        context.sequence = last
        context.epoch = max(source.header.epoch, context.epoch)
        // A segment ends with a batch that says so, where recovery declared it, or where the log does.
        let mustExist = source.lastBatch > last || source.lastBatch == .zero
        let isHead = source.header.segmentID == logEnd.segmentID
        return try Recovery<D>.reading { () throws(Errno) in
            try salvager.salvage(
                source.header.segmentID, source.file, at: cursor.offset,
                end: isHead ? min(cursor.end, Int(logEnd.offsetInSegment)) : cursor.end, after: context,
                last: source.lastBatch == .zero ? nil : source.lastBatch, through: limit, mustExist: mustExist,
                headChecksum: isHead ? logEnd.lastChecksum : nil)
        }
    }

    // MARK: Comparing

    /// Compares with the live index, entry by entry; gives the differences, no more than `limit`.
    func differences(
        from live: RecordIndex, _ loader: PageLoader<D>, limit: Int = 20
    ) throws(MountError) -> [CorruptionReport] {
        var found: [CorruptionReport] = []
        func differ(_ place: String, _ reason: String) {
            if found.count < limit { found.append(CorruptionReport(place: place, reason: reason)) }
        }
        var cursor: IndexKey? = .min
        while let key = cursor, found.count < limit {
            var expected: (IndexKey, [UInt8])?
            var actual: (IndexKey, [UInt8])?
            try loader.run { () throws(PageMiss) in actual = try Self.next(live.tree, key) }
            expected = try builder.loader.run { () throws(PageMiss) in try Self.next(index.tree, key) }
            index.tree.evict()
            live.tree.evict()
            switch (expected, actual) {
            case (nil, nil): cursor = nil
            case (let e?, let a?) where e.0 == a.0:
                if e.1 != a.1 { differ("\(a.0)", "the log says \(Self.hex(e.1)), the index \(Self.hex(a.1))") }
                cursor = e.0.successor
            case (let e?, let a) where a == nil || e.0 < a!.0:
                differ("\(e.0)", "the log has it, the index does not: \(Self.hex(e.1))")
                cursor = e.0.successor
            case (_, let a?):
                differ("\(a.0)", "the index has it, the log does not: \(Self.hex(a.1))")
                cursor = a.0.successor
            default: cursor = nil
            }
        }
        for number in table.segments.indices {
            let number = SegmentNumber(UInt32(number))
            if table[number].live != live.table[number].live {
                differ(
                    "segment \(number.rawValue)",
                    "\(table[number].live) bytes live by the log, \(live.table[number].live) by the index")
            }
        }
        if index.inodeCount != live.inodeCount {
            differ("inodes", "\(index.inodeCount) by the log, \(live.inodeCount) by the index")
        }
        if let shared = live.sharedByteCount, index.sharedByteCount != shared {
            differ("shared bytes", "\(index.sharedByteCount ?? 0) by the log, \(shared) by the index")
        }
        if index.reservedByteCount != live.reservedByteCount {
            differ(
                "reservations", "\(index.reservedByteCount) bytes by the log, \(live.reservedByteCount) by the index")
        }
        return found
    }

    /// The next entry that both must have: usage is compared from the tables.
    private static func next(_ tree: Index, _ key: IndexKey) throws(PageMiss) -> (IndexKey, [UInt8])? {
        var key = key
        while let entry = try tree.next(atOrAfter: key) {
            if entry.key.space == .usage {
                key = IndexKey(space: .orphans, object: 0, kind: 0, subkey: 0)
                continue
            }
            return (entry.key, Array(entry.value))
        }
        return nil
    }

    static func hex(_ bytes: [UInt8]) -> String {
        bytes.prefix(64).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}

extension RecordIndex {
    /// Finishes removals and drops dead tombstones, fetching pages as needed. `relieve` is called after each step.
    func settle<D: Device>(
        _ loader: PageLoader<D>, relieve: () throws(MountError) -> Void = {}
    ) throws(MountError) {
        while try loader.run({ () throws(PageMiss) in try continueRemovals() }) { try relieve() }
        var cursor: IndexKey? = Self.firstTombstone
        while let from = cursor {
            cursor = try loader.run { () throws(PageMiss) in try sweepTombstones(from: from) }
            try relieve()
        }
    }
}

extension Recovery {
    /// The segments in use after `replay`, for a rebuild.
    func rebuildSources() -> [RebuiltIndex<D>.Source] {
        headers.compactMap { number, segment in
            guard segment.header.state == .inUse,
                segment.header.role == .cold || segment.header.firstBatch <= position.lastBatch,
                segment.header.end != UInt32(SegmentHeader.byteCount)
            else { return nil }
            // Without an index it is not known which of them a recycling has emptied; there it changes nothing.
            guard table[number].state == .inUse || !hasAccounting else { return nil }
            return RebuiltIndex<D>.Source(
                number: number, header: segment.header, file: segment.file, lastBatch: table[number].lastBatch)
        }
    }
}
