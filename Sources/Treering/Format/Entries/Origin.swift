// The origin of an index entry, with which its value begins.

/// The record that established an entry.
struct Origin: Hashable, Sendable, StoredValue, LaidOut {
    struct Layout: DiskLayout {
        let sequence = Field<RecordSequence>(0, "record sequence")
        let segment = Field<SegmentNumber>(8, "segment", "that holds the record")
        static let byteCount = 12
    }

    static let layout = Layout()
    /// Where the origin lies in the value of each entry that has one.
    static let field = Field<Origin>(0, "origin")
    static let byteCount = Layout.byteCount

    var sequence: RecordSequence
    var segment: SegmentNumber

    @inline(__always)
    func store(at place: UnsafeMutableRawPointer) {
        place[Self.layout.sequence] = sequence
        place[Self.layout.segment] = segment
    }

    @inline(__always)
    init(at place: UnsafeRawPointer) {
        sequence = place[Self.layout.sequence]
        segment = place[Self.layout.segment]
    }

    /// The origin of the entry with this value.
    @inline(__always)
    init(decoding bytes: UnsafeRawBufferPointer) { self = bytes[Self.field] }

    init(sequence: RecordSequence, segment: SegmentNumber) {
        self.sequence = sequence
        self.segment = segment
    }
}
