// Flags of an inode: those of chattr(1), and two of our own that spare a lookup.

/// The flags word of `InodeRecord`. The lower bits have the numbers of FS_*_FL (include/uapi/linux/fs.h).
struct InodeFlags: OptionSet, Hashable, Sendable {
    let rawValue: UInt32
    static let immutable = InodeFlags(rawValue: 0x10)
    static let appendOnly = InodeFlags(rawValue: 0x20)
    static let noDump = InodeFlags(rawValue: 0x40)
    static let noAccessTime = InodeFlags(rawValue: 0x80)
    /// The inode has an extended attribute system.posix_acl_access.
    static let hasAccessList = InodeFlags(rawValue: 1 << 30)
    /// The directory has an extended attribute system.posix_acl_default.
    static let hasDefaultList = InodeFlags(rawValue: 1 << 31)

    /// What chattr(1) may set here.
    static let settable: InodeFlags = [.immutable, .appendOnly, .noDump, .noAccessTime]
    /// What a new inode takes over from its directory, as on ext4.
    static let inherited: InodeFlags = [.noDump, .noAccessTime]
    static let protecting: InodeFlags = [.immutable, .appendOnly]
}

extension InodeRecord {
    var inodeFlags: InodeFlags {
        get { InodeFlags(rawValue: flags) }
        set { flags = newValue.rawValue }
    }

    var isImmutable: Bool { flags & InodeFlags.immutable.rawValue != 0 }
    var isAppendOnly: Bool { flags & InodeFlags.appendOnly.rawValue != 0 }
    /// Immutable or append-only: keeps its attributes and names.
    var isProtected: Bool { flags & InodeFlags.protecting.rawValue != 0 }

    /// Throws unless a name may be made in this directory. Source: ioctl_iflags(2).
    func requireNewNames() throws(Stop) {
        if isImmutable { throw .failed(.notPermitted) }
    }

    /// Throws unless this directory may lose a name of `inode`.
    func requireRemoval(of inode: InodeRecord) throws(Stop) {
        if isProtected || inode.isProtected { throw .failed(.notPermitted) }
    }

    /// Throws unless attributes may change.
    func requireUnprotected() throws(Stop) {
        if isProtected { throw .failed(.notPermitted) }
    }
}

extension Core {
    /// FS_IOC_GETFLAGS.
    func inodeFlags(_ number: InodeNumber) throws(Stop) -> InodeFlags {
        try inode(number).record.inodeFlags.intersection(.settable)
    }

    /// FS_IOC_SETFLAGS. The kernel has checked that the caller may do it.
    func setInodeFlags(_ number: InodeNumber, _ wanted: InodeFlags, _ context: RequestContext) throws(Stop) {
        guard InodeFlags.settable.isSuperset(of: wanted) else { throw .failed(.notSupported) }
        var inode = try self.inode(number).record
        // chattr(1) is for files and directories; the kernel does not ask for others.
        guard inode.isRegular || inode.isDirectory else { throw .failed(.notSupported) }
        // Works on a full store: a file must be unprotected before it can be removed.
        let unprotects = inode.isProtected && wanted.isDisjoint(with: .protecting)
        inode.inodeFlags = inode.inodeFlags.subtracting(.settable).union(wanted)
        inode.changed = now()
        try commit(unprotects ? .removal : .write, context) { $0.inode(inode) }
    }

    /// Checks open(2) of an immutable or append-only file, where the kernel sends OPEN. `appends`: O_APPEND without
    /// O_TRUNC.
    func checkOpen(_ number: InodeNumber, writes: Bool, appends: Bool) throws(Stop) {
        guard writes else { return }
        let inode = try self.inode(number).record
        if inode.isImmutable || inode.isAppendOnly && !appends { throw .failed(.notPermitted) }
    }
}
