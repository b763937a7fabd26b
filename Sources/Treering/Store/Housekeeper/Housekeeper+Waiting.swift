// How the housekeeper, mount and unmount run operations: they wait for pages, and make room themselves.

extension Housekeeper {
    /// Runs an operation of the housekeeper (or of mount and unmount), waiting for what it needs. Nil on failure.
    func runWaiting<Result>(_ operation: (Core) throws(Stop) -> Result) throws(Errno) -> Result {
        var pages: [HeldPage] = []
        defer { state.withLock { _ in pages.letGo(butLast: 0) } }
        while true {
            do throws(Stop) { return try volume.run(isRequest: false, operation) } catch {
                switch error {
                case .failed(let errno): throw errno
                case .blocked(.page(let miss)): fetch(miss, &pages)
                case .blocked(.pageAhead(let miss)):
                    fetch(miss, &pages)
                    state.withLock { _ in pages.letGo(butLast: Attempt.aheadPageCount) }
                case .blocked(.turn): state.withLock { _ in pages.letGo(butLast: Attempt.aheadPageCount) }
                case .blocked(.room): try provideRoom()
                case .blocked(.identity): preconditionFailure("an operation without a process was given no identity")
                }
            }
        }
    }

    /// Waits for a page whose fetch has begun.
    private func fetch(_ miss: PageMiss, _ pages: inout [HeldPage]) {
        if let submission = state.withLock({ $0.takeSubmission(miss.address) }) {
            volume.complete(device.perform(submission))
        }
        // It may have been read, dropped and missed again meanwhile.
        volume.wait { !$0.isFetching(miss.address) || $0.isUnsubmitted(miss.address) }
        if let page = state.withLock({ HeldPage($0.core.index.tree, miss.address) }) { pages.append(page) }
    }

    /// What the housekeeper does when one of its own operations finds no room.
    private func provideRoom() throws(Errno) {
        // While the log is written again elsewhere nothing runs, a checkpoint least of all.
        if state.withLock({ $0.core.log.suspension != nil }) { return try volume.waitForLog { $0.suspension == nil } }
        if !isOwnThread {
            // A scrub, which waited for the log; the rest is the housekeeper's.
            kick()
            rest(nanoseconds: 1_000_000)
            return
        }
        if thread == nil, state.withLock({ $0.core.log.space.isHostFull }) { refreshHostSpace() }
        if state.withLock({ $0.core.log.space.wantsPreparedSegment }) { prepareSegment() }
        if state.withLock({ $0.core.isDirtyLimitReached }) {
            checkpointReporting()
            let isStuck = state.withLock { $0.core.isDirtyLimitReached && !$0.core.log.isClosed }
            if isStuck { throw .noSpace }
        }
        if state.withLock({ $0.core.log.space.isShortOfSegments }) {
            if underWay.contains(.cleaning) { freeDeadSegments() } else { _ = reclaim() }
        }
        // An allocation waits for the removals of its file, and whoever finds the store full for all of them.
        if !underWay.contains(.removing),
            state.withLock({ !$0.core.index.removals.isEmpty || !$0.core.reapable.isEmpty })
        {
            reapOrphans()
            finishRemovals()
        }
        joinCrowded()
        try volume.waitForLog { $0.suspension == nil && $0.hasFreeSlot }
    }
}
