// Ranges of files: fallocate(2) in the modes that reach a FUSE server. Seeking is in Core+Seek.swift.

/// Modes of fallocate(2) that the kernel passes on. It refuses FALLOC_FL_COLLAPSE_RANGE and FALLOC_FL_INSERT_RANGE
/// itself.
struct AllocateMode: OptionSet, Sendable {
    let rawValue: Int32
    static let keepsSize = AllocateMode(rawValue: 0x01)
    static let punchesHole = AllocateMode(rawValue: 0x02)
    static let zeroes = AllocateMode(rawValue: 0x10)
}

/// How far an allocation has come: what it has looked at, and what it has done. It belongs to one request.
final class AllocationWalk: @unchecked Sendable {
    /// Everything below was looked at; nil before it has begun.
    fileprivate var cursor: UInt64?
    /// Bytes that are still to be reserved, as far as that is known.
    fileprivate var missingByteCount: UInt64 = 0
    fileprivate var isMeasured = false
    /// What the next record reserves, and where the search for it began.
    fileprivate var holes: [Range<UInt64>] = []
    fileprivate var start: UInt64 = 0

    /// A record has reserved so much.
    fileprivate func reserved(_ byteCount: UInt64) { missingByteCount -= min(byteCount, missingByteCount) }

    fileprivate func forgetHoles() {
        cursor = start
        holes.removeAll()
    }
}

extension Core {
    /// Extents that one record of a range operation brings or replaces.
    static let rangePieceLimit = 256

    // MARK: fallocate

    /// fallocate(2). Returns whether privileges were killed. After `blocked`, run it again with the same walk: it goes
    /// on where it was.
    ///
    /// As on ext4, whole blocks are allocated, a punch ends with the block that the file's end lies in, and every mode
    /// counts as a modification.
    @discardableResult
    func allocate(
        _ number: InodeNumber, _ mode: AllocateMode, at offset: UInt64, _ byteCount: UInt64, _ context: RequestContext,
        _ walk: AllocationWalk
    ) throws(Stop) -> Bool {
        let inode = try self.inode(number).record
        guard inode.isRegular else { throw .failed(inode.isDirectory ? .isDirectory : .noDevice) }
        if inode.isImmutable || inode.isAppendOnly && !mode.isSubset(of: .keepsSize) { throw .failed(.notPermitted) }
        guard byteCount > 0 else { throw .failed(.invalid) }
        guard offset <= Self.sizeLimit, byteCount <= Self.sizeLimit - offset else { throw .failed(.fileTooBig) }
        let end = offset + byteCount
        switch mode {
        case [.punchesHole, .keepsSize]: return try punch(inode, offset, end, context)
        case [], .keepsSize: return try reserve(inode, offset, end, mode, context, walk)
        case .zeroes, [.zeroes, .keepsSize]: return try zero(inode, offset, end, mode, context, walk)
        default: throw .failed(.notSupported)
        }
    }

    /// Counts the bytes of a range that are still to be reserved. An allocation does this once, in parts.
    private func measure(
        _ number: InodeNumber, _ from: UInt64, _ to: UInt64, _ allocation: AllocationWalk,
        isMissing: (FilePiece) -> Bool
    ) throws(Stop) {
        guard !allocation.isMeasured else { return }
        var walk = PieceWalk(allocation.cursor ?? from, to, budget: bounds.extentCount, withReserved: true)
        if allocation.cursor == nil { allocation.missingByteCount = to - from }
        try goOn(&walk, in: number) { piece in
            if !isMissing(piece) { allocation.reserved(piece.byteCount) }
            return true
        } after: {
            allocation.cursor = $0
        }
        guard walk.isOver else { throw .blocked(.turn) }
        allocation.isMeasured = true
        allocation.cursor = nil
    }

    private func modified(_ inode: InodeRecord, _ caller: Caller) throws(Stop) -> (inode: InodeRecord, hasKilled: Bool)
    {
        var inode = inode
        inode.modified = now()
        inode.changed = inode.modified
        let hasKilled = try inode.killPrivilegesUnlessEntitled(caller)
        return (inode, hasKilled)
    }

    private func punch(
        _ old: InodeRecord, _ from: UInt64, _ to: UInt64, _ context: RequestContext
    ) throws(Stop) -> Bool {
        let (inode, hasKilled) = try modified(old, context.caller)
        try commit(.removal, context) { (writer) throws(Stop) in
            try writePunch(inode, from, to, to: &writer)
            writer.inode(inode)
        }
        return hasKilled
    }

