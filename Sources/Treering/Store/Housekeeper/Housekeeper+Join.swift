// Joining the pieces of a file (Core+Joining.swift): the housekeeper reads them and writes them as one. Here while writers wait for it: writes
// in many small pieces can make a reserved range need more space than its reservation.

extension Housekeeper {
    /// Joins the pieces of the crowded files that writers wait for.
    func joinCrowded() {
        guard begin(.joining) else { return }
        defer { end(.joining) }
        while let inode = state.withLock({ $0.core.isOver ? nil : $0.core.crowded.first }) {
            let before = state.withLock { $0.core.takenByteCount }
            do throws(Errno) { try joinPieces(of: inode) } catch {
                log("pieces of inode \(inode.rawValue) could not be joined: \(error)")
            }
            volume.change { state, _ in
                let core = state.core
                core.crowded.removeAll { $0 == inode }
                core.joinedInVain = core.takenByteCount < before ? nil : inode
                _ = core.fragmented.take(inode)
            }
        }
    }

    private func joinPieces(of inode: InodeNumber) throws(Errno) {
        var cursor: UInt64? = 0
        while let from = cursor {
            cursor = try joinNext(of: inode, from: from, makesRoom: true)
            housekeepInBetween()
        }
    }

    /// Joins the next pieces of a file that are worth it. Returns where to go on; nil at the end of the file. Where there
    /// is no room, it makes some if `makesRoom`, else fails with ENOSPC.
    func joinNext(of inode: InodeNumber, from: UInt64, makesRoom: Bool) throws(Errno) -> UInt64? {
        let (found, next) = try runWaiting(makesRoom: makesRoom) { (core) throws(Stop) in
            if core.isVainToWait { throw .failed(core.endError) }
            return try core.nextJoinable(inode, from: from)
        }
        guard let found else { return next }
        let byteCount = Int(found.to - found.from)
        let size = try runWaiting(makesRoom: makesRoom) { (core) throws(Stop) in try core.inode(inode).record.size }
        let read = try volume.bytes { (core) throws(Stop) in try core.planRead(inode, at: found.from, byteCount) }
        guard read.count == min(byteCount, Int(clamping: size - min(size, found.from))) else { return next }
        // The last block holds zeros behind the end of the file.
        let whole = AlignedBuffer(byteCount: byteCount)
        whole.bytes.zero(0, byteCount)
        whole.bytes.copyBytes(from: read)
        _ = try runWaiting(makesRoom: makesRoom) { (core) throws(Stop) in
            try core.join(inode, found, UnsafeRawBufferPointer(whole.bytes).part(0, byteCount))
        }
        return next
    }
}

extension Core {
    /// What is live, and what is reserved.
    var takenByteCount: Int64 { table.liveByteCount + SpaceAccounting.byteCount(ofReserved: index.reservedByteCount) }
}
