// Reads the batches of one segment one after another: for whoever goes through a segment.

/// A place in a segment, where the next batch is expected.
///
/// Reading does not move the cursor. The user decides whether the batch is the next of the log, and what to do about
/// damage; then the user calls `pass` or `skip`.
struct BatchCursor<D: Device> {
    private let reader: BatchReader<D>
    private let segment: SegmentNumber
    /// Nil where batches of any incarnation are wanted.
    private let incarnation: UInt32?
    private let file: DeviceFile
    /// No batch begins at or after this offset. In bytes from the start of the segment, like `offset`.
    let end: Int
    /// Where the next batch is expected.
    private(set) var offset: Int
    /// Whether the last batch passed says that it is the last of its segment.
    private(set) var hasEnded = false

    /// - Parameter end: the end that the segment's header declares, or 0.
    init(
        _ reader: BatchReader<D>, _ segmentID: SegmentID, _ file: DeviceFile,
        from offset: Int = SegmentHeader.byteCount, end: UInt32
    ) {
        (self.reader, self.file, self.offset) = (reader, file, offset)
        (segment, incarnation) = (segmentID.number, segmentID.incarnation)
        self.end = end == 0 ? reader.segmentByteCount : Int(end)
    }

    /// Where the incarnation is not known: what each batch says of it is believed.
    init(_ reader: BatchReader<D>, anyIncarnationOf segment: SegmentNumber, _ file: DeviceFile, end: Int? = nil) {
        (self.reader, self.file, self.segment, incarnation) = (reader, file, segment, nil)
        (offset, self.end) = (SegmentHeader.byteCount, end ?? reader.segmentByteCount)
    }

    /// Whether no further batch can follow in this segment.
    var isOver: Bool { offset >= end || hasEnded }

    /// Reads what is at `offset`.
    func read(verifyPayload: Bool = false) throws(Errno) -> BatchOutcome {
        var incarnation = incarnation
        if incarnation == nil { incarnation = try reader.claimedIncarnation(file, at: offset) }
        guard let incarnation else { return .nothing }
        return try reader.batch(in: SegmentID(segment, incarnation), file, at: offset, verifyPayload: verifyPayload)
    }

    /// Moves behind the batch at `offset`, which has this header.
    mutating func pass(_ header: BatchHeader) {
        precondition(
            header.byteCount > 0 && header.byteCount <= reader.segmentByteCount - offset,
            "a batch lies in its segment")
        offset += header.byteCount
        hasEnded = header.endsSegment
    }

    /// Moves one block on.
    mutating func step() { offset += blockByteCount }

    /// Moves to the next place at which a batch header might be, or to the end.
    mutating func skip() throws(Errno) { offset = try reader.candidate(file, after: offset, end: end) }
}
