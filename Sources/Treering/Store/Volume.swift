// A mounted store: the core behind its lock, and what happens outside the lock: submissions, completions, parked
// operations. FuseServer runs the core's operations by `run`; the housekeeper (Housekeeper/) keeps the store in order.

/// The file system over one store. All calls may be made from any thread.
final class Volume<D: Device>: @unchecked Sendable {
    let device: D
    let options: VolumeOptions
    let state: Guarded<VolumeState>
    /// For threads that wait for a completion.
    let monitor = Monitor()
    let completionSignal: Condition
    /// Guarded by `monitor`.
    var completionCount: UInt64 = 0
    var waitingThreadCount = 0
    /// Keeps the store in order, on a thread of its own.
    let housekeeper: Housekeeper<D>
    /// How writers are held back: set by the housekeeper, read with each write.
    let writePace = WritePace()
    /// Lets one scrub begin at a time.
    let scrubGate = Monitor()
    /// Changed by control calls, one at a time.
    nonisolated(unsafe) var scrubThread: DeviceThread?
    let log: @Sendable (String) -> Void

    init(device: D, options: VolumeOptions, state: VolumeState, log: @escaping @Sendable (String) -> Void) {
        self.device = device
        self.options = options
        self.log = log
        self.state = Guarded(state)
        completionSignal = Condition(monitor)
        housekeeper = Housekeeper(device: device, options: options, state: self.state, log: log)
        housekeeper.volume = self
    }

    var acknowledgesStaged: Bool { options.acknowledgement == .staged }
    var maxWriteByteCount: Int { state.withLock { $0.core.writeByteCountLimit } }
    var isReadOnly: Bool { state.withLock { $0.core.isReadOnly } }
    /// Whether a read-only mount shows less than what a mount for writing would recover, from the staging of a killed one.
    var isBehindStaging: Bool { state.withLock { $0.isBehindStaging } }
    /// Whether the log has failed and waits for its relocation.
    var isLogSuspended: Bool { state.withLock { $0.core.log.suspension != nil } }
    /// Whether nothing is written any more.
    var isOver: Bool { state.withLock { $0.core.isOver } }

    // MARK: Running operations

    /// Runs an operation under the lock, then hands what it submitted to the device. A request that waits for room in
    /// vain fails (`VolumeState.isVainToWait`). Other operations (`isRequest` false) wait as long as the log is open.
    @inline(__always)
    func run<Result>(
        isRequest: Bool = true, _ operation: (Core) throws(Stop) -> Result
    ) throws(Stop) -> Result {
        var submissions: [Submission] = []
        var needsHousekeeping = false
        defer {
            if !submissions.isEmpty { device.submit(submissions) }
            if needsHousekeeping { housekeeper.kick() }
        }
        return try state.withLock { (state) throws(Stop) -> Result in
            let core = state.core
            defer {
                if !core.log.outbox.isEmpty { swap(&submissions, &core.log.outbox) }
                needsHousekeeping = core.wantsHousekeeping
                core.index.tree.evict()
            }
            do throws(Stop) {
                if core.isShutDown { throw .failed(.ioError) }
                guard core.log.suspension == nil || isRequest && state.isBetweenTries else { throw .blocked(.room) }
                return try operation(core)
            } catch {
                switch error {
                case .blocked(.page(let miss)), .blocked(.pageAhead(let miss)):
                    if state.badPages.contains(miss.pointer) { throw .failed(.ioError) }
                    state.beginFetch(miss)
                case .blocked(.room):
                    if isRequest ? state.isVainToWait : core.isOver { throw .failed(core.endError) }
                default: break
                }
                throw error
            }
        }
    }

