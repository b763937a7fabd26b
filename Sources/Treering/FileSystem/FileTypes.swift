// The values that file-system operations take and give: what POSIX calls stat, setattr, dirent. FuseServer translates
// them from and to the kernel's structures.

import Glibc

/// The identity on whose behalf an operation runs.
struct Caller: Sendable {
    var uid: UInt32
    var gid: UInt32
    var umask: UInt32
    /// Groups and privileges. The kernel does not send them, so an operation that needs them throws `Blocker.identity`.
    var identity: Identity?

    /// Whether S_ISGID may stay on an inode: on a file that its group cannot execute, and at a change of mode. Source:
    /// the kernel's setattr_should_drop_sgid.
    func keepsSetGroupID(of inode: InodeRecord) throws(Stop) -> Bool {
        guard let identity else { throw .blocked(.identity) }
        return identity.keepsSetGroupID || gid == inode.gid || identity.groups.contains(inode.gid)
    }
}

/// What an operation knows of the request that asks for it: one value, from the kernel's request to the commit of its
/// record.
struct RequestContext: Sendable {
    var caller: Caller
    /// The number of a request that must not be carried out twice. `ConnectionState` notes it with the record's
    /// sequence, for a successor. Nil if a second time does no harm.
    var onceNumber: UInt64?

    /// For changes that no request asks for, and for operations that do not depend on the caller.
    static var nobody: RequestContext { .by(Caller(uid: 0, gid: 0, umask: 0)) }

    /// For a request that may be carried out twice.
    static func by(_ caller: Caller) -> RequestContext { RequestContext(caller: caller, onceNumber: nil) }
}

/// Groups and privileges of a process.
struct Identity: Sendable {
    /// The fsgid and the supplementary groups.
    var groups: Set<UInt32> = []
    /// CAP_FSETID.
    var keepsSetGroupID = false
    /// CAP_SYS_ADMIN.
    var isAdministrator = false

    static let privileged = Identity(keepsSetGroupID: true, isAdministrator: true)
}

/// What stat(2) tells of an inode, and what the index keeps of it.
struct Attributes: Hashable, Sendable {
    var inode: InodeNumber
    /// Type (S_IFMT) and permission bits.
    var mode: UInt32
    var linkCount: UInt32
    var uid: UInt32
    var gid: UInt32
    /// Device number of a special file, as the kernel's 32-bit encoding.
    var deviceNumber: UInt32
    /// In bytes; for a directory the number of its entries (without "." and "..") times 32.
    var byteCount: UInt64
    /// Bytes of all extents, the reserved ones included.
    var storedByteCount: UInt64
    /// `storedByteCount` in the unit of st_blocks: 512 bytes, rounded up.
    var blockCount: UInt64 { storedByteCount / 512 + (storedByteCount % 512 == 0 ? 0 : 1) }
    var accessed: Timestamp
    var modified: Timestamp
    var changed: Timestamp
    var born: Timestamp
    /// Those of chattr(1).
    var flags: InodeFlags = []

    var type: UInt32 { mode & UInt32(S_IFMT) }
    var isDirectory: Bool { type == UInt32(S_IFDIR) }
    var isRegular: Bool { type == UInt32(S_IFREG) }
    var isSymbolicLink: Bool { type == UInt32(S_IFLNK) }
}

/// The attributes that a setattr changes; nil leaves one as it is.
struct AttributeChanges: Sendable {
    enum Time: Sendable {
        case now
        case at(Timestamp)
    }
    /// Permission bits (07777).
    var mode: UInt32?
    var uid: UInt32?
    var gid: UInt32?
    var byteCount: UInt64?
    var accessed: Time?
    var modified: Time?
    var changed: Time?
    /// The caller may not keep set-user-ID and set-group-ID bits.
    var killsPrivileges = false

    /// A chown(2) that names neither user nor group. It still changes the time and kills privileges. The kernel sends
    /// it without any field, or with `changed` alone where the kernel keeps the times.
    var isChownOfNothing: Bool {
        mode == nil && uid == nil && gid == nil && byteCount == nil && accessed == nil && modified == nil
    }
}

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

/// Why an operation did not give its result.
enum Stop: Error {
    /// It failed; nothing was changed.
    case failed(Errno)
    /// It needs something that is on its way; nothing was changed. Hand it to `Volume.park` and run it again when told.
    case blocked(Blocker)
}

/// What a blocked operation waits for.
enum Blocker {
    /// A page of the index. The operation begins anew, so the pages that were fetched for it before must stay in
    /// memory.
    case page(PageMiss)
    /// A page of the index. The operation goes on where it was, so the pages that it has passed may leave memory.
    case pageAhead(PageMiss)
    /// Nothing. The operation has done as much as one hold of the lock allows. It goes on where it was after others had
    /// their turn.
    case turn
    /// Room in staging, in the log, or among the changed pages of the index.
    case room
    /// The caller's groups and privileges: run it again with `Caller.identity`. Never handed to `Volume.park`.
    case identity

    /// The page that is missing.
    var miss: PageMiss? {
        switch self {
        case .page(let miss), .pageAhead(let miss): return miss
        case .turn, .room, .identity: return nil
        }
    }
}
