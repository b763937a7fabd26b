// Instant copies: copy_file_range lets the target name the payloads that the source names. No byte of data is read or
// written.

/// What a copy did.
struct CopyResult: Equatable {
    /// Less than was asked for at the end of the source, and where one call has done its share. The caller goes on from
    /// there.
    var byteCount: UInt64
    var hasKilledPrivileges = false
}

extension Core {
    /// Pieces that one call shares, so that others need not wait for long.
    private static let copyPieceLimit = 1024

    /// copy_file_range(2). Fails only where nothing was copied.
    func copyRange(
        _ source: InodeNumber, at from: UInt64, _ target: InodeNumber, at to: UInt64, _ byteCount: UInt64,
        _ context: RequestContext
    ) throws(Stop) -> CopyResult {
        let origin = try inode(source).record
        let old = try inode(target).record
        for inode in [origin, old] where !inode.isRegular {
            throw .failed(inode.isDirectory ? .isDirectory : .invalid)
        }
        if old.isImmutable || old.isAppendOnly && to < old.size { throw .failed(.notPermitted) }
        guard from < origin.size, byteCount > 0 else { return CopyResult(byteCount: 0) }
        let count = min(byteCount, origin.size - from)
        guard to < Self.sizeLimit, count <= Self.sizeLimit - to else { throw .failed(.fileTooBig) }
        if source == target, from < to + count, to < from + count { throw .failed(.invalid) }
        var result = CopyResult(byteCount: 0)
        var pieceCount = 0
        while result.byteCount < count, pieceCount < Self.copyPieceLimit {
            do throws(Stop) {
                let step = try share(
                    source, from + result.byteCount, target, to + result.byteCount, count - result.byteCount,
                    context)
                result.byteCount += step.byteCount
                result.hasKilledPrivileges = result.hasKilledPrivileges || step.hasKilled
                pieceCount += step.pieceCount
            } catch {
                if result.byteCount == 0 { throw error }
                break
            }
        }
        return result
    }

    /// One record's part of a copy.
    private func share(
        _ source: InodeNumber, _ from: UInt64, _ target: InodeNumber, _ to: UInt64, _ byteCount: UInt64,
        _ context: RequestContext
    ) throws(Stop) -> (byteCount: UInt64, pieceCount: Int, hasKilled: Bool) {
        // One record may replace only so many extents of the target.
        let limit = try find { () throws(PageMiss) in
            var extentCount = 0
            var limit = byteCount
            try index.forEachExtent(target, to, to + byteCount) { offset, _ in
                extentCount += 1
                if extentCount > Self.copyPieceLimit { limit = offset - to }
                return extentCount <= Self.copyPieceLimit
            }
            return limit
        }
        var pieces: [FilePiece] = []
        var walk = PieceWalk(from, from + limit)
        try find { () throws(PageMiss) in
            try index.walk(source, &walk) { piece in
                var piece = piece
                piece.offset -= from
                pieces.append(piece)
                return pieces.count < Self.rangePieceLimit
            }
        }
        let end = try shareableEnd(pieces)
        // The first payload has too many references. After this error the kernel copies by reading and writing.
        guard end > 0 || pieces.isEmpty else { throw .failed(.notSupported) }
        let isWhole = end == pieces.count
        pieces.removeSubrange(end...)
        let reached = isWhole ? walk.cursor - from : pieces.last!.end
        return try shared(pieces, reached, target, to, context)
    }

    /// How many of the pieces, from the first on, may get one more reference.
    private func shareableEnd(_ pieces: [FilePiece]) throws(Stop) -> Int {
        for (position, piece) in pieces.enumerated() {
            let canBeShared = try find { () throws(PageMiss) in
                try index.tree.withValue(of: PayloadEntry.key(piece.payload)) { value in
                    value.flatMap { PayloadEntry(decoding: $0) }?
                        .canBeShared(piece.payloadOffset, UInt32(piece.byteCount))
                }
            }
            if canBeShared != true { return position }
        }
        return pieces.count
    }

    private func shared(
        _ pieces: [FilePiece], _ byteCount: UInt64, _ target: InodeNumber, _ to: UInt64, _ context: RequestContext
    ) throws(Stop) -> (byteCount: UInt64, pieceCount: Int, hasKilled: Bool) {
        var inode = try self.inode(target).record
        let hasKilled = try inode.killPrivilegesUnlessEntitled(context.caller)
        precondition(pieces.last.map { $0.end <= byteCount } ?? true, "a copy shows more than its range")
        inode.modified = now()
        inode.changed = inode.modified
        inode.size = max(inode.size, to + byteCount)
        let clears = try showsDataInHoles(pieces, byteCount, target, to)
        try commitData(target, to, to + byteCount, context) { writer in
            if clears { writer.removeRange(inode: target, from: to, to: to + byteCount, since: inode.since) }
            for piece in pieces {
                writer.extent(
                    inode: target, offset: to + piece.offset, payload: piece.payload,
                    payloadOffset: piece.payloadOffset, byteCount: UInt32(piece.byteCount))
            }
            writer.inode(inode)
        }
        return (byteCount, pieces.count + 1, hasKilled)
    }

    /// Whether the target shows something where the source has holes, which must then be cleared.
    private func showsDataInHoles(
        _ pieces: [FilePiece], _ byteCount: UInt64, _ target: InodeNumber, _ to: UInt64
    ) throws(Stop) -> Bool {
        var filled: UInt64 = 0
        for piece in pieces {
            if try showsData(target, to + filled, to + piece.offset) { return true }
            filled = piece.end
        }
        return try showsData(target, to + filled, to + byteCount)
    }

    private func showsData(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64) throws(Stop) -> Bool {
        var isFound = false
        var walk = PieceWalk(from, to)
        try find { () throws(PageMiss) in
            try index.walk(inode, &walk) { _ in
                isFound = true
                return false
            }
        }
        // A walk that did not finish counts as yes: clearing a hole once more does no harm.
        return isFound || !walk.isOver
    }
}
