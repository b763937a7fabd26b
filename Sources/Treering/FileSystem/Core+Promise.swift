// What is reserved is promised: its bytes can be written, in pieces of any size, whatever else fills the store. Each piece takes an extent
// and a payload of its own, which may be more than its bytes; before that goes beyond what was promised for a range, its pieces are
// joined (Volume+Join.swift).

/// What an append takes its room from, besides what is free for all.
enum RoomClaim {
    case none
    /// From what a range of a file has: so many bytes of it are reserved no more afterwards.
    case allocated(InodeNumber, releasedByteCount: UInt64)
    /// It puts pieces together, which takes less room in the end.
    case joining

    /// Whether room that was promised may be used.
    var usesPromises: Bool { if case .none = self { false } else { true } }
}

extension Core {
    /// Room that so many reserved bytes may take when they are written: records are counted in. A block that is written alone, between two
    /// that stay reserved, takes a twentieth more than its bytes.
    func promisedByteCount(of byteCount: UInt64) -> Int64 {
        Int64(clamping: min(byteCount, Change.reservedByteCountLimit << 8)) / 16 * 17
    }

    /// The other way round: how many bytes of whole blocks may be promised in so much room.
    static func promisableByteCount(in byteCount: UInt64) -> UInt64 {
        let block = UInt64(blockByteCount)
        return byteCount / 17 * 16 / block * block
    }

    /// Segments that what is promised now may take: their ends may stay unused.
    var promisedSegmentCount: Int {
        let promised = promisedByteCount(of: index.reservedByteCount)
        guard promised > 0 else { return 0 }
        let usable = Int64(table.segmentByteCount - SegmentHeader.byteCount - log.staging.geometry.batchByteCountLimit)
        return Int(clamping: (promised + usable - 1) / usable)
    }

    /// Whether the store has room for so much more to be promised.
    func allowReservation(of byteCount: UInt64) throws(Stop) {
        guard byteCount > status().availableByteCount else { return }
        // What was removed comes free step by step.
        let mayFit = byteCount <= UInt64(max(0, log.livingByteCountLimit))
        throw isRoomComing && mayFit ? .blocked(.room) : .failed(.noSpace)
    }

    /// Commits a change of data. Where the store is full for others, a range that is allocated throughout still takes it: what was reserved
    /// there was promised, and what is overwritten comes free.
    func commitData(_ number: InodeNumber, _ from: UInt64, _ to: UInt64) throws(Stop) {
        do throws(Stop) { try commit() } catch {
            guard case .failed(let errno) = error, errno == .noSpace,
                let released = try reservedByteCount(number, from, to)
            else { throw error }
            try commit(.write, .allocated(number, releasedByteCount: released))
        }
    }

    /// How many bytes of a range are reserved; nil unless every byte of it is allocated.
    private func reservedByteCount(_ number: InodeNumber, _ from: UInt64, _ to: UInt64) throws(Stop) -> UInt64? {
        var filled = from
        var reserved: UInt64 = 0
        try find { () throws(PageMiss) in
            (filled, reserved) = (from, 0)
            try index.forEachPiece(number, from, to, withReserved: true) { piece in
                guard piece.offset == filled else { return false }
                filled = piece.end
                if piece.isReserved { reserved += piece.byteCount }
                return true
            }
        }
        return filled == to ? reserved : nil
    }

    // MARK: Room

    /// Throws where so many bytes more would leave too little for what is promised.
    func requireRoom(for byteCount: Int, _ claim: RoomClaim) throws(Stop) {
        let living = table.livingByteCount + Int64(byteCount)
        switch claim {
        case .joining: return
        case .none:
            if living <= log.livingByteCountLimit - promisedByteCount(of: index.reservedByteCount) { return }
            throw isRoomComing ? .blocked(.room) : .failed(.noSpace)
        case .allocated(let inode, let released):
            let rest = index.reservedByteCount - min(released, index.reservedByteCount)
            // What the index has come to need since then is not at the cost of what was promised; and pieces are not joined for each write.
            // Overwriting leaves some of that to what was promised.
            let limit = log.livingByteCountLimit(ofSegments: table.countLimit + log.withheldSegmentCount)
            let beyond = Int64(table.segmentByteCount / (released > 0 ? 4 : 8))
            if living + promisedByteCount(of: rest) <= limit + beyond { return }
            if isRoomComing { throw .blocked(.room) }
            if joinedInVain == inode {
                joinedInVain = nil
                throw .failed(.noSpace)
            }
            if !crowded.contains(inode) { crowded.append(inode) }
            throw .blocked(.room)
        }
    }

