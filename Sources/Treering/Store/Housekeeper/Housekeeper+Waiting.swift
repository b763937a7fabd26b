// How the housekeeper, mount, unmount and a scrub run operations: they fetch missing pages themselves, and the
// housekeeper makes room itself.

extension Housekeeper {
    /// Runs an operation that is no request, again and again until it has what it needs. Throws what the operation
    /// fails with; without `makesRoom` also ENOSPC, where it would have to wait for room.
    func runWaiting<Result>(
        makesRoom: Bool = true, _ operation: (Core) throws(Stop) -> Result
    ) throws(Errno) -> Result {
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
                case .blocked(.room):
                    guard makesRoom else { throw .noSpace }
                    try provideRoom()
                case .blocked(.identity): preconditionFailure("an operation without a process was given no identity")
                }
            }
        }
    }

    /// Brings a missed page: reads it here if nobody has submitted its read yet, or else waits for it. Then holds the
    /// page.
    private func fetch(_ miss: PageMiss, _ pages: inout [HeldPage]) {
        if let submission = state.withLock({ $0.takeSubmission(miss.address) }) {
            let completion = device.perform(submission)
            var ready: [VolumeState.Waiter] = []
            // The page is held before anybody else runs, who might have it evicted again.
            let page = volume.change { state, telling -> HeldPage? in
                state.pageCompleted(completion, &ready, telling)
                return HeldPage(state.core.index.tree, miss.address)
            }
            if let page { pages.append(page) }
            for waiter in ready { volume.resume(waiter, isWithin: false) }
            return
        }
        // The page may have been read, dropped and missed again meanwhile; then its fetch waits for a submitter.
        volume.wait { !$0.isFetching(miss.address) || $0.isUnsubmitted(miss.address) }
        if let page = state.withLock({ HeldPage($0.core.index.tree, miss.address) }) { pages.append(page) }
    }

    /// Makes room for an operation that found none.
    private func provideRoom() throws(Errno) {
        // No operation runs during a relocation, and a checkpoint must not.
        if state.withLock({ $0.core.log.suspension != nil }) { return try volume.waitForLog { $0.suspension == nil } }
        if !isOwnThread {
            // This thread is a scrub's. Only the housekeeper makes room.
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
        // An allocation waits for the removals of its own file. One that finds the store full waits for all removals.
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
