// Giving back on request what the store holds of the host and does not need: FITRIM, and `treering clean`. The housekeeper empties one
// segment a round, so that whatever else it has to do goes on.

/// What was asked for, until it is done.
struct Trim {
    /// Files of segments when it began.
    var fileCount: Int
    /// How many segments may still be emptied; each that was there once.
    var restCount: Int
    var waiters: [@Sendable (_ byteCount: UInt64) -> Void] = []
}

extension Volume {
    /// Empties what is worth emptying, and gives free segments back to the host. Calls `done` once, with the bytes of the host that came
    /// free.
    func trim(_ done: @escaping @Sendable (_ byteCount: UInt64) -> Void) {
        let isBegun = state.withLock { state -> Bool in
            let core = state.core
            guard !core.isReadOnly, !core.isShutDown else { return false }
            if state.trim == nil {
                state.trim = Trim(fileCount: core.table.fileCount, restCount: core.table.inUseCount)
            }
            state.trim!.waiters.append(done)
            return true
        }
        if isBegun { kick() } else { done(0) }
    }

    /// The housekeeper's part: true when there is more to do.
    func continueTrim() -> Bool {
        guard let rest = state.withLock({ $0.trim?.restCount }) else { return false }
        if rest > 0, cleanOne() {
            state.withLock { $0.trim?.restCount -= 1 }
            return true
        }
        freeDeadSegments()
        endTrim()
        return false
    }

    /// Tells all who wait what was gained so far.
    func endTrim() {
        let (waiters, byteCount) = state.withLock { state -> ([@Sendable (UInt64) -> Void], UInt64) in
            guard let trim = state.trim else { return ([], 0) }
            state.trim = nil
            let table = state.core.table
            return (trim.waiters, UInt64(max(0, trim.fileCount - table.fileCount) * table.segmentByteCount))
        }
        for waiter in waiters { waiter(byteCount) }
    }
}
