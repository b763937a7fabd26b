// Where a record lies.

/// The place of a record, from which the index makes entries.
struct RecordPlace {
    var segment: SegmentNumber
    /// Position of the record's first byte in the segment.
    var recordPosition: UInt32
    /// Position in the segment of the payload area of its batch. Provisional while the batch is open.
    var payloadAreaPosition: UInt32
}
