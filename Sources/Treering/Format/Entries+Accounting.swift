// The values of index entries that keep the accounting: segment usage, orphans, tombstones, removals.

/// The copy of a segment's state that the index keeps. Key: (usage, segment, usage, 0).
struct UsageEntry: Hashable {
    struct Layout: DiskLayout {
        let firstBatch = Field<BatchSequence>(0, "first batch", "its sequence: the segment's stamp")
        let lastBatch = Field<BatchSequence>(8, "last batch", "its sequence; 0 while the segment is the head")
        let epoch = Field<MountEpoch>(16, "mount epoch")
        let live = Field<Int64>(24, "live bytes")
        let incarnation = Field<UInt32>(32, "incarnation")
        let end = Field<UInt32>(36, "end", "as in the segment's header")
        let state = Field<UInt8>(40, "state", "1 free, 2 in use")
        let role = Field<UInt8>(41, "role", "0 hot, 1 cold")
        static let byteCount = 48
    }

    static let layout = Layout()
    static let byteCount = Layout.byteCount

    var firstBatch: BatchSequence
    var lastBatch: BatchSequence
    var epoch: MountEpoch
    var live: Int64
    var incarnation: UInt32
    var end: UInt32
    var state: SegmentHeader.State
    var role: SegmentHeader.Role

    static func key(_ segment: SegmentNumber) -> IndexKey {
        IndexKey(space: .usage, object: UInt64(segment.rawValue), kind: .usage, subkey: 0)
    }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        bytes.zero(0, Self.byteCount)
        let field = Self.layout
        bytes[field.firstBatch] = firstBatch
        bytes[field.lastBatch] = lastBatch
        bytes[field.epoch] = epoch
        bytes[field.live] = live
        bytes[field.incarnation] = incarnation
        bytes[field.end] = end
        bytes[field.state] = state.rawValue
        bytes[field.role] = role.rawValue
    }

    init(
        firstBatch: BatchSequence, lastBatch: BatchSequence, epoch: MountEpoch, live: Int64, incarnation: UInt32,
        end: UInt32, state: SegmentHeader.State, role: SegmentHeader.Role
    ) {
        self.firstBatch = firstBatch
        self.lastBatch = lastBatch
        self.epoch = epoch
        self.live = live
        self.incarnation = incarnation
        self.end = end
        self.state = state
        self.role = role
    }

    /// More than the entries of a segment can be charged with. The sum over all segments still fits in 64 bits.
    static let liveByteCountLimit: Int64 = 1 << 36

    init?(decoding bytes: UnsafeRawBufferPointer) {
        let field = Self.layout
        guard bytes.count == Self.byteCount, let state = SegmentHeader.State(rawValue: bytes[field.state]),
            let role = SegmentHeader.Role(rawValue: bytes[field.role])
        else { return nil }
        firstBatch = bytes[field.firstBatch]
        lastBatch = bytes[field.lastBatch]
        epoch = bytes[field.epoch]
        live = bytes[field.live]
        incarnation = bytes[field.incarnation]
        end = bytes[field.end]
        self.state = state
        self.role = role
        guard firstBatch.isPossible, lastBatch.isPossible, epoch.rawValue <= counterLimit,
            incarnation <= UInt32(Int32.max), end <= UInt32(SegmentHeader.byteCountLimit),
            (-Self.liveByteCountLimit...Self.liveByteCountLimit).contains(live)
        else { return nil }
    }
}

/// An inode without a name that is still in use. Key: (orphans, inode, orphan, 0). Value: the origin.
enum OrphanEntry {
    static let charge = OrphanChange.byteCount + Change.moveOverheadByteCount

    static func key(_ inode: InodeNumber) -> IndexKey {
        IndexKey(space: .orphans, object: inode.rawValue, kind: .orphan, subkey: 0)
    }
}

/// Remembers a removal, so that a rebuild does not bring back what older records in segments still in use had set.
///
/// Key: (tombstones, inode, kind of what is hidden, subkey of what is hidden); for a range of extents
/// (tombstones, inode, rangeTombstone, record sequence); for a whole inode (tombstones, inode, inode, 0).
///
/// It is needed as long as another segment in use has a stamp from `since` through `until`.
struct TombstoneEntry: Hashable {
    struct Layout: DiskLayout {
        let origin = Field<Origin>(0, "origin")
        let charge = Field<UInt32>(12, "bytes charged for it")
        let since = Field<BatchSequence>(16, "since")
        let until = Field<BatchSequence>(24, "until", "the stamp of the segment in which it was first appended")
        let from = Field<UInt64>(32, "from", "ranges; else 0")
        let to = Field<UInt64>(40, "to", "ranges; else 0")
        static let byteCount = 48
    }

    static let layout = Layout()
    static let byteCount = Layout.byteCount

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
        let field = Self.layout
        bytes[field.origin] = origin
        bytes[field.charge] = charge
        bytes[field.since] = since
        bytes[field.until] = until
        bytes[field.from] = from
        bytes[field.to] = to
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
        let field = Self.layout
        origin = bytes[field.origin]
        charge = bytes[field.charge]
        since = bytes[field.since]
        until = bytes[field.until]
        from = bytes[field.from]
        to = bytes[field.to]
        guard charge <= Self.chargeLimit, since.isPossible, until.isPossible else { return nil }
    }

    private static let chargeLimit: UInt32 = 4096
}

/// A pending removal of a range of a file, or of a whole inode: some of its entries are still in the index. Those are
/// older than the record, and nobody sees them. Key: (removals, inode, removal, record sequence).
struct RemovalEntry: Hashable {
    struct Layout: DiskLayout {
        let from = Field<UInt64>(0, "from")
        let to = Field<UInt64>(8, "to", "UInt64.max with from 0: the whole inode")
        static let byteCount = 16
    }

    static let layout = Layout()
    static let byteCount = Layout.byteCount

    var from: UInt64
    var to: UInt64

    static func key(_ inode: InodeNumber, _ sequence: RecordSequence) -> IndexKey {
        IndexKey(space: .removals, object: inode.rawValue, kind: .removal, subkey: sequence.rawValue)
    }

    var isWholeInode: Bool { from == 0 && to == .max }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        bytes[Self.layout.from] = from
        bytes[Self.layout.to] = to
    }

    init(from: UInt64, to: UInt64) {
        self.from = from
        self.to = to
    }

    init?(decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount else { return nil }
        from = bytes[Self.layout.from]
        to = bytes[Self.layout.to]
        guard from < to else { return nil }
    }
}
