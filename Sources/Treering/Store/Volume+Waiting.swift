// Waiting, and telling those who wait. Only `change` may change what somebody waits for: such changes need a `Telling`.

import Synchronization

extension Volume {
    // MARK: Telling

    /// Changes, under the lock, what somebody may wait for. Then tells all who wait: replies for a batch, threads,
    /// operations that found no room.
    @discardableResult
    func change<Result>(_ body: (VolumeState, borrowing Telling) -> Result) -> Result {
        var continuations: [Continuation] = []
        var submissions: [Submission] = []
        var isSuspended = false
        var hasRoomWaiters = false
        return state.change { (state, telling) -> Result in
            let result = body(state, telling)
            let log = state.core.log
            state.takeCommitted(&continuations)
            if !log.outbox.isEmpty { swap(&submissions, &log.outbox) }
            isSuspended = log.suspension != nil
            hasRoomWaiters = state.hasRoomWaiters
            return result
        } tell: {
            if isSuspended { housekeeper.kick() }
            if !submissions.isEmpty { device.submit(submissions) }
            for continuation in continuations { continuation() }
            wakeThreads()
            if hasRoomWaiters { wakeRoomWaiters() }
        }
    }

    /// Lets waiting threads check their conditions again.
    func wakeThreads() {
        monitor.withLock {
            completionCount &+= 1
            if waitingThreadCount > 0 { completionSignal.broadcast() }
        }
    }

    /// Runs the operations again that found no room, in order, while there may be room or waiting would be in vain.
    func wakeRoomWaiters() {
        var count = state.withLock { $0.roomWaiterCount }
        while count > 0, let waiter = state.withLock({ $0.takeRoomWaiter() }) {
            resume(waiter, isWithin: false)
            count -= 1
        }
    }

    /// Ends the requests of a mount. Those that wait for room get an error; those that wait for I/O get their result.
    /// Returns when nobody waits any more. Requests that come later never wait for room.
    func finishRequests() {
        change { state, telling in state.core.endRequests(telling) }
        housekeeper.endTrim()
        housekeeper.endResize(.failed(.ioError))
        housekeeper.endDefragmenting()
        wait { !$0.hasWaiters }
    }

    // MARK: Waiting

    /// Waits until `condition` holds. I/O in flight must make it true, whatever becomes of the log. For the
    /// housekeeper, mount and unmount; a relocation is done here if it is needed.
    func wait(until condition: (VolumeState) -> Bool) {
        while true {
            let seen = completionsSeen
            if state.withLock(condition) { return }
            if housekeeper.isOwnThread, housekeeper.relocateWhereSuspended() { continue }
            waitForCompletion(since: seen)
        }
    }

    /// Waits until a condition of the log holds. EIO once the log is closed.
    func waitForLog(until condition: (SegmentLog) -> Bool) throws(Errno) {
        wait { $0.core.log.isClosed || condition($0.core.log) }
        if state.withLock({ $0.core.log.isClosed }) { throw .ioError }
    }

    /// A count of completions, for `waitForCompletion`.
    var completionsSeen: UInt64 { monitor.withLock { completionCount } }

    /// Waits until something has completed since `seen` was taken.
    func waitForCompletion(since seen: UInt64) {
        if device.makeProgress() { return }
        monitor.withLock {
            waitingThreadCount += 1
            while completionCount == seen { completionSignal.wait() }
            waitingThreadCount -= 1
        }
    }

    // MARK: Operations that wait for their result

    /// Runs an operation to its end, fetching pages and making room as needed.
    func perform<Result>(_ operation: (Core) throws(Stop) -> Result) throws(Errno) -> Result {
        try housekeeper.runWaiting(operation)
    }

    /// Carries out a planned read and gives its bytes.
    func bytes(_ plan: (Core) throws(Stop) -> ReadPlan) throws(Errno) -> [UInt8] {
        let plan = try perform(plan)
        let box = ResultBox()
        execute(plan, mayWait: true) { plan, error, _ in
            box.error = error
            if error == nil { box.bytes = Array(plan.bytes) }
            box.isDone.store(true, ordering: .releasing)
        }
        wait { _ in box.isDone.load(ordering: .acquiring) }
        recycle(plan)
        if let error = box.error { throw error }
        return box.bytes
    }

    /// Makes everything done so far durable.
    func syncAndWait() throws(Errno) {
        let box = ResultBox()
        sync(mayWait: true) { error in
            box.error = error
            box.isDone.store(true, ordering: .releasing)
        }
        wait { _ in box.isDone.load(ordering: .acquiring) }
        if let error = box.error { throw error }
    }
}

/// An outcome on its way from the thread that has it to the one that waits.
private final class ResultBox: @unchecked Sendable {
    /// Set when the rest is written.
    let isDone = Atomic<Bool>(false)
    var error: Errno?
    var bytes: [UInt8] = []
}
