// The housekeeper: what keeps a mounted store in order. It prepares segments, commits by the clock, writes checkpoints, cleans, punches and
// trims, recycles segments, finishes removals, resizes, and writes the log again where it failed. One thread in a mount; tests call
// `housekeep` themselves. It may wait for I/O, so it never holds the volume's lock while it does.

/// Keeps a mounted store in order. Its methods, but for `kick`, are for its own thread; for mount, unmount and tests where there is none yet or any more.
final class Housekeeper<D: Device>: @unchecked Sendable {
    let device: D
    let options: VolumeOptions
    let state: Guarded<VolumeState>
    let log: @Sendable (String) -> Void
    /// The volume that it keeps, which owns it.
    unowned var volume: Volume<D>!

    private let monitor = Monitor()
    private let wakeUp: Condition
    /// Guarded by `monitor`.
    private var isKicked = false
    private var isStopping = false
    /// Set once before the first request.
    private(set) var thread: DeviceThread?

    // What follows is used by its thread only.

    /// Work that is under way. What it waits for may ask for the same again, which is refused.
    var underWay: Work = []
    let cleaner: Cleaner<D>
    var puncher = Puncher()
    var shortage = Shortage()
    var hostStaging: HostStaging?
    /// Staging has lost its name, and no other could be made.
    var isStagingLost = false
    /// Why no new segment could be made when that was tried last.
    var preparationFailure: Errno?
    /// When the clock asked for a commit and for a checkpoint last.
    private var lastCommit: UInt64 = 0
    private var lastCheckpoint: UInt64 = 0
    /// How much had been appended when that changed last, and when it was.
    private var lastAppend: (byteCount: UInt64, time: UInt64) = (0, 0)

    /// What it does not begin while it is at it already.
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

    /// Asks it to look soon. From any thread.
    func kick() {
        monitor.withLock {
            isKicked = true
            wakeUp.signal()
        }
    }

    /// To be called once, before the first request.
    func start() throws(Errno) {
        thread = try DeviceThread(name: "housekeeper") { [self] in
            let start = monotonicNanoseconds()
            (lastCommit, lastCheckpoint) = (start, start)
            while true {
                let isStopping = monitor.withLock {
                    if !isKicked && !self.isStopping {
                        // Writers that are held back are watched: what room there is changes quickly.
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

    /// False where that work is under way already. `end` must follow where it is not.
    func begin(_ work: Work) -> Bool { underWay.insert(work).inserted }

    func end(_ work: Work) { underWay.remove(work) }

    // MARK: A round

    /// One round. `commits`: make what was acknowledged durable; `checkpoints`: write one if anything changed.
    func housekeep(commits: Bool = false, checkpoints: Bool = false) {
        precondition(isOwnThread, "the housekeeper's work is done by its thread alone")
        guard !volume.isOver else {
            endTrim()
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
        // Nobody works: what is dead goes back to the host now.
        if isIdle { freeDeadSegments() }
        let cleansOn = cleanInBackground(isIdle: isIdle)
        let trimsOn = continueTrim()
        let punchesOn = !cleansOn && !trimsOn && punchInBackground(isIdle: isIdle)
        let resizesOn = continueResize()
        if cleansOn || trimsOn || punchesOn || resizesOn { kick() }
        setPace()
        volume.wakeRoomWaiters()
    }

    /// What may not wait until a long piece of work is done: called between its steps.
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

    /// Whether it is time for a commit again; counted from now on if so.
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
        let appended = state.withLock { $0.core.log.appendedByteCount }
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
        // Segments that wait to be recycled need checkpoints as well, more so when no other is left.
        let isShort = core.log.space.isRoomLow || core.log.space.isHostFull
        let waits = core.table.hasDeadSegment
        // Once it found no room: nobody may be able to append until another one did.
        let isOverdue = core.log.space.isCheckpointStuck && !core.log.space.isHostFull
        return isDue && (appended > 0 || waits) || isShort && waits || isOverdue
    }

    /// Asks the host how much it has left, and what of the capacity the index fills.
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

    /// Somebody waits for what only the housekeeper's next round can bring.
    var isNeededElsewhere: Bool {
        state.withLock { $0.core.log.space.wantsPreparedSegment || $0.hasRoomWaiters }
    }
}
