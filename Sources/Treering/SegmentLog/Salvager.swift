// Salvages damaged places of the log: finds what is left of a batch, and what must be written there so that the log is
// whole again. It writes nothing: `BatchReader.patches` shows the log as if it were repaired, and `check --repair`
// writes the patches.

final class Salvager<D: Device> {
    private let reader: BatchReader<D>
    private(set) var salvages: [Salvage] = []
    /// The most places that are salvaged. A store with more of them is beyond repair.
    static var salvageLimit: Int { 100_000 }

    init(_ reader: BatchReader<D>) {
        self.reader = reader
        reader.isTolerant = true
    }

    /// Salvages the place where the batch after `context` should begin. The reader then shows a whole batch there.
    ///
    /// - Parameters:
    ///   - end: where the segment ends.
    ///   - last: the sequence of the segment's last batch; nil if it is unknown.
    ///   - limit: no batch has a higher sequence.
    ///   - headChecksum: if the segment is the head: the checksum of the log's last batch, which ends at `end`.
    ///   - mustExist: whether the log certainly went on here. If not, and no whole batch follows, the log ends here.
    /// - Returns: false if the log ends here.
    func salvage(
        _ segmentID: SegmentID, _ file: DeviceFile, at offset: Int, end: Int,
        after context: LogContext, last: BatchSequence?, through limit: BatchSequence, mustExist: Bool,
        headChecksum: UInt32? = nil
    ) throws(Errno) -> Bool {
        guard salvages.count < Self.salvageLimit, end - offset >= blockByteCount else { return false }
        // If the header is whole, it tells all about the batch. Else the next whole batch tells what is missing.
        let outcome = try reader.batch(in: segmentID, file, at: offset, verifyPayload: false)
        var known: BatchHeader?
        var checksum: UInt32 = 0
        var reason = "the header of a batch is damaged"
        switch outcome {
        case .broken(let header, let text) where header.follows(context.sequence) && header.sequence <= limit:
            known = header
            checksum = try ownChecksum(file, offset)
            reason = text
        case .batch(let found) where found.header.follows(context.sequence) && found.header.sequence <= limit:
            known = found.header
            checksum = found.checksum
            reason = "a data block of a batch is damaged, or it does not follow the batch before it"
        default: break
        }
        let next = try following(segmentID, file, offset, end, context.sequence, limit)
        guard known != nil || next != nil || mustExist else { return false }
        var stop = next?.offset ?? end
        if let known { stop = min(end, offset + known.byteCount) }
        let sequence =
            known?.sequence ?? next.map { BatchSequence($0.header.sequence.rawValue - 1) }
            ?? (headChecksum != nil ? limit : max(context.sequence.next, last ?? .zero))
        guard sequence > context.sequence, sequence <= limit else { return false }
        let upper = known?.lastRecord ?? next.map { RecordSequence($0.header.firstRecord.rawValue &- 1) }
        var survey = try BatchSurvey(reader, file, offset..<stop, known, context.lastRecord, upper)
        survey.findPayloads(reader, file)
        let header = BatchHeader(
            endsSegment: known?.endsSegment ?? (next == nil && headChecksum == nil), uuid: reader.uuid,
            segment: segmentID.number,
            incarnation: segmentID.incarnation, epoch: max(context.epoch, known?.epoch ?? context.epoch),
            sequence: sequence,
            previousChecksum: context.checksum, recordsChecksum: 0,
            recordAreaByteCount: UInt32(survey.recordAreaByteCount), recordCount: UInt32(survey.pieceCount),
            payloadBlockCount: UInt32((stop - offset - survey.roundedAreaByteCount) / blockByteCount),
            firstRecord: context.lastRecord.next, lastRecord: upper ?? max(context.lastRecord, survey.lastRecord),
            nextInode: max(context.nextInode, known?.nextInode ?? survey.nextInode),
            durable: known?.durable ?? context.durable,
            salvagedChecksum: known != nil ? checksum : next?.header.previousChecksum ?? headChecksum ?? 0)
        var salvage = Salvage(segment: segmentID.number, file: file, range: offset..<stop, reason: reason)
        salvage.lost = survey.lost
        salvage.savedRecordCount = survey.records.count
        salvage.patches = try survey.patches(reader, file, header)
        add(salvage)
        return true
    }

    /// Adds a salvage, and shows its patches to the reader.
    func add(_ salvage: Salvage) {
        salvages.append(salvage)
        for patch in salvage.patches {
            reader.patches[salvage.file, default: []].append(.init(offset: patch.offset, bytes: patch.bytes))
        }
    }

    private func ownChecksum(_ file: DeviceFile, _ offset: Int) throws(Errno) -> UInt32 {
        BatchHeader.claimedChecksum(try reader.bytes(file, offset, BatchHeader.byteCount))
    }

    /// The next batch after `offset` that is of this incarnation and has a whole header.
    private func following(
        _ segmentID: SegmentID, _ file: DeviceFile, _ offset: Int, _ end: Int,
        _ sequence: BatchSequence, _ limit: BatchSequence
    ) throws(Errno) -> (offset: Int, header: BatchHeader)? {
        var cursor = BatchCursor(reader, segmentID, file, from: offset, end: UInt32(end))
        while true {
            try cursor.skip()
            guard !cursor.isOver else { return nil }
            // Data may contain a copy of an older batch of this segment, but not of a later one. So the sequence
            // decides.
            switch try cursor.read() {
            case .batch(let found)
            where found.header.sequence.rawValue > sequence.rawValue + 1
                && found.header.sequence <= limit:
                return (cursor.offset, found.header)
            case .broken(let header, _)
            where header.sequence.rawValue > sequence.rawValue + 1
                && header.sequence <= limit:
                return (cursor.offset, header)
            default: continue
            }
        }
    }
}