    /// Lets a blocked operation wait. `retry` runs exactly once, when the operation may try again: on another thread
    /// or, with `mayWait`, on this one after its page was read here. It is told whether it runs within this call.
    ///
    /// A retry that blocks again must pass the attempt it was given: the attempt holds the pages fetched so far.
    func park(
        _ blocker: Blocker, _ attempt: Attempt?, mayWait: Bool,
        _ retry: @escaping Attempt.Retry
    ) {
        let attempt = attempt ?? Attempt()
        var submissions: [Submission] = []
        let now = state.withLock { state in
            defer {
                submissions.append(contentsOf: state.core.log.outbox)
                state.core.log.outbox.removeAll(keepingCapacity: true)
            }
            return state.park(blocker, attempt, &submissions, retry)
        }
        if let now {
            // A batch that the operation closed is submitted, whatever becomes of the operation.
            if !submissions.isEmpty { device.submit(submissions) }
            resume(now, isWithin: true)
            return
        }
        if case .room = blocker {
            device.submit(submissions)
            housekeeper.kick()
        } else if mayWait, submissions.count == 1 {
            complete(device.perform(submissions[0]), parking: attempt)
        } else if !submissions.isEmpty {
            device.submit(submissions)
        }
    }

    /// Runs a parked operation again. If it parks and its wait ends while it is still running, on this thread or
    /// another, the thread that runs it runs it once more. So runs never nest, and the held pages are let go only at
    /// the end. `isWithin`: the call that parked it has not returned.
    func resume(_ waiter: VolumeState.Waiter, isWithin: Bool) {
        let attempt = waiter.attempt
        var next = state.withLock { $0.begin(attempt, waiter.retry) }
        while let retry = next {
            retry(attempt, isWithin)
            next = state.withLock { $0.end(attempt) }
        }
        // Those who wait for its outcome, or for the end of all requests, check again.
        wakeThreads()
    }

    // MARK: Completions

    /// Takes a completion, from the device's threads or from `perform`. `parking`: the attempt whose `park` performed
    /// the read.
    func complete(_ completion: Completion, parking attempt: Attempt? = nil) {
        switch completion.tag & LogTag.kindMask {
        case VolumeTag.page:
            var ready: [VolumeState.Waiter] = []
            change { state, telling in state.pageCompleted(completion, &ready, telling) }
            for waiter in ready { resume(waiter, isWithin: waiter.attempt === attempt) }
        case VolumeTag.plan:
            let (plan, index) = state.withLock { $0.plan(of: completion.tag) }
            let damage = plan.accept(index, completion)
            if let (plan, done) = state.withLock({ $0.readCompleted(completion.tag, damage) }) {
                done(plan)
            }
            wakeThreads()
        default:
            change { state, telling in state.core.log.completed(completion, telling) }
        }
    }

    // MARK: What the kernel knows

    /// The kernel drops `count` lookups of an inode. Never fails. An orphan that the kernel has forgotten is removed,
    /// now or by the housekeeper.
    func forget(_ inode: InodeNumber, _ count: UInt64) {
        // Count this outside `run`, which may refuse to run anything.
        let isOrphan = state.withLock { state in
            state.core.forget(inode, count)
            return state.core.reapable.last == inode && !state.core.isOver
        }
        guard isOrphan else { return }
        do throws(Stop) {
            try run { (core) throws(Stop) in
                guard core.reapable.last == inode else { return }
                try core.reap(inode)
                core.reapable.removeLast()
            }
        } catch {
            // The housekeeper removes the orphan, and fetches the pages that it needs.
            if case .blocked(let blocker) = error, let miss = blocker.miss {
                change { $0.abandonFetch(miss.address, $1) }
            }
            housekeeper.kick()
        }
    }

    /// A number that most likely differs from that of other stores.
    var generation: UInt32 { state.withLock { UInt32(truncatingIfNeeded: $0.superblock.uuid.low) } | 1 }

    /// Where the kernel does not heed access control lists, the store must not take any.
    func useAccessLists(_ isWanted: Bool) { state.withLock { $0.core.keepsAccessLists = isWanted } }

    // MARK: Durability

    /// Calls `done` exactly once: with nil when everything acknowledged before this call is durable, else with an error
    /// (EIO). A request does not wait long for a full host: it gets ENOSPC, and nothing is lost.
    func sync(mayWait: Bool, isRequest: Bool = false, _ done: @escaping @Sendable (Errno?) -> Void) {
        if let outcome = commit(mayWait: mayWait, isDurable: true, isRequest: isRequest, done) { done(outcome) }
    }

