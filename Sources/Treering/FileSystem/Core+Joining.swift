// Joining: pieces of a file that take more room than one piece would, or that have to be looked for in many places, are written again as
// one. The housekeeper does it (Housekeeper+Join.swift), where writers wait for the room, in the background, and on request.

extension Core {
    /// A part of a file whose pieces take a 64th more room than if they were one: small ones, or about a dozen in 64 KiB.
    struct Joinable {
        var from: UInt64
        var to: UInt64
        var pieces: [FilePiece]
    }

    /// Looks for pieces worth joining from an offset on. `next`: where to go on, nil at the end of the file.
    func nextJoinable(_ number: InodeNumber, from cursor: UInt64) throws(Stop) -> (found: Joinable?, next: UInt64?) {
        let block = UInt64(blockByteCount)
        let (pieces, end, seen) = try someJoinable(number, from: cursor)
        guard let first = pieces.first else { return (nil, seen) }
        var start = (first.offset + block - 1) / block * block
        while start < end {
            guard let run = Self.writtenRun(in: pieces, from: start, to: end) else { return (nil, end) }
            let inRun = Self.part(of: pieces, run)
            let joined = FilePiece(
                offset: run.lowerBound, byteCount: run.upperBound - run.lowerBound, payload: PayloadID(1),
                payloadOffset: 0)
            let cost = inRun.reduce(0) { $0 + $1.cost }
            start = (run.upperBound + block - 1) / block * block
            if inRun.count > 1, cost > joined.cost + joined.cost / 64 {
                return (Joinable(from: run.lowerBound, to: run.upperBound, pieces: inRun), start)
            }
        }
        return (nil, end)
    }

    /// The pieces from an offset on that may be joined, in whole blocks up to `end`. If there are none, `seen` tells
    /// how far that is known, nil at the end of the file.
    private func someJoinable(
        _ number: InodeNumber, from cursor: UInt64
    ) throws(Stop) -> (pieces: [FilePiece], end: UInt64, seen: UInt64?) {
        let block = UInt64(blockByteCount)
        let grid = UInt64(joinByteCount)
        // No more than one record replaces at once, unless a single block has more.
        let limit = bounds.replacedExtentCount
        return try find { () throws(PageMiss) in
            var pieces: [FilePiece] = []
            var end = UInt64.max
            var walk = PieceWalk(cursor, .max / 2, budget: bounds.extentCount, withReserved: true)
            var isFull = false
            while true {
                try index.walk(number, &walk) { piece throws(PageMiss) in
                    var piece = piece
                    if end == .max { end = (piece.offset / grid + 1) * grid }
                    isFull = piece.offset >= end
                    if !isFull, pieces.count >= limit, piece.offset / block * block > pieces[0].offset + block {
                        end = piece.offset / block * block
                        isFull = true
                    }
                    if isFull { return false }
                    piece.byteCount = min(piece.byteCount, end - piece.offset)
                    // What an instant copy shows too stays shared.
                    if try !index.isShared(piece.payload) { pieces.append(piece) }
                    return true
                }
                if isFull || walk.isOver { return (pieces, end, nil) }
                guard let first = pieces.first else { return (pieces, end, walk.cursor) }
                let seen = walk.cursor / block * block
                if seen > first.offset + block { return (pieces, min(end, seen), nil) }
                // Goes on within this block. That is bounded, because a block has no more extents than bytes.
                walk.budget = bounds.extentCount
            }
        }
    }

    /// The most bytes that are joined to one piece: a power of two that one record takes.
    var joinByteCount: Int {
        var count = blockByteCount
        while count < 64 << 10, count * 2 <= writeByteCountLimit { count *= 2 }
        return count
    }

    /// The first run of whole blocks that are allocated throughout, each of them written at least in part. The last may
    /// be the beginning of a block, with nothing behind it.
    private static func writtenRun(in pieces: [FilePiece], from: UInt64, to: UInt64) -> Range<UInt64>? {
        let block = UInt64(blockByteCount)
        var run: Range<UInt64>?
        var next = 0
        for start in stride(from: from, to: to, by: Int(block)) {
            while next < pieces.count, pieces[next].end <= start { next += 1 }
            var filled = start
            var isWritten = false
            var index = next
            while index < pieces.count, pieces[index].offset <= filled, filled < start + block {
                isWritten = isWritten || !pieces[index].isReserved
                filled = max(filled, pieces[index].end)
                index += 1
            }
            if isWritten, filled >= start + block {
                run = (run?.lowerBound ?? start)..<start + block
                continue
            }
            let isEndOfData = index == pieces.count || pieces[index].offset >= start + block
            if isWritten, filled > start, isEndOfData { return (run?.lowerBound ?? start)..<filled }
            if let run { return run }
        }
        return run
    }

    /// The parts of the pieces that lie in a range.
    private static func part(of pieces: [FilePiece], _ range: Range<UInt64>) -> [FilePiece] {
        pieces.compactMap { piece in
            let low = max(piece.offset, range.lowerBound)
            let high = min(piece.end, range.upperBound)
            guard low < high else { return nil }
            let skipped = piece.isReserved ? 0 : UInt32(low - piece.offset)
            return FilePiece(
                offset: low, byteCount: high - low, payload: piece.payload,
                payloadOffset: piece.payloadOffset + skipped, record: piece.record)
        }
    }

    /// Writes the bytes again as one piece. Returns false, and changes nothing, if somebody has changed them since, or
    /// shares them now.
    func join(_ number: InodeNumber, _ joinable: Joinable, _ bytes: UnsafeRawBufferPointer) throws(Stop) -> Bool {
        precondition(
            UInt64(bytes.count) == joinable.to - joinable.from, "what is written again covers what it replaces")
        let inode = try self.inode(number).record
        var pieces: [FilePiece] = []
        var isShared = false
        try find { () throws(PageMiss) in
            pieces.removeAll()
            try index.forEachPiece(number, joinable.from, joinable.to, withReserved: true) { piece throws(PageMiss) in
                pieces.append(piece)
                isShared = try index.isShared(piece.payload)
                return !isShared
            }
        }
        guard pieces == joinable.pieces, !isShared else { return false }
        let byteCount = try commit(.write, claiming: .joining, .nobody) { writer in
            writer.payload(bytes)
            writer.extent(inode: number, offset: joinable.from, byteCount: UInt32(bytes.count))
            writer.inode(inode)
            return writer.byteCount + (writer.payloadBlocks?.count ?? 0)
        }
        joined.byteCount += UInt64(byteCount)
        joined.pieceCount += UInt64(pieces.count)
        return true
    }
}

extension FilePiece {
    /// About the room that the piece takes, or that is kept for it if it is reserved; in bytes of the log.
    var cost: UInt64 {
        let payload = PayloadChange.byteCount - ChangeHeader.storedByteCount
        let entries = UInt64(ExtentEntry.charge + payload + Change.moveOverheadByteCount)
        if isReserved { return byteCount / 16 * 17 + UInt64(ExtentEntry.charge) }
        if byteCount <= UInt64(PayloadRecord.inlineByteCountLimit) { return byteCount + entries }
        let block = UInt64(blockByteCount)
        let within = UInt64(payloadOffset) % block
        return (within + byteCount + block - 1) / block * block + entries
    }
}
