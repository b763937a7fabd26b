// Ranges of files: fallocate in the modes that reach a FUSE server, and what reservations promise. Seeking is in Core+Seek.swift.

/// Modes of fallocate(2) that the kernel passes on. It refuses FALLOC_FL_COLLAPSE_RANGE and FALLOC_FL_INSERT_RANGE itself.
struct AllocateMode: OptionSet, Sendable {
    let rawValue: Int32
    static let keepsSize = AllocateMode(rawValue: 0x01)
    static let punchesHole = AllocateMode(rawValue: 0x02)
    static let zeroes = AllocateMode(rawValue: 0x10)
}

extension Core {
    /// Extents that one record of a range operation brings or replaces.
    static let rangePieceLimit = 256
    /// Records after which a range operation lets others run.
    private static let rangeRecordLimit = 32

    // MARK: fallocate

    /// fallocate(2). True when privileges were killed. Run again after a block it goes on where it was.
    ///
    /// As in ext4 whole blocks are allocated, punching ends with the block that the file's end lies in, and every mode counts as
    /// a modification.
    @discardableResult
    func allocate(
        _ number: InodeNumber, _ mode: AllocateMode, at offset: UInt64, _ byteCount: UInt64, _ caller: Caller
    ) throws(Stop) -> Bool {
        let inode = try self.inode(number).record
        guard inode.isRegular else { throw .failed(inode.isDirectory ? .isDirectory : .noDevice) }
        if inode.isImmutable || inode.isAppendOnly && !mode.isSubset(of: .keepsSize) { throw .failed(.notPermitted) }
        guard byteCount > 0 else { throw .failed(.invalid) }
        guard offset <= Self.sizeLimit, byteCount <= Self.sizeLimit - offset else { throw .failed(.fileTooBig) }
        let end = offset + byteCount
        switch mode {
        case [.punchesHole, .keepsSize]: return try punch(inode, offset, end, caller)
        case [], .keepsSize: return try reserve(inode, offset, end, mode, caller)
        case .zeroes, [.zeroes, .keepsSize]: return try zero(inode, offset, end, mode, caller)
        default: throw .failed(.notSupported)
        }
    }

    /// The bytes of a range that are not reserved.
    private func unreserved(_ number: InodeNumber, _ from: UInt64, _ to: UInt64) throws(Stop) -> UInt64 {
        var count = to - from
        try find { () throws(PageMiss) in
            try index.forEachPiece(number, from, to, withReserved: true) { piece in
                if piece.isReserved { count -= piece.byteCount }
                return true
            }
        }
        return count
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
        _ old: InodeRecord, _ from: UInt64, _ to: UInt64, _ caller: Caller
    ) throws(Stop) -> Bool {
        let (inode, hasKilled) = try modified(old, caller)
        writer.reset()
        // What was reserved behind the end stays.
        let to = min(to, Self.blockEnd(inode.size))
        if from < to, from < inode.size {
            // Whole blocks become holes; of a block's part the bytes go, but the block stays allocated.
            let first = min(Self.blockEnd(from), to)
            let last = max(first, to == Self.blockEnd(to) ? to : to / UInt64(blockByteCount) * UInt64(blockByteCount))
            if try isAllocated(inode.inode, first, last) {
                writer.removeRange(inode: inode.inode, from: first, to: last, since: inode.since)
            }
            for edge in [from..<first, last..<to] where try isAllocated(inode.inode, edge.lowerBound, edge.upperBound) {
                writer.reserve(inode: inode.inode, from: edge.lowerBound, to: edge.upperBound)
            }
        }
        writer.inode(inode)
        try commit(freesSpace: true)
        return hasKilled
    }

    private func isAllocated(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64) throws(Stop) -> Bool {
        try find { () throws(PageMiss) in try index.isAllocated(inode, from, to) }
    }

    /// Turns a range into a reservation, whatever it shows. One record, unless it replaces more extents than a record may.
    private func zero(
        _ old: InodeRecord, _ from: UInt64, _ to: UInt64, _ mode: AllocateMode, _ caller: Caller
    ) throws(Stop) -> Bool {
        try waitForRemovals(of: old.inode)
        let (low, high) = Self.blocks(around: from, to)
        try allowReservation(of: try unreserved(old.inode, low, high))
        var recordCount = 0
        func commitOne() throws(Stop) {
            guard recordCount < Self.rangeRecordLimit else { throw .blocked(.room) }
            recordCount += 1
            try commit(freesSpace: true)
        }
        // The blocks at both ends may have many holes of a few bytes.
        var edges = try holes(old.inode, low, from) + holes(old.inode, to, high)
        while edges.count > Self.rangePieceLimit {
            writer.reset()
            for hole in edges.suffix(Self.rangePieceLimit) {
                writer.reserve(inode: old.inode, from: hole.from, to: hole.to)
            }
            try commitOne()
            edges.removeLast(Self.rangePieceLimit)
        }
        var cursor = from
        while true {
            let (start, end) = try unreservedPart(old.inode, cursor, to)
            writer.reset()
            if start < end { writer.reserve(inode: old.inode, from: start, to: end) }
            guard end < to else { break }
            try commitOne()
            cursor = end
        }
        for hole in edges { writer.reserve(inode: old.inode, from: hole.from, to: hole.to) }
        var (inode, hasKilled) = try modified(old, caller)
        if !mode.contains(.keepsSize) { inode.size = max(inode.size, to) }
        writer.inode(inode)
        try commit(freesSpace: true)
        return hasKilled
    }

