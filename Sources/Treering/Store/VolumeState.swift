// What a volume keeps under its lock besides the core: who waits for what, and what is in flight.

/// What a completion's tag means; the log's tags are its own.
enum VolumeTag {
    /// A page fetch; the number is the page's address.
    static let page: UInt64 = 3 << 56
    /// A planned read; bits 55–16 the plan's slot, bits 15–0 the read within it, of which there are `WorkBounds.readCountLimit` at most.
    static let plan: UInt64 = 4 << 56
}

/// An operation that had to wait at least once, until it has run to its end. It holds the pages that were fetched for it.
final class Attempt: @unchecked Sendable {
    fileprivate(set) var pages: [HeldPage] = []
    /// It waits, in one place, or was taken from there and is about to be run again.
    fileprivate var isWaiting = false
    /// Somebody runs it, and runs `next` when that is over.
    fileprivate var isRunning = false
    fileprivate var next: Retry?

    /// Runs the operation again. `isWithin`: within the call that parked it, and on its thread.
    typealias Retry = @Sendable (Attempt, _ isWithin: Bool) -> Void

    /// Pages that an operation which goes on where it was may hold: the way from the root to a leaf, in each of two places.
    static let aheadPageCount = 2 * Index.pathCapacity
}

/// A hold on a page of the index that was in use when it was taken.
struct HeldPage {
    private let tree: Index
    private let pin: PagePin

    /// Nil where the page is not in memory.
    init?(_ tree: Index, _ address: PageAddress) {
        guard let pin = tree.pin(address) else { return nil }
        self.tree = tree
        self.pin = pin
    }

    func letGo() { tree.unpin(pin) }
}

extension [HeldPage] {
    /// Lets go of all but the last few.
    mutating func letGo(butLast count: Int) {
        guard self.count > count else { return }
        for page in dropLast(count) { page.letGo() }
        removeFirst(self.count - count)
    }
}

/// Work to be done when the lock is free again: replies and retries.
typealias Continuation = @Sendable () -> Void

final class VolumeState {
    struct Waiter {
        var attempt: Attempt
        var retry: Attempt.Retry
    }

    let core: Core
    private struct PendingFetch {
        var fetch: PageFetch
        var waiters: [Waiter] = []
        /// Until the first who waits takes it.
        var submission: Submission?
    }

    /// By address alone: a page that is not in memory keeps its address until it is.
    private var fetches: [PageAddress: PendingFetch] = [:]
    private var roomWaiters: [Waiter] = []
    /// Waiters that were taken out and are being run again.
    private var resumedCount = 0
    private struct CommitWaiter {
        var batch: BatchSequence
        var isRequest: Bool
        var done: @Sendable (Errno?) -> Void
    }
    private var durabilityWaiters: [CommitWaiter] = []
    private var writtenWaiters: [CommitWaiter] = []
    private var plans: [(plan: ReadPlan, done: @Sendable (ReadPlan) -> Void)?] = []
    private var freePlans: [Int] = []
    /// Pages that could not be read or are damaged: what needs them fails.
    private(set) var badPages: Set<PagePointer> = []
    let indexFile: DeviceFile
    /// Both stay open as long as the mount: what is written to them must not depend on whether a file can be opened.
    let superblockFile: DeviceFile
    /// The last one that was written whole, and nothing else: a recovery of this mount begins with it.
    private(set) var superblock: Superblock
    /// What was written to the log before this mount, since formatting.
    var writtenBefore = WrittenByteCounts()
    /// The generation and checkpoint in each slot of the superblock.
    private(set) var slots: [(generation: UInt64, checkpoint: CheckpointNumber)]
    /// Where the sweep of tombstones goes on; nil when there is nothing to sweep.
    var sweepCursor: IndexKey?
    /// The record sequence at which this mount went on with the log.
    var recoveredSequence = RecordSequence.zero
    /// Dead data punched out of segments since the mount.
    var punchedByteCount: UInt64 = 0
    /// The store is becoming smaller or larger.
    var resize: Resize?
    /// Who asked for free space to go back to the host.
    var trim: Trim?
    /// The scrub that runs, or the last one, and the one before while one runs.
    var scrub: ScrubStatus?
    var lastScrub: ScrubStatus?
    /// The mount ends.
    var mayNotScrub = false
    /// Reads of a scrub in flight; the log is not written again elsewhere meanwhile.
    private(set) var scrubReadCount = 0
    var checkpointCount = 0
    var reapedCount = 0
    var parkedCount = 0
    /// The most pages that one parked operation held.
    private(set) var heldPageCountPeak = 0
    /// How often the log was written again at new addresses, and whether that is going on.
    var relocationCount = 0
    private(set) var isRelocating = false
    /// How often in a row that failed for want of something on the host; and with how many tries writers are told.
    private(set) var lateTryCount = 0
    private let lateTryLimit: Int

