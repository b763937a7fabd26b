// Defragmenting: joining the pieces of files that have become costly, in the background and on request.
//
// The measure is that of `Core.nextJoinable`: a part of a file is joined if its pieces take a 64th more room than one piece. A
// file is looked at when writes or reads have met 32 small pieces of it (`FragmentedFiles`).
//
// What this adds to the writing is bounded. While programs write it is a sixteenth of what they have written since the mount; when nobody has
// written for a second, as much as they have written, and `defragmentFreeByteCount` for files that are older than the mount. So a file that is
// overwritten for ever is not joined for ever. Nothing is done on a store that is short of free segments: what helps there is in
// Housekeeper+Join.swift.

/// When fragmented files are joined.
enum DefragmentPolicy: String, Sendable, CaseIterable {
    case auto
    /// Only on request, and where writers wait for the room.
    case off
    /// Everything that is worth it, in every round. For tests.
    case eager
}

/// What somebody wants to have joined.
struct DefragmentRequest {
    var inode: InodeNumber
    var from: UInt64
    var done: @Sendable (DefragmentAnswer) -> Void
}

enum DefragmentAnswer {
    /// `next`: where to go on, in bytes of the file; nil at its end. So many pieces have become so many bytes of the log.
    case done(next: UInt64?, pieceCount: UInt64, byteCount: UInt64)
    case failed(Errno)
}

extension Housekeeper {
    /// How long one round may take.
    private static var roundNanoseconds: UInt64 { 20_000_000 }

    // MARK: In the background

    /// Joins pieces of the file that is most worth it, a bounded part of it. True when more is to be done soon.
    func defragmentInBackground(isIdle: Bool) -> Bool {
        guard options.defragmenting != .off, begin(.joining) else { return false }
        defer { end(.joining) }
        let start = monotonicNanoseconds()
        let isEager = options.defragmenting == .eager
        let isIdle = isIdle || isEager
        guard mayDefragment(isIdle: isIdle),
            let (inode, note) = state.withLock({ state -> (InodeNumber, FragmentedFiles.Note)? in
                let core = state.core
                return core.fragmented.worst(isIdle: isIdle).flatMap { inode in
                    core.fragmented.take(inode).map { (inode, $0) }
                }
            })
        else { return false }
        let grid = UInt64(state.withLock { $0.core.joinByteCount })
        let before = joinedPieceCount
        var left = note
        // Where somebody still writes, the last part will soon have more pieces.
        let end = isIdle ? note.to : note.to / grid * grid
        left.from = note.from / grid * grid
        guard left.from < end else {
            state.withLock { $0.core.fragmented.putBack(inode, note) }
            return false
        }
        do throws(Errno) {
            while left.from < end, mayDefragment(isIdle: isIdle), !isNeededElsewhere {
                guard let next = try joinNext(of: inode, from: left.from, makesRoom: false) else {
                    left.from = end
                    break
                }
                left.from = next
                if !isEager, monotonicNanoseconds() - start > Self.roundNanoseconds { break }
                housekeepInBetween()
            }
        } catch {
            // Later there may be room. Else the file was removed, or is damaged, which the read has reported.
            if error == .noSpace {
                state.withLock { $0.core.fragmented.putBack(inode, left) }
                if thread != nil { rest(nanoseconds: 5_000_000) }
            }
            return true
        }
        let hasJoined = joinedPieceCount > before
        state.withLock { state in
            if left.from < end { return state.core.fragmented.putBack(inode, left) }
            if !hasJoined, isIdle { state.core.fragmented.noteHopeless(inode) }
            guard end < note.to else { return }
            // The part that is still being written waits for more, or until nobody writes.
            let count = min(note.pieceCount, state.core.fragmented.leastCount / 2)
            state.core.fragmented.putBack(inode, .init(from: end, to: note.to, pieceCount: count))
        }
        if thread != nil { pause(since: start, isIdle: isIdle) }
        return hasJoined || left.from < end
    }

    private var joinedPieceCount: UInt64 { state.withLock { $0.core.joined.pieceCount } }

    /// Whether the bounds on what is written allow more, and the store has room for it.
    private func mayDefragment(isIdle: Bool) -> Bool {
        state.withLock { state in
            let core = state.core
            guard !core.isVainToWait, core.log.suspension == nil, !core.log.space.isRoomLow, !core.log.space.isHostFull,
                !state.hasRoomWaiters, !core.isDirtyLimitReached
            else { return false }
            if options.defragmenting == .eager { return true }
            let asked = volume.writtenSinceMount(core).asked
            return core.joined.byteCount < (isIdle ? asked + options.defragmentFreeByteCount : asked / 16)
        }
    }

    /// Leaves the device to others three times as long as it was busy; as long where nobody writes.
    private func pause(since start: UInt64, isIdle: Bool) {
        rest(nanoseconds: min((monotonicNanoseconds() - start) * (isIdle ? 1 : 3), 50_000_000))
    }

    // MARK: On request

    /// Joins what is worth it in a part of a file, from an offset on. Calls `done` once. For any thread.
    func defragment(_ inode: InodeNumber, from: UInt64, _ done: @escaping @Sendable (DefragmentAnswer) -> Void) {
        let isBegun = state.withLock { state -> Bool in
            guard !state.core.isVainToWait else { return false }
            state.defragmentRequests.append(DefragmentRequest(inode: inode, from: from, done: done))
            return true
        }
        if isBegun { kick() } else { done(.failed(.readOnly)) }
    }

    /// Answers the request that has waited longest, after a bounded part of its file. True when there are more.
    func continueDefragmenting() -> Bool {
        let request = state.withLock { $0.defragmentRequests.isEmpty ? nil : $0.defragmentRequests.removeFirst() }
        guard let request else { return false }
        guard begin(.joining) else {
            state.withLock { $0.defragmentRequests.insert(request, at: 0) }
            return true
        }
        defer { end(.joining) }
        let start = monotonicNanoseconds()
        let before = state.withLock { $0.core.joined }
        var next: UInt64? = request.from
        do throws(Errno) {
            while let from = next, monotonicNanoseconds() - start < 5 * Self.roundNanoseconds, !isNeededElsewhere {
                next = try joinNext(of: request.inode, from: from, makesRoom: false)
                housekeepInBetween()
            }
        } catch {
            request.done(.failed(error))
            return true
        }
        let after = state.withLock { state in
            if next == nil { _ = state.core.fragmented.take(request.inode) }
            return state.core.joined
        }
        request.done(
            .done(
                next: next, pieceCount: after.pieceCount - before.pieceCount,
                byteCount: after.byteCount - before.byteCount))
        return true
    }

    /// The mount is over.
    func endDefragmenting() {
        let requests = state.withLock { state in
            defer { state.defragmentRequests = [] }
            return state.defragmentRequests
        }
        for request in requests { request.done(.failed(.ioError)) }
    }
}
