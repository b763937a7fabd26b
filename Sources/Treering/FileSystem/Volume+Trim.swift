// Giving back on request what the store holds of the host and does not need: FITRIM, and `treering clean`. The housekeeper empties one
// segment a round, or looks through one for what can be punched out, so that whatever else it has to do goes on.

/// What was asked for, until it is done.
struct Trim {
    /// Files of segments when it began.
    var fileCount: Int
    /// How many segments may still be emptied; each that was there once.
    var restCount: Int
    /// How many may still be looked through.
    var searchCount: Int
    /// What had been punched when it began.
    var punchedByteCount: UInt64
    var waiters: [@Sendable (_ byteCount: UInt64) -> Void] = []
}

extension Volume {
    /// Empties what is worth emptying, and gives free segments back to the host. Calls `done` once, with the bytes of the host that came
    /// free.
    func trim(_ done: @escaping @Sendable (_ byteCount: UInt64) -> Void) {
        let isBegun = state.withLock { state -> Bool in
            let core = state.core
            guard !core.isVainToWait else { return false }
            if state.trim == nil {
                let count = core.table.inUseCount
                state.trim = Trim(
                    fileCount: core.table.fileCount, restCount: count, searchCount: count,
                    punchedByteCount: state.punchedByteCount)
            }
            state.trim!.waiters.append(done)
            return true
        }
        if isBegun { kick() } else { done(0) }
    }

    /// The housekeeper's part: true when there is more to do.
    func continueTrim() -> Bool {
        guard let rest = state.withLock({ $0.trim?.restCount }) else { return false }
        if rest > 0 {
            let isCleaned = cleanOne()
            state.withLock { $0.trim?.restCount = isCleaned ? rest - 1 : 0 }
            if isCleaned { return true }
        }
        if state.withLock({ ($0.trim?.searchCount ?? 0) > 0 }), findDeadBlocks() {
            state.withLock { $0.trim?.searchCount -= 1 }
            return true
        }
        freeDeadSegments(punches: true)
        giveBackSurplus()
        endTrim()
        return false
    }

    /// Gives prepared segments back to the host but for those that would be prepared again at once.
    private func giveBackSurplus() {
        do throws(Errno) {
            while let (number, file) = state.withLock({ state -> (SegmentNumber, DeviceFile)? in
                let log = state.core.log
                guard log.table.pool.count > log.preparedSegmentGoal, !log.isHostFull, !state.core.isOver,
                    let number = log.table.pool.first, let file = log.table[number].file
                else { return nil }
                // Before its file goes: nobody may open it as the head meanwhile.
                log.table.remove(number)
                return (number, file)
            }) {
                device.close(file)
                try device.unlink(.segment(number))
            }
            try device.syncDirectories()
        } catch { log("free segments could not be given back to the host: \(error)") }
    }

    /// Tells all who wait what was gained so far.
    func endTrim() {
        let (waiters, byteCount) = state.withLock { state -> ([@Sendable (UInt64) -> Void], UInt64) in
            guard let trim = state.trim else { return ([], 0) }
            state.trim = nil
            let table = state.core.table
            let files = UInt64(max(0, trim.fileCount - table.fileCount) * table.segmentByteCount)
            return (trim.waiters, files + state.punchedByteCount - trim.punchedByteCount)
        }
        for waiter in waiters { waiter(byteCount) }
    }
}
