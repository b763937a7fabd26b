// A place in a segment, and the batches from there on: for the cleaner, punching, recovery, rebuilding and salvage.

/// Goes through the batches of one segment in order.
///
/// Reading does not move it: each user decides which batch is the next of the log, and what becomes of damage.
struct BatchCursor<D: Device> {
    private let reader: BatchReader<D>
    private let segmentID: SegmentID
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
        from offset: Int = SegmentHeader.byteCount,
        end: UInt32
    ) {
        (self.reader, self.segmentID, self.file, self.offset) = (reader, segmentID, file, offset)
        self.end = end == 0 ? reader.segmentByteCount : Int(end)
    }

    /// Whether no batch can follow.
    var isOver: Bool { offset >= end || hasEnded }

    /// What is at its place.
    func read(verifyPayload: Bool = false) throws(Errno) -> BatchOutcome {
        try reader.batch(in: segmentID, file, at: offset, verifyPayload: verifyPayload)
    }

    /// Moves behind the batch at its place.
    mutating func pass(_ header: BatchHeader) {
        precondition(
            header.byteCount > 0 && header.byteCount <= reader.segmentByteCount - offset,
            "a batch lies in its segment")
        offset += header.byteCount
        hasEnded = header.endsSegment
    }

    /// Moves to the next place at which a batch header might be, or to the end.
    mutating func skip() throws(Errno) { offset = try reader.candidate(file, after: offset, end: end) }
}
