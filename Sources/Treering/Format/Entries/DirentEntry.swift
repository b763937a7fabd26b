// The index entry of a directory entry.

/// A directory entry. Key: (tree, directory, dirent, cookie).
struct DirentEntry {
    struct Layout: DiskLayout {
        let origin = Field<Origin>(0, "origin")
        let type = Field<UInt8>(12, "type", "S_IFMT >> 12")
        let nameByteCount = Field<UInt8>(13, "name length")
        let since = Field<BatchSequence>(16, "since")
        let inode = Field<InodeNumber>(24, "inode")
        let name = Tail<UInt8>(32, "name")
        static let byteCount = 32
    }

    static let layout = Layout()
    static let headerByteCount = Layout.byteCount
    static let byteCountLimit = headerByteCount + 255

    var origin: Origin
    var type: UInt8
    var since: BatchSequence
    var inode: InodeNumber
    var name: UnsafeRawBufferPointer

    static func key(_ directory: InodeNumber, _ cookie: UInt64) -> IndexKey {
        IndexKey(space: .tree, object: directory.rawValue, kind: .dirent, subkey: cookie)
    }

    var charge: Int { DirentChange.byteCount + Change.moveOverheadByteCount + name.count }
    var byteCount: Int { Self.headerByteCount + name.count }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        let field = Self.layout
        bytes.zero(0, Self.headerByteCount)
        bytes[field.origin] = origin
        bytes[field.type] = type
        bytes[field.nameByteCount] = UInt8(name.count)
        bytes[field.since] = since
        bytes[field.inode] = inode
        bytes.copy(name, to: field.name.offset)
    }

    init(origin: Origin, type: UInt8, since: BatchSequence, inode: InodeNumber, name: UnsafeRawBufferPointer) {
        self.origin = origin
        self.type = type
        self.since = since
        self.inode = inode
        self.name = name
    }

    /// Borrows the name from `bytes`.
    init?(decoding bytes: UnsafeRawBufferPointer) {
        let field = Self.layout
        guard bytes.count > Self.headerByteCount,
            bytes.count == Self.headerByteCount + Int(bytes[field.nameByteCount])
        else { return nil }
        origin = bytes[field.origin]
        type = bytes[field.type]
        since = bytes[field.since]
        inode = bytes[field.inode]
        name = bytes.part(field.name.offset, bytes.count - field.name.offset)
        guard InodeRecord.isType(UInt32(type)), since.isPossible, inode.isPossible else { return nil }
    }
}
