// Follows the chain of batches from a position to the end of the log, and tells the tail from damage. Recovery drives
// it.

/// The header and the file of a segment that a walk may come to.
struct WalkSegment {
    var header: SegmentHeader
    var file: DeviceFile
}

/// A walk along the chain of batches.
struct LogWalk<D: Device> {
    private let reader: BatchReader<D>
    private var segments: [SegmentNumber: WalkSegment]
    /// The position behind the last batch returned.
    private(set) var position: LogPosition
    /// The epoch of the last batch returned.
    private(set) var epoch: MountEpoch
    /// The highest batch that a verified batch says is durable.
    private(set) var durable: BatchSequence
    private var endedSegment: Bool

    init(reader: BatchReader<D>, segments: [SegmentNumber: WalkSegment], from position: LogPosition, epoch: MountEpoch)
    {
        self.reader = reader
        // The cleaner's segments are not part of the chain.
        self.segments = segments.filter { $0.value.header.role == .hot }
        self.position = position
        self.epoch = epoch
        durable = position.lastBatch
        let present = self.segments[position.segment]
        endedSegment = present?.header.state != .inUse || present?.header.segmentID != position.segmentID
    }

    /// Adds a segment whose header became known during the walk.
    mutating func add(_ segment: WalkSegment) {
        segments[segment.header.number] = segment
        tornEvidence = nil
    }

    /// Where the batch after `position` must have been, for a repair; nil if no segment could hold it.
    func expectedPlace() -> (segment: WalkSegment, offset: Int)? {
        if let next = successor(), next.header.number != position.segment || endedSegment {
            return (next, SegmentHeader.byteCount)
        }
        guard !endedSegment, let here = segments[position.segment] else { return nil }
        return (here, Int(position.offsetInSegment))
    }

    /// The first batch of the next segment of the log after `position`; nil if there is none.
    func nextFirstBatch() -> BatchSequence? {
        segments.values.filter { $0.header.state == .inUse && $0.header.end != UInt32(SegmentHeader.byteCount) }
            .map(\.header.firstBatch).filter { $0 > position.lastBatch.next }.min()
    }

    /// The segment whose first batch is the one after `position`. If several mounts opened one, that of the highest
    /// epoch.
    private func successor() -> WalkSegment? {
        segments.values.filter {
            $0.header.state == .inUse && $0.header.firstBatch == position.lastBatch.next
                && $0.header.end != UInt32(SegmentHeader.byteCount)
        }
        .max { $0.header.epoch < $1.header.epoch }
    }

    /// The next batch of the log, fully verified; nil at the end of the log.
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

    /// The batch at a place, if it is the next of the chain.
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

    /// How many whole batches `evidenceOfDamage` saw beyond the end. A power cut leaves such batches, and so does
    /// damage that cannot be proved.
    private(set) var abandonedBatchCount = 0

    /// To be called at the end of the walk. Looks for evidence that the log went on durably beyond it: then the end is
    /// damage. Nil: it is the tail.
    ///
    /// `torn` are segments whose headers cannot be read. If the log went on durably in one of them, that segment is
    /// damaged. Else it was unused.
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
            // A mount declares the end of what it took in before it opens a segment of its own. So a segment with a
            // declared end, or of an older mount than the newest, was taken in by a later mount, and the batches before
            // it were there. A segment of the newest mount proves nothing: that mount may have written several before
            // the power was cut.
            if header.firstBatch > missing, header.end != 0 || header.epoch < newest {
                return CorruptionReport(
                    place: place,
                    reason:
                        "segment \(header.number.rawValue), which a later mount took in, goes on at batch \(header.firstBatch.rawValue)"
                )
            }
            let isHere = header.number == position.segment && !endedSegment
            // After a clean unmount the next mount goes on in the same segment, whose header has the older epoch.
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

    /// The segment with an unreadable header in which `evidenceOfDamage` found its evidence.
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