    /// Where in a range the first byte is that is not reserved, and how far one record may go from there.
    private func unreservedPart(
        _ inode: InodeNumber, _ from: UInt64, _ to: UInt64
    ) throws(Stop) -> (start: UInt64, end: UInt64) {
        var start = from
        var end = to
        var pieceCount = 0
        try find { () throws(PageMiss) in
            try index.forEachPiece(inode, from, to, withReserved: true) { piece in
                if pieceCount == 0, piece.offset == start, piece.isReserved {
                    start = piece.end
                    return true
                }
                pieceCount += 1
                if pieceCount > Self.rangePieceLimit { end = piece.offset }
                return pieceCount <= Self.rangePieceLimit
            }
        }
        return (start, end)
    }

    /// What of a range is not allocated.
    private func holes(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64) throws(Stop) -> [(from: UInt64, to: UInt64)]
    {
        guard from < to else { return [] }
        var holes: [(from: UInt64, to: UInt64)] = []
        var filled = from
        func note(_ start: UInt64) { if start > filled { holes.append((filled, start)) } }
        try find { () throws(PageMiss) in
            try index.forEachPiece(inode, from, to, withReserved: true) { piece in
                note(piece.offset)
                filled = piece.end
                return true
            }
        }
        note(to)
        return holes
    }

    /// Fills the holes of a range with reservations, then sets size and times.
    private func reserve(
        _ old: InodeRecord, _ from: UInt64, _ to: UInt64, _ mode: AllocateMode, _ caller: Caller
    ) throws(Stop) -> Bool {
        try waitForRemovals(of: old.inode)
        let (low, high) = Self.blocks(around: from, to)
        let holes = try holes(old.inode, low, high)
        try allowReservation(of: holes.reduce(0) { $0 + ($1.to - $1.from) })
        var (inode, hasKilled) = try modified(old, caller)
        if !mode.contains(.keepsSize) { inode.size = max(inode.size, to) }
        var first = 0
        var recordCount = 0
        repeat {
            guard recordCount < Self.rangeRecordLimit else { throw .blocked(.room) }
            recordCount += 1
            let next = min(first + Self.rangePieceLimit, holes.count)
            writer.reset()
            for hole in holes[first..<next] { writer.reserve(inode: old.inode, from: hole.from, to: hole.to) }
            if next == holes.count { writer.inode(inode) }
            try commit()
            first = next
        } while first < holes.count
        return hasKilled
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

    /// A reservation replaces what it covers in one step; a great removal still under way there would make that step unbounded.
    private func waitForRemovals(of inode: InodeNumber) throws(Stop) {
        guard index.removals[inode] != nil else { return }
        // None goes on any more.
        guard !isReadOnly else { throw .failed(.readOnly) }
        throw log.isCheckpointStuck || isRemovalStuck ? .failed(.noSpace) : .blocked(.room)
    }

    // MARK: Promises

    /// Room that so many reserved bytes may take when they are written: records are counted in.
    func promisedByteCount(of byteCount: UInt64) -> Int64 {
        Int64(clamping: min(byteCount, Change.reservedByteCountLimit << 8)) / 16 * 17
    }

    /// Segments that what is promised now may take: their ends may stay unused.
    var promisedSegmentCount: Int {
        let promised = promisedByteCount(of: index.reservedByteCount)
        guard promised > 0 else { return 0 }
        let usable = Int64(table.segmentByteCount - SegmentHeader.byteCount - log.staging.geometry.batchByteCountLimit)
        return Int(clamping: (promised + usable - 1) / usable)
    }

    /// Whether the store has room for so much more to be promised.
    private func allowReservation(of byteCount: UInt64) throws(Stop) {
        guard byteCount > 0 else { return }
        guard byteCount < UInt64(Int64.max) / 2, promisedByteCount(of: byteCount) <= status().availableByteCount else {
            throw .failed(.noSpace)
        }
    }

    /// Commits a change of data; where the store is full for others, a range that was promised still takes it.
    func commitData(_ number: InodeNumber, _ from: UInt64, _ to: UInt64) throws(Stop) {
        do throws(Stop) { try commit() } catch {
            guard case .failed(let errno) = error, errno == .noSpace, index.reservedByteCount > 0,
                try isPromised(number, from, to)
            else { throw error }
            try commit(.write, keepsPromise: true)
        }
    }

    /// Whether every byte of a range is allocated and some of it was never written.
    private func isPromised(_ number: InodeNumber, _ from: UInt64, _ to: UInt64) throws(Stop) -> Bool {
        var filled = from
        var hasReserved = false
        try find { () throws(PageMiss) in
            try index.forEachPiece(number, from, to, withReserved: true) { piece in
                guard piece.offset == filled else { return false }
                filled = piece.end
                hasReserved = hasReserved || piece.isReserved
                return true
            }
        }
        return hasReserved && filled == to
    }
}
