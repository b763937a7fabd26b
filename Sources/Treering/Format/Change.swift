// The changes that a record consists of: decoded values, and how each lies on disk.

/// What a change does to the index. Names and inline bytes are borrowed from the record.
///
/// On disk every change begins with eight bytes; the body follows without padding:
///
///     offset size field
///          0    2 type
///          2    1 version (1)
///          3    1 flags (bit 0: a reader that does not know the type may skip the change)
///          4    4 length in bytes, these eight included
///
/// `since` is the stamp (first batch) of the oldest segment that may hold an older change of the same key; 0 means the
/// record's own segment.
enum Change {
    /// 1: sets an inode. Body: inode 8, then `InodeRecord` (96).
    case inode(InodeRecord)
    /// 2: sets a directory entry. Body: directory 8, cookie 8, since 8, inode 8, type 1 (S_IFMT >> 12), name length 1, name.
    case dirent(
        directory: InodeNumber, cookie: UInt64, since: BatchSequence, inode: InodeNumber, type: UInt8,
        name: UnsafeRawBufferPointer)
    /// 3: removes a directory entry. Body: directory 8, cookie 8, since 8.
    case removeDirent(directory: InodeNumber, cookie: UInt64, since: BatchSequence)
    /// 4: sets an extended attribute. Body: inode 8, cookie 8, since 8, payload 8 (0: the value follows the name), value
    /// length 4, name length 1, name, value.
    case xattr(
        inode: InodeNumber, cookie: UInt64, since: BatchSequence, name: UnsafeRawBufferPointer, value: XattrStorage)
    /// 5: removes an extended attribute. Body: inode 8, cookie 8, since 8.
    case removeXattr(inode: InodeNumber, cookie: UInt64, since: BatchSequence)
    /// 6: brings a payload. Body: `PayloadRecord` (40), checksums 4 each, then the bytes of an inline payload.
    case payload(PayloadRecord)
    /// 7: lets a range of a file show a part of a payload. Body: inode 8, file offset 8, payload 8, payload offset 4, length 4.
    case extent(inode: InodeNumber, offset: UInt64, payload: PayloadID, payloadOffset: UInt32, byteCount: UInt32)
    /// 8: clears a range of a file (truncate, punch). Body: inode 8, from 8, to 8 (exclusive), since 8.
    case removeRange(inode: InodeNumber, from: UInt64, to: UInt64, since: BatchSequence)
    /// 9: removes an inode and everything of it. Body: inode 8, since 8.
    case removeInode(inode: InodeNumber, since: BatchSequence)
    /// 10: notes that an inode has no name any more but is still in use. Body: inode 8.
    case orphan(inode: InodeNumber)
    /// 14: allocates a range of a file without data (fallocate): what it showed before is gone, it reads as zeros. Body: inode
    /// 8, from 8, to 8 (exclusive). At most 2^50 bytes.
    case reserve(inode: InodeNumber, from: UInt64, to: UInt64)
    /// 11: establishes what an older record had established, which the cleaner moves here.
    case move(MovedChange)
    /// A change of an unknown type that says it may be skipped.
    case skipped

    static let headerByteCount = 8
    static let version: UInt8 = 1
    static let moveType: UInt16 = 11
    /// More than any store holds, and few enough entries to be made in one step.
    static let reservedByteCountLimit: UInt64 = 1 << 50
    /// What moving a change adds to it. Every entry is charged as if it had been moved, so that what is charged always has room.
    static let moveOverheadByteCount = 24
}

/// A change that the cleaner repeats in a newer record, so that the segment of the older one can be freed. It keeps its age.
///
///     offset size field
///          0    8 header of the move
///          8    8 sequence of the record that first made the change
///         16    8 tombstones: `until` (see `TombstoneEntry`); payloads in blocks: 4 segment that holds the blocks, 4 its incarnation;
///                 else 0
///         24      the change as it would be in a record of its own; of a payload in blocks the position is the one in that segment, and
///                 its storage may be 2: only some of the blocks were moved
struct MovedChange {
    var sequence: RecordSequence
    var word: UInt64
    /// Never a move itself, and never skipped.
    var bytes: UnsafeRawBufferPointer

    var change: Change { Record.decodeChange(bytes, isMoved: true)! }
    var until: BatchSequence { BatchSequence(word) }
    /// The segment that holds a payload's blocks.
    var blocksLife: SegmentLife {
        SegmentLife(SegmentNumber(UInt32(truncatingIfNeeded: word)), UInt32(truncatingIfNeeded: word >> 32))
    }
    /// What a move says of it.
    static func word(_ blocks: SegmentLife) -> UInt64 {
        UInt64(blocks.number.rawValue) | UInt64(blocks.incarnation) << 32
    }
}

/// Where the value of an extended attribute is.
enum XattrStorage {
    case inline(UnsafeRawBufferPointer)
    case payload(PayloadID, byteCount: UInt32)
}