    private func writePunch(
        _ inode: InodeRecord, _ from: UInt64, _ to: UInt64, to writer: inout RecordWriter
    ) throws(Stop) {
        // Reservations behind the end of the file stay.
        let to = min(to, Self.blockEnd(inode.size))
        guard from < to, from < inode.size else { return }
        // Whole blocks become holes. A part of a block becomes reserved, so that the block stays allocated.
        let first = min(Self.blockEnd(from), to)
        let last = max(first, to == Self.blockEnd(to) ? to : to / UInt64(blockByteCount) * UInt64(blockByteCount))
        if try isAllocated(inode.inode, first, last) {
            writer.removeRange(inode: inode.inode, from: first, to: last, since: inode.since)
        }
        for edge in [from..<first, last..<to] where try isAllocated(inode.inode, edge.lowerBound, edge.upperBound) {
            writer.reserve(inode: inode.inode, from: edge.lowerBound, to: edge.upperBound)
        }
    }

    private func isAllocated(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64) throws(Stop) -> Bool {
        try find { () throws(PageMiss) in try index.isAllocated(inode, from, to) }
    }

    /// Turns a range into a reservation, whatever it shows. This takes one record, unless it replaces more extents than
    /// one may.
    private func zero(
        _ old: InodeRecord, _ from: UInt64, _ to: UInt64, _ mode: AllocateMode, _ context: RequestContext,
        _ walk: AllocationWalk
    ) throws(Stop) -> Bool {
        try waitForRemovals(of: old.inode)
        let (low, high) = Self.blocks(around: from, to)
        try measure(old.inode, low, high, walk) { !$0.isReserved }
        // Asked at every run, because others may have reserved the room since.
        try allowReservation(of: walk.missingByteCount)
        // The blocks at both ends may have many holes of a few bytes.
        var edges = try holes(old.inode, low, from) + holes(old.inode, to, high)
        while edges.count > Self.rangePieceLimit {
            try commit(.removal, context) { $0.reserve(edges.suffix(Self.rangePieceLimit), in: old.inode) }
            walk.reserved(edges.suffix(Self.rangePieceLimit).reduce(0) { $0 + UInt64($1.count) })
            edges.removeLast(Self.rangePieceLimit)
        }
        let (start, end) = try unreservedPart(old.inode, walk.cursor ?? from, to, walk)
        let part = start < end ? [start..<end] : []
        guard end >= to else {
            try commit(.removal, context) { $0.reserve(part, in: old.inode) }
            walk.reserved(end - start)
            walk.cursor = end
            throw .blocked(.turn)
        }
        var (inode, hasKilled) = try modified(old, context.caller)
        if !mode.contains(.keepsSize) { inode.size = max(inode.size, to) }
        try commit(.removal, context) { writer in
            writer.reserve(part, in: old.inode)
            writer.reserve(edges, in: old.inode)
            writer.inode(inode)
        }
        return hasKilled
    }

    /// Returns the first byte of a range that is not reserved, and how far one record may go from there.
    private func unreservedPart(
        _ inode: InodeNumber, _ from: UInt64, _ to: UInt64, _ allocation: AllocationWalk
    ) throws(Stop) -> (start: UInt64, end: UInt64) {
        var (start, end) = (from, to)
        var pieceCount = 0
        var walk = PieceWalk(from, to, budget: max(bounds.extentCount, Self.rangePieceLimit + 1), withReserved: true)
        try goOn(&walk, in: inode) { piece in
            if pieceCount == 0, piece.offset == start, piece.isReserved {
                start = piece.end
                return true
            }
            pieceCount += 1
            if pieceCount > Self.rangePieceLimit { end = piece.offset }
            return pieceCount <= Self.rangePieceLimit
        } after: { _ in
            if start > from { allocation.cursor = start }
        }
        // The budget is used up. If the walk has passed reserved pieces, the next run begins behind them with a new
        // budget. Otherwise the record ends where the walk has come to.
        if !walk.isOver, pieceCount <= Self.rangePieceLimit {
            guard start == from else { throw .blocked(.turn) }
            end = walk.cursor
        }
        return (start, end)
    }

