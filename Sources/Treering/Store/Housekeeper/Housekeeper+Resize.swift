// Changes the capacity of a store in use. Growing writes two superblocks. Shrinking first empties the segments beyond
// the new end. The housekeeper does a piece of it each round. After a crash the store has the old capacity or the new
// one.

/// The outcome of a change of capacity. Capacities are in bytes.
enum ResizeAnswer: Equatable {
    case done(capacity: UInt64)
    /// What is used and the reserve need at least `least`.
    case tooSmall(least: UInt64)
    case failed(Errno)
}

/// A change of the capacity that is under way. Counts are in segments.
struct Resize {
    var oldCount: Int
    var count: Int
    /// Whether no more segments are opened beyond `count`.
    var isLimited = false
    /// How many more rounds it may take.
    var roundsLeft: Int
    var done: @Sendable (ResizeAnswer) -> Void
}

extension Core {
    /// The least number of segments that holds what is used and reserved, the reserve of the store, and one segment to
    /// work with.
    var leastSegmentCount: Int {
        let needed = log.space.neededByteCount(reserved: index.reservedByteCount, removing: index.removingByteCount)
        return log.space.leastSegmentCount(for: needed, capacityMinimum: FormatOptions.capacityMinimum)
    }
}

extension Housekeeper {
    /// Begins to change the capacity, rounded down to whole segments. Calls `done` once, perhaps within this call. For
    /// any thread.
    func resize(to byteCount: UInt64, _ done: @escaping @Sendable (ResizeAnswer) -> Void) {
        let answer = state.withLock { state -> ResizeAnswer? in
            let core = state.core
            let table = core.table
            let count = Int(clamping: byteCount / UInt64(table.segmentByteCount))
            if core.isVainToWait { return .failed(.readOnly) }
            if state.resize != nil { return .failed(.busy) }
            if count > 1 << 24 { return .failed(.invalid) }
            if count < table.countLimit, count < core.leastSegmentCount { return tooSmall(core) }
            state.resize = Resize(
                oldCount: table.countLimit, count: count, roundsLeft: 4 * table.inUseCount + 64, done: done)
            return nil
        }
        if let answer { done(answer) } else { kick() }
    }

    private func tooSmall(_ core: Core) -> ResizeAnswer {
        .tooSmall(least: UInt64(core.leastSegmentCount) * UInt64(core.table.segmentByteCount))
    }

    /// The housekeeper's part: true when there is more to do.
    func continueResize() -> Bool {
        guard let resize = state.withLock({ $0.resize }) else { return false }
        do throws(Errno) {
            if resize.count >= resize.oldCount {
                try grow(to: resize.count)
                endResize(.done(capacity: state.withLock { $0.superblock.capacityByteCount }))
                return false
            }
            if state.withLock({ $0.core.leastSegmentCount > resize.count }) {
                endResize(state.withLock { tooSmall($0.core) })
                return false
            }
            guard resize.roundsLeft > 0 else { throw Errno.noSpace }
            state.withLock { $0.resize?.roundsLeft -= 1 }
            if try makeRoom(for: resize) { return true }
            if try vacate(resize) { return true }
            if try !shrink(to: resize.count) { return true }
            endResize(.done(capacity: state.withLock { $0.superblock.capacityByteCount }))
        } catch {
            log("the capacity could not be changed: \(error)")
            endResize(.failed(error))
        }
        return false
    }

    /// Ends a change of capacity and tells its outcome to who asked. A change that was not done is taken back.
    func endResize(_ answer: ResizeAnswer) {
        let done = state.withLock { state -> (@Sendable (ResizeAnswer) -> Void)? in
            guard let resize = state.resize else { return nil }
            state.resize = nil
            if case .done = answer {
            } else if state.core.table.segments.count >= resize.oldCount {
                state.core.table.limit(to: resize.oldCount)
            }
            state.core.log.space.forgetStandstill()
            return resize.done
        }
        done?(answer)
    }

    // MARK: Growing

    /// Writes both superblock slots before the table grows: whichever slot a mount uses must know every segment that
    /// exists.
    private func grow(to count: Int) throws(Errno) {
        var superblock = state.withLock { $0.superblock }
        superblock.setSegmentCount(count)
        do throws(Errno) {
            for _ in 0..<2 { try writeSuperblock(superblock) }
        } catch {
            takeBackCapacity()
            throw error
        }
        state.withLock { $0.core.table.resize(to: count) }
    }

    /// After a failed change one superblock slot may hold another capacity than the mount. This writes the mount's own
    /// again; if that fails, the mount becomes read-only.
    private func takeBackCapacity() {
        let superblock = state.withLock { state -> Superblock? in
            guard !state.core.log.isClosed else { return nil }
            var superblock = state.superblock
            superblock.setSegmentCount(state.core.table.segments.count)
            return superblock
        }
        guard let superblock else { return }
        do throws(Errno) { try writeSuperblock(superblock) } catch {
            log("the old capacity could not be written again (\(error)): the mount is read-only now")
            closeLog(error)
        }
    }

