// A place in a segment, and the batches from there on: for whoever goes through a segment.

/// Goes through the batches of one segment in order.
///
/// Reading does not move it: each user decides which batch is the next of the log, and what becomes of damage.
struct BatchCursor<D: Device> {
    private let reader: BatchReader<D>
    private let segment: SegmentNumber
    /// Nil where batches of any incarnation are wanted.
    private let incarnation: UInt32?
    private let file: DeviceFile
    /// No batch begins here or behind it. In bytes of the segment, like `offset`.
    let end: Int
    /// Where the next batch is expected.
    private(set) var offset: Int
    /// The batch that was passed last says that it is the last of its segment.
    private(set) var hasEnded = false

    /// - Parameter end: where the segment's header declares its end; 0 where it does not.
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

    /// Whether no batch can follow.
    var isOver: Bool { offset >= end || hasEnded }

    /// What is at its place.
    func read(verifyPayload: Bool = false) throws(Errno) -> BatchOutcome {
        var incarnation = incarnation
        if incarnation == nil { incarnation = try reader.claimedIncarnation(file, at: offset) }
        guard let incarnation else { return .nothing }
        return try reader.batch(in: SegmentID(segment, incarnation), file, at: offset, verifyPayload: verifyPayload)
    }

    /// Moves behind the batch at its place.
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
