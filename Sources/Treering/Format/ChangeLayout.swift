// How each change lies in its record. RecordWriter writes by these layouts, Record reads by them.

/// The number of each kind of change on disk.
enum ChangeType: UInt16, CaseIterable {
    case inode = 1
    case dirent = 2
    case removeDirent = 3
    case xattr = 4
    case removeXattr = 5
    case payload = 6
    case extent = 7
    case removeRange = 8
    case removeInode = 9
    case orphan = 10
    case move = 11
    case reserve = 14

    /// Whether the number of an inode or payload follows the change's header.
    var hasObject: Bool { self != .move }

    /// Where `since` lies in the change; nil where the change has none.
    var since: Field<BatchSequence>? {
        switch self {
        case .inode: return Field(InodeChange.layout.record.offset + InodeRecord.layout.since.offset, "since")
        case .dirent: return DirentChange.layout.since
        case .removeDirent, .removeXattr: return RemoveKeyChange.layout.since
        case .xattr: return XattrChange.layout.since
        case .removeRange: return RemoveRangeChange.layout.since
        case .removeInode: return RemoveInodeChange.layout.since
        case .payload, .extent, .orphan, .move, .reserve: return nil
        }
    }
}

/// What every change begins with.
struct ChangeHeader: StoredValue, LaidOut {
    struct Layout: DiskLayout {
        let type = Field<UInt16>(0, "type")
        let version = Field<UInt8>(2, "version", "1")
        let flags = Field<UInt8>(3, "flags", "bit 0: a reader that does not know the type may skip the change")
        let length = Field<UInt32>(4, "length in bytes", "these eight included")
        static let byteCount = 8
    }

    static let layout = Layout()
    static let field = Field<ChangeHeader>(0, "header")
    static let version: UInt8 = 1
    static let skippableFlag: UInt8 = 1 << 0

    var type: UInt16
    var version = Self.version
    var flags: UInt8 = 0
    var length: UInt32

    var isSkippable: Bool { flags & Self.skippableFlag != 0 }

    init(_ type: ChangeType, length: Int) {
        self.type = type.rawValue
        self.length = UInt32(length)
    }

    @inline(__always)
    init(at place: UnsafeRawPointer) {
        type = place[Self.layout.type]
        version = place[Self.layout.version]
        flags = place[Self.layout.flags]
        length = place[Self.layout.length]
    }

    @inline(__always)
    func store(at place: UnsafeMutableRawPointer) {
        place[Self.layout.type] = type
        place[Self.layout.version] = version
        place[Self.layout.flags] = flags
        place[Self.layout.length] = length
    }
}

/// Sets an inode.
struct InodeChange: DiskLayout {
    let header = Field<ChangeHeader>(0, "header")
    let inode = Field<InodeNumber>(8, "inode")
    let record = Field<InodeRecord>(16, "what it is")
    static let byteCount = 112
    static let layout = Self()
}

/// Sets a directory entry.
struct DirentChange: DiskLayout {
    let header = Field<ChangeHeader>(0, "header")
    let directory = Field<InodeNumber>(8, "directory", "its inode")
    let cookie = Field<UInt64>(16, "cookie")
    let since = Field<BatchSequence>(24, "since")
    let inode = Field<InodeNumber>(32, "inode", "that the name names")
    let type = Field<UInt8>(40, "type", "S_IFMT >> 12")
    let nameByteCount = Field<UInt8>(41, "name length")
    let name = Tail<UInt8>(42, "name")
    static let byteCount = 42
    static let layout = Self()
}

/// Removes a directory entry or an extended attribute.
struct RemoveKeyChange: DiskLayout {
    let header = Field<ChangeHeader>(0, "header")
    let inode = Field<InodeNumber>(8, "inode", "of the directory, or of what has the attribute")
    let cookie = Field<UInt64>(16, "cookie")
    let since = Field<BatchSequence>(24, "since")
    static let byteCount = 32
    static let layout = Self()
}

/// Sets an extended attribute.
struct XattrChange: DiskLayout {
    let header = Field<ChangeHeader>(0, "header")
    let inode = Field<InodeNumber>(8, "inode")
    let cookie = Field<UInt64>(16, "cookie")
    let since = Field<BatchSequence>(24, "since")
    let payload = Field<PayloadID>(32, "payload", "that is the value; 0: the value follows the name")
    let valueByteCount = Field<UInt32>(40, "value length")
    let nameByteCount = Field<UInt8>(44, "name length")
    let name = Tail<UInt8>(45, "name", "then the value, unless it is a payload")
    static let byteCount = 45
    static let layout = Self()
}