    // MARK: Shrinking

    /// Empties segments until the new count holds those in use and what removals need. True while there is more to do.
    private func makeRoom(for resize: Resize) throws(Errno) -> Bool {
        guard !resize.isLimited else { return false }
        let isEnough = state.withLock { state in
            let log = state.core.log
            guard resize.count - log.table.inUseCount > log.space.keptSegmentCount(.removal) else { return false }
            state.resize?.isLimited = true
            return true
        }
        if isEnough { return false }
        if state.withLock({ $0.core.table.hasDeadSegment }) {
            freeDeadSegments()
            return true
        }
        guard cleanOne() else { throw .noSpace }
        return true
    }

    /// Empties the segments beyond the new count, one a round. True while there is more to do.
    private func vacate(_ resize: Resize) throws(Errno) -> Bool {
        // The table is asked in each round: a relocation of the log replaces it.
        let (prepared, live) = state.withLock { state -> ([SegmentNumber], [SegmentID]) in
            let table = state.core.table
            table.limit(to: resize.count)
            return (table.beyondLimit(.prepared), table.beyondLimit(.inUse).map { table.id(of: $0) })
        }
        for number in prepared { try giveBack(number) }
        if live.isEmpty { return try leaveHead(beyond: resize.count) }
        sealCleanersSegment()
        if try leaveHead(beyond: resize.count) { return true }
        let victim = state.withLock { state in
            let table = state.core.table
            return live.first { table.isInUse($0) && table[$0.number].isSealed && table[$0.number].live > 0 }
        }
        guard let victim else {
            // What is left is dead, or somebody reads it now.
            freeDeadSegments()
            return true
        }
        try volume.syncAndWait()
        if !state.withLock({ mayClean(victim, $0.core.log) }) {
            freeDeadSegments()
            guard state.withLock({ mayClean(victim, $0.core.log) }) else { throw .noSpace }
        }
        guard begin(.cleaning) else { return true }
        defer { end(.cleaning) }
        guard clean(victim) != nil, !state.withLock({ $0.core.table[victim.number].isStuck }) else { throw .ioError }
        return true
    }

    /// Takes a prepared segment out of the store.
    private func giveBack(_ number: SegmentNumber) throws(Errno) {
        let file = state.withLock { $0.core.table[number].file! }
        try device.unlink(.segment(number))
        // The file has no name any more, so it must never become the head.
        state.withLock { $0.core.table.remove(number) }
        device.close(file)
        try device.syncDirectories()
    }

    /// Makes the log leave a head beyond `count`. True when it had to; the caller tries again.
    private func leaveHead(beyond count: Int) throws(Errno) -> Bool {
        guard state.withLock({ Int($0.core.log.position.segment.rawValue) >= count }) else { return false }
        // The first call's empty record ends the segment. The record of the next call begins another segment.
        try runWaiting { (core) throws(Stop) in
            try core.commit(.recovery, .nobody) { _ in }
        }
        try volume.syncAndWait()
        return true
    }

    /// Writes the new capacity. Nothing lies beyond `count` any more, and neither superblock slot needs anything there.
    /// False where the log was relocated meanwhile: the adopted index has the usage entries again, and the table has
    /// all segments.
    private func shrink(to count: Int) throws(Errno) -> Bool {
        let (oldCount, adoptCount) = state.withLock { ($0.core.table.segments.count, $0.core.adoptCount) }
        for number in count..<oldCount {
            try runWaiting { (core) throws(Stop) in
                guard core.adoptCount == adoptCount else { return }
                let key = UsageEntry.key(SegmentNumber(UInt32(number)))
                try core.find { () throws(PageMiss) in try core.index.tree.touch(key) }
                core.table[SegmentNumber(UInt32(number))].isChanged = false
                _ = core.index.tree.remove(key)
            }
        }
        puncher.waiting = []
        let isSame = state.withLock { state in
            guard state.core.adoptCount == adoptCount else { return false }
            state.core.table.resize(to: count)
            return true
        }
        guard isSame else { return false }
        // The checkpoint takes its capacity from the table.
        do throws(Errno) { try checkpointTwice() } catch {
            state.withLock { $0.core.table.resize(to: oldCount) }
            takeBackCapacity()
            throw error
        }
        guard state.withLock({ $0.core.adoptCount == adoptCount }) else { return false }
        // A second checkpoint fills the other slot, so that neither names a segment that is gone.
        checkpointReporting()
        return true
    }
}