    init(
        core: Core, indexFile: DeviceFile, superblockFile: DeviceFile, superblock: Superblock,
        slots: [(generation: UInt64, checkpoint: CheckpointNumber)], lateTryLimit: Int
    ) {
        self.core = core
        self.lateTryLimit = lateTryLimit
        self.indexFile = indexFile
        self.superblockFile = superblockFile
        self.superblock = superblock
        self.slots = slots
    }

    /// A superblock is durable in a slot.
    func wrote(_ superblock: Superblock, slot: Int) {
        let newest = slots.map(\.generation).max()!
        precondition(
            superblock.generation > newest && superblock.epoch >= self.superblock.epoch
                && superblock.highestSequence >= self.superblock.highestSequence
                && superblock.checkpoint >= self.superblock.checkpoint, "a superblock goes back behind the one before")
        slots[slot] = (superblock.generation, superblock.checkpoint)
        self.superblock = superblock
    }

    // MARK: Parking

    /// Lets an operation wait. Gives it back at once when what it waits for is there already.
    func park(
        _ blocker: Blocker, _ attempt: Attempt, _ submissions: inout [Submission],
        _ retry: @escaping Attempt.Retry
    ) -> Waiter? {
        parkedCount += 1
        let waiter = Waiter(attempt: attempt, retry: retry)
        precondition(!attempt.isWaiting, "an operation waits in two places")
        attempt.isWaiting = true
        switch blocker {
        case .identity: preconditionFailure("who asks is found out at once, not waited for")
        case .room:
            if isVainToWait { return goOn(waiter) }
            roomWaiters.append(waiter)
            return nil
        case .turn:
            attempt.pages.letGo(butLast: Attempt.aheadPageCount)
            return goOn(waiter)
        case .page(let miss), .pageAhead(let miss):
            if case .pageAhead = blocker { attempt.pages.letGo(butLast: Attempt.aheadPageCount - 1) }
            guard fetches[miss.address] != nil else { return goOn(waiter) }
            fetches[miss.address]!.waiters.append(waiter)
            if let submission = takeSubmission(miss.address) { submissions.append(submission) }
            return nil
        }
    }

    /// A waiter is to be run again; `begin` and `end` follow.
    private func goOn(_ waiter: Waiter) -> Waiter {
        resumedCount += 1
        return waiter
    }

    /// Whether a request waits, or one that has waited runs again.
    var hasWaiters: Bool {
        resumedCount > 0 || !roomWaiters.isEmpty || fetches.values.contains { !$0.waiters.isEmpty }
            || !durabilityWaiters.isEmpty || !writtenWaiters.isEmpty || plans.count > freePlans.count
    }

    /// An operation missed a page: its fetch begins under the same hold of the lock, since the page could move later. Whoever
    /// waits for it first submits it.
    func beginFetch(_ miss: PageMiss) {
        guard fetches[miss.address] == nil else { return }
        let fetch = core.index.tree.beginFetch(miss)
        let submission = Submission(
            .read, indexFile, offset: miss.offsetInFile, fetch.buffer,
            tag: VolumeTag.page | UInt64(miss.address.rawValue))
        fetches[miss.address] = PendingFetch(fetch: fetch, submission: submission)
    }

    var hasFetches: Bool { !fetches.isEmpty }

