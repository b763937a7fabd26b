// The index made anew from the segments alone: for `check`, which compares it with the live one, and `--rebuild-index`.

/// Builds a `RecordIndex` from what the segments in use hold.
final class Rebuild<D: Device> {
    let index: RecordIndex
    let table: SegmentTable
    private(set) var nextSequence = RecordSequence(1)
    private(set) var nextInode = InodeNumber(2)
    private(set) var recordCount = 0
    /// The log's last batch.
    private(set) var position: LogPosition
    private(set) var problems: [CorruptionReport] = []
    /// Segments whose last batch says so.
    private(set) var endedSegments: Set<SegmentNumber> = []

    /// What is known of a segment in use before its batches are read.
    struct Source {
        var number: SegmentNumber
        var header: SegmentHeader
        var file: DeviceFile
        /// The batch it must end with, 0 if unknown.
        var lastBatch: BatchSequence
    }

    /// Reads every segment in `sources`. Batches above `lastBatch` are not part of the log.
    init(
        _ reader: BatchReader<D>, _ sources: [Source], uuid: StoreUUID, segmentCountLimit: Int,
        through lastBatch: BatchSequence,
        building: CheckpointNumber
    ) throws(MountError) {
        table = SegmentTable(segmentByteCount: reader.segmentByteCount, countLimit: segmentCountLimit)
        index = RecordIndex(
            tree: Index(uuid: uuid, cacheLimitByteCount: 1 << 30, building: building), table: table)
        position = LogPosition(
            lastBatch: .zero, lastChecksum: 0, segment: SegmentNumber(0), incarnation: 0, offsetInSegment: 4096)
        for source in sources {
            table.note(source.number, file: source.file, incarnation: source.header.incarnation)
            table.restore(
                source.number,
                UsageEntry(
                    firstBatch: source.header.firstBatch,
                    lastBatch: source.header.role == .cold ? source.header.firstBatch : .zero,
                    epoch: source.header.epoch, living: 0,
                    incarnation: source.header.incarnation, end: source.header.end, state: .inUse,
                    role: source.header.role))
        }
        let ordered = sources.filter { $0.header.role == .hot }.sorted { $0.header.firstBatch < $1.header.firstBatch }
        // The cleaner may have moved a payload beyond what names it: all of them are there before anything names one.
        for pass in [RecordIndex.Pass.payloads, .names] {
            index.pass = pass
            for (order, source) in ordered.enumerated() {
                let next = order + 1 < ordered.count ? ordered[order + 1].header : nil
                try read(reader, source, through: lastBatch, next)
            }
        }
        finish()
    }

    private func read(
        _ reader: BatchReader<D>, _ source: Source, through lastBatch: BatchSequence, _ next: SegmentHeader?
    ) throws(MountError) {
        var offset = SegmentHeader.byteCount
        var last = BatchSequence(source.header.firstBatch.rawValue - 1)
        var checksum: UInt32?
        var hasEnded = false
        let end = source.header.end == 0 ? reader.segmentByteCount : Int(source.header.end)
        while offset < end, !hasEnded, last < lastBatch {
            let outcome = try Recovery<D>.reading { () throws(Errno) in
                try reader.batch(
                    in: source.number, source.file, incarnation: source.header.incarnation, at: offset,
                    verifyPayload: false)
            }
            guard case .batch(let batch) = outcome, batch.header.sequence == last.next,
                checksum == nil || batch.header.previousChecksum == checksum
            else {
                if case .broken(let header, let reason) = outcome, header.sequence == last.next {
                    note("segment \(source.number.rawValue) at \(offset)", reason)
                }
                break
            }
            batch.forEachRecord { record, place in apply(record, place) }
            last = batch.header.sequence
            checksum = batch.checksum
            nextSequence = max(nextSequence, batch.header.lastRecord.next)
            nextInode = max(nextInode, batch.header.nextInode)
            hasEnded = batch.header.endsSegment
            if hasEnded { endedSegments.insert(source.number) }
            offset += batch.header.byteCount
        }
        if last > position.lastBatch {
            position = LogPosition(
                lastBatch: last, lastChecksum: checksum ?? 0, segment: source.number,
                incarnation: source.header.incarnation,
                offsetInSegment: UInt32(offset))
        }
        let isWhole = hasEnded || offset >= end || last >= lastBatch || (source.header.end == 0 && next == nil)
        if !isWhole || (source.lastBatch != .zero && last != source.lastBatch) {
            note("segment \(source.number.rawValue) at \(offset)", "batch \(last.next.rawValue) is missing or damaged")
        }
        table[source.number].lastBatch = last
    }

