// The segments of the store in memory: state, stamp, live bytes. Owned by the core and used under the volume's lock.
// The index stores a copy of it at each checkpoint (usage entries).

/// All segments by number, and the pool of prepared ones.
final class SegmentTable {
    let segmentByteCount: Int
    private(set) var segments: SegmentList
    /// Prepared segments, the one to be used next last.
    private(set) var pool: [SegmentNumber] = []
    private(set) var inUseCount = 0
    private(set) var liveByteCount: Int64 = 0
    /// Why the charges of entries cannot be true, if they cannot: the index is damaged. The operation that changes
    /// entries reports it.
    var impossible: CorruptionReport?

    init(segmentByteCount: Int, countLimit: Int) {
        self.segmentByteCount = segmentByteCount
        self.countLimit = countLimit
        segments = SegmentList(count: countLimit, segmentByteCount: segmentByteCount)
    }

    subscript(_ number: SegmentNumber) -> Segment {
        get { segments[Int(number.rawValue)] }
        _modify { yield &segments[Int(number.rawValue)] }
    }

    /// How many segments the store may have. While it shrinks, segments beyond the limit may still be in use.
    private(set) var countLimit: Int

    func contains(_ number: SegmentNumber) -> Bool { Int(number.rawValue) < segments.count }

    /// A segment with its present incarnation.
    @inline(__always)
    func id(of number: SegmentNumber) -> SegmentID {
        SegmentID(number, segments[Int(number.rawValue)].incarnation)
    }

    /// Whether a segment is in use and still in this incarnation.
    func isInUse(_ segmentID: SegmentID) -> Bool {
        contains(segmentID.number) && self[segmentID.number].state == .inUse
            && self.id(of: segmentID.number) == segmentID
    }

    /// Whether a batch of the log can lie in this incarnation of a segment, by its sequence.
    func includes(_ batch: BatchSequence, in segmentID: SegmentID) -> Bool {
        guard isInUse(segmentID) else { return false }
        let segment = self[segmentID.number]
        return segment.role == .hot && batch >= segment.firstBatch && (!segment.isSealed || batch <= segment.lastBatch)
    }

    /// Notes `count` reads of a segment. It is not recycled until each has called `letGo`.
    @inline(__always)
    func hold(_ segmentID: SegmentID, count: Int = 1) {
        precondition(self.id(of: segmentID.number) == segmentID, "an incarnation that is over cannot be read")
        self[segmentID.number].readerCount += count
    }

    @inline(__always)
    func letGo(of segmentID: SegmentID) {
        precondition(
            self.id(of: segmentID.number) == segmentID && self[segmentID.number].readerCount > 0,
            "a segment was recycled while somebody read it")
        self[segmentID.number].readerCount -= 1
    }

    /// How many segments are not in use: prepared or absent.
    var freeCount: Int { max(0, countLimit - inUseCount) }

    /// How many segments have a file.
    var fileCount: Int { inUseCount + pool.count }

    /// Whether some sealed segment has no live byte and waits to be recycled.
    var hasDeadSegment: Bool { !segments.dead.isEmpty }

    /// How many sealed segments have no live byte.
    var deadSegmentCount: Int { segments.dead.count }

    /// Bytes in sealed segments that are not live.
    var reclaimableByteCount: Int64 { segments.reclaimableByteCount }

    /// The part of `reclaimableByteCount` in segments that also have live bytes. Only the cleaner can reclaim it, by
    /// moving those.
    var deadByteCount: Int64 { segments.deadByteCount }

    /// The segments whose usage entry is out of date, in order, with `other` among them.
    func changedNumbers(and other: SegmentNumber? = nil) -> [SegmentNumber] {
        var indices = segments.changedIndices()
        if let other, !self[other].isChanged {
            let index = Int(other.rawValue)
            indices.insert(index, at: indices.firstIndex { $0 > index } ?? indices.count)
        }
        return indices.map { SegmentNumber(UInt32($0)) }
    }

    /// The segments that somebody reads from.
    var heldSegments: [SegmentID] {
        segments.indices.filter { segments[$0].readerCount > 0 }.map { id(of: SegmentNumber(UInt32($0))) }
    }

    /// Seals a segment: nothing more is appended to it.
    func seal(_ number: SegmentNumber, lastBatch: BatchSequence) {
        precondition(self[number].state == .inUse && lastBatch != .zero)
        self[number].lastBatch = lastBatch
        self[number].isChanged = true
    }

    /// Notes that the accounting of the index cannot be true, which only damage can cause. The first reason is kept.
    func noteImpossible(_ reason: String) {
        impossible = impossible ?? CorruptionReport(place: "the index", reason: "\(reason), which cannot be")
    }

    /// Adds to (or takes from) the live bytes of a segment.
    @inline(__always)
    func charge(_ number: SegmentNumber, _ byteCount: Int) {
        let index = Int(number.rawValue)
        guard index < segments.count else { return noteImpossible("an entry names segment \(number.rawValue)") }
        segments.charge(index, Int64(byteCount))
        liveByteCount &+= Int64(byteCount)
    }

