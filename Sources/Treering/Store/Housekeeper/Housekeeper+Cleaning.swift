// Decides when to clean, and which segments. The Cleaner empties a segment; two checkpoints later the segment is free.
// A store that is short of segments goes through cycles of both. While some are left, cleaning runs in the background.

/// When segments are cleaned.
enum CleaningPolicy: String, Sendable, CaseIterable {
    /// In the background: when free segments get few, and when an idle store holds much that is dead.
    case auto
    /// Only when an operation would otherwise find no room.
    case off
    /// Whenever a segment holds something dead. For tests.
    case eager
}

/// What cleaning has gained since the store became short of segments. A gain may at first be only room in the heads,
/// with no segment free yet. But when more segments have been emptied without gain than are in use, there is nothing
/// left to gain.
struct Shortage {
    private var mostAvailable = 0
    private var leastLive = Int64.max
    private var fruitlessCount = 0

    /// Called after a cycle that emptied `cleanedCount` segments: whether another cycle is worth the work.
    mutating func goesOn(_ log: SegmentLog, cleanedCount: Int) -> Bool {
        let table = log.table
        let isOver = !log.space.isShort(for: .write)
        let hasGained =
            log.space.availableSegmentCount > mostAvailable
            || table.liveByteCount + Int64(table.segmentByteCount / 64) <= leastLive
        fruitlessCount = hasGained ? 0 : fruitlessCount + cleanedCount
        let isHopeless = !hasGained && (cleanedCount == 0 || fruitlessCount > table.inUseCount)
        if isOver || isHopeless {
            self = Shortage()
        } else {
            mostAvailable = max(mostAvailable, log.space.availableSegmentCount)
            leastLive = min(leastLive, table.liveByteCount)
        }
        return isOver || !isHopeless
    }
}

extension Housekeeper {
    // MARK: In need

    /// Cleans and recycles until a tier need not wait for room any more, or nothing can be gained.
    func reclaimIfShort(_ tier: SpaceTier = .write) {
        // One waiter may claim reserved room and the next none, and the store is short for the one and not for the other.
        // Then each cycle looks like a gain. After some cycles the rest of the round has its turn.
        var cyclesLeft = 16
        while state.withLock({
            $0.core.log.space.isShort(for: tier) && !$0.core.isOver && $0.core.log.space.isSpaceComing
        }) {
            if !reclaim() { return }
            cyclesLeft -= 1
            if cyclesLeft == 0 { return kick() }
            volume.wakeRoomWaiters()
        }
    }

    /// One cycle: empties some segments, writes two checkpoints, recycles dead segments. False where nothing was
    /// gained: operations that wait for room then fail.
    func reclaim() -> Bool {
        guard begin(.cleaning) else { return false }
        defer { end(.cleaning) }
        // Only segments whose last batch is durable can be cleaned.
        try? volume.syncAndWait()
        // A dead segment becomes free without moving anything, so these come first.
        freeDeadSegments()
        let cleanedCount = state.withLock { $0.core.log.space.isShort(for: .write) } ? cleanSome() : 0
        freeDeadSegments()
        sweepTombstones()
        return state.withLock { state in
            let table = state.core.table
            if shortage.goesOn(state.core.log, cleanedCount: cleanedCount) { return true }
            let log = state.core.log
            self.log(
                "no more room is to be gained by cleaning: \(table.inUseCount) segments hold \(table.liveByteCount) live bytes, \(log.space.availableSegmentCount) are free, \(log.space.keptSegmentCount(.write)) are kept back; the last cycle emptied \(cleanedCount)"
            )
            log.space.noteStandstill()
            return false
        }
    }

    /// Makes dead segments free: writes checkpoints until neither superblock slot needs them, then recycles them. With
    /// `punches`, punches the dead blocks that wait for it as well.
    func freeDeadSegments(punches: Bool = false) {
        for _ in 0..<2 {
            let waits = punches && !puncher.waiting.isEmpty
            guard state.withLock({ ($0.core.table.hasDeadSegment || waits) && !$0.core.isOver }) else { return }
            checkpointReporting()
            recycleSegments()
            if punches { punchWaiting() }
        }
    }

    /// Empties segments, best first, until enough bytes are gained (two segments or more) or the free segments are too
    /// few to clean. Gives how many were emptied.
    private func cleanSome() -> Int {
        var count = 0
        var gained: Int64 = 0
        let goal = Int64(state.withLock { $0.core.table.segmentByteCount * max(2, $0.core.table.countLimit / 32) })
        while gained < goal, let victim = state.withLock({ chooseVictim($0, isUrgent: true) }) {
            guard state.withLock({ mayClean(victim, $0.core.log) }), let gain = clean(victim)
            else { break }
            gained += gain
            count += 1
        }
        return count
    }

    func mayClean(_ victim: SegmentID, _ log: SegmentLog) -> Bool {
        log.space.mayClean(log.table[victim.number], cleanersHeadRoom: cleaner.headRoom(log))
    }

    /// Empties one segment. Gives the bytes that this gains; nil where it failed.
    func clean(_ victim: SegmentID) -> Int64? {
        let gain = state.withLock { Int64($0.core.table.segmentByteCount) - $0.core.table[victim.number].live }
        do {
            try empty(victim)
            return gain
        } catch {
            log("cleaning segment \(victim.number.rawValue) failed: \(error)")
            return nil
        }
    }

    // MARK: Victims