/// An inode as a record sets it.
///
///     offset size field
///          0    4 mode      4    4 link count   8    4 uid    12    4 gid
///         16    4 device number                20    4 flags (`InodeFlags`)
///         24    8 size in bytes (0 for directories)
///         32    8 since (see `Change`)
///         40   12 accessed (seconds 8, nanoseconds 4)   52   12 modified   64   12 changed   76   12 born
///         88    8 parent (directories: what ".." is; else 0)
struct InodeRecord: Hashable, Sendable {
    static let byteCount = 96
    static let sinceOffset = 32

    var inode: InodeNumber
    var mode: UInt32
    var linkCount: UInt32
    var uid: UInt32
    var gid: UInt32
    var deviceNumber: UInt32
    var flags: UInt32 = 0
    var size: UInt64
    var since: BatchSequence
    var accessed: Timestamp
    var modified: Timestamp
    var changed: Timestamp
    var born: Timestamp
    var parent = InodeNumber(0)

    func encode(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
        bytes.store(mode, at: offset)
        bytes.store(linkCount, at: offset + 4)
        bytes.store(uid, at: offset + 8)
        bytes.store(gid, at: offset + 12)
        bytes.store(deviceNumber, at: offset + 16)
        bytes.store(flags, at: offset + 20)
        bytes.store(size, at: offset + 24)
        bytes.store(since.rawValue, at: offset + Self.sinceOffset)
        accessed.encode(into: bytes, at: offset + 40)
        modified.encode(into: bytes, at: offset + 52)
        changed.encode(into: bytes, at: offset + 64)
        born.encode(into: bytes, at: offset + 76)
        bytes.store(parent.rawValue, at: offset + 88)
    }

    init(inode: InodeNumber, decoding bytes: UnsafeRawBufferPointer, at offset: Int) {
        self.inode = inode
        mode = bytes.load(offset)
        linkCount = bytes.load(offset + 4)
        uid = bytes.load(offset + 8)
        gid = bytes.load(offset + 12)
        deviceNumber = bytes.load(offset + 16)
        flags = bytes.load(offset + 20)
        size = bytes.load(offset + 24)
        since = BatchSequence(bytes.load(offset + Self.sinceOffset))
        accessed = Timestamp(decoding: bytes, at: offset + 40)
        modified = Timestamp(decoding: bytes, at: offset + 52)
        changed = Timestamp(decoding: bytes, at: offset + 64)
        born = Timestamp(decoding: bytes, at: offset + 76)
        parent = InodeNumber(bytes.load(offset + 88))
    }

    init(
        inode: InodeNumber, mode: UInt32, linkCount: UInt32, uid: UInt32, gid: UInt32, deviceNumber: UInt32,
        size: UInt64, since: BatchSequence, now: Timestamp
    ) {
        self.inode = inode
        self.mode = mode
        self.linkCount = linkCount
        self.uid = uid
        self.gid = gid
        self.deviceNumber = deviceNumber
        self.size = size
        self.since = since
        accessed = now
        modified = now
        changed = now
        born = now
    }
}

extension Timestamp {
    func encode(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
        bytes.store(seconds, at: offset)
        bytes.store(nanoseconds, at: offset + 8)
    }

    init(decoding bytes: UnsafeRawBufferPointer, at offset: Int) {
        self.init(seconds: bytes.load(offset), nanoseconds: Swift.min(bytes.load(offset + 8), 999_999_999))
    }
}

/// A payload as a record brings it.
///
///     offset size field
///          0    8 payload id
///          8    1 storage (0 inline: the bytes end this change; 1 blocks: in the batch's payload area; 2, in moves only: those blocks that
///                 the bitmap names)
///          9    1 encoding (0 none; room for compression)
///         10    2 key id (0; room for encryption)
///         12   12 nonce (0)
///         24    4 length in bytes
///         28    4 stored length in bytes (= length while encoding is 0)
///         32    4 position (blocks: offset in the payload area in bytes, a multiple of 4,096; inline: 0)
///         36    4 number of checksums (inline 1, blocks one per stored 4 KiB; the last block is padded with zeros)
///
/// The checksums follow, then, for storage 2, a bitmap of the stored blocks in words of eight bytes, or the inline bytes.
struct PayloadRecord {
    static let byteCount = 40
    static let inlineByteCountLimit = 3072
    static let byteCountLimit = 1 << 20

    var id: PayloadID
    var isInline: Bool
    var length: UInt32
    var position: UInt32
    /// The checksums, four bytes each, as they lie on disk.
    var checksums: UnsafeRawBufferPointer
    /// The bytes of an inline payload.
    var inlineBytes: UnsafeRawBufferPointer
    /// Which blocks are stored; empty where all are.
    var bitmap = UnsafeRawBufferPointer(start: nil, count: 0)
    /// Where the inline bytes begin, from the start of the change.
    var inlineOffset: Int { Change.headerByteCount + Self.byteCount + checksums.count }

    static func blockCount(_ length: UInt32) -> Int { (Int(length) + blockByteCount - 1) / blockByteCount }
    static func bitmapByteCount(_ length: UInt32) -> Int { (blockCount(length) + 63) / 64 * 8 }
    /// The blocks that are stored.
    var blockCount: Int { isInline ? 0 : checksums.count / 4 }
}
