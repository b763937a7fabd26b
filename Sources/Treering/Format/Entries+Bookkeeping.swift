// The values of index entries that keep the books: segment usage, orphans, tombstones, removals.

/// What the index knows of a segment. Key: (usage, segment, usage, 0).
///
///     offset size field
///          0    8 sequence of its first batch (its stamp)
///          8    8 sequence of its last batch (0 while it is the head)
///         16    8 mount epoch
///         24    8 living bytes
///         32    4 incarnation
///         36    4 end (see `SegmentHeader`)
///         40    1 state (1 free, 2 in use)
///         41    1 role
///         42    6 zero
struct UsageEntry: Hashable {
    static let byteCount = 48

    var firstBatch: BatchSequence
    var lastBatch: BatchSequence
    var epoch: MountEpoch
    var living: Int64
    var incarnation: UInt32
    var end: UInt32
    var state: SegmentHeader.State
    var role: SegmentHeader.Role

    static func key(_ segment: SegmentNumber) -> IndexKey {
        IndexKey(space: .usage, object: UInt64(segment.rawValue), kind: .usage, subkey: 0)
    }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        bytes.zero(0, Self.byteCount)
        bytes.store(firstBatch.rawValue, at: 0)
        bytes.store(lastBatch.rawValue, at: 8)
        bytes.store(epoch.rawValue, at: 16)
        bytes.store(living, at: 24)
        bytes.store(incarnation, at: 32)
        bytes.store(end, at: 36)
        bytes.store(state.rawValue, at: 40)
        bytes.store(role.rawValue, at: 41)
    }

    init(
        firstBatch: BatchSequence, lastBatch: BatchSequence, epoch: MountEpoch, living: Int64, incarnation: UInt32,
        end: UInt32, state: SegmentHeader.State, role: SegmentHeader.Role
    ) {
        self.firstBatch = firstBatch
        self.lastBatch = lastBatch
        self.epoch = epoch
        self.living = living
        self.incarnation = incarnation
        self.end = end
        self.state = state
        self.role = role
    }

    /// More than the entries of a segment can be charged with, and little enough to be summed up over all segments.
    static let livingByteCountLimit: Int64 = 1 << 36

    init?(decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount, let state = SegmentHeader.State(rawValue: bytes.load(40)),
            let role = SegmentHeader.Role(rawValue: bytes.load(41))
        else { return nil }
        firstBatch = BatchSequence(bytes.load(0))
        lastBatch = BatchSequence(bytes.load(8))
        epoch = MountEpoch(bytes.load(16))
        living = bytes.load(24)
        incarnation = bytes.load(32)
        end = bytes.load(36)
        self.state = state
        self.role = role
        guard firstBatch.isPossible, lastBatch.isPossible, epoch.rawValue <= counterLimit,
            incarnation <= UInt32(Int32.max), end <= UInt32(SegmentHeader.byteCountLimit),
            (-Self.livingByteCountLimit...Self.livingByteCountLimit).contains(living)
        else { return nil }
    }
}

/// An inode without a name that is still in use. Key: (orphans, inode, orphan, 0). Value: the origin.
enum OrphanEntry {
    static let charge = 16 + Change.moveOverheadByteCount

    static func key(_ inode: InodeNumber) -> IndexKey {
        IndexKey(space: .orphans, object: inode.rawValue, kind: .orphan, subkey: 0)
    }
}

/// What hides older records in segments that are still in use.
///
/// Key: (tombstones, inode, kind of what is hidden, subkey of what is hidden); for a range of extents
/// (tombstones, inode, rangeTombstone, record sequence); for a whole inode (tombstones, inode, inode, 0).
///
/// It lives while a segment in use other than its own has a stamp from `since` through `until`.
///
///     offset size field
///          0   12 origin
///         12    4 bytes charged for it
///         16    8 since
///         24    8 until: the stamp of the segment in which it was first appended
///         32    8 from (ranges; else 0)
///         40    8 to (ranges; else 0)
struct TombstoneEntry: Hashable {
    static let byteCount = 48

    var origin: Origin
    var charge: UInt32
    var since: BatchSequence
    var until: BatchSequence
    var from: UInt64 = 0
    var to: UInt64 = 0

    static func key(_ inode: InodeNumber, _ kind: EntryKind, _ subkey: UInt64) -> IndexKey {
        IndexKey(space: .tombstones, object: inode.rawValue, kind: kind, subkey: subkey)
    }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        origin.encode(into: bytes)
        bytes.store(charge, at: 12)
        bytes.store(since.rawValue, at: 16)
        bytes.store(until.rawValue, at: 24)
        bytes.store(from, at: 32)
        bytes.store(to, at: 40)
    }

    init(origin: Origin, charge: Int, since: BatchSequence, until: BatchSequence, from: UInt64 = 0, to: UInt64 = 0) {
        self.origin = origin
        self.charge = UInt32(charge)
        self.since = since
        self.until = until
        self.from = from
        self.to = to
    }

    init?(decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount else { return nil }
        origin = Origin(decoding: bytes)
        charge = bytes.load(12)
        since = BatchSequence(bytes.load(16))
        until = BatchSequence(bytes.load(24))
        from = bytes.load(32)
        to = bytes.load(40)
        guard charge <= Self.chargeLimit, since.isPossible, until.isPossible else { return nil }
    }

    private static let chargeLimit: UInt32 = 4096
}

/// A range of a file, or all of an inode, that is gone while some of its entries still stand. They are older than
/// `sequence` and invisible. Key: (removals, inode, removal, record sequence).
///
///     offset size field
///          0    8 from
///          8    8 to (UInt64.max with from 0: the whole inode)
struct RemovalEntry: Hashable {
    static let byteCount = 16

    var from: UInt64
    var to: UInt64

    static func key(_ inode: InodeNumber, _ sequence: RecordSequence) -> IndexKey {
        IndexKey(space: .removals, object: inode.rawValue, kind: .removal, subkey: sequence.rawValue)
    }

    var isWholeInode: Bool { from == 0 && to == .max }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        bytes.store(from, at: 0)
        bytes.store(to, at: 8)
    }

    init(from: UInt64, to: UInt64) {
        self.from = from
        self.to = to
    }

    init?(decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount else { return nil }
        from = bytes.load(0)
        to = bytes.load(8)
        guard from < to else { return nil }
    }
}