    /// The segment that is best emptied next; nil where none is worth the work. Normally it is the one with the most
    /// gain for its work, weighted by its age; if `isUrgent`, the one with the fewest live bytes.
    ///
    /// Cost and benefit as in the log-structured file system of Rosenblum and Ousterhout (1992): (1 − u) · age / (1 + u).
    private func chooseVictim(
        _ state: VolumeState, isUrgent: Bool, of segments: SegmentNumbers = .all
    ) -> SegmentID? {
        let table = state.core.table
        let size = Double(table.segmentByteCount)
        let durable = state.core.log.tracker.durable
        // A segment with more live bytes than this is not worth the work.
        let limit = Int64(table.segmentByteCount) / 16 * 15
        var best: (number: SegmentNumber, score: Double)?
        for (index, segment) in table.segments.enumerated() {
            let number = SegmentNumber(UInt32(index))
            guard segment.isSealed, segment.live > 0, segment.lastBatch <= durable,
                segment.live <= limit, segments.contains(number), !segment.isStuck
            else { continue }
            let use = Double(segment.live) / size
            let age = Double(durable.rawValue - segment.lastBatch.rawValue + 1)
            let score = isUrgent ? 1 - use : (1 - use) * age / (1 + use)
            if best == nil || score > best!.score { best = (number, score) }
        }
        return best.map { table.id(of: $0.number) }
    }

    /// Empties the segment with the fewest live bytes, if that is worth the work and there is room for it.
    func cleanOne(of segments: SegmentNumbers = .all) -> Bool {
        guard begin(.cleaning) else { return false }
        defer { end(.cleaning) }
        for attempt in 0..<2 {
            let found = state.withLock { state -> (SegmentID, Bool)? in
                chooseVictim(state, isUrgent: true, of: segments).map { ($0, mayClean($0, state.core.log)) }
            }
            guard let (victim, mayClean) = found else { return false }
            if mayClean { return clean(victim) != nil }
            if attempt == 0 { freeDeadSegments() }
        }
        return false
    }

    /// Sets how long writers are held back, from how few segments are free.
    func setPace() {
        volume.writePace.set(
            state.withLock {
                options.cleaning == .off || $0.core.isOver ? 0 : $0.core.log.space.pace(longest: WritePace.longestPace)
            })
    }

    // MARK: In the background

    /// Cleans as the policy says, a bounded piece at a time. True when more is to be done soon.
    func cleanInBackground(isIdle: Bool) -> Bool {
        guard !volume.isOver, let goal = state.withLock({ backgroundGoal($0, isIdle: isIdle) }) else {
            return false
        }
        guard begin(.cleaning) else { return false }
        defer { end(.cleaning) }
        var isWorthwhile = false
        if options.cleaning == .eager { try? volume.syncAndWait() }
        for _ in 0..<goal {
            // Emptied segments are made free before the cleaner takes a segment of the reserve: writers would have to
            // wait for that.
            let isScarce = state.withLock { state in
                let log = state.core.log
                return log.table.hasDeadSegment
                    && log.space.availableSegmentCount <= log.space.keptSegmentCount(.write) + 1
            }
            if isScarce { freeDeadSegments() }
            guard let victim = state.withLock({ chooseVictim($0, isUrgent: false) }) else { break }
            guard state.withLock({ mayClean(victim, $0.core.log) }) else { break }
            isWorthwhile = clean(victim) != nil
            if !isWorthwhile { return false }
            if state.withLock({ $0.hasRoomWaiters }) { break }
        }
        return isWorthwhile && options.cleaning == .auto
    }

    /// How many segments to clean in this round; nil for none.
    private func backgroundGoal(_ state: VolumeState, isIdle: Bool) -> Int? {
        let table = state.core.table
        let log = state.core.log
        // An emptied segment becomes free only by a checkpoint.
        if log.space.isCheckpointStuck { return nil }
        switch options.cleaning {
        case .off: return nil
        case .eager: return 2
        case .auto:
            let size = Int64(table.segmentByteCount)
            let dead = table.deadByteCount
            let missing = log.space.missingSegmentCount
            // Several at a time, since each round costs two checkpoints.
            if missing > 0, dead > 2 * size { return min(missing + 2, 4) }
            // The store is idle, and a third of what is in use is dead: clean one, to give its space back to the host.
            return isIdle && dead > 4 * size && dead * 3 > Int64(table.inUseCount) * size ? 1 : nil
        }
    }

    /// The cleaner calls this between two steps. First comes work that others wait for; then the cleaner rests, if
    /// nothing is urgent.
    func pauseCleaning(since start: UInt64) {
        housekeepInBetween()
        setPace()
        guard thread != nil else { return }
        // The cleaner rests up to three times as long as it has worked (once as long during a trim), but at most 50 ms.
        // It rests less when free segments get few, and not at all when writers wait or are held back: a busy disk now
        // is better for them than no room soon.
        let held = volume.writePace.takeHeldNanoseconds()
        let elapsed = monotonicNanoseconds() - start
        let parts = state.withLock { state -> UInt64 in
            let log = state.core.log
            if log.space.isShort(for: .write) || state.hasRoomWaiters || held > elapsed / 32 { return 0 }
            let slack = max(0, log.space.availableSegmentCount - log.space.keptSegmentCount(.write) - 1)
            return UInt64(min(state.trim == nil ? 3 : 1, slack))
        }
        if parts > 0 { rest(nanoseconds: min(parts * elapsed, 50_000_000)) }
    }
}
