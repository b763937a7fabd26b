// The housekeeper: prepares segments, commits by the clock, writes checkpoints, recycles segments, finishes removals. One thread in
// a mount; tests call `housekeep` themselves. It may wait for I/O, so it never holds the lock while it does.

extension Volume {
    /// Asks the housekeeper to look soon.
    func kick() {
        monitor.withLock {
            isKicked = true
            wakeUp.signal()
        }
    }

    /// Starts the housekeeper. To be called once, before the first request.
    func startHousekeeper() throws(Errno) {
        housekeeper = try DeviceThread(name: "housekeeper") { [self] in
            let start = monotonicNanoseconds()
            (lastCommit, lastCheckpoint) = (start, start)
            while true {
                let isStopping = monitor.withLock {
                    if !isKicked && !self.isStopping {
                        // Writers that are held back are watched: what room there is changes quickly.
                        let longest: UInt64 = writePace.takeHeldNanoseconds() > 0 ? 10_000_000 : 1_000_000_000
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

    /// What may not wait until a long piece of work is done: called between its steps.
    func housekeepInBetween() {
        if state.withLock({ $0.core.log.wantsPreparedSegment }) { prepareSegment() }
        guard housekeeper != nil else { return }
        if isCommitDue() { commitByClock() }
        let needsCheckpoint = state.withLock { state in
            let core = state.core
            return core.index.tree.needsCheckpoint || core.isDirtyLimitReached
                || core.log.appendedByteCount - core.appendedAtFreeze >= options.checkpointByteCount
        }
        if needsCheckpoint { checkpointReporting() }
    }

    func stopHousekeeper() {
        guard let thread = housekeeper else { return }
        monitor.withLock {
            isStopping = true
            wakeUp.signal()
        }
        thread.join()
        housekeeper = nil
    }

    /// One round. `commits`: make what was acknowledged durable; `checkpoints`: write one if anything changed.
    func housekeep(commits: Bool = false, checkpoints: Bool = false) {
        guard !isOver else {
            endTrim()
            endResize(.failed(.input))
            wakeRoomWaiters()
            return
        }
        state.withLock { $0.core.log.hasOpenedHead = false }
        keepHeadsOpen()
        setPace()
        rehomeWhereSuspended()
        refreshHostSpace()
        state.withLock { $0.forgetBadPages() }
        if let hostStaging, hostStaging.hasVanished { moveStaging(hostStaging) }
        hostStaging?.touch()
        if state.withLock({ $0.core.log.wantsPreparedSegment }) { prepareSegment() }
        if commits { commitByClock() }
        reapOrphans()
        finishRemovals()
        if state.withLock({ Self.needsCheckpoint($0, options, isDue: checkpoints) }) { checkpointReporting() }
        recycleSegments()
        if state.withLock({ WritePace.isRoomLow($0.core.log) }) { freeDeadSegments() }
        sweepTombstones()
        wakeRoomWaiters()
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
        wakeRoomWaiters()
    }

    /// Whether nothing was appended for a second; without a thread, since the last round.
    private func isIdleSinceLastRound() -> Bool {
        let appended = state.withLock { $0.core.log.appendedByteCount }
        let now = monotonicNanoseconds()
        guard appended == lastAppend.byteCount else {
            lastAppend = (appended, now)
            return false
        }
        return now - lastAppend.time >= (housekeeper == nil ? 0 : 1_000_000_000)
    }

    private static func needsCheckpoint(_ state: VolumeState, _ options: VolumeOptions, isDue: Bool) -> Bool {
        let core = state.core
        let appended = core.log.appendedByteCount - core.appendedAtFreeze
        if core.index.tree.needsCheckpoint || core.isDirtyLimitReached || appended >= options.checkpointByteCount {
            return true
        }
        // Segments that wait to be recycled need checkpoints as well, more so when no other is left.
        let isShort = WritePace.isRoomLow(core.log) || core.log.isHostFull
        let waits = core.table.hasDeadSegment
        // Once it found no room: nobody may be able to append until another one did.
        let isOverdue = core.log.isCheckpointStuck && !core.log.isHostFull
        return isDue && (appended > 0 || waits) || isShort && waits || isOverdue
    }

    private func refreshHostSpace() {
        guard let space = try? device.hostSpace() else { return }
        state.withLock { state in
            let log = state.core.log
            state.core.hostAvailableByteCount = space.availableByteCount
            // What the index uses; pages that it does not use now it will use again.
            let indexByteCount = state.core.index.tree.usedPageCount * IndexPage.byteCount
            log.withheldSegmentCount = min(indexByteCount / log.table.segmentByteCount, log.table.countLimit / 4)
            if log.isHostFull, space.availableByteCount > UInt64(log.table.segmentByteCount) * 2 {
                log.isHostFull = false
            }
        }
    }

    /// Staging has lost its name: goes on in a file in the store. What the old one holds is written before.
    private func moveStaging(_ hostStaging: HostStaging) {
        if !isStagingLost {
            log("somebody removed this mount's staging from \(HostStaging.sharedDirectory): it goes on in the store")
        }
        do throws(Errno) {
            try replaceStaging { (geometry, epoch, generation) throws(Errno) in
                let made = try hostStaging.make(geometry, epoch: epoch, generation: generation, inStore: true)
                // Before anything lies in it: a successor believes the staging that the superblock names.
                var superblock = state.withLock { $0.superblock }
                superblock.stagingIdentity = made.identity
                do throws(Errno) { try writeSuperblock(superblock) } catch {
                    // It is tried again with another file.
                    made.memory.unlink()
                    throw error
                }
                return hostStaging.use(made)
            }
            isStagingLost = false
        } catch {
            if !isStagingLost && !isOver {
                log("no staging can be made in the store (\(error)): a killed daemon would lose what is not synced")
            }
            isStagingLost = true
        }
    }

    /// Goes on in other staging when nothing is in the present one that is not durable; in the present one where that fails.
    func replaceStaging(_ make: (StagingGeometry, MountEpoch, UInt64) throws(Errno) -> Staging) throws(Errno) {
        let (geometry, epoch, generation) = state.withLock { state in
            state.core.log.holdForReplacement()
            return (state.core.log.staging.geometry, state.core.log.epoch, state.superblock.generation)
        }
        var other: Staging?
        defer { change { state, telling in state.core.log.replaceStaging(by: other, telling) } }
        sync(mayWait: true) { _ in }
        try waitForLog { $0.canReplaceStaging }
        other = try make(geometry, epoch, generation)
    }

    private func commitByClock() {
        let hasWork = state.withLock { state in
            state.core.log.hasOpenRecords || state.core.log.tracker.durable < state.core.log.lastBatch
        }
        if hasWork { sync(mayWait: true) { _ in } }
    }

    /// Somebody waits for what only the housekeeper's next round can bring.
    private var isNeededElsewhere: Bool {
        state.withLock { $0.core.log.wantsPreparedSegment || $0.hasRoomWaiters }
    }

    // MARK: Operations that wait

    /// Runs an operation of the housekeeper (or of mount and unmount), waiting for what it needs. Nil on failure.
    func runWaiting<Result>(_ operation: (Core) throws(Stop) -> Result) throws(Errno) -> Result {
        var pages: [HeldPage] = []
        defer { state.withLock { _ in pages.letGo(butLast: 0) } }
        while true {
            do throws(Stop) { return try run(isRequest: false, operation) } catch {
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
        if let submission = state.withLock({ $0.takeSubmission(miss.address) }) { complete(device.perform(submission)) }
        // It may have been read, dropped and missed again meanwhile.
        wait { !$0.isFetching(miss.address) || $0.isUnsubmitted(miss.address) }
        if let page = state.withLock({ HeldPage($0.core.index.tree, miss.address) }) { pages.append(page) }
    }

    /// What the housekeeper does when one of its own operations finds no room.
    private func provideRoom() throws(Errno) {
        // While the log is written again elsewhere nothing runs, a checkpoint least of all.
        if state.withLock({ $0.core.log.suspension != nil }) { return try waitForLog { $0.suspension == nil } }
        if !mayRehome {
            // A scrub, which waited for the log; the rest is the housekeeper's.
            kick()
            rest(nanoseconds: 1_000_000)
            return
        }
        if housekeeper == nil, state.withLock({ $0.core.log.isHostFull }) { refreshHostSpace() }
        if state.withLock({ $0.core.log.wantsPreparedSegment }) { prepareSegment() }
        if state.withLock({ $0.core.isDirtyLimitReached }) {
            checkpointReporting()
            let isStuck = state.withLock { $0.core.isDirtyLimitReached && !$0.core.log.isClosed }
            if isStuck { throw .noSpace }
        }
        if state.withLock({ $0.core.log.isShortOfSegments }) {
            if isCleaning { freeDeadSegments() } else { _ = reclaim() }
        }
        // An allocation waits for the removals of its file, and whoever finds the store full for all of them.
        if !isRemoving, state.withLock({ !$0.core.index.removals.isEmpty || !$0.core.reapable.isEmpty }) {
            reapOrphans()
            finishRemovals()
        }
        joinCrowded()
        try waitForLog { $0.suspension == nil && $0.hasFreeSlot }
    }

    /// What cannot be removed now (no space, a page that cannot be read) stays for the next round.
    private func reapOrphans() {
        isRemoving = true
        defer { isRemoving = false }
        var failed: [InodeNumber] = []
        while failed.count < 16, let inode = state.withLock({ $0.core.reapable.popLast() }) {
            do { try runWaiting { (core) throws(Stop) in try core.reap(inode) } } catch { failed.append(inode) }
        }
        state.withLock { state in
            state.core.isRemovalStuck = !failed.isEmpty
            if !failed.isEmpty { state.core.reapable.insert(contentsOf: failed, at: 0) }
        }
    }

    private func finishRemovals() {
        isRemoving = true
        defer { isRemoving = false }
        while state.withLock({ !$0.core.index.removals.isEmpty }) {
            do {
                try runWaiting { (core) throws(Stop) in
                    guard !core.isDirtyLimitReached else { throw .blocked(.room) }
                    _ = try core.find { () throws(PageMiss) in try core.index.continueRemovals() }
                }
            } catch {
                state.withLock { $0.core.isRemovalStuck = true }
                return
            }
            if isNeededElsewhere { return kick() }
        }
    }

    /// Finishes the removals of one inode.
    func finishRemovals(of inode: InodeNumber) throws(Errno) {
        while state.withLock({ $0.core.index.removals[inode] != nil }) {
            try runWaiting { (core) throws(Stop) in
                guard !core.isDirtyLimitReached else { throw .blocked(.room) }
                _ = try core.find { () throws(PageMiss) in try core.index.continueRemovals(of: inode) }
            }
        }
    }

    func sweepTombstones() {
        while let cursor = state.withLock({ $0.sweepCursor }) {
            do {
                let next = try runWaiting { (core) throws(Stop) in
                    guard !core.isDirtyLimitReached else { throw .blocked(.room) }
                    return try core.find { () throws(PageMiss) in try core.index.sweepTombstones(from: cursor) }
                }
                state.withLock { state in
                    // A segment recycled meanwhile has set the cursor back to the start.
                    if state.sweepCursor == cursor { state.sweepCursor = next }
                }
            } catch { return }
            if isNeededElsewhere { return kick() }
        }
    }

    // MARK: Segments

    /// What is written to now and next stays open.
    private func keepHeadsOpen() {
        let (next, adoptCount) = state.withLock { state -> ([DeviceFile], Int) in
            let table = state.core.table
            let files = ([state.core.log.head] + table.pool.suffix(SegmentLog.cleanerSegmentCount + 1).reversed())
                .compactMap { $0 }.compactMap { table[$0].file }
            return (files, state.core.adoptCount)
        }
        device.keepOpen(next.prefix(2) + [cleaner.headFile(adoptCount)].compactMap { $0 } + next.dropFirst(2))
    }

    /// Writes a new segment with zeros, so that the head of the log never waits for the host to allocate blocks.
    func prepareSegment() {
        guard let number = state.withLock({ $0.core.table.absentNumber() }) else { return }
        // Others may be closed for the new one.
        keepHeadsOpen()
        let table = state.withLock { $0.core.table }
        let incarnation = state.withLock { $0.core.table[number].incarnation } + 1
        let uuid = state.withLock { $0.superblock.blockUUID }
        func make() throws(Errno) {
            let file = try Self.makeSegment(device, number, uuid, incarnation, table.segmentByteCount)
            state.withLock { $0.core.table.addPrepared(number, incarnation: incarnation, file: file) }
        }
        do throws(Errno) {
            do throws(Errno) { try make() } catch {
                // What failed once, and did not for want of something, may be possible: only then is the host taken for full.
                if error.isShortage { throw error } else { try make() }
            }
            preparationFailure = nil
        } catch {
            try? device.unlink(.preparing(number))
            state.withLock { $0.core.log.isHostFull = true }
            // It is tried again in each round, and said once.
            if preparationFailure != error { log("no new segment can be made: \(error)") }
            preparationFailure = error
        }
    }

    /// Creates the file of a segment, its blocks written, durable and under its name.
    static func makeSegment(
        _ device: D, _ number: SegmentNumber, _ uuid: StoreUUID, _ incarnation: UInt32, _ byteCount: Int
    ) throws(Errno) -> DeviceFile {
        try? device.unlink(.preparing(number))
        let file = try device.open(.preparing(number), create: true)
        do {
            try device.resize(file, to: UInt64(byteCount))
            let buffer = AlignedBuffer(byteCount: min(byteCount, 1 << 20))
            buffer.bytes.zero(0, buffer.bytes.count)
            let header = SegmentHeader(
                state: .free, uuid: uuid, number: number, incarnation: incarnation, epoch: MountEpoch(0),
                firstBatch: .zero, segmentByteCount: UInt32(byteCount))
            for offset in stride(from: byteCount - buffer.bytes.count, through: 0, by: -buffer.bytes.count) {
                if offset == 0 { header.encode(into: buffer.bytes.part(0, SegmentHeader.byteCount)) }
                try device.wait(Submission(.write, file, offset: UInt64(offset), buffer.bytes, tag: 0))
            }
            try device.wait(Submission(.sync, file, tag: 0))
            try device.rename(.preparing(number), to: .segment(number))
            try device.syncDirectories()
        } catch {
            device.close(file)
            throw error
        }
        return file
    }

    /// Resets dead segments that no checkpoint needs any more: back into the pool, or back to the host.
    func recycleSegments() {
        let candidates = state.withLock { state -> [SegmentNumber] in
            let older = state.slots.map(\.checkpoint).min()!
            return state.core.table.recyclable(through: older)
        }
        for number in candidates {
            do { try recycle(number) } catch {
                log("segment \(number.rawValue) could not be recycled: \(error)")
                return
            }
        }
    }

    /// Nothing lives in it, and nobody can begin to read it while its header is written.
    func recycle(_ number: SegmentNumber) throws(Errno) {
        let isFree = state.withLock { state in
            // A scrub may have come to it since it was chosen.
            guard state.core.table[number].readerCount == 0 else { return false }
            state.core.table[number].isBeingReset = true
            return true
        }
        guard isFree else { return }
        do throws(Errno) { try reset(number) } catch {
            state.withLock { $0.core.table[number].isBeingReset = false }
            throw error
        }
    }

    private func reset(_ number: SegmentNumber) throws(Errno) {
        var isReset = true
        var (header, file, isKept) = state.withLock { state in
            let segment = state.core.table[number]
            let header = SegmentHeader(
                state: .free, uuid: state.superblock.blockUUID, number: number, incarnation: segment.incarnation + 1,
                epoch: segment.epoch, firstBatch: .zero, segmentByteCount: UInt32(state.core.table.segmentByteCount))
            let table = state.core.table
            let isKept = table.pool.count < options.poolLimit && Int(number.rawValue) < table.countLimit
            return (header, segment.file!, isKept)
        }
        // The head of the log never waits for the host to allocate blocks, nor fails for want of them.
        if device.hole(in: file, from: 0) != nil || device.isCopiedOnWrite(file) { isKept = false }
        let block = AlignedBuffer(byteCount: SegmentHeader.byteCount)
        header.encode(into: block.bytes)
        do throws(Errno) {
            try device.wait(Submission(.write, file, offset: 0, block.bytes, tag: 0))
            try device.wait(Submission(.sync, file, tag: 0))
        } catch {
            // A host that has no room for the header, since it copies, has the file back.
            guard error.isShortage else { throw error }
            isKept = false
            isReset = false
        }
        if !isKept { try device.unlink(.segment(number)) }
        if !isReset {
            // What was not reset must not come back.
            do throws(Errno) { try device.syncDirectories() } catch {
                closeLog(error)
                throw error
            }
        }
        state.withLock { state in
            state.core.table.recycle(number, incarnation: header.incarnation)
            if !isKept { state.core.table.remove(number) }
            state.sweepCursor = RecordIndex.firstTombstone
        }
        if isKept { return }
        device.close(file)
        // Should it come back, it comes back as free.
        try device.syncDirectories()
    }
}

extension Device {
    /// Does one operation and waits; an error, or a transfer cut short, is thrown.
    func wait(_ submission: Submission) throws(Errno) {
        let completion = perform(submission)
        if let error = completion.error { throw error }
        guard submission.operation == .sync || completion.result == submission.byteCount else { throw .input }
    }
}
