// What reservations promise: reserved bytes can be written, in pieces of any size, whatever else fills the store. Each
// piece takes an extent and a payload, which may need more room than its bytes. Before a range needs more than was
// reserved for it, its pieces are joined (Core+Joining.swift).

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
}
