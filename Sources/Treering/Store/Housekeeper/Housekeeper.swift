// The housekeeper keeps a mounted store in order. It prepares and recycles segments, commits by the clock, writes
// checkpoints, cleans, punches, trims, finishes removals, resizes, and relocates the log after a failed write. In a
// mount it has a thread of its own; tests call `housekeep` themselves. It may wait for I/O, so it never holds the
// volume's lock meanwhile.

/// Keeps a mounted store in order. Its rounds are for its own thread. Where there is none (before `start`, after
/// `stop`), mount, unmount and tests may do its work. Any thread may call `kick`, `trim`, `resize` and `runWaiting`.
final class Housekeeper<D: Device>: @unchecked Sendable {
    let device: D
    let options: VolumeOptions
    let state: Guarded<VolumeState>
    let log: @Sendable (String) -> Void
    /// The volume that it keeps in order. The volume owns the housekeeper.
    unowned var volume: Volume<D>!

    private let monitor = Monitor()
    private let wakeUp: Condition
    /// Guarded by `monitor`.
    private var isKicked = false
    private var isStopping = false
    /// Set by `start`, before the first request. Nil again after `stop`.
    private(set) var thread: DeviceThread?

    // Only its own thread uses what follows.

    /// Work that is under way. A step of it may wait, and what runs meanwhile may ask for the same work: `begin`
    /// refuses that.
    var underWay: Work = []
    let cleaner: Cleaner<D>
    var puncher = Puncher()
    var shortage = Shortage()
    var hostStaging: HostStaging?
    /// The staging file has lost its name, and no other could be made.
    var isStagingLost = false
    /// Why no new segment could be made when that was tried last.
    var preparationFailure: Errno?
    /// When a commit and a checkpoint by the clock were last due.
    private var lastCommit: UInt64 = 0
    private var lastCheckpoint: UInt64 = 0
    /// How many bytes had been appended when that count last changed, and when that was.
    private var lastAppend: (byteCount: UInt64, time: UInt64) = (0, 0)

    /// Kinds of work that must not begin again while they are under way.
    struct Work: OptionSet {
        let rawValue: UInt8
        static var cleaning: Work { Work(rawValue: 1) }
        static var removing: Work { Work(rawValue: 2) }
        static var joining: Work { Work(rawValue: 4) }
    }

    init(device: D, options: VolumeOptions, state: Guarded<VolumeState>, log: @escaping @Sendable (String) -> Void) {
        (self.device, self.options, self.state, self.log) = (device, options, state, log)
        cleaner = Cleaner(device: device)
        wakeUp = Condition(monitor)
    }

    /// Whether this thread may do its work: its own, or any where there is none.
    var isOwnThread: Bool { thread?.isCurrent ?? true }

    // MARK: The thread

    /// Asks for a round soon. For any thread.
    func kick() {
        monitor.withLock {
            isKicked = true
            wakeUp.signal()
        }
    }

    /// To be called once, before the first request.
    func start() throws(Errno) {
        // The new thread takes the monitor first, so that it sees `thread`.
        let started = monitor.withLock { () -> Result<DeviceThread, Errno> in
            do throws(Errno) {
                let thread = try DeviceThread(name: "housekeeper") { [self] in run() }
                self.thread = thread
                return .success(thread)
            } catch { return .failure(error) }
        }
        _ = try started.get()
    }

    /// What the thread does, until `stop`.
    private func run() {
        let start = monotonicNanoseconds()
        (lastCommit, lastCheckpoint) = (start, start)
        while true {
            let isStopping = monitor.withLock {
                if !isKicked && !self.isStopping {
                    // While writers are held back, the free room changes quickly, so rounds come more often.
                    let longest: UInt64 = volume.writePace.takeHeldNanoseconds() > 0 ? 10_000_000 : 1_000_000_000
                    wakeUp.wait(nanoseconds: min(longest, options.commitIntervalNanoseconds))
                }
                isKicked = false
                return self.isStopping
            }
            if isStopping { return }
            housekeep(commits: isCommitDue(), checkpoints: isCheckpointDue())
        }
    }

    func stop() {
        guard let thread else { return }
        monitor.withLock {
            isStopping = true
            wakeUp.signal()
        }
        thread.join()
        self.thread = nil
    }

    /// Marks work as under way; false where it is already. After true the caller must call `end`.
    func begin(_ work: Work) -> Bool { underWay.insert(work).inserted }

    func end(_ work: Work) { underWay.remove(work) }

    // MARK: A round

