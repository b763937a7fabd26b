// lseek(2) with SEEK_DATA and SEEK_HOLE: a walk over a file's pieces, done in parts.

/// What lseek(2) looks for.
enum SeekTarget: Int32, Sendable {
    case data = 3
    case hole = 4
}

/// Where SEEK_DATA or SEEK_HOLE leads, and the hole that the answer relies on.
struct SeekResult: Equatable, Sendable {
    /// Nil if no data follows.
    var offset: UInt64?
    var hole: Range<UInt64>
}

/// How far a seek has come. It belongs to one request, which is run by one thread at a time.
final class SeekWalk: @unchecked Sendable {
    let target: SeekTarget
    /// Where the caller asked to begin.
    let offset: UInt64
    /// Everything below was looked at.
    fileprivate var cursor: UInt64
    /// Where the hole begins, if there is one at the cursor.
    fileprivate var hole: UInt64
    /// Where data begins that ends the walk.
    fileprivate var data: UInt64?

    init(_ target: SeekTarget, from offset: UInt64) {
        (self.target, self.offset) = (target, offset)
        cursor = offset / UInt64(blockByteCount) * UInt64(blockByteCount)
        hole = offset
    }
}

extension Core {
    /// A block is data if any byte of it was written. A block that is only reserved is a hole. A hole begins at the end
    /// of the file. After `blocked`, run it again with the same walk: it goes on where it was.
    func seek(_ number: InodeNumber, _ seek: SeekWalk) throws(Stop) -> SeekResult {
        let inode = try self.inode(number).record
        guard inode.isRegular else { throw .failed(.invalid) }
        guard seek.offset < inode.size else { throw .failed(.noAddress) }
        let block = UInt64(blockByteCount)
        var walk = PieceWalk(seek.cursor, inode.size, budget: bounds.extentCount)
        try goOn(&walk, in: number) { piece in
            let dataStart = max(seek.offset, piece.offset / block * block)
            if seek.target == .data || dataStart > seek.hole {
                seek.data = dataStart
                return false
            }
            seek.hole = max(seek.hole, Self.blockEnd(piece.end))
            return true
        } after: {
            seek.cursor = $0
        }
        if seek.data == nil, !walk.isOver { throw .blocked(.turn) }
        let hole = min(seek.hole, inode.size)
        let end = max(hole, seek.data ?? inode.size)
        return SeekResult(offset: seek.target == .data ? seek.data : hole, hole: hole..<end)
    }

    /// Goes on with a walk. `after` is told how far it has come, also if a missing page has stopped it.
    func goOn(
        _ walk: inout PieceWalk, in inode: InodeNumber, _ body: (FilePiece) throws(PageMiss) -> Bool,
        after: (UInt64) -> Void
    ) throws(Stop) {
        do throws(PageMiss) {
            try index.walk(inode, &walk, body)
            after(walk.cursor)
        } catch {
            after(walk.cursor)
            throw .blocked(.pageAhead(error))
        }
    }
}