    func isFetching(_ address: PageAddress) -> Bool { fetches[address] != nil }

    /// Nobody waits for a page after all: unless somebody else does by now, it is not read.
    func abandonFetch(_ address: PageAddress, _: borrowing Telling) {
        guard let pending = fetches[address], pending.submission != nil, pending.waiters.isEmpty else { return }
        fetches[address] = nil
        core.index.tree.cancelFetch(pending.fetch)
    }

    /// Whether a page's fetch has begun and waits for somebody to submit it.
    func isUnsubmitted(_ address: PageAddress) -> Bool { fetches[address]?.submission != nil }

    /// The read of a page that nobody has submitted yet.
    func takeSubmission(_ address: PageAddress) -> Submission? {
        defer { fetches[address]?.submission = nil }
        return fetches[address]?.submission
    }

    /// A page was read: those who wait for it run again.
    func pageCompleted(_ completion: Completion, _ ready: inout [Waiter], _: borrowing Telling) {
        let address = PageAddress(UInt32(truncatingIfNeeded: completion.tag))
        guard let pending = fetches.removeValue(forKey: address) else { preconditionFailure("page never asked for") }
        let fetch = pending.fetch
        let waiters = pending.waiters
        let tree = core.index.tree
        if completion.result == fetch.buffer.count {
            do throws(CorruptionReport) { try tree.install(fetch) } catch { bad(fetch.miss.pointer, error) }
        } else {
            tree.cancelFetch(fetch)
            let reason = completion.error.map { "reading failed: \($0)" } ?? "the file ends inside it"
            bad(fetch.miss.pointer, CorruptionReport(place: "index page \(address.rawValue)", reason: reason))
        }
        for waiter in waiters {
            if let page = HeldPage(tree, address) { waiter.attempt.pages.append(page) }
            heldPageCountPeak = max(heldPageCountPeak, waiter.attempt.pages.count)
        }
        ready.append(contentsOf: waiters.map(goOn))
    }

    /// What could not be read may be readable again: the next operation tries.
    func forgetBadPages() { if !badPages.isEmpty { badPages.removeAll() } }

    private func bad(_ page: PagePointer, _ report: CorruptionReport) {
        badPages.insert(page)
        core.report(report)
    }

    /// The first that waits for room and may try again; nil where that would be in vain.
    func takeRoomWaiter() -> Waiter? {
        guard !roomWaiters.isEmpty, core.mayHaveRoom || core.isVainToWait || isBetweenTries else { return nil }
        return goOn(roomWaiters.removeFirst())
    }

    var roomWaiterCount: Int { roomWaiters.count }
    var hasRoomWaiters: Bool { !roomWaiters.isEmpty }

    /// What to run now; nil where somebody runs the attempt already and will go on with this.
    func begin(_ attempt: Attempt, _ retry: @escaping Attempt.Retry) -> Attempt.Retry? {
        attempt.isWaiting = false
        guard !attempt.isRunning else {
            attempt.next = retry
            return nil
        }
        attempt.isRunning = true
        return retry
    }

    /// A run is over: what to run next. Where it does not wait any more the operation is at its end, and its pages may go.
    func end(_ attempt: Attempt) -> Attempt.Retry? {
        resumedCount -= 1
        if let next = attempt.next {
            attempt.next = nil
            return next
        }
        attempt.isRunning = false
        if !attempt.isWaiting { attempt.pages.letGo(butLast: 0) }
        return nil
    }

    // MARK: What else is waited for

    func beginRelocation() { isRelocating = true }

    /// `isLate`: the host was short of something, and it will be tried again.
    func endRelocation(isLate: Bool, _: borrowing Telling) {
        isRelocating = false
        lateTryCount = isLate ? lateTryCount + 1 : 0
        precondition(!isLate || core.log.suspension != nil || core.log.isClosed)
    }

    /// The log cannot be written now, and nobody tries: the index and what staging holds are whole, and can be read.
    var isBetweenTries: Bool { lateTryCount > 0 && !isRelocating && core.log.suspension != nil }

    /// So many tries have failed that nobody shall wait for the next one.
    var isStranded: Bool { isBetweenTries && lateTryCount >= lateTryLimit }

