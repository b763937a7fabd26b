// The visible pieces of a file in order: what reads, copies, seeks and allocations walk over. A walk keeps its place,
// so that it can be done in parts: a missing page ends a part, and so does the number of extents that one hold of the
// lock may look at.

extension RecordIndex {
    /// Calls `body` for each visible piece from the walk's cursor on, in order, until it returns false. The cursor is
    /// then behind that piece. If the budget is used up, or a page is missing, the cursor is behind what was looked at.
    func walk(
        _ inode: InodeNumber, _ walk: inout PieceWalk, _ body: (FilePiece) throws(PageMiss) -> Bool
    ) throws(PageMiss) {
        guard let pending = removals[inode] else { return try walkTree(inode, [], &walk, body) }
        // A replacement is not in the tree before the extents that it replaces are taken out.
        while !walk.isOver, walk.budget > 0 {
            let cursor = walk.cursor
            let replacing = pending.filter { $0.replacement != nil && $0.range.to > cursor && $0.range.from < walk.end }
            guard let next = replacing.min(by: { $0.range.from < $1.range.from }) else {
                return try walkTree(inode, pending, &walk, body)
            }
            if next.range.from <= cursor {
                walk.budget -= 1
                var part = PieceWalk(cursor, min(walk.end, next.range.to), budget: 1, withReserved: false)
                let goesOn = try see(next.range.from, next.replacement!, [], &part, body)
                walk.cursor = part.cursor
                if !goesOn { return }
            } else {
                var part = PieceWalk(cursor, next.range.from, budget: walk.budget, withReserved: walk.withReserved)
                var goesOn = true
                defer { (walk.cursor, walk.budget) = (part.cursor, part.budget) }
                try walkTree(inode, pending, &part) { piece throws(PageMiss) in
                    goesOn = try body(piece)
                    return goesOn
                }
                if !goesOn { return }
            }
        }
    }

    /// The part of a walk that the tree's entries show.
    private func walkTree(
        _ inode: InodeNumber, _ hidden: [PendingRemoval], _ walk: inout PieceWalk,
        _ body: (FilePiece) throws(PageMiss) -> Bool
    ) throws(PageMiss) {
        var isWhole = true
        try forEachExtent(inode, walk.cursor, walk.end) { offset, extent throws(PageMiss) in
            if walk.budget > 0 {
                isWhole = try see(offset, extent, hidden, &walk, body)
            } else {
                // What lies before it is a hole.
                walk.cursor = max(walk.cursor, offset)
                isWhole = false
            }
            return isWhole && !walk.isOver
        }
        if isWhole { walk.cursor = walk.end }
    }

    /// Shows what is visible of one extent; false where `body` wants no more.
    @inline(__always)
    private func see(
        _ offset: UInt64, _ extent: ExtentEntry, _ hidden: [PendingRemoval], _ walk: inout PieceWalk,
        _ body: (FilePiece) throws(PageMiss) -> Bool
    ) throws(PageMiss) -> Bool {
        walk.budget -= 1
        let extentEnd = offset + UInt64(extent.length)
        let end = min(walk.end, extentEnd)
        // In a damaged index extents may overlap: the earlier one counts.
        var low = max(walk.cursor, offset)
        if extent.isReserved && !walk.withReserved { low = end }
        while low < end {
            let (isHidden, high) = hidden.isEmpty ? (false, end) : Self.visibility(of: extent, low, end, hidden)
            if !isHidden {
                let skipped = extent.isReserved ? 0 : UInt32(low - offset)
                let piece = FilePiece(
                    offset: low, byteCount: high - low, payload: extent.payload,
                    payloadOffset: extent.payloadOffset + skipped, record: extent.origin.sequence)
                let goesOn = try body(piece)
                walk.cursor = high
                if !goesOn { return false }
            }
            low = high
        }
        walk.cursor = max(walk.cursor, end)
        return true
    }

    /// Whether removals under way hide an extent at `low`, and up to where that holds.
    private static func visibility(
        of extent: ExtentEntry, _ low: UInt64, _ end: UInt64, _ hidden: [PendingRemoval]
    ) -> (isHidden: Bool, high: UInt64) {
        var high = end
        var isHidden = false
        for removal in hidden where extent.origin.sequence < removal.sequence {
            if removal.range.from <= low, low < removal.range.to {
                isHidden = true
                high = min(high, removal.range.to)
            } else if removal.range.from > low {
                high = min(high, removal.range.from)
            }
        }
        return (isHidden, high)
    }

    /// Calls `body` for every visible piece of a range that is known to have few extents.
    func forEachPiece(
        _ inode: InodeNumber, _ from: UInt64, _ to: UInt64, withReserved: Bool = false,
        _ body: (FilePiece) throws(PageMiss) -> Bool
    ) throws(PageMiss) {
        var walk = PieceWalk(from, to, budget: .max, withReserved: withReserved)
        try self.walk(inode, &walk, body)
    }
}