/// Brings a payload.
struct PayloadChange: DiskLayout {
    let header = Field<ChangeHeader>(0, "header")
    let id = Field<PayloadID>(8, "payload id")
    let storage = Field<UInt8>(
        16, "storage",
        "0 inline: the bytes end this change; 1 blocks: in the batch's payload area; 2, in moves only: blocks in the bitmap"
    )
    let encoding = Field<UInt8>(17, "encoding", "0: none; room for compression")
    let keyID = Field<UInt16>(18, "key id", "0; room for encryption")
    let nonce = Room(20, 12, "nonce", "zero")
    let length = Field<UInt32>(32, "length in bytes")
    let storedLength = Field<UInt32>(36, "stored length in bytes", "the same while the encoding is 0")
    let position = Field<UInt32>(
        40, "position", "blocks: offset in the payload area in bytes, a multiple of 4,096; inline: 0")
    let checksumCount = Field<UInt32>(
        44, "number of checksums", "inline: 1; blocks: one for each stored 4 KiB, the last block padded with zeros")
    let checksums = Tail<UInt32>(
        48, "checksums", "then the inline bytes, or, for storage 2, a bitmap of the stored blocks in words of 8 bytes")
    static let byteCount = 48
    static let layout = Self()
}

/// Makes a range of a file show a part of a payload.
struct ExtentChange: DiskLayout {
    let header = Field<ChangeHeader>(0, "header")
    let inode = Field<InodeNumber>(8, "inode")
    let fileOffset = Field<UInt64>(16, "file offset")
    let payload = Field<PayloadID>(24, "payload")
    let payloadOffset = Field<UInt32>(32, "payload offset")
    let length = Field<UInt32>(36, "length in bytes")
    static let byteCount = 40
    static let layout = Self()
}

/// Clears a range of a file (truncate, punch).
struct RemoveRangeChange: DiskLayout {
    let header = Field<ChangeHeader>(0, "header")
    let inode = Field<InodeNumber>(8, "inode")
    let from = Field<UInt64>(16, "from")
    let to = Field<UInt64>(24, "to", "exclusive")
    let since = Field<BatchSequence>(32, "since")
    static let byteCount = 40
    static let layout = Self()
}

/// Removes an inode and everything of it.
struct RemoveInodeChange: DiskLayout {
    let header = Field<ChangeHeader>(0, "header")
    let inode = Field<InodeNumber>(8, "inode")
    let since = Field<BatchSequence>(16, "since")
    static let byteCount = 24
    static let layout = Self()
}

/// Notes that an inode has no name any more but is still in use.
struct OrphanChange: DiskLayout {
    let header = Field<ChangeHeader>(0, "header")
    let inode = Field<InodeNumber>(8, "inode")
    static let byteCount = 16
    static let layout = Self()
}

/// Reserves a range of a file (fallocate).
struct ReserveChange: DiskLayout {
    let header = Field<ChangeHeader>(0, "header")
    let inode = Field<InodeNumber>(8, "inode")
    let from = Field<UInt64>(16, "from")
    let to = Field<UInt64>(24, "to", "exclusive")
    static let byteCount = 32
    static let layout = Self()
}

/// Repeats a change of an older record, which the cleaner moves here.
struct MoveChange: DiskLayout {
    let header = Field<ChangeHeader>(0, "header", "its length includes the change that is moved")
    let sequence = Field<RecordSequence>(8, "sequence", "of the record that first made the change")
    let word = Field<UInt64>(
        16, "word",
        "tombstones: `until`; payloads in blocks: the segment that holds the blocks (4), then its incarnation (4); else 0"
    )
    let change = Tail<UInt8>(24, "change", "as it would be in a record of its own")
    static let byteCount = 24
    static let layout = Self()
}

/// How a payload is stored, in changes and in entries of the index.
enum PayloadStorage: UInt8, CaseIterable {
    case inline = 0
    case blocks = 1
    /// Only the blocks that a bitmap names, one after another.
    case someBlocks = 2
}