    /// Whether a request that found no room must fail instead of waiting.
    var isVainToWait: Bool { core.isVainToWait || isStranded }

    func beginScrubRead() { scrubReadCount += 1 }

    func endScrubRead(_: borrowing Telling) { scrubReadCount -= 1 }

    // MARK: Durability

    /// Has `done` told when a batch is durable (written). Gives the outcome where there is one already; it is told nothing then.
    func waitCommitted(
        _ batch: BatchSequence, isDurable: Bool, isRequest: Bool, _ done: @escaping @Sendable (Errno?) -> Void
    ) -> Errno?? {
        if batch <= (isDurable ? core.log.tracker.durable : core.log.tracker.written) { return .some(nil) }
        if core.log.isClosed { return .some(.ioError) }
        if isRequest && isStranded { return .some(.noSpace) }
        let waiter = CommitWaiter(batch: batch, isRequest: isRequest, done: done)
        if isDurable { durabilityWaiters.append(waiter) } else { writtenWaiters.append(waiter) }
        return nil
    }

    /// Takes out those whose batch is durable (written); everybody once the log has failed, and requests where the host has no room for it.
    func takeCommitted(_ continuations: inout [Continuation]) {
        if durabilityWaiters.isEmpty && writtenWaiters.isEmpty { return }
        take(&durabilityWaiters, through: core.log.tracker.durable, &continuations)
        take(&writtenWaiters, through: core.log.tracker.written, &continuations)
    }

    private func take(
        _ waiters: inout [CommitWaiter], through batch: BatchSequence, _ continuations: inout [Continuation]
    ) {
        var kept: [CommitWaiter] = []
        for waiter in waiters {
            if waiter.batch <= batch {
                continuations.append { waiter.done(nil) }
            } else if core.log.isClosed {
                continuations.append { waiter.done(.ioError) }
            } else if waiter.isRequest && isStranded {
                continuations.append { waiter.done(.noSpace) }
            } else {
                kept.append(waiter)
            }
        }
        waiters = kept
    }

    // MARK: Reads

    /// Registers a plan and gives the submissions that carry it out.
    func begin(_ plan: ReadPlan, _ done: @escaping @Sendable (ReadPlan) -> Void) -> [Submission] {
        let slot = freePlans.popLast() ?? plans.count
        if slot == plans.count { plans.append(nil) }
        plans[slot] = (plan, done)
        precondition(!plan.reads.isEmpty && plan.reads.count <= WorkBounds.readCountLimit)
        plan.pendingCount = plan.reads.count
        return plan.reads.enumerated().map { index, read in
            Submission(
                .read, read.file, offset: read.position, read.memory,
                tag: VolumeTag.plan | UInt64(slot) << 16 | UInt64(index))
        }
    }

    /// A part of a plan is over whose reads were done by the thread that planned it.
    func finished(_ plan: ReadPlan, _ damages: [CorruptionReport]) {
        for damage in damages { note(damage, of: plan) }
        core.finished(plan)
    }

    private func note(_ damage: CorruptionReport?, of plan: ReadPlan) {
        guard let damage else { return }
        core.report(damage)
        plan.failure = .ioError
    }

    func plan(of tag: UInt64) -> (plan: ReadPlan, read: Int) {
        (plans[Self.planSlot(tag)]!.plan, Int(tag & 0xFFFF))
    }

    private static func planSlot(_ tag: UInt64) -> Int { Int((tag & ~LogTag.kindMask) >> 16) }

    /// One read of a plan is over; gives the plan's continuation when it was the last.
    func readCompleted(_ tag: UInt64, _ damage: CorruptionReport?) -> (ReadPlan, @Sendable (ReadPlan) -> Void)? {
        let slot = Self.planSlot(tag)
        let (plan, done) = plans[slot]!
        note(damage, of: plan)
        plan.pendingCount -= 1
        guard plan.pendingCount == 0 else { return nil }
        plans[slot] = nil
        freePlans.append(slot)
        core.finished(plan)
        return (plan, done)
    }
}
