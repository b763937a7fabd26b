// Gives free space back to the host on request (FITRIM, `treering clean`). In each round the housekeeper empties one
// segment, or looks through one for dead blocks to punch, so that its other work goes on.

/// Numbers of segments, all of them unless told.
typealias SegmentNumbers = Range<UInt32>

extension SegmentNumbers {
    static let all: SegmentNumbers = 0..<UInt32.max
    func contains(_ number: SegmentNumber) -> Bool { contains(number.rawValue) }
}

/// A trim that is under way.
struct Trim {
    var segments: SegmentNumbers
    /// How many segments had a file when it began.
    var fileCount: Int
    /// How many segments may still be emptied: at first, as many as are in use.
    var restCount: Int
    /// How many segments may still be looked through for dead blocks.
    var searchCount: Int
    /// How many bytes had been punched since the mount when it began.
    var punchedByteCount: UInt64
    var waiters: [@Sendable (_ byteCount: UInt64) -> Void] = []
}

extension Housekeeper {
    /// The segments that lie as a whole in a range of bytes of the store, which counts them segment after segment up to
    /// the capacity. Nil for a range that other file systems refuse too: it begins beyond the end, is shorter than a
    /// block, or asks for a least length that is longer than a segment.
    func segmentsToTrim(from start: UInt64, byteCount: UInt64, least: UInt64) -> SegmentNumbers? {
        let (capacity, size) = state.withLock {
            ($0.superblock.capacityByteCount, UInt64($0.core.table.segmentByteCount))
        }
        guard start < capacity, byteCount >= UInt64(blockByteCount), least <= size else { return nil }
        let first = UInt32((start + size - 1) / size)
        // While a store shrinks, it has segments beyond its end.
        if byteCount >= capacity - start { return first..<UInt32.max }
        return first..<max(first, UInt32((start + byteCount) / size))
    }

    /// Begins a trim: empties those of `segments` that are worth it, and gives free ones back to the host. Calls `done`
    /// once, with the bytes that the host has gained. For any thread.
    func trim(_ segments: SegmentNumbers = .all, _ done: @escaping @Sendable (_ byteCount: UInt64) -> Void) {
        let isBegun = state.withLock { state -> Bool in
            let core = state.core
            guard !core.isVainToWait else { return false }
            let count = core.table.inUseCount
            if var trim = state.trim {
                // A trim is under way: it takes this one in.
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

    /// Gives prepared segments back to the host, except those that would be prepared again at once.
    private func giveBackSurplus(of segments: SegmentNumbers) {
        do throws(Errno) {
            while let (number, file) = state.withLock({ state -> (SegmentNumber, DeviceFile)? in
                let log = state.core.log
                guard log.table.pool.count > log.space.preparedSegmentGoal, !log.space.isHostFull, !state.core.isOver,
                    let number = log.table.pool.first(where: segments.contains), let file = log.table[number].file
                else { return nil }
                // The table forgets the segment before its file goes: nobody may open it as the head meanwhile.
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
