// The values that file-system operations take and give: what POSIX calls stat, setattr, dirent. FuseServer translates
// them from and to the kernel's structures.

/// What a new inode is to be.
struct NewInode {
    /// Type and permission bits, before the umask.
    var mode: UInt32
    var deviceNumber: UInt32 = 0
    /// The target of a symbolic link.
    var target: UnsafeRawBufferPointer?
}

/// One entry of a directory. The name is borrowed until the callback that received it returns.
struct DirectoryEntry {
    var name: UnsafeRawBufferPointer
    var inode: InodeNumber
    /// S_IFMT bits.
    var type: UInt32
    /// Where the next readdir goes on: give it back as `after`.
    var cookie: UInt64
}

/// Flags of renameat2(2).
struct RenameFlags: OptionSet, Sendable {
    let rawValue: UInt32
    static let noReplace = RenameFlags(rawValue: 1)
    static let exchange = RenameFlags(rawValue: 2)
    /// A character device 0:0 takes the old name: what overlay file systems call a whiteout.
    static let whiteout = RenameFlags(rawValue: 4)
}

/// How a write is to be taken.
struct WriteFlags: OptionSet, Sendable {
    let rawValue: UInt8
    /// The writer may not keep set-user-ID and set-group-ID bits on the file.
    static let killsPrivileges = WriteFlags(rawValue: 1)
    /// The kernel keeps the file's times and tells them by itself.
    static let keepsTimes = WriteFlags(rawValue: 2)
    /// May reach an append-only file. The file was opened with O_APPEND, or the bytes come from the kernel's cache,
    /// which has checked that already.
    static let appends = WriteFlags(rawValue: 4)
}

/// Flags of setxattr(2).
struct SetXattrFlags: OptionSet, Sendable {
    let rawValue: Int32
    static let create = SetXattrFlags(rawValue: 1)
    static let replace = SetXattrFlags(rawValue: 2)
}

/// What statvfs(3) tells.
struct FileSystemStatus: Sendable {
    var totalByteCount: UInt64
    var freeByteCount: UInt64
    var availableByteCount: UInt64
    var inodeCount: UInt64
    var freeInodeCount: UInt64
    static let blockByteCount: UInt64 = 4096
    static let nameByteCountLimit: UInt64 = 255
}
