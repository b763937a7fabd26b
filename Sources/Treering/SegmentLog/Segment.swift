// What the segment table knows of one segment.

/// One segment of the store.
struct Segment {
    enum State {
        /// There is no file.
        case absent
        /// The file holds nothing, and its blocks were written before: it is ready to become the head.
        case prepared
        /// It is a head, or was one.
        case inUse
    }

    var state = State.absent
    var role = SegmentHeader.Role.hot
    var incarnation: UInt32 = 0
    var epoch = MountEpoch(0)
    /// The segment's stamp: sequence of its first batch.
    var firstBatch = BatchSequence.zero
    /// 0 while it is a head.
    var lastBatch = BatchSequence.zero
    /// The end that recovery declared, or 0. Everything from there on is void.
    var end: UInt32 = 0
    /// Bytes that index entries charge to it.
    var live: Int64 = 0
    var file: DeviceFile?
    /// Reads in flight. A segment that is being read is not recycled.
    var readerCount = 0
    /// Whether its header is being rewritten for the next incarnation. Nobody may begin to read it.
    var isBeingReset = false
    /// The first checkpoint that saw it sealed and without a live byte.
    var emptySince: CheckpointNumber?
    /// Whether the usage entry in the index is out of date.
    var isChanged = false
    /// Whether it could not be emptied, because something in it cannot be read. The cleaner leaves it alone.
    var isStuck = false
    /// Its live bytes when it was last searched for dead blocks to punch.
    var liveWhenSearched: Int64?

    /// The segment in its next incarnation. It holds nothing. Of the old incarnation only role, epoch and file are
    /// kept.
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
