// A mounted store: the core behind its lock, and everything that happens outside it: submissions, completions, parked operations,
// that wait. FuseServer runs the core's operations by `run`; the housekeeper (Housekeeper/) keeps it in order.

/// What a mount may choose about the file system.
struct VolumeOptions: Sendable {
    /// What a person chose, a line "name=value" for each option; for those who ask a mount what it was made with.
    var chosenText = ""
    enum Acknowledgement: String, Sendable, CaseIterable {
        /// When the record is in staging, which outlives the process.
        case staged
        /// When its batch's write has completed.
        case written
        /// When it is durable.
        case durable
    }

    var isReadOnly = false
    var acknowledgement = Acknowledgement.staged
    var stagingByteCount = 16 << 20
    var indexCacheByteCount = 256 << 20
    /// Everything acknowledged is durable at the latest after this long.
    var commitIntervalNanoseconds: UInt64 = 5_000_000_000
    /// A checkpoint comes at the latest after this much log, or this long.
    var checkpointByteCount: UInt64 = 128 << 20
    var checkpointIntervalNanoseconds: UInt64 = 30_000_000_000
    /// Recycled segments kept ready; more are given back to the host.
    var poolLimit = 8
    /// Which reads change the time of the last access.
    var accessTimes = AccessTimes()
    /// Whether POSIX access control lists are taken.
    var keepsAccessLists = true
    var cleaning = CleaningPolicy.auto
    /// What a successor takes over from this process, should it be killed; nil where there is no supervisor.
    var connection: ConnectionState?
    /// Shorter pieces of dead data are not punched out of a segment.
    var punchByteCountMinimum = 256 << 10
    var bounds = WorkBounds()
    /// How often it is tried to write the log again on a host that has no room for it, before those who wait are told that it is full. A try
    /// comes every 200 ms at the earliest.
    var lateTryLimit = 25
}

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
    /// One beginning of a scrub at a time.
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
    /// The log has failed and is to be written again elsewhere.
    var isLogSuspended: Bool { state.withLock { $0.core.log.suspension != nil } }
    /// Nothing is written any more.
    var isOver: Bool { state.withLock { $0.core.isOver } }

    // MARK: Running operations

    /// Runs an operation under the lock; hands what it submitted to the device afterwards. A request does not wait for room where it would
    /// wait in vain; what keeps the store may, as long as the log is not closed.
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

    /// Lets a blocked operation wait; `retry` runs exactly once when it may try again: on another thread, or, where
    /// `mayWait`, on this one after its page was read here. It is told whether it runs within this call.
    ///
    /// Give back the attempt that a retry was given; it holds the pages fetched so far.
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
            // A batch that the blocked operation closed goes out whatever becomes of the operation.
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

    /// Runs a parked operation again, as often as what it comes to wait for is there by the time that it has been parked. Where that
    /// comes while an earlier run is still on its way out, on this thread or another, the one that ran it goes on: so nothing is
    /// nested, and the pages that it holds are let go only at its end. `isWithin`: the call that parked it has not returned.
    func resume(_ waiter: VolumeState.Waiter, isWithin: Bool) {
        let attempt = waiter.attempt
        var next = state.withLock { $0.begin(attempt, waiter.retry) }
        while let retry = next {
            retry(attempt, isWithin)
            next = state.withLock { $0.end(attempt) }
        }
        // Whoever waits for its outcome, or for all to be over, looks again.
        wakeThreads()
    }

    // MARK: Completions

    /// Takes any completion, from the device's threads or from `perform`. `parking`: whose call of `park` has had it performed.
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

    /// The kernel forgets an inode as often as that. Never fails. An orphan that nobody knows any more is removed, now or by the housekeeper.
    func forget(_ inode: InodeNumber, _ count: UInt64) {
        // Counted in any case; `run` may refuse to run anything.
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
            // The housekeeper does it, and fetches what it needs itself.
            if case .blocked(let blocker) = error, let miss = blocker.miss {
                change { $0.abandonFetch(miss.address, $1) }
            }
            housekeeper.kick()
        }
    }

    /// A number that other stores most likely do not have.
    var generation: UInt32 { state.withLock { UInt32(truncatingIfNeeded: $0.superblock.uuid.low) } | 1 }

    /// Without access control lists the kernel heeds none, so none are taken.
    func useAccessLists(_ isWanted: Bool) { state.withLock { $0.core.keepsAccessLists = isWanted } }

    // MARK: Durability

    /// Calls `done` exactly once: with nil when everything acknowledged before this call is durable, else with EIO. A request does not wait
    /// for a host that is full for long: it gets ENOSPC, and nothing is lost.
    func sync(mayWait: Bool, isRequest: Bool = false, _ done: @escaping @Sendable (Errno?) -> Void) {
        if let outcome = commit(mayWait: mayWait, isDurable: true, isRequest: isRequest, done) { done(outcome) }
    }

    /// Calls `done` when the operations acknowledged so far may be answered under `ack=written` or `ack=durable`; it is told whether that
    /// is within this call.
    func whenAcknowledged(mayWait: Bool, _ done: @escaping @Sendable (Errno?, _ isWithin: Bool) -> Void) {
        let isDurable = options.acknowledgement == .durable
        let outcome = commit(mayWait: mayWait, isDurable: isDurable, isRequest: true) { done($0, false) }
        if let outcome { done(outcome, true) }
    }

    /// Gives the outcome where it is there before this returns; else `done` is told it later.
    private func commit(
        mayWait: Bool, isDurable: Bool, isRequest: Bool, _ done: @escaping @Sendable (Errno?) -> Void
    ) -> Errno?? {
        var submissions: [Submission] = []
        var batch = BatchSequence.zero
        var outcome = state.withLock { state -> Errno?? in
            let log = state.core.log
            if log.isClosed { return .some(.ioError) }
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

    /// Carries out a plan, and plans what is left of it. `done` is called exactly once: before this returns where nothing has to be read
    /// or `mayWait`, else from a completion. It is told whether it is called within this call.
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

    /// Does a part's reads on this thread.
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

    /// Gives a plan's memory back once its reply is sent.
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
