// What a volume keeps under its lock besides the core: who waits for what, and which I/O is in flight.

/// The kinds of completion tags. The log has others of its own.
enum VolumeTag {
    /// A page fetch; the number is the page's address.
    static let page: UInt64 = 3 << 56
    /// A planned read; bits 55–16 the plan's slot, bits 15–0 the read within it, of which there are `WorkBounds.readCountLimit` at most.
    static let plan: UInt64 = 4 << 56
}

/// An operation that had to wait at least once, until it ends. It holds the pages that were fetched for it.
final class Attempt: @unchecked Sendable {
    fileprivate(set) var pages: [HeldPage] = []
    /// It waits in one place, or was taken from there to be run again.
    fileprivate var isWaiting = false
    /// A thread runs it. That thread also runs `next` afterwards.
    fileprivate var isRunning = false
    fileprivate var next: Retry?

    /// Runs the operation again. `isWithin`: within the call that parked it, and on its thread.
    typealias Retry = @Sendable (Attempt, _ isWithin: Bool) -> Void

    /// How many pages an operation may hold that goes on where it was: two ways from the root to a leaf.
    static let aheadPageCount = 2 * Index.pathCapacity
}

/// A hold on a page of the index. The page stays in memory until `letGo`.
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
    /// Lets go of all but the last `count` pages.
    mutating func letGo(butLast count: Int) {
        guard self.count > count else { return }
        for page in dropLast(count) { page.letGo() }
        removeFirst(self.count - count)
    }
}

/// Work for when the lock is free again: replies and retries.
typealias Continuation = @Sendable () -> Void

final class VolumeState {
    struct Waiter {
        var attempt: Attempt
        var retry: Attempt.Retry
    }

    let core: Core
    /// See `Volume.isBehindStaging`.
    var isBehindStaging = false
    private struct PendingFetch {
        var fetch: PageFetch
        var waiters: [Waiter] = []
        /// The page's read, until the first waiter takes it to submit it.
        var submission: Submission?
    }

    /// The address is enough: a page that is not in memory keeps its address.
    private var fetches: [PageAddress: PendingFetch] = [:]
    private var roomWaiters: [Waiter] = []
    /// How many waiters were taken out and are being run again.
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
    /// Pages that could not be read or are damaged. An operation that needs one fails with EIO.
    private(set) var badPages: Set<PagePointer> = []
    let indexFile: DeviceFile
    /// Both files stay open for the whole mount: writing to them must not depend on whether a file can be opened.
    let superblockFile: DeviceFile
    /// The superblock that was last written whole, and no other. A relocation begins with it.
    private(set) var superblock: Superblock
    /// Bytes that were written to the log between formatting and this mount.
    var writtenBefore = WrittenByteCounts()
    /// The generation and checkpoint in each slot of the superblock.
    private(set) var slots: [(generation: UInt64, checkpoint: CheckpointNumber)]
    /// Where the sweep of tombstones goes on; nil when nothing is to be swept.
    var sweepCursor: IndexKey?
    /// The record sequence at which this mount went on with the log.
    var recoveredSequence = RecordSequence.zero
    /// Dead data punched out of segments since the mount.
    var punchedByteCount: UInt64 = 0
    /// The change of capacity that is under way.
    var resize: Resize?
    /// What somebody wants to have joined, the oldest first.
    var defragmentRequests: [DefragmentRequest] = []
    /// The trim that is under way.
    var trim: Trim?
    /// `scrub`: the running scrub, or else the last one. `lastScrub`: the one before, while one runs.
    var scrub: ScrubStatus?
    var lastScrub: ScrubStatus?
    /// The mount ends, so no scrub may begin.
    var mayNotScrub = false
    /// How many reads of a scrub are in flight. A relocation waits until there are none.
    private(set) var scrubReadCount = 0
    var checkpointCount = 0
    var parkedCount = 0
    /// The most pages that one parked operation held.
    private(set) var heldPageCountPeak = 0
    /// How often the log was relocated.
    var relocationCount = 0
    private(set) var isRelocating = false
    /// How many tries to relocate have failed in a row for a shortage on the host. At `lateTryLimit`, writers get an
    /// error.
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

    /// Notes that a superblock is durable in a slot.
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

    /// Lets an operation wait. If what it waits for is there already, gives the waiter back to be run at once.
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

    /// Counts a waiter that is run again. The caller must call `begin` and `end`.
    private func goOn(_ waiter: Waiter) -> Waiter {
        resumedCount += 1
        return waiter
    }