    /// Sets a segment to what its usage entry or its header says.
    func restore(_ number: SegmentNumber, _ usage: UsageEntry) {
        let index = Int(number.rawValue)
        precondition(segments[index].state != .inUse)
        segments[index].incarnation = usage.incarnation
        segments[index].epoch = usage.epoch
        segments[index].firstBatch = usage.firstBatch
        segments[index].lastBatch = usage.lastBatch
        segments[index].end = usage.end
        segments[index].role = usage.role
        segments[index].live = usage.live
        liveByteCount &+= usage.live
        if usage.state == .inUse {
            pool.removeAll { $0 == number }
            segments[index].state = .inUse
            inUseCount += 1
        }
    }

    /// Adds a prepared segment to the pool.
    func addPrepared(_ number: SegmentNumber, incarnation: UInt32, file: DeviceFile) {
        let index = Int(number.rawValue)
        precondition(segments[index].state == .absent)
        segments[index].state = .prepared
        segments[index].incarnation = incarnation
        segments[index].file = file
        pool.append(number)
    }

    /// Notes the file and the incarnation of a segment, without a change of its state. The highest incarnation is kept.
    func note(_ number: SegmentNumber, file: DeviceFile?, incarnation: UInt32) {
        self[number].file = file
        self[number].incarnation = max(self[number].incarnation, incarnation)
    }

    /// Makes the pool give out these segments last, because writing to them has failed.
    func preferOthers(than failed: Set<SegmentNumber>) {
        pool = pool.filter { failed.contains($0) } + pool.filter { !failed.contains($0) }
    }

    /// Opens a prepared segment as the head of the log or of the cleaner's blocks; nil if the pool is empty.
    func openHead(
        _ role: SegmentHeader.Role = .hot, firstBatch: BatchSequence, epoch: MountEpoch
    ) -> SegmentNumber? {
        guard let number = pool.popLast() else { return nil }
        let index = Int(number.rawValue)
        precondition(
            segments[index].state == .prepared && segments[index].file != nil && segments[index].readerCount == 0,
            "a head is a prepared segment")
        segments[index].state = .inUse
        segments[index].role = role
        segments[index].epoch = epoch
        segments[index].firstBatch = firstBatch
        segments[index].lastBatch = .zero
        segments[index].end = 0
        segments[index].live = 0
        segments[index].emptySince = nil
        segments[index].isChanged = true
        inUseCount += 1
        return number
    }

    /// Puts a dead segment into the pool. Its header on disk already has the next incarnation.
    func recycle(_ number: SegmentNumber, incarnation: UInt32) {
        let index = Int(number.rawValue)
        precondition(segments[index].isSealed && segments[index].live == 0 && segments[index].readerCount == 0)
        precondition(incarnation > segments[index].incarnation)
        segments[index] = segments[index].recycled(to: incarnation)
        inUseCount -= 1
        pool.append(number)
    }

    /// Takes a prepared segment, whose file is gone, out of the pool. Its incarnation is remembered.
    func remove(_ number: SegmentNumber) {
        precondition(self[number].state == .prepared)
        pool.removeAll { $0 == number }
        self[number].state = .absent
        self[number].file = nil
    }

    /// Notes that the file of a segment is gone, in whichever state the segment is.
    func dropFile(_ number: SegmentNumber) {
        if self[number].state == .prepared { remove(number) } else { self[number].file = nil }
    }

    /// Whether a hot segment in use, other than `own`, has a stamp in `since...until`. Then a tombstone is still
    /// needed.
    func holdsAnything(since: BatchSequence, until: BatchSequence, besides own: SegmentNumber) -> Bool {
        var count = segments.stampCount(from: since, through: until)
        if contains(own) {
            let segment = self[own]
            let isLog = segment.state == .inUse && segment.role == .hot
            if isLog, segment.firstBatch >= since, segment.firstBatch <= until { count -= 1 }
        }
        return count > 0
    }

    /// The stamp of the hot segment that holds a batch or, if that is gone, of the last one before it; nil if there is
    /// none.
    func stamp(through batch: BatchSequence) -> BatchSequence? { segments.stamp(through: batch) }

    /// Notes for each dead segment that this checkpoint saw it without a live byte, unless an earlier one did.
    func noteEmpty(at checkpoint: CheckpointNumber) {
        for index in segments.dead where segments[index].emptySince == nil { segments[index].emptySince = checkpoint }
    }

    /// The dead segments that neither superblock slot needs any more. `checkpoint` is the older of the slots' two
    /// checkpoints.
    func recyclable(through checkpoint: CheckpointNumber) -> [SegmentNumber] {
        segments.dead.sorted().compactMap { index in
            let segment = segments[index]
            guard segment.readerCount == 0, let since = segment.emptySince,
                since <= checkpoint
            else { return nil }
            return SegmentNumber(UInt32(index))
        }
    }

    /// The number for the next segment to prepare; nil if every number has a file.
    func absentNumber() -> SegmentNumber? {
        segments.absentIndex(below: countLimit).map { SegmentNumber(UInt32($0)) }
    }

    // MARK: Another number of segments

    /// Sets how many segments may be opened. It can be lowered, to shrink the store, and raised again.
    func limit(to count: Int) {
        precondition(count <= segments.count)
        countLimit = count
    }

    /// The segments beyond the limit that are in this state.
    func beyondLimit(_ state: Segment.State) -> [SegmentNumber] {
        segments.indices.dropFirst(countLimit).filter { segments[$0].state == state }.map { SegmentNumber(UInt32($0)) }
    }

    /// Changes the number of segments. Those beyond it must be absent.
    func resize(to count: Int) {
        segments.resize(to: count)
        countLimit = count
    }
}