    // MARK: Joining

    /// Blocks of a file that take more room than if they were one piece.
    struct Joinable {
        var from: UInt64
        var to: UInt64
        var pieces: [FilePiece]
    }

    /// Looks for pieces worth joining behind an offset; gives where to go on, or nil at the end.
    func nextJoinable(_ number: InodeNumber, from cursor: UInt64) throws(Stop) -> (found: Joinable?, next: UInt64?) {
        let block = UInt64(blockByteCount)
        var pieces: [FilePiece] = []
        var end = UInt64.max
        // No more than one record replaces at once, unless a single block has more.
        let limit = bounds.replacedExtentCount
        try find { () throws(PageMiss) in
            pieces.removeAll()
            end = UInt64.max
            try index.forEachPiece(number, cursor, .max / 2, withReserved: true) { piece in
                var piece = piece
                if pieces.isEmpty {
                    let grid = UInt64(joinByteCount)
                    end = (piece.offset / grid + 1) * grid
                }
                if piece.offset >= end { return false }
                if pieces.count >= limit, piece.offset / block * block > pieces[0].offset + block {
                    end = piece.offset / block * block
                    return false
                }
                piece.byteCount = min(piece.byteCount, end - piece.offset)
                pieces.append(piece)
                return true
            }
        }
        guard let first = pieces.first else { return (nil, nil) }
        var start = (first.offset + block - 1) / block * block
        while start < end {
            guard let run = Self.writtenRun(in: pieces, from: start, to: end) else { return (nil, end) }
            let inRun = Self.part(of: pieces, run)
            let blockCount = (run.upperBound - run.lowerBound) / block
            let joined = FilePiece(
                offset: run.lowerBound, byteCount: blockCount * block, payload: PayloadID(1), payloadOffset: 0)
            let cost = inRun.reduce(0) { $0 + $1.cost }
            if inRun.count > 1, cost > joined.cost + joined.cost / 64 {
                return (Joinable(from: run.lowerBound, to: run.upperBound, pieces: inRun), run.upperBound)
            }
            start = run.upperBound
        }
        return (nil, end)
    }

    /// How much is put together at most: a power of two that one record takes.
    var joinByteCount: Int {
        var count = blockByteCount
        while count < 64 << 10, count * 2 <= writeByteCountLimit { count *= 2 }
        return count
    }

    /// The first whole blocks, one after another, that are allocated throughout and each of which was written in part at least.
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
            } else if let run {
                return run
            }
        }
        return run
    }

    /// What of the pieces lies in a range.
    private static func part(of pieces: [FilePiece], _ range: Range<UInt64>) -> [FilePiece] {
        pieces.compactMap { piece in
            let low = max(piece.offset, range.lowerBound)
            let high = min(piece.end, range.upperBound)
            guard low < high else { return nil }
            let skipped = piece.isReserved ? 0 : UInt32(low - piece.offset)
            return FilePiece(
                offset: low, byteCount: high - low, payload: piece.payload,
                payloadOffset: piece.payloadOffset + skipped)
        }
    }

    /// Puts blocks together that hold these bytes, if nobody has changed them since; true when that was done.
    func join(_ number: InodeNumber, _ joinable: Joinable, _ bytes: UnsafeRawBufferPointer) throws(Stop) -> Bool {
        let inode = try self.inode(number).record
        var pieces: [FilePiece] = []
        try find { () throws(PageMiss) in
            pieces.removeAll()
            try index.forEachPiece(number, joinable.from, joinable.to, withReserved: true) { piece in
                pieces.append(piece)
                return true
            }
        }
        guard pieces == joinable.pieces else { return false }
        writer.reset()
        writer.payload(bytes)
        writer.extent(inode: number, offset: joinable.from, byteCount: UInt32(bytes.count))
        writer.inode(inode)
        try commit(.write, .joining)
        return true
    }
}

extension FilePiece {
    /// About what it takes, with what is promised to it.
    fileprivate var cost: UInt64 {
        let payload = PayloadChange.byteCount - ChangeHeader.storedByteCount
        let entries = UInt64(ExtentEntry.charge + payload + Change.moveOverheadByteCount)
        if isReserved { return byteCount / 16 * 17 + UInt64(ExtentEntry.charge) }
        if byteCount <= UInt64(PayloadRecord.inlineByteCountLimit) { return byteCount + entries }
        let block = UInt64(blockByteCount)
        let within = UInt64(payloadOffset) % block
        return (within + byteCount + block - 1) / block * block + entries
    }
}