    /// Whether a request waits, or runs again after it has waited.
    var hasWaiters: Bool {
        resumedCount > 0 || !roomWaiters.isEmpty || fetches.values.contains { !$0.waiters.isEmpty }
            || !durabilityWaiters.isEmpty || !writtenWaiters.isEmpty || plans.count > freePlans.count
    }

    /// Begins the fetch of a page that an operation missed. This happens under the same hold of the lock, since the
    /// page could move later. The first waiter submits the read.
    func beginFetch(_ miss: PageMiss) {
        guard fetches[miss.address] == nil else { return }
        let fetch = core.index.tree.beginFetch(miss)
        let submission = Submission(
            .read, indexFile, offset: miss.address.offsetInFile, fetch.buffer,
            tag: VolumeTag.page | UInt64(miss.address.rawValue))
        fetches[miss.address] = PendingFetch(fetch: fetch, submission: submission)
    }

    var hasFetches: Bool { !fetches.isEmpty }

    func isFetching(_ address: PageAddress) -> Bool { fetches[address] != nil }

    /// Drops the fetch of a page that its operation does not wait for, unless somebody else does.
    func abandonFetch(_ address: PageAddress, _: borrowing Telling) {
        guard let pending = fetches[address], pending.submission != nil, pending.waiters.isEmpty else { return }
        fetches[address] = nil
        core.index.tree.cancelFetch(pending.fetch)
    }

    /// Whether a page's fetch has begun and nobody has submitted its read.
    func isUnsubmitted(_ address: PageAddress) -> Bool { fetches[address]?.submission != nil }

    /// The read of a page that nobody has submitted yet.
    func takeSubmission(_ address: PageAddress) -> Submission? {
        defer { fetches[address]?.submission = nil }
        return fetches[address]?.submission
    }

    /// Takes in a page that was read. Those who wait for it are `ready` to run again.
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

    /// Lets the next operation try to read bad pages again: the cause may have passed.
    func forgetBadPages() { if !badPages.isEmpty { badPages.removeAll() } }

    private func bad(_ page: PagePointer, _ report: CorruptionReport) {
        badPages.insert(page)
        core.report(report)
    }

    /// Takes out the first operation that waits for room, if it may try again: there may be room, or waiting is in
    /// vain.
    func takeRoomWaiter() -> Waiter? {
        guard !roomWaiters.isEmpty, core.mayHaveRoom || core.isVainToWait || isBetweenTries else { return nil }
        return goOn(roomWaiters.removeFirst())
    }

    var roomWaiterCount: Int { roomWaiters.count }
    var hasRoomWaiters: Bool { !roomWaiters.isEmpty }

    /// Begins a run of an attempt and gives what to run. Nil where the attempt is being run already: that run goes on
    /// with `retry`.
    func begin(_ attempt: Attempt, _ retry: @escaping Attempt.Retry) -> Attempt.Retry? {
        attempt.isWaiting = false
        guard !attempt.isRunning else {
            attempt.next = retry
            return nil
        }
        attempt.isRunning = true
        return retry
    }

    /// Ends a run and gives what to run next. If the operation does not wait any more, it has ended, and its pages are
    /// let go.
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

    /// `isLate`: the host was short of something, and another try follows.
    func endRelocation(isLate: Bool, _: borrowing Telling) {
        isRelocating = false
        lateTryCount = isLate ? lateTryCount + 1 : 0
        precondition(!isLate || core.log.suspension != nil || core.log.isClosed)
    }

    /// Whether the log is suspended and no try to relocate it runs. Operations may read then: the index and staging are
    /// whole.
    var isBetweenTries: Bool { lateTryCount > 0 && !isRelocating && core.log.suspension != nil }

    /// Whether so many tries have failed that no request shall wait for the next one.
    var isStranded: Bool { isBetweenTries && lateTryCount >= lateTryLimit }

    /// Whether a request that found no room must fail instead of waiting.
    var isVainToWait: Bool { core.isVainToWait || isStranded }

    func beginScrubRead() { scrubReadCount += 1 }

    func endScrubRead(_: borrowing Telling) { scrubReadCount -= 1 }

    // MARK: Durability

    /// Calls `done` when a batch is durable (or only written). If the outcome is known already, gives it and never
    /// calls `done`.
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

    /// Takes out the waiters whose batch is durable (or only written). A closed log ends all waits with EIO; a full
    /// host ends those of requests with ENOSPC.
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

    /// Ends a part of a plan, after the thread that planned it has done its reads.
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

    /// Takes in one read of a plan. Gives the plan and its continuation if it was the last.
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
