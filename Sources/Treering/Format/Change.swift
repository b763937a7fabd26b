// The changes that a record consists of, as decoded values. ChangeLayout.swift says how each lies on disk.

/// What a change does to the index. Names and inline bytes are borrowed from the record.
///
/// `since` is the stamp (first batch) of the oldest segment that may hold an older change of the same key; 0 means the
/// record's own segment.
enum Change {
    /// Sets an inode.
    case inode(InodeRecord)
    /// Sets a directory entry.
    case dirent(
        directory: InodeNumber, cookie: UInt64, since: BatchSequence, inode: InodeNumber, type: UInt8,
        name: UnsafeRawBufferPointer)
    /// Removes a directory entry.
    case removeDirent(directory: InodeNumber, cookie: UInt64, since: BatchSequence)
    /// Sets an extended attribute.
    case xattr(
        inode: InodeNumber, cookie: UInt64, since: BatchSequence, name: UnsafeRawBufferPointer, value: XattrStorage)
    /// Removes an extended attribute.
    case removeXattr(inode: InodeNumber, cookie: UInt64, since: BatchSequence)
    /// Brings a payload.
    case payload(PayloadRecord)
    /// Makes a range of a file show a part of a payload.
    case extent(inode: InodeNumber, offset: UInt64, payload: PayloadID, payloadOffset: UInt32, byteCount: UInt32)
    /// Clears a range of a file (truncate, punch).
    case removeRange(inode: InodeNumber, from: UInt64, to: UInt64, since: BatchSequence)
    /// Removes an inode and everything of it.
    case removeInode(inode: InodeNumber, since: BatchSequence)
    /// Notes that an inode has no name any more but is still in use.
    case orphan(inode: InodeNumber)
    /// Reserves a range of a file (fallocate). What the range showed before is gone, and it reads as zeros. At most
    /// `reservedByteCountLimit` bytes.
    case reserve(inode: InodeNumber, from: UInt64, to: UInt64)
    /// Repeats a change of an older record, which the cleaner moves here.
    case move(MovedChange)
    /// A change of an unknown type that says it may be skipped.
    case skipped

    /// 2^50 bytes: more than any store holds, yet its entries are few enough to be made in one step.
    static let reservedByteCountLimit: UInt64 = 1 << 50
    /// The bytes that a move adds to a change. Every entry is charged as if it had been moved already, so the cleaner
    /// never needs more room than was charged.
    static let moveOverheadByteCount = MoveChange.byteCount
}

/// A change that the cleaner repeats in a newer record, so that the segment of the older record can be freed. It keeps
/// the sequence of the older record.
///
/// For a payload in blocks, its position is an offset in the segment that holds the blocks. It may have fewer blocks
/// than before: the cleaner leaves dead ones out.
struct MovedChange {
    /// That of the record that first made the change.
    var sequence: RecordSequence
    /// Removals: `until`. Payloads in blocks: `blocksSegmentID`. Else 0.
    var word: UInt64
    /// Never a move itself, and never skipped.
    var bytes: UnsafeRawBufferPointer

    var change: Change { Record.decodeChange(bytes, isMoved: true)! }
    var until: BatchSequence { BatchSequence(word) }
    /// The segment that holds a payload's blocks.
    var blocksSegmentID: SegmentID {
        SegmentID(SegmentNumber(UInt32(truncatingIfNeeded: word)), UInt32(truncatingIfNeeded: word >> 32))
    }
    /// The `word` of a move of a payload whose blocks lie in this segment.
    static func word(_ blocks: SegmentID) -> UInt64 {
        UInt64(blocks.number.rawValue) | UInt64(blocks.incarnation) << 32
    }
}

/// Where the value of an extended attribute is.
enum XattrStorage {
    case inline(UnsafeRawBufferPointer)
    case payload(PayloadID, byteCount: UInt32)
}

/// An inode as a record sets it.
struct InodeRecord: Hashable, Sendable, LaidOut {
    struct Layout: DiskLayout {
        let mode = Field<UInt32>(0, "mode")
        let linkCount = Field<UInt32>(4, "link count")
        let uid = Field<UInt32>(8, "uid")
        let gid = Field<UInt32>(12, "gid")
        let deviceNumber = Field<UInt32>(16, "device number")
        let flags = Field<UInt32>(20, "flags", "`InodeFlags`")
        let size = Field<UInt64>(24, "size in bytes", "0 for directories")
        let since = Field<BatchSequence>(32, "since")
        let accessed = Field<Timestamp>(40, "accessed", "seconds since 1970 (8), nanoseconds (4)")
        let modified = Field<Timestamp>(52, "modified")
        let changed = Field<Timestamp>(64, "changed")
        let born = Field<Timestamp>(76, "born")
        let parent = Field<InodeNumber>(88, "parent", "directories: what \"..\" is; else 0")
        static let byteCount = 96
    }

    static let layout = Layout()

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

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        let field = Self.layout
        bytes[field.mode] = mode
        bytes[field.linkCount] = linkCount
        bytes[field.uid] = uid
        bytes[field.gid] = gid
        bytes[field.deviceNumber] = deviceNumber
        bytes[field.flags] = flags
        bytes[field.size] = size
        bytes[field.since] = since
        bytes[field.accessed] = accessed
        bytes[field.modified] = modified
        bytes[field.changed] = changed
        bytes[field.born] = born
        bytes[field.parent] = parent
    }

    init(inode: InodeNumber, decoding bytes: UnsafeRawBufferPointer) {
        let field = Self.layout
        self.inode = inode
        mode = bytes[field.mode]
        linkCount = bytes[field.linkCount]
        uid = bytes[field.uid]
        gid = bytes[field.gid]
        deviceNumber = bytes[field.deviceNumber]
        flags = bytes[field.flags]
        size = bytes[field.size]
        since = bytes[field.since]
        accessed = bytes[field.accessed]
        modified = bytes[field.modified]
        changed = bytes[field.changed]
        born = bytes[field.born]
        parent = bytes[field.parent]
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

/// A payload as a record brings it.
struct PayloadRecord {
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
    var inlineOffset: Int { PayloadChange.byteCount + checksums.count }

    /// The checksum of a stored block, or of the inline bytes.
    func checksum(_ index: Int) -> UInt32 { checksums.load(index * UInt32.storedByteCount) }
    var checksumCount: Int { checksums.count / UInt32.storedByteCount }

    static func blockCount(_ length: UInt32) -> Int { (Int(length) + blockByteCount - 1) / blockByteCount }
    static func bitmapByteCount(_ length: UInt32) -> Int { (blockCount(length) + 63) / 64 * 8 }
    /// The blocks that are stored.
    var blockCount: Int { isInline ? 0 : checksumCount }
}
