// Follows the chain of batches from a position to the end of the log, and tells an end from damage. Recovery drives it.

/// A segment as its header tells, for walking.
struct WalkSegment {
    var header: SegmentHeader
    var file: DeviceFile
}

/// A walk along the chain of batches.
struct LogWalk<D: Device> {
    private let reader: BatchReader<D>
    private var segments: [SegmentNumber: WalkSegment]
    /// Behind the last batch given.
    private(set) var position: LogPosition
    /// The epoch of the last batch given.
    private(set) var epoch: MountEpoch
    /// The highest batch sequence that a verified batch called durable.
    private(set) var durable: BatchSequence
    private var endedSegment: Bool

    init(reader: BatchReader<D>, segments: [SegmentNumber: WalkSegment], from position: LogPosition, epoch: MountEpoch)
    {
        self.reader = reader
        // What the cleaner fills lies beside the chain.
        self.segments = segments.filter { $0.value.header.role == .hot }
        self.position = position
        self.epoch = epoch
        durable = position.lastBatch
        let present = self.segments[position.segment]
        endedSegment = present?.header.state != .inUse || present?.header.segmentID != position.segmentID
    }

    /// A segment whose header has been made out after all.
    mutating func add(_ segment: WalkSegment) {
        segments[segment.header.number] = segment
        tornEvidence = nil
    }

    /// Where the batch after `position` must have been, for repairing; nil where no segment could hold it.
    func expectedPlace() -> (segment: WalkSegment, offset: Int)? {
        if let next = successor(), next.header.number != position.segment || endedSegment {
            return (next, SegmentHeader.byteCount)
        }
        guard !endedSegment, let here = segments[position.segment] else { return nil }
        return (here, Int(position.offsetInSegment))
    }

    /// The first batch of the next segment of the log behind `position`, nil where there is none.
    func nextFirstBatch() -> BatchSequence? {
        segments.values.filter { $0.header.state == .inUse && $0.header.end != UInt32(SegmentHeader.byteCount) }
            .map(\.header.firstBatch).filter { $0 > position.lastBatch.next }.min()
    }

    /// The segment that a mount opened to go on right behind the last batch: the one of the highest epoch.
    private func successor() -> WalkSegment? {
        segments.values.filter {
            $0.header.state == .inUse && $0.header.firstBatch == position.lastBatch.next
                && $0.header.end != UInt32(SegmentHeader.byteCount)
        }
        .max { $0.header.epoch < $1.header.epoch }
    }

    /// The next batch of the log, verified whole, or nil at its end.
    mutating func next() throws(Errno) -> FoundBatch? {
        let candidate = successor()
        if let candidate, candidate.header.number != position.segment || endedSegment {
            var isNext = candidate.header.epoch > epoch
            if !isNext { isNext = try !hasBatchHere() }
            if isNext { return try batch(in: candidate, at: SegmentHeader.byteCount) }
        }
        guard !endedSegment, let here = segments[position.segment] else { return nil }
        return try batch(in: here, at: Int(position.offsetInSegment))
    }

    private func hasBatchHere() throws(Errno) -> Bool {
        guard !endedSegment, let here = segments[position.segment] else { return false }
        return try verified(here, at: Int(position.offsetInSegment)) != nil
    }

    /// The batch at a place if it is the one that the chain asks for.
    private func verified(_ segment: WalkSegment, at offset: Int) throws(Errno) -> FoundBatch? {
        let header = segment.header
        if header.end != 0, offset >= Int(header.end) { return nil }
        let outcome = try reader.batch(
            in: header.segmentID, segment.file, at: offset, verifyPayload: true)
        guard case .batch(let found) = outcome, found.header.follows(position.lastBatch),
            found.header.previousChecksum == position.lastChecksum, found.header.epoch >= epoch
        else { return nil }
        return found
    }

