// Another capacity for a store in use. Growing is two superblocks; shrinking first empties the segments whose numbers will be too high.
// The housekeeper does a piece of it each round. A mount that dies meanwhile leaves a store of the old capacity, or of the new one.

/// What became of a wish for another capacity, in bytes.
enum ResizeAnswer: Equatable {
    case done(capacity: UInt64)
    /// What is used and the reserve need more.
    case tooSmall(least: UInt64)
    case failed(Errno)
}

/// A change of the number of segments, until it is done.
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
    /// The least number of segments that holds what is used and what is reserved, with the reserve and one segment to work with.
    var leastSegmentCount: Int {
        let needed = log.space.neededByteCount(reserved: index.reservedByteCount, removing: index.removingByteCount)
        return log.space.leastSegmentCount(for: needed, capacityMinimum: FormatOptions.capacityMinimum)
    }
}

extension Housekeeper {
    /// Gives the store another capacity, rounded down to whole segments; calls `done` once.
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

    /// Tells who waits what became of it; what was not done is taken back.
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

    /// Either slot of the superblock must know of a segment before there is one.
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

    /// A slot of the superblock may have another capacity than the mount goes on with: that is repaired before anything relies on it.
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

    /// Empties segments until those in use, and what removals need, fit into the new number; true while there is more to do.
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

    /// Empties the segments beyond the new number, one a round; true while there is more to do.
    private func vacate(_ resize: Resize) throws(Errno) -> Bool {
        // Anew each round: the table is another one when the log was written again elsewhere.
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
            // Dead, or read at this moment.
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
        // Nobody may go on in a file without a name.
        state.withLock { $0.core.table.remove(number) }
        device.close(file)
        try device.syncDirectories()
    }

    /// Has the log go on in a segment that stays; true when it had to.
    private func leaveHead(beyond count: Int) throws(Errno) -> Bool {
        guard state.withLock({ Int($0.core.log.position.segment.rawValue) >= count }) else { return false }
        // An empty record ends the segment, another begins the next.
        try runWaiting { (core) throws(Stop) in
            try core.commit(.recovery, .nobody) { _ in }
        }
        try volume.syncAndWait()
        return true
    }

    /// Nothing lies beyond the new number any more, and no superblock slot needs anything there. False where the log was written again
    /// elsewhere meanwhile: the index that was adopted then has the usage entries again, and the table all segments.
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
        // The checkpoint has the capacity of the table that it is made of.
        do throws(Errno) { try checkpointTwice() } catch {
            state.withLock { $0.core.table.resize(to: oldCount) }
            takeBackCapacity()
            throw error
        }
        guard state.withLock({ $0.core.adoptCount == adoptCount }) else { return false }
        // The other slot as well, so that neither names what is gone.
        checkpointReporting()
        return true
    }
}
