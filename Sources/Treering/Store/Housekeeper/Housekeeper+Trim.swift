// Giving back on request what the store holds of the host and does not need: FITRIM, and `treering clean`. The housekeeper empties one
// segment a round, or looks through one for what can be punched out, so that whatever else it has to do goes on.

/// Numbers of segments, all of them unless told.
typealias SegmentNumbers = Range<UInt32>

extension SegmentNumbers {
    static let all: SegmentNumbers = 0..<UInt32.max
    func contains(_ number: SegmentNumber) -> Bool { contains(number.rawValue) }
}

/// What was asked for, until it is done.
struct Trim {
    var segments: SegmentNumbers
    /// Files of segments when it began.
    var fileCount: Int
    /// How many segments may still be emptied; each that was there once.
    var restCount: Int
    /// How many may still be looked through.
    var searchCount: Int
    /// What had been punched when it began.
    var punchedByteCount: UInt64
    var waiters: [@Sendable (_ byteCount: UInt64) -> Void] = []
}

extension Housekeeper {
    /// The segments that lie as a whole in a range of the store, whose bytes are counted segment after segment up to its capacity. Nil for
    /// what other file systems refuse too: a range that begins beyond the end or has not one block, a least length that nothing has.
    func segmentsToTrim(from start: UInt64, byteCount: UInt64, least: UInt64) -> SegmentNumbers? {
        let (capacity, size) = state.withLock {
            ($0.superblock.capacityByteCount, UInt64($0.core.table.segmentByteCount))
        }
        guard start < capacity, byteCount >= UInt64(blockByteCount), least <= size else { return nil }
        let first = UInt32((start + size - 1) / size)
        // A store that shrinks has segments beyond its end.
        if byteCount >= capacity - start { return first..<UInt32.max }
        return first..<max(first, UInt32((start + byteCount) / size))
    }

    /// Empties those of some segments that are worth it, and gives free ones back to the host. Calls `done` once, with the bytes of the host
    /// that came free.
    func trim(_ segments: SegmentNumbers = .all, _ done: @escaping @Sendable (_ byteCount: UInt64) -> Void) {
        let isBegun = state.withLock { state -> Bool in
            let core = state.core
            guard !core.isVainToWait else { return false }
            let count = core.table.inUseCount
            if var trim = state.trim {
                // One that is under way does this as well.
                if !trim.segments.contains(segments) {
                    let lower = min(trim.segments.lowerBound, segments.lowerBound)
                    trim.segments = lower..<max(trim.segments.upperBound, segments.upperBound)
                    (trim.restCount, trim.searchCount) = (count, count)
                }
                trim.waiters.append(done)
                state.trim = trim
            } else {
                state.trim = Trim(
                    segments: segments, fileCount: core.table.fileCount, restCount: count, searchCount: count,
                    punchedByteCount: state.punchedByteCount, waiters: [done])
            }
            return true
        }
        if isBegun { kick() } else { done(0) }
    }

    /// The housekeeper's part: true when there is more to do.
    func continueTrim() -> Bool {
        guard let (rest, segments) = state.withLock({ state in state.trim.map { ($0.restCount, $0.segments) } }) else {
            return false
        }
        if rest > 0 {
            let isCleaned = cleanOne(of: segments)
            state.withLock { $0.trim?.restCount = isCleaned ? rest - 1 : 0 }
            if isCleaned { return true }
        }
        if state.withLock({ ($0.trim?.searchCount ?? 0) > 0 }), findDeadBlocks(in: segments) {
            state.withLock { $0.trim?.searchCount -= 1 }
            return true
        }
        freeDeadSegments(punches: true)
        giveBackSurplus(of: segments)
        endTrim()
        return false
    }

    /// Gives prepared segments back to the host but for those that would be prepared again at once.
    private func giveBackSurplus(of segments: SegmentNumbers) {
        do throws(Errno) {
            while let (number, file) = state.withLock({ state -> (SegmentNumber, DeviceFile)? in
                let log = state.core.log
                guard log.table.pool.count > log.space.preparedSegmentGoal, !log.space.isHostFull, !state.core.isOver,
                    let number = log.table.pool.first(where: segments.contains), let file = log.table[number].file
                else { return nil }
                // Before its file goes: nobody may open it as the head meanwhile.
                log.table.remove(number)
                return (number, file)
            }) {
                device.close(file)
                try device.unlink(.segment(number))
            }
            try device.syncDirectories()
        } catch { log("free segments could not be given back to the host: \(error)") }
    }

    /// Tells all who wait what was gained so far.
    func endTrim() {
        let (waiters, byteCount) = state.withLock { state -> ([@Sendable (UInt64) -> Void], UInt64) in
            guard let trim = state.trim else { return ([], 0) }
            state.trim = nil
            let table = state.core.table
            let files = UInt64(max(0, trim.fileCount - table.fileCount) * table.segmentByteCount)
            return (trim.waiters, files + state.punchedByteCount - trim.punchedByteCount)
        }
        for waiter in waiters { waiter(byteCount) }
    }
}
