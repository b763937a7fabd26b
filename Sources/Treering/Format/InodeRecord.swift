// An inode in a record: what stat(2) tells of it, and its layout.

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