    /// The parts of a range that are not allocated. The range must not be longer than a block.
    private func holes(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64) throws(Stop) -> [Range<UInt64>] {
        guard from < to else { return [] }
        precondition(to - from <= UInt64(blockByteCount))
        var holes: [Range<UInt64>] = []
        var filled = from
        try find { () throws(PageMiss) in
            (filled, holes) = (from, [])
            try index.forEachPiece(inode, from, to, withReserved: true) { piece in
                if piece.offset > filled { holes.append(filled..<piece.offset) }
                filled = piece.end
                return true
            }
        }
        if to > filled { holes.append(filled..<to) }
        return holes
    }

    /// Fills the holes of a range with reservations, then sets size and times.
    private func reserve(
        _ old: InodeRecord, _ from: UInt64, _ to: UInt64, _ mode: AllocateMode, _ context: RequestContext,
        _ allocation: AllocationWalk
    ) throws(Stop) -> Bool {
        try waitForRemovals(of: old.inode)
        let (low, high) = Self.blocks(around: from, to)
        try measure(old.inode, low, high, allocation) { _ in false }
        if allocation.cursor == nil { (allocation.cursor, allocation.start) = (low, low) }
        try findHoles(of: old.inode, through: high, allocation)
        // Others may have written to the holes since they were found.
        for hole in allocation.holes where try isAllocated(old.inode, hole.lowerBound, hole.upperBound) {
            allocation.forgetHoles()
            throw .blocked(.turn)
        }
        try allowReservation(of: allocation.missingByteCount)
        let isLast = allocation.cursor! >= high
        var (inode, hasKilled) = try modified(old, context.caller)
        if !mode.contains(.keepsSize) { inode.size = max(inode.size, to) }
        try commit(.write, context) { writer in
            writer.reserve(allocation.holes, in: old.inode)
            if isLast { writer.inode(inode) }
        }
        allocation.reserved(allocation.holes.reduce(0) { $0 + UInt64($1.count) })
        allocation.start = allocation.cursor!
        allocation.holes.removeAll()
        if !isLast { throw .blocked(.turn) }
        return hasKilled
    }

    /// Finds as many holes as one record takes.
    private func findHoles(of inode: InodeNumber, through end: UInt64, _ allocation: AllocationWalk) throws(Stop) {
        guard allocation.cursor! < end, allocation.holes.count < Self.rangePieceLimit else { return }
        var walk = PieceWalk(allocation.cursor!, end, budget: bounds.extentCount, withReserved: true)
        var filled = walk.cursor
        func note(_ start: UInt64) {
            guard start > filled else { return }
            // The previous part of the walk ended inside this hole.
            if let last = allocation.holes.last, last.upperBound == filled {
                allocation.holes[allocation.holes.count - 1] = last.lowerBound..<start
            } else {
                allocation.holes.append(filled..<start)
            }
            filled = start
        }
        try goOn(&walk, in: inode) { piece in
            note(piece.offset)
            filled = piece.end
            return allocation.holes.count < Self.rangePieceLimit
        } after: { reached in
            if reached > filled { note(reached) }
            allocation.cursor = reached
        }
        guard walk.isOver || allocation.holes.count >= Self.rangePieceLimit else { throw .blocked(.turn) }
    }

    /// The whole blocks that a range lies in.
    private static func blocks(around from: UInt64, _ to: UInt64) -> (low: UInt64, high: UInt64) {
        (from / UInt64(blockByteCount) * UInt64(blockByteCount), blockEnd(to))
    }

    /// The end of the block that the byte before `offset` lies in.
    static func blockEnd(_ offset: UInt64) -> UInt64 {
        let block = UInt64(blockByteCount)
        return min((offset + block - 1) / block * block, sizeLimit)
    }

    /// Throws while a removal of the file is under way. A reservation takes out what it covers in one step, and what
    /// such a removal has left there would make the step unbounded.
    private func waitForRemovals(of inode: InodeNumber) throws(Stop) {
        guard index.removals[inode] != nil else { return }
        // On a read-only mount no removal goes on.
        guard !isReadOnly else { throw .failed(.readOnly) }
        throw log.space.isCheckpointStuck || isRemovalStuck ? .failed(.noSpace) : .blocked(.room)
    }
}

extension RecordWriter {
    fileprivate mutating func reserve(_ ranges: some Sequence<Range<UInt64>>, in inode: InodeNumber) {
        for range in ranges { reserve(inode: inode, from: range.lowerBound, to: range.upperBound) }
    }
}
