// How much one hold of the lock, or one part of a request, may do. Larger work goes on where it was after others had
// their turn. Tests make the bounds small, so that everything is done in parts.

/// Bounds of work. The defaults keep a hold of the lock below a millisecond or so.
struct WorkBounds: Sendable {
    /// Extents that one part of a walk over a file looks at, hidden ones included.
    var extentCount = PieceWalk.extentLimit
    /// Pieces in a part of a read.
    var pieceCount = 1024
    /// Device reads in a part of a read. At most `readCountLimit`: the tag of a planned read tells no more apart.
    var readCount = 256
    /// Bytes that a part of a read may bring through scratch memory, unless the request itself is larger.
    var scratchByteCount = 256 << 10
    /// A write over more extents than this replaces them in steps.
    var replacedExtentCount = 256
    /// Small writes that become one piece (Core+Packing.swift).
    var packedPieceCount = 1024
    /// Attributes that a part of listxattr(2) looks at.
    var attributeCount = 1024

    static let readCountLimit = 1 << 16
}
