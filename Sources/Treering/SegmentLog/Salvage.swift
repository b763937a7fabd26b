// How one damaged place of the log is repaired.

/// One damaged place of the log, and how to repair it.
struct Salvage {
    var segment: SegmentNumber
    var file: DeviceFile
    /// From the start of the damaged batch (or header) to the next whole batch.
    var range: Range<Int>
    var reason: String
    /// What to write, with offsets in the segment.
    var patches: [(offset: Int, bytes: [UInt8])] = []
    /// The sequences of the lost records.
    var lost: [ClosedRange<UInt64>] = []
    var savedRecordCount = 0

    var lostRecordCount: UInt64 { lost.reduce(0) { $0 &+ ($1.upperBound - $1.lowerBound) &+ 1 } }
}
