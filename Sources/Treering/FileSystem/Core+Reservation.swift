// What reservations promise: reserved bytes can be written, in pieces of any size, whatever else fills the store. Each
// piece takes an extent and a payload, which may need more room than its bytes. Before a range needs more than was
// reserved for it, its pieces are joined (Housekeeper+Join.swift).

/// Part of a file that somebody is about to write.
struct WrittenRange: Hashable {
    var inode: InodeNumber
    var from: UInt64
    var to: UInt64
}

/// What is known of such a part so far.
struct KnownReservation {
    /// Every byte of the part below this offset is allocated.
    var filled: UInt64
    var reservedByteCount: UInt64 = 0
}

extension Core {
    /// Throws unless the store has room to reserve so many bytes more.
    func allowReservation(of byteCount: UInt64) throws(Stop) {
        switch log.space.roomToReserve(byteCount, available: status().availableByteCount, isComing: isRoomComing) {
        case .fits: return
        case .wait: throw .blocked(.room)
        case .full, .crowded: throw .failed(.noSpace)
        }
    }

    /// How many bytes of a range are reserved; nil unless every byte of it is allocated. Of a long range one hold of
    /// the lock looks at a part. It then throws `blocked(.turn)`, and the next run goes on from there.
    func reservedByteCount(of range: WrittenRange) throws(Stop) -> UInt64? {
        var known = knownReservations[range] ?? KnownReservation(filled: range.from)
        guard known.filled < range.to else { return known.reservedByteCount }
        var walk = PieceWalk(known.filled, range.to, budget: bounds.extentCount, withReserved: true)
        var hasHole = false
        try goOn(&walk, in: range.inode) { piece in
            hasHole = piece.offset > known.filled
            if hasHole { return false }
            known.filled = piece.end
            if piece.isReserved { known.reservedByteCount += piece.byteCount }
            return true
        } after: { reached in
            // The walk has passed bytes without a piece. They are a hole, or a removal hides them.
            hasHole = hasHole || reached > known.filled
            if hasHole { knownReservations[range] = nil } else { remember(known, of: range) }
        }
        if hasHole { return nil }
        guard walk.isOver else { throw .blocked(.turn) }
        return known.reservedByteCount
    }

    private func remember(_ known: KnownReservation, of range: WrittenRange) {
        // Writers that gave up have left their entries.
        if knownReservations.count >= Self.knownReservationLimit { knownReservations.removeAll() }
        knownReservations[range] = known
    }

    /// More than there are requests at a time.
    private static let knownReservationLimit = 1024

    /// A record has changed what files show: forgets what was known of the ranges that it changed.
    func forgetReservations(changedBy record: Record) {
        record.forEachChange { change, _, _ in
            switch change {
            case .extent(let inode, let offset, _, _, let count):
                forgetReservations(inode, offset, offset + UInt64(count))
            case .reserve(let inode, let from, let to), .removeRange(let inode, let from, let to, _):
                forgetReservations(inode, from, to)
            case .removeInode(let inode, _): forgetReservations(inode, 0, .max)
            case .inode, .dirent, .removeDirent, .xattr, .removeXattr, .payload, .orphan, .move, .skipped: break
            }
        }
    }

    private func forgetReservations(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64) {
        knownReservations = knownReservations.filter { range, _ in
            range.inode != inode || range.from >= to || range.to <= from
        }
    }

    // MARK: Room

    /// Throws if so many bytes more would leave too little room for what is reserved.
    func requireRoom(for byteCount: Int, _ tier: SpaceTier, _ claim: RoomClaim) throws(Stop) {
        switch log.space.room(
            for: byteCount, tier, claim, reserved: index.reservedByteCount, isComing: isRoomComing)
        {
        case .fits: return
        case .wait: throw .blocked(.room)
        case .full: throw .failed(.noSpace)
        case .crowded:
            guard case .allocated(let inode, _) = claim else { preconditionFailure("only pieces of a file are joined") }
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

    /// Looks for pieces worth joining from an offset on. `next`: where to go on, nil at the end of the file.
    func nextJoinable(_ number: InodeNumber, from cursor: UInt64) throws(Stop) -> (found: Joinable?, next: UInt64?) {
        let block = UInt64(blockByteCount)
        let (pieces, end, seen) = try someJoinable(number, from: cursor)
        guard let first = pieces.first else { return (nil, seen) }
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
                try index.walk(number, &walk) { piece in
                    var piece = piece
                    if pieces.isEmpty { end = (piece.offset / grid + 1) * grid }
                    isFull = piece.offset >= end
                    if !isFull, pieces.count >= limit, piece.offset / block * block > pieces[0].offset + block {
                        end = piece.offset / block * block
                        isFull = true
                    }
                    if isFull { return false }
                    piece.byteCount = min(piece.byteCount, end - piece.offset)
                    pieces.append(piece)
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

    /// The first run of whole blocks that are allocated throughout, each of them written at least in part.
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

    /// The parts of the pieces that lie in a range.
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

    /// Writes the blocks again as one piece. Returns false, and changes nothing, if somebody has changed them since.
    func join(_ number: InodeNumber, _ joinable: Joinable, _ bytes: UnsafeRawBufferPointer) throws(Stop) -> Bool {
        precondition(
            UInt64(bytes.count) == joinable.to - joinable.from, "what is written again covers what it replaces")
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
        try commit(.write, claiming: .joining, .nobody) { writer in
            writer.payload(bytes)
            writer.extent(inode: number, offset: joinable.from, byteCount: UInt32(bytes.count))
            writer.inode(inode)
        }
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