    /// The second pass meets everything that the first one has met.
    private func note(_ place: String, _ reason: String) {
        if index.pass == .payloads { problems.append(CorruptionReport(place: place, reason: reason)) }
    }

    private func apply(_ record: Record, _ place: RecordPlace) {
        if index.pass == .names { recordCount += 1 }
        index.apply(record, at: place)
    }

    private func finish() {
        index.settle()
        var cursor: IndexKey? = RecordIndex.firstPayload
        while let from = cursor {
            cursor = index.found { () throws(PageMiss) in try index.dropUnnamedPayloads(from: from) }
        }
        index.pass = .live
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
            try loader.run(live.tree) { () throws(PageMiss) in actual = try Self.next(live.tree, key) }
            expected = index.found { () throws(PageMiss) in try Self.next(index.tree, key) }
            live.tree.evict()
            switch (expected, actual) {
            case (nil, nil): cursor = nil
            case (let e?, let a?) where e.0 == a.0:
                if e.1 != a.1 { differ("\(a.0)", "the log says \(Self.hex(e.1)), the index \(Self.hex(a.1))") }
                cursor = e.0.next
            case (let e?, let a) where a == nil || e.0 < a!.0:
                differ("\(e.0)", "the log has it, the index does not: \(Self.hex(e.1))")
                cursor = e.0.next
            case (_, let a?):
                differ("\(a.0)", "the index has it, the log does not: \(Self.hex(a.1))")
                cursor = a.0.next
            default: cursor = nil
            }
        }
        for number in table.segments.indices {
            let number = SegmentNumber(UInt32(number))
            if table[number].living != live.table[number].living {
                differ(
                    "segment \(number.rawValue)",
                    "\(table[number].living) bytes live by the log, \(live.table[number].living) by the index")
            }
        }
        if index.inodeCount != live.inodeCount {
            differ("inodes", "\(index.inodeCount) by the log, \(live.inodeCount) by the index")
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
    /// Finishes removals and drops dead tombstones, all pages being in memory.
    func settle() {
        while found({ () throws(PageMiss) in try self.continueRemovals() }) {}
        var cursor: IndexKey? = Self.firstTombstone
        while let from = cursor { cursor = found { () throws(PageMiss) in try self.sweepTombstones(from: from) } }
    }

    /// The same with pages fetched as needed.
    func settle<D: Device>(_ loader: PageLoader<D>) throws(MountError) {
        while try loader.run(tree, { () throws(PageMiss) in try self.continueRemovals() }) {}
        var cursor: IndexKey? = Self.firstTombstone
        while let from = cursor {
            cursor = try loader.run(tree) { () throws(PageMiss) in try self.sweepTombstones(from: from) }
        }
    }
}

extension Recovery {
    /// The segments in use after `replay`, for a rebuild.
    func rebuildSources() -> [Rebuild<D>.Source] {
        headers.compactMap { number, segment in
            guard segment.header.state == .inUse, segment.header.firstBatch <= position.lastBatch,
                segment.header.end != UInt32(SegmentHeader.byteCount)
            else { return nil }
            guard table[number].state == .inUse else { return nil }
            return Rebuild<D>.Source(
                number: number, header: segment.header, file: segment.file, lastBatch: table[number].lastBatch)
        }
    }
}
