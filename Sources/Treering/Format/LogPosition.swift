// A position in the log, and its layout in the superblock.

/// A position between two batches of the log: the last batch before it, and where the next batch goes.
struct LogPosition: Hashable, Sendable {
    struct Layout: DiskLayout {
        let lastBatch = Field<BatchSequence>(0, "log included through batch")
        let lastChecksum = Field<UInt32>(8, "checksum of that batch's header", as: .hexadecimal)
        let segment = Field<SegmentNumber>(12, "log goes on in segment")
        let incarnation = Field<UInt32>(16, "incarnation of that segment")
        let offsetInSegment = Field<UInt32>(20, "offset in that segment", "where the next batch begins")
        static let byteCount = 24
    }

    static let layout = Layout()

    var lastBatch: BatchSequence
    var lastChecksum: UInt32
    var segment: SegmentNumber
    var incarnation: UInt32
    var offsetInSegment: UInt32

    init(
        lastBatch: BatchSequence, lastChecksum: UInt32, segment: SegmentNumber, incarnation: UInt32,
        offsetInSegment: UInt32
    ) {
        self.lastBatch = lastBatch
        self.lastChecksum = lastChecksum
        self.segment = segment
        self.incarnation = incarnation
        self.offsetInSegment = offsetInSegment
    }

    /// The segment in which the log goes on.
    var segmentID: SegmentID {
        get { SegmentID(segment, incarnation) }
        set { (segment, incarnation) = (newValue.number, newValue.incarnation) }
    }
}

extension LogPosition: StoredValue, LaidOut {
    init(at place: UnsafeRawPointer) {
        let field = Self.layout
        lastBatch = place[field.lastBatch]
        lastChecksum = place[field.lastChecksum]
        segment = place[field.segment]
        incarnation = place[field.incarnation]
        offsetInSegment = place[field.offsetInSegment]
    }

    func store(at place: UnsafeMutableRawPointer) {
        let field = Self.layout
        place[field.lastBatch] = lastBatch
        place[field.lastChecksum] = lastChecksum
        place[field.segment] = segment
        place[field.incarnation] = incarnation
        place[field.offsetInSegment] = offsetInSegment
    }
}
