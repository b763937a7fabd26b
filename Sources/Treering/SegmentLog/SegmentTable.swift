// What the log knows of each segment, in memory: state, place in the order, live bytes. Owned by the core; the index
// stores a copy at each checkpoint.

/// One segment of the store.
struct Segment {
    enum State {
        /// There is no file.
        case absent
        /// A file whose blocks were written before and which holds nothing: ready to become the head.
        case prepared
        /// In use: the head, or full.
        case inUse
    }

    var state = State.absent
    var role = SegmentHeader.Role.hot
    var incarnation: UInt32 = 0
    var epoch = MountEpoch(0)
    /// The segment's stamp: sequence of its first batch.
    var firstBatch = BatchSequence.zero
    /// 0 while it is the head.
    var lastBatch = BatchSequence.zero
    /// Where recovery declared its end, else 0.
    var end: UInt32 = 0
    /// Bytes that index entries charge to it.
    var live: Int64 = 0
    var file: DeviceFile?
    /// Reads in flight; it is not recycled meanwhile.
    var readerCount = 0
    /// Its header is being written anew: nobody may begin to read it.
    var isBeingReset = false
    /// The first checkpoint that froze it with no live byte.
    var emptySince: CheckpointNumber?
    /// Whether the index's usage entry is behind.
    var isChanged = false
    /// It could not be emptied, because something in it cannot be read: the cleaner leaves it alone.
    var isStuck = false
    /// How much lived in it when it was looked through for dead blocks last.
    var liveWhenSearched: Int64?

    /// A segment that holds nothing, in its next incarnation: what was known of the one before is gone but for what its usage entry tells.
    func recycled(to incarnation: UInt32) -> Segment {
        var next = Segment()
        next.state = .prepared
        next.role = role
        next.incarnation = incarnation
        next.epoch = epoch
        next.file = file
        next.isChanged = true
        return next
    }

    var isSealed: Bool { state == .inUse && lastBatch != .zero }

    var usage: UsageEntry {
        UsageEntry(
            firstBatch: firstBatch, lastBatch: lastBatch, epoch: epoch, live: live, incarnation: incarnation,
            end: end,
            state: state == .inUse ? .inUse : .free, role: role)
    }
}

/// All segments by number, and the pool of prepared ones.
final class SegmentTable {
    let segmentByteCount: Int
    private(set) var segments: SegmentList
    /// Prepared segments, the one to be used next last.
    private(set) var pool: [SegmentNumber] = []
    private(set) var inUseCount = 0
    private(set) var liveByteCount: Int64 = 0
    /// What cannot be true of the entries that were charged or discharged, to be reported by whoever changes them.
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

    /// How many segments there may be. While the store shrinks, some beyond may still be in use.
    private(set) var countLimit: Int

    func contains(_ number: SegmentNumber) -> Bool { Int(number.rawValue) < segments.count }

    /// The incarnation that a segment is in.
    @inline(__always)
    func id(of number: SegmentNumber) -> SegmentID {
        SegmentID(number, segments[Int(number.rawValue)].incarnation)
    }

    /// Whether a segment is in use, in this incarnation of it.
    func isInUse(_ segmentID: SegmentID) -> Bool {
        contains(segmentID.number) && self[segmentID.number].state == .inUse
            && self.id(of: segmentID.number) == segmentID
    }

    /// Whether a batch of the log lies in this incarnation of a segment, as far as sequences tell.
    func includes(_ batch: BatchSequence, in segmentID: SegmentID) -> Bool {
        guard isInUse(segmentID) else { return false }
        let segment = self[segmentID.number]
        return segment.role == .hot && batch >= segment.firstBatch && (!segment.isSealed || batch <= segment.lastBatch)
    }

    /// Somebody reads from a segment: it stays in its incarnation until they let go of it.
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

    /// Segments that could still be opened: prepared or not yet there.
    var freeCount: Int { max(0, countLimit - inUseCount) }

    /// Segments that have a file.
    var fileCount: Int { inUseCount + pool.count }

    /// Whether a segment holds nothing any more and only waits to be recycled.
    var hasDeadSegment: Bool { !segments.dead.isEmpty }

    /// How many of those there are.
    var deadSegmentCount: Int { segments.dead.count }

    /// Bytes in sealed segments that nothing needs any more.
    var reclaimableByteCount: Int64 { segments.reclaimableByteCount }

