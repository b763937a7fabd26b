// The values of index entries that keep the books: payloads, segment usage, orphans, tombstones, removals.

/// Where a payload lies and which of its bytes are named. Key: (payloads, payload id, payload, 0).
///
///     offset size field
///          0   12 origin
///         12    4 position: offset in the segment at which the stored bytes begin
///         16    4 length in bytes
///         20    1 storage (0 inline, 1 blocks)
///         21    1 encoding (0)
///         22    2 key id (0)
///         24   12 nonce (0)
///         36    1 width of the counts (0: every byte is named exactly once and there are none; 4)
///         37    3 zero
///         40    4 number of checksums n
///         44   4n checksums
///              4n counts, if any: how many of each block's bytes are named, summed over all that name them
///
/// An inline payload counts as one block. A block lives while its count is not 0.
struct PayloadEntry {
    static let headerByteCount = 44
    static let byteCountLimit = headerByteCount + 8 * (PayloadRecord.byteCountLimit / blockByteCount)

    /// The whole value; only its header and counts are ever changed.
    let bytes: UnsafeRawBufferPointer

    static func key(_ payload: PayloadID) -> IndexKey {
        IndexKey(space: .payloads, object: payload.rawValue, kind: .payload, subkey: 0)
    }

    init?(decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Self.headerByteCount + 4 else { return nil }
        self.bytes = bytes
        guard length > 0, length <= PayloadRecord.byteCountLimit, width == 0 || width == 4,
            checksumCount == (isInline ? 1 : PayloadRecord.blockCount(length)),
            bytes.count == Self.headerByteCount + checksumCount * (4 + width)
        else { return nil }
    }

    var origin: Origin { Origin(decoding: bytes) }
    var position: UInt32 { bytes.load(12) }
    var length: UInt32 { bytes.load(16) }
    var isInline: Bool { bytes.load(20, as: UInt8.self) == 0 }
    var checksumCount: Int { Int(bytes.load(40, as: UInt32.self)) }
    fileprivate var width: Int { Int(bytes.load(36, as: UInt8.self)) }

    func checksum(ofBlock block: Int) -> UInt32 {
        precondition(block < checksumCount)
        return bytes.load(Self.headerByteCount + block * 4)
    }

    /// The bytes of a block that hold data, all but the last being full.
    func fullCount(ofBlock block: Int) -> UInt32 {
        if isInline { return length }
        return min(UInt32(blockByteCount), length - UInt32(block * blockByteCount))
    }

    func namedCount(ofBlock block: Int) -> UInt32 {
        if width == 0 { return fullCount(ofBlock: block) }
        return bytes.load(Self.headerByteCount + (checksumCount + block) * 4)
    }

    /// Bytes of the log that the payload keeps alive: its change, and its living blocks.
    var charge: Int {
        let change = Change.headerByteCount + PayloadRecord.byteCount + checksumCount * 4
        if isInline { return change + Int(length) }
        if width == 0 { return change + checksumCount * blockByteCount }
        var living = 0
        for block in 0..<checksumCount where namedCount(ofBlock: block) > 0 { living += 1 }
        return change + living * blockByteCount
    }

    /// Writes a new entry with every byte named once (`named`) or none.
    static func encode(
        _ record: PayloadRecord, origin: Origin, position: UInt32, named: Bool,
        into bytes: UnsafeMutableRawBufferPointer
    ) -> Int {
        let count = record.checksums.count / 4
        let width = named ? 0 : 4
        bytes.zero(0, headerByteCount)
        origin.encode(into: bytes)
        bytes.store(position, at: 12)
        bytes.store(record.length, at: 16)
        bytes.store(record.isInline ? 0 : 1 as UInt8, at: 20)
        bytes.store(UInt8(width), at: 36)
        bytes.store(UInt32(count), at: 40)
        bytes.copy(record.checksums, to: headerByteCount)
        bytes.zero(headerByteCount + count * 4, count * width)
        return headerByteCount + count * (4 + width)
    }

    /// Whether many more may name bytes of the payload: the counts do not run over within one record.
    func canBeShared(_ offset: UInt32, _ byteCount: UInt32) -> Bool {
        if isInline { return namedCount(ofBlock: 0) < Self.namedCountLimit }
        let last = Int(offset + byteCount - 1) / blockByteCount
        return (Int(offset) / blockByteCount...last).allSatisfy { namedCount(ofBlock: $0) < Self.namedCountLimit }
    }

    /// Half of what a count can say: about half a million names for each whole block.
    private static let namedCountLimit: UInt32 = 1 << 31

    /// Writes the entry with `byteCount` bytes from `offset` named once more (or once less) into `target`; gives its
    /// length, or 0 when nothing is named any more.
    func encodeNaming(_ offset: UInt32, _ byteCount: UInt32, more: Bool, into target: UnsafeMutableRawBufferPointer)
        -> Int
    {
        let count = checksumCount
        let countsOffset = Self.headerByteCount + count * 4
        target.copy(bytes.part(0, countsOffset), to: 0)
        var isFull = true
        var isDead = true
        for block in 0..<count {
            let start = isInline ? 0 : UInt32(block * blockByteCount)
            let end = isInline ? length : start + fullCount(ofBlock: block)
            let low = max(start, offset)
            let high = min(end, offset + byteCount)
            let part = high > low ? high - low : 0
            let now = namedCount(ofBlock: block)
            precondition(more || now >= part, "payload names more than it has")
            let value = more ? now + part : now - part
            target.store(value, at: countsOffset + block * 4)
            isFull = isFull && value == end - start
            isDead = isDead && value == 0
        }
        if isDead { return 0 }
        target.store(isFull ? 0 : 4 as UInt8, at: 36)
        return isFull ? countsOffset : countsOffset + count * 4
    }
}

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
    }
}

/// An inode without a name that is still in use. Key: (orphans, inode, orphan, 0). Value: the origin.
enum OrphanEntry {
    static let charge = 16

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
    }
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
    }
}