    /// One round. `commits`: makes durable what was acknowledged. `checkpoints`: writes a checkpoint if anything has
    /// changed.
    func housekeep(commits: Bool = false, checkpoints: Bool = false) {
        precondition(isOwnThread, "the housekeeper's work is done by its thread alone")
        guard !volume.isOver else {
            endTrim()
            endDefragmenting()
            endResize(.failed(.ioError))
            volume.wakeRoomWaiters()
            return
        }
        state.withLock { $0.core.log.hasOpenedHead = false }
        keepHeadsOpen()
        setPace()
        relocateWhereSuspended()
        refreshHostSpace()
        state.withLock { $0.forgetBadPages() }
        if let hostStaging, hostStaging.hasVanished { moveStaging(hostStaging) }
        hostStaging?.touch()
        if state.withLock({ $0.core.log.space.wantsPreparedSegment }) { prepareSegment() }
        if commits { commitByClock() }
        reapOrphans()
        finishRemovals()
        if state.withLock({ Self.needsCheckpoint($0, options, isDue: checkpoints) }) { checkpointReporting() }
        recycleSegments()
        if state.withLock({ $0.core.log.space.isRoomLow }) { freeDeadSegments() }
        sweepTombstones()
        volume.wakeRoomWaiters()
        joinCrowded()
        reclaimIfShort()
        let isIdle = isIdleSinceLastRound()
        // The store is idle: a good time for the checkpoints that make dead segments free.
        if isIdle { freeDeadSegments() }
        let cleansOn = cleanInBackground(isIdle: isIdle)
        let trimsOn = continueTrim()
        let punchesOn = !cleansOn && !trimsOn && punchInBackground(isIdle: isIdle)
        let resizesOn = continueResize()
        let joinsOn = continueDefragmenting() || !cleansOn && defragmentInBackground(isIdle: isIdle)
        if cleansOn || trimsOn || punchesOn || resizesOn || joinsOn { kick() }
        setPace()
        volume.wakeRoomWaiters()
    }

    /// Work that cannot wait until a long piece of other work is done. Called between the steps of that work.
    func housekeepInBetween() {
        if state.withLock({ $0.core.log.space.wantsPreparedSegment }) { prepareSegment() }
        guard thread != nil else { return }
        if isCommitDue() { commitByClock() }
        let needsCheckpoint = state.withLock { state in
            let core = state.core
            return core.index.tree.needsCheckpoint || core.isDirtyLimitReached
                || core.log.appendedByteCount - core.appendedAtFreeze >= options.checkpointByteCount
        }
        if needsCheckpoint { checkpointReporting() }
    }

    /// Whether a commit is due. If so, the interval begins anew.
    private func isCommitDue() -> Bool {
        let now = monotonicNanoseconds()
        guard now - lastCommit >= options.commitIntervalNanoseconds else { return false }
        lastCommit = now
        return true
    }

    private func isCheckpointDue() -> Bool {
        let now = monotonicNanoseconds()
        guard now - lastCheckpoint >= options.checkpointIntervalNanoseconds else { return false }
        lastCheckpoint = now
        return true
    }

    /// Whether nothing was appended for a second; without a thread, since the last round.
    private func isIdleSinceLastRound() -> Bool {
        // What this thread joins is nobody's.
        let appended = state.withLock { $0.core.log.appendedByteCount - $0.core.joined.byteCount }
        let now = monotonicNanoseconds()
        guard appended == lastAppend.byteCount else {
            lastAppend = (appended, now)
            return false
        }
        return now - lastAppend.time >= (thread == nil ? 0 : 1_000_000_000)
    }

    private static func needsCheckpoint(_ state: VolumeState, _ options: VolumeOptions, isDue: Bool) -> Bool {
        let core = state.core
        let appended = core.log.appendedByteCount - core.appendedAtFreeze
        if core.index.tree.needsCheckpoint || core.isDirtyLimitReached || appended >= options.checkpointByteCount {
            return true
        }
        // A dead segment becomes free only by checkpoints. They come when due, or at once when room is low.
        let isShort = core.log.space.isRoomLow || core.log.space.isHostFull
        let waits = core.table.hasDeadSegment
        // A checkpoint found no room before, and the host has room now. Perhaps nobody can append until one succeeds.
        let isOverdue = core.log.space.isCheckpointStuck && !core.log.space.isHostFull
        return isDue && (appended > 0 || waits) || isShort && waits || isOverdue
    }

    /// Asks the host how much room it has left, and notes how much of the capacity the index takes.
    func refreshHostSpace() {
        guard let space = try? device.hostSpace() else { return }
        state.withLock { state in
            state.core.log.space.note(
                hostAvailableByteCount: space.availableByteCount,
                indexByteCount: state.core.index.tree.usedPageCount * IndexPage.byteCount)
        }
    }

    private func commitByClock() {
        let hasWork = state.withLock { state in
            state.core.log.hasOpenRecords || state.core.log.tracker.durable < state.core.log.lastBatch
        }
        if hasWork { volume.sync(mayWait: true) { _ in } }
    }

    /// Whether somebody waits for what only the housekeeper's next round can bring.
    var isNeededElsewhere: Bool {
        state.withLock { $0.core.log.space.wantsPreparedSegment || $0.hasRoomWaiters }
    }
}
