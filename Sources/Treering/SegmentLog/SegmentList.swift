// The segments of a store by number, and what is asked of all of them at once. A store may have millions: nothing that is asked under the
// lock with each operation or each checkpoint looks at every one. Used by SegmentTable.

/// Segments, and sums over them that are kept with each change.
struct SegmentList: RandomAccessCollection, MutableCollection {
    private var segments: [Segment]
    private let segmentByteCount: Int64
    /// Bytes in sealed segments that nothing needs any more, and the part of them that lies between live bytes.
    private(set) var reclaimableByteCount: Int64 = 0
    private(set) var deadByteCount: Int64 = 0
    /// Sealed segments without a live byte.
    private(set) var dead: Set<Int> = []
    /// Segments whose usage entry is behind, each once at least; some may have caught up.
    private var changed: [Int] = []
    /// The stamps of the segments of the log in use, in order unless `mustSort`.
    private var stamps: [BatchSequence] = []
    private var mustSort = false
    /// No segment below is absent.
    private var firstAbsent = 0

    init(count: Int, segmentByteCount: Int) {
        segments = Array(repeating: Segment(), count: count)
        self.segmentByteCount = Int64(segmentByteCount)
    }

    var startIndex: Int { 0 }
    var endIndex: Int { segments.count }

    subscript(_ index: Int) -> Segment {
        @inline(__always)
        get { segments[index] }
        _modify {
            let before = Standing(segments[index], segmentByteCount)
            yield &segments[index]
            account(index, before)
        }
    }

    /// Adds to (or takes from) the live bytes of a segment.
    @inline(__always)
    mutating func charge(_ index: Int, _ byteCount: Int64) {
        // A segment that is not sealed counts in no sum.
        if segments[index].isChanged && !segments[index].isSealed {
            segments[index].live &+= byteCount
        } else {
            self[index].addLive(byteCount)
        }
    }

    /// Goes on with so many segments; those beyond hold nothing.
    mutating func resize(to count: Int) {
        if count < segments.count {
            precondition(segments[count...].allSatisfy { $0.state == .absent })
            segments.removeLast(segments.count - count)
            changed.removeAll { $0 >= count }
            firstAbsent = Swift.min(firstAbsent, count)
        } else {
            segments.append(contentsOf: repeatElement(Segment(), count: count - segments.count))
        }
    }

    /// The first absent segment below a number.
    mutating func absentIndex(below limit: Int) -> Int? {
        while firstAbsent < limit, segments[firstAbsent].state != .absent { firstAbsent += 1 }
        return firstAbsent < limit ? firstAbsent : nil
    }

    /// The segments whose usage entry is behind, in order.
    mutating func changedIndices() -> [Int] {
        changed = Set(changed.filter { segments[$0].isChanged }).sorted()
        return changed
    }

    /// How many segments of the log in use have a stamp in a range.
    mutating func stampCount(from first: BatchSequence, through last: BatchSequence) -> Int {
        sortStamps()
        guard first <= last else { return 0 }
        return place(behind: last) - place(of: first)
    }

    /// The greatest stamp of a segment of the log in use that is not above a batch.
    mutating func stamp(through batch: BatchSequence) -> BatchSequence? {
        sortStamps()
        let place = place(behind: batch)
        return place == 0 ? nil : stamps[place - 1]
    }

    // MARK: Sums

    /// What a segment is to the sums.
    private struct Standing {
        let reclaimable: Int64
        let isDead: Bool
        let isChanged: Bool
        let isAbsent: Bool
        let stamp: BatchSequence?

        @inline(__always)
        init(_ segment: Segment, _ segmentByteCount: Int64) {
            let isSealed = segment.isSealed
            reclaimable = isSealed ? Swift.max(0, segmentByteCount &- segment.live) : 0
            isDead = isSealed && segment.live == 0
            isChanged = segment.isChanged
            isAbsent = segment.state == .absent
            stamp = segment.state == .inUse && segment.role == .hot ? segment.firstBatch : nil
        }
    }

    @inline(__always)
    private mutating func account(_ index: Int, _ before: Standing) {
        let after = Standing(segments[index], segmentByteCount)
        reclaimableByteCount &+= after.reclaimable &- before.reclaimable
        // One that holds nothing, or more than it can, has nothing dead between what is live.
        deadByteCount &+= (after.isDead ? 0 : after.reclaimable) &- (before.isDead ? 0 : before.reclaimable)
        if after.isChanged && !before.isChanged { changed.append(index) }
        if after.isDead != before.isDead { setDead(index, after.isDead) }
        if after.stamp != before.stamp { setStamp(before.stamp, after.stamp) }
        if after.isAbsent && index < firstAbsent { firstAbsent = index }
    }

    private mutating func setDead(_ index: Int, _ isDead: Bool) {
        if isDead {
            dead.insert(index)
        } else {
            dead.remove(index)
            segments[index].emptySince = nil
        }
    }

    private mutating func setStamp(_ old: BatchSequence?, _ new: BatchSequence?) {
        if let old {
            sortStamps()
            stamps.remove(at: place(of: old))
        }
        if let new {
            if let last = stamps.last, last > new { mustSort = true }
            stamps.append(new)
        }
    }

    private mutating func sortStamps() {
        if mustSort { stamps.sort() }
        mustSort = false
    }

    /// Where the first stamp not below `stamp` stands.
    private func place(of stamp: BatchSequence) -> Int { firstPlace { $0 >= stamp } }

    /// Where the first stamp above `stamp` stands.
    private func place(behind stamp: BatchSequence) -> Int { firstPlace { $0 > stamp } }

    private func firstPlace(_ isBeyond: (BatchSequence) -> Bool) -> Int {
        var (low, high) = (0, stamps.count)
        while low < high {
            let middle = (low + high) / 2
            if isBeyond(stamps[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

extension Segment {
    fileprivate mutating func addLive(_ byteCount: Int64) {
        live &+= byteCount
        isChanged = true
    }
}