    private mutating func batch(in segment: WalkSegment, at offset: Int) throws(Errno) -> FoundBatch? {
        guard let found = try verified(segment, at: offset) else { return nil }
        position = LogPosition(
            lastBatch: found.header.sequence, lastChecksum: found.checksum, segment: segment.header.number,
            incarnation: segment.header.incarnation, offsetInSegment: UInt32(offset + found.header.byteCount))
        epoch = found.header.epoch
        durable = max(durable, found.header.durable)
        endedSegment = found.header.endsSegment
        return found
    }

    /// How many whole batches `evidenceOfDamage` saw beyond the end: after a power cut, or because of damage that cannot be proved.
    private(set) var abandonedBatchCount = 0

    /// After the end: evidence that the log went on durably beyond it, which makes the end damage; nil where it is the tail.
    ///
    /// `torn`: segments whose headers cannot be read. If the log ran durably into one, it is damaged and not merely unused.
    mutating func evidenceOfDamage(
        torn: [(number: SegmentNumber, file: DeviceFile)] = []
    ) throws(Errno) -> CorruptionReport? {
        let missing = position.lastBatch.next
        let place =
            "log, batch \(missing.rawValue), expected in segment \(position.segment.rawValue) at \(position.offsetInSegment)"
        if durable >= missing {
            return CorruptionReport(place: place, reason: "it was durable once and is not readable now")
        }
        let newest = segments.values.filter { $0.header.state == .inUse }.map(\.header.epoch).max() ?? epoch
        for segment in segments.values
        where segment.header.state == .inUse && segment.header.end != UInt32(SegmentHeader.byteCount) {
            let header = segment.header
            // A mount voids what it does not take in before it opens a segment, and it says where what it took in ends. A segment
            // of the newest mount proves nothing: that one may have written several before the power went.
            if header.firstBatch > missing, header.end != 0 || header.epoch < newest {
                return CorruptionReport(
                    place: place,
                    reason:
                        "segment \(header.number.rawValue), which a later mount took in, goes on at batch \(header.firstBatch.rawValue)"
                )
            }
            let isHere = header.number == position.segment && !endedSegment
            // The segment of an earlier mount that was unmounted may be the one in which this mount's log went on.
            guard isHere || header.firstBatch >= missing && header.epoch >= epoch else { continue }
            var cursor = BatchCursor(
                reader, header.segmentID, segment.file,
                from: isHere ? Int(position.offsetInSegment) : SegmentHeader.byteCount, end: header.end)
            while cursor.offset < cursor.end {
                let outcome = try cursor.read()
                if case .batch(let found) = outcome, found.header.durable >= missing, found.header.epoch >= epoch {
                    return CorruptionReport(
                        place: place,
                        reason:
                            "batch \(found.header.sequence.rawValue) says that the log was durable through \(found.header.durable.rawValue)"
                    )
                }
                if case .batch(let found) = outcome {
                    if found.header.sequence > missing, found.header.epoch >= epoch { abandonedBatchCount += 1 }
                    cursor.pass(found.header)
                } else {
                    try cursor.skip()
                }
            }
        }
        for (number, file) in torn {
            if let damage = try evidence(inTorn: number, file, place, missing) { return damage }
        }
        return nil
    }

    /// The segment with an unreadable header by which `evidenceOfDamage` knows.
    private(set) var tornEvidence: SegmentNumber?

    private mutating func evidence(
        inTorn number: SegmentNumber, _ file: DeviceFile, _ place: String, _ missing: BatchSequence
    ) throws(Errno) -> CorruptionReport? {
        var cursor = BatchCursor(reader, anyIncarnationOf: number, file)
        while !cursor.isOver {
            if case .batch(let found) = try cursor.read(), found.header.epoch >= epoch {
                if found.header.durable >= missing {
                    tornEvidence = number
                    return CorruptionReport(
                        place: place,
                        reason:
                            "the header of segment \(number.rawValue) is damaged, and a batch in it says that the log was durable through \(found.header.durable.rawValue)"
                    )
                }
                if found.header.sequence >= missing { abandonedBatchCount += 1 }
            }
            try cursor.skip()
        }
        return nil
    }
}
