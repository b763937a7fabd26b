// The segments of a store by number, with sums and sets over all of them. A store may have millions of segments. So no
// question that is asked under the lock for each operation or checkpoint looks at every segment. Used by SegmentTable.

/// Segments, and sums over them that are updated with each change of a segment.
struct SegmentList: RandomAccessCollection, MutableCollection {
    private var segments: [Segment]
    private let segmentByteCount: Int64
    /// Bytes in sealed segments that are not live, and the part of them in segments that have live bytes too.
    private(set) var reclaimableByteCount: Int64 = 0
    private(set) var deadByteCount: Int64 = 0
    /// Sealed segments without a live byte.
    private(set) var dead: Set<Int> = []
    /// Contains every segment whose usage entry is out of date, perhaps twice, and perhaps some others.
    private var changed: [Int] = []
    /// The stamps of all hot segments in use, in order unless `mustSort`.
    private var stamps: [BatchSequence] = []
    private var mustSort = false
    /// No segment with a lower number is absent.
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
        // A segment that is not sealed is in no sum.
        if segments[index].isChanged && !segments[index].isSealed {
            segments[index].live &+= byteCount
        } else {
            self[index].addLive(byteCount)
        }
    }

    /// Changes the number of segments. Those beyond the new number must be absent.
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

    /// The lowest absent segment below `limit`.
    mutating func absentIndex(below limit: Int) -> Int? {
        while firstAbsent < limit, segments[firstAbsent].state != .absent { firstAbsent += 1 }
        return firstAbsent < limit ? firstAbsent : nil
    }

    /// The segments whose usage entry is out of date, in order.
    mutating func changedIndices() -> [Int] {
        changed = Set(changed.filter { segments[$0].isChanged }).sorted()
        return changed
    }

    /// How many hot segments in use have a stamp in a range.
    mutating func stampCount(from first: BatchSequence, through last: BatchSequence) -> Int {
        sortStamps()
        guard first <= last else { return 0 }
        return place(behind: last) - place(of: first)
    }

    /// The greatest stamp of a hot segment in use that is not above `batch`.
    mutating func stamp(through batch: BatchSequence) -> BatchSequence? {
        sortStamps()
        let place = place(behind: batch)
        return place == 0 ? nil : stamps[place - 1]
    }

    // MARK: Sums

    /// What one segment contributes to the sums and sets.
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
        // A segment without live bytes becomes free as a whole, so none of its bytes count here.
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
