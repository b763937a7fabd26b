// What one hold of the lock, or one part of a request, may do. Work that can be larger goes on where it was when others had their turn.
// Tests make the bounds small, so that everything is done in parts.

/// Bounds of work. The defaults keep a hold of the lock below a millisecond or so.
struct WorkBounds: Sendable {
    /// Extents that a walk over a file looks at, those included that it does not show.
    var extentCount = PieceWalk.extentLimit
    /// Pieces in a part of a read.
    var pieceCount = 1024
    /// Reads that a part of a read asks the device for. No more than the tag of a planned read can tell apart.
    var readCount = 256
    /// Bytes that a part of a read may bring through scratch memory, unless the request itself is larger.
    var scratchByteCount = 256 << 10
    /// Extents that a write takes out at once; it replaces more of them in steps.
    var replacedExtentCount = 256
    /// Attributes that listing their names looks at.
    var attributeCount = 1024

    static let readCountLimit = 1 << 16
}
