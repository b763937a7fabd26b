// A batch that was read back from a segment.

/// A batch that was read from a segment. Its bytes belong to the reader and are valid until the next read.
struct FoundBatch {
    var header: BatchHeader
    var checksum: UInt32
    /// Offset in the segment.
    var offset: Int
    /// The batch from its header on; without its payload blocks unless those were verified.
    var bytes: UnsafeRawBufferPointer

    /// Calls `body` for each record with its place. Records that are to be skipped are passed over, unless `withSkipped`.
    func forEachRecord<Failure: Error>(
        withSkipped: Bool = false, _ body: (Record, RecordPlace) throws(Failure) -> Void
    ) throws(Failure) {
        // A reserved range holds no records, whatever its header says, and nothing in it was verified.
        guard header.kind == .records else { return }
        var position = BatchHeader.byteCount
        for _ in 0..<header.recordCount {
            let length = Int(bytes.part(position, Record.headerByteCount)[Record.layout.length])
            let place = RecordPlace(
                segment: header.segment, recordPosition: UInt32(offset + position),
                payloadAreaPosition: UInt32(offset + header.payloadAreaOffset))
            let record = Record(trusting: bytes.part(position, length))
            if withSkipped || !record.isSkipped { try body(record, place) }
            position += length
        }
    }
}

/// What was found where a batch was expected.
enum BatchOutcome {
    case batch(FoundBatch)
    /// Nothing that could be a batch of this segment's present incarnation.
    case nothing
    /// A batch begins here but is not whole. The text says why.
    case broken(BatchHeader, String)
}