    /// Calls `done` when the operations acknowledged so far may be answered under `ack=written` or `ack=durable`. It is
    /// told whether that is within this call.
    func whenAcknowledged(mayWait: Bool, _ done: @escaping @Sendable (Errno?, _ isWithin: Bool) -> Void) {
        let isDurable = options.acknowledgement == .durable
        let outcome = commit(mayWait: mayWait, isDurable: isDurable, isRequest: true) { done($0, false) }
        if let outcome { done(outcome, true) }
    }

    /// Gives the outcome if it is known before this returns. Otherwise gives nil, and `done` gets the outcome later.
    private func commit(
        mayWait: Bool, isDurable: Bool, isRequest: Bool, _ done: @escaping @Sendable (Errno?) -> Void
    ) -> Errno?? {
        var submissions: [Submission] = []
        var batch = BatchSequence.zero
        var outcome = state.withLock { state -> Errno?? in
            let log = state.core.log
            if log.isClosed { return .some(.ioError) }
            state.core.packOpenBatch()
            if isDurable { log.requestDurable() } else { log.closeBatch(durable: false) }
            batch = log.lastBatch
            swap(&submissions, &log.outbox)
            if mayWait, submissions.count == 1 { return nil }
            return state.waitCommitted(batch, isDurable: isDurable, isRequest: isRequest, done)
        }
        if mayWait, submissions.count == 1 {
            complete(device.perform(submissions[0]))
            outcome = state.withLock { $0.waitCommitted(batch, isDurable: isDurable, isRequest: isRequest, done) }
        } else if !submissions.isEmpty {
            device.submit(submissions)
        }
        return outcome
    }

    // MARK: Reading

    typealias ReadDone = @Sendable (ReadPlan, Errno?, _ isWithin: Bool) -> Void

    /// Carries out a plan, and plans the rest of it. Calls `done` exactly once: before this returns if nothing has to
    /// be read or with `mayWait`, otherwise from a completion. It is told whether it is called within this call.
    func execute(_ plan: ReadPlan, mayWait: Bool, _ done: @escaping ReadDone) {
        goOn(plan, nil, mayWait: mayWait, isWithin: true, done)
    }

    private func goOn(
        _ plan: ReadPlan, _ attempt: Attempt?, mayWait: Bool, isWithin: Bool, _ done: @escaping ReadDone
    ) {
        while plan.failure == nil, plan.needsIO {
            do throws(Stop) {
                if plan.reads.isEmpty { try run { (core) throws(Stop) in try core.planOn(plan) } }
            } catch {
                switch error {
                case .failed(let errno):
                    state.withLock { $0.finished(plan, []) }
                    plan.failure = errno
                case .blocked(let blocker):
                    return park(blocker, attempt, mayWait: mayWait) { [self] attempt, isWithinPark in
                        goOn(plan, attempt, mayWait: false, isWithin: isWithin && isWithinPark, done)
                    }
                }
            }
            if plan.reads.isEmpty { continue }
            guard mayWait && plan.reads.count <= 2 else {
                let submissions = state.withLock { state in
                    state.begin(plan) { [self] plan in goOn(plan, nil, mayWait: false, isWithin: false, done) }
                }
                return device.submit(submissions)
            }
            readNow(plan)
        }
        done(plan, plan.failure, isWithin)
    }

    /// Does the reads of a part of the plan on this thread.
    private func readNow(_ plan: ReadPlan) {
        var damages: [CorruptionReport] = []
        for (index, read) in plan.reads.enumerated() {
            let completion = device.perform(
                Submission(.read, read.file, offset: read.position, read.memory, tag: VolumeTag.plan))
            if let damage = plan.accept(index, completion) { damages.append(damage) }
        }
        state.withLock { $0.finished(plan, damages) }
        wakeThreads()
    }

    /// Gives a plan's memory back, after its reply was sent.
    func recycle(_ plan: ReadPlan) { state.withLock { $0.core.recycle(plan) } }
}

extension Core {
    /// Whether the housekeeper has something to do before its next regular round.
    var wantsHousekeeping: Bool {
        log.space.wantsPreparedSegment || log.hasOpenedHead || !reapable.isEmpty
            || index.tree.needsCheckpoint && index.tree.checkpointInFlight == nil
            || !index.removals.isEmpty || !crowded.isEmpty
    }
}
