// How far a walk over a file's pieces has come.

/// Where a walk over a file's pieces has come to.
struct PieceWalk {
    /// Everything below was seen; in bytes of the file.
    var cursor: UInt64
    /// Not included.
    let end: UInt64
    /// Extents that this part may still look at, the hidden and the reserved ones as well.
    var budget: Int
    /// Reserved pieces (payload 0) are seen too.
    var withReserved = false

    /// What one hold of the lock looks at: some hundred microseconds' worth.
    static let extentLimit = 4096

    init(_ from: UInt64, _ end: UInt64, budget: Int = extentLimit, withReserved: Bool = false) {
        (cursor, self.end, self.budget, self.withReserved) = (from, end, budget, withReserved)
    }

    var isOver: Bool { cursor >= end }
}