    /// The part of that which lies between live bytes, so that only moving those brings it back.
    var deadByteCount: Int64 { segments.deadByteCount }

    /// The segments whose usage entry is behind, and another one, in order.
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

    /// Nothing more is written to a segment.
    func seal(_ number: SegmentNumber, lastBatch: BatchSequence) {
        precondition(self[number].state == .inUse && lastBatch != .zero)
        self[number].lastBatch = lastBatch
        self[number].isChanged = true
    }

    /// Notes that the accounting of the index cannot be true, which only damage can have done; the first time counts.
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

    /// Puts a segment in use again as the index or its header tells.
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

    /// Remembers the file and the last known incarnation of a segment that is not in use.
    func note(_ number: SegmentNumber, file: DeviceFile?, incarnation: UInt32) {
        self[number].file = file
        self[number].incarnation = max(self[number].incarnation, incarnation)
    }

    /// Has the pool give these away last: writing to them has failed.
    func preferOthers(than failed: Set<SegmentNumber>) {
        pool = pool.filter { failed.contains($0) } + pool.filter { !failed.contains($0) }
    }

    /// Takes a prepared segment as the new head of the log, or of what the cleaner moves; nil when the pool is empty.
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

    /// A dead segment has been reset on disk to its next incarnation.
    func recycle(_ number: SegmentNumber, incarnation: UInt32) {
        let index = Int(number.rawValue)
        precondition(segments[index].isSealed && segments[index].live == 0 && segments[index].readerCount == 0)
        precondition(incarnation > segments[index].incarnation)
        segments[index] = segments[index].recycled(to: incarnation)
        inUseCount -= 1
        pool.append(number)
    }

    /// Takes a prepared segment out of the pool: its file is gone. Its incarnation is remembered.
    func remove(_ number: SegmentNumber) {
        precondition(self[number].state == .prepared)
        pool.removeAll { $0 == number }
        self[number].state = .absent
        self[number].file = nil
    }

    /// A segment's file is gone, whatever state the segment is in.
    func dropFile(_ number: SegmentNumber) {
        if self[number].state == .prepared { remove(number) } else { self[number].file = nil }
    }

    /// Whether a segment in use other than `own` has a stamp in `since...until`: what keeps a tombstone alive.
    func holdsAnything(since: BatchSequence, until: BatchSequence, besides own: SegmentNumber) -> Bool {
        var count = segments.stampCount(from: since, through: until)
        if contains(own) {
            let segment = self[own]
            let isLog = segment.state == .inUse && segment.role == .hot
            if isLog, segment.firstBatch >= since, segment.firstBatch <= until { count -= 1 }
        }
        return count > 0
    }

    /// The stamp of the segment of the log that a batch lies in, or of one before it where that is gone; nil where there is none.
    func stamp(through batch: BatchSequence) -> BatchSequence? { segments.stamp(through: batch) }

    /// Marks sealed segments without a live byte as seen empty by a checkpoint.
    func noteEmpty(at checkpoint: CheckpointNumber) {
        for index in segments.dead where segments[index].emptySince == nil { segments[index].emptySince = checkpoint }
    }

    /// Sealed, empty segments that no superblock slot needs any more, given the older of the two slots' checkpoints.
    func recyclable(through checkpoint: CheckpointNumber) -> [SegmentNumber] {
        segments.dead.sorted().compactMap { index in
            let segment = segments[index]
            guard segment.readerCount == 0, let since = segment.emptySince,
                since <= checkpoint
            else { return nil }
            return SegmentNumber(UInt32(index))
        }
    }

    /// A number without a file, for the next segment to prepare.
    func absentNumber() -> SegmentNumber? {
        segments.absentIndex(below: countLimit).map { SegmentNumber(UInt32($0)) }
    }

    // MARK: Another number of segments

    /// Opens no more segments beyond a number, or does so again.
    func limit(to count: Int) {
        precondition(count <= segments.count)
        countLimit = count
    }

    /// Those beyond the limit in a state.
    func beyondLimit(_ state: Segment.State) -> [SegmentNumber] {
        segments.indices.dropFirst(countLimit).filter { segments[$0].state == state }.map { SegmentNumber(UInt32($0)) }
    }

    /// Goes on with so many segments; those beyond hold nothing and have no file.
    func resize(to count: Int) {
        segments.resize(to: count)
        countLimit = count
    }
}
