// Access control lists, flags and access times in the model. Lists are kept as the bytes of their attribute. Sources: acl(5),
// ioctl_iflags(2), mount(8).

import Glibc

@testable import Treering

extension ModelFileSystem {
    static let accessList = "system.posix_acl_access"
    static let defaultList = "system.posix_acl_default"

    /// A list of permissions as the bytes of an attribute: owner, any users, group, mask, others. Three make one without a mask.
    static func listBytes(_ permissions: [UInt16]) -> [UInt8] {
        var bytes: [UInt8] = [2, 0, 0, 0]
        func add(_ tag: UInt8, _ permissions: UInt16, _ identity: UInt8?) {
            bytes += [tag, 0, UInt8(permissions), 0]
            bytes += identity.map { [$0, 0, 0, 0] } ?? [255, 255, 255, 255]
        }
        add(1, permissions[0], nil)
        guard permissions.count > 3 else {
            add(4, permissions[1], nil)
            add(32, permissions[2], nil)
            return bytes
        }
        let users = permissions[1..<permissions.count - 3]
        for (index, one) in users.enumerated() { add(2, one, UInt8(index)) }
        add(4, permissions[permissions.count - 3], nil)
        add(16, permissions[permissions.count - 2], nil)
        add(32, permissions[permissions.count - 1], nil)
        return bytes
    }

    mutating func setAccessList(
        _ number: UInt64, _ isDefault: Bool, _ permissions: [UInt16], _ caller: Caller
    ) throws(Errno) {
        var inode = try inode(number)
        guard !inode.isSealed else { throw .notPermitted }
        if inode.isSymbolicLink { throw .notSupported }
        if isDefault, !inode.isDirectory { throw .accessDenied }
        let bytes = Self.listBytes(permissions)
        inode.changed = time
        if isDefault {
            inode.xattrs[Self.defaultList] = bytes
        } else {
            inode.mode = inode.mode & ~0o777 | bytes.listMode
            if inode.mode & 0o2000 != 0, !caller.isInGroup(inode.gid) { inode.mode &= ~0o2000 }
            inode.xattrs[Self.accessList] = permissions.count > 3 ? bytes : nil
        }
        inodes[number] = inode
    }

    mutating func removeAccessList(_ number: UInt64, _ isDefault: Bool) throws(Errno) {
        guard !(try inode(number).isSealed) else { throw .notPermitted }
        let name = isDefault ? Self.defaultList : Self.accessList
        guard inodes[number]!.xattrs[name] != nil else { return }
        inodes[number]!.xattrs[name] = nil
        inodes[number]!.changed = time
    }

    mutating func setFlags(_ number: UInt64, _ flags: InodeFlags) throws(Errno) {
        let inode = try inode(number)
        guard inode.isRegular || inode.isDirectory else { throw .notSupported }
        inodes[number]!.flags = flags
        inodes[number]!.changed = time
    }

    /// The rule of relatime.
    mutating func noteAccess(_ number: UInt64) throws(Errno) {
        let inode = try inode(number)
        guard !inode.flags.contains(.noAccessTime) else { return }
        let old = inode.accessed
        guard old <= inode.modified || old <= inode.changed || time.seconds - old.seconds >= 86_400 else { return }
        inodes[number]!.accessed = time
    }

    /// An inode with what it takes over from its directory.
    func newInode(in directory: ModelInode, mode: UInt32, deviceNumber: UInt32, _ caller: Caller) -> ModelInode {
        var inode = ModelInode(
            mode: mode, linkCount: 1, uid: caller.uid, gid: caller.gid, deviceNumber: deviceNumber, accessed: time,
            modified: time, changed: time, born: time)
        inode.flags = directory.flags.intersection([.noDump, .noAccessTime])
        if directory.mode & 0o2000 != 0 {
            inode.gid = directory.gid
            if inode.isDirectory { inode.mode |= 0o2000 }
        }
        if inode.isSymbolicLink { return inode }
        guard let list = directory.xattrs[Self.defaultList] else {
            inode.mode &= ~caller.umask
            return inode
        }
        var own = list
        own.takeMode(list.listMode & inode.mode)
        inode.mode = inode.mode & ~0o777 | own.listMode
        if own.count > 28 { inode.xattrs[Self.accessList] = own }
        if inode.isDirectory { inode.xattrs[Self.defaultList] = list }
        return inode
    }
}

extension ModelInode {
    /// What POSIX says of S_ISUID and S_ISGID when somebody without privileges changes a file.
    mutating func killPrivileges(_ caller: Caller) {
        if isDirectory { return }
        mode &= ~0o4000
        if mode & 0o010 != 0 || !caller.isInGroup(gid) { mode &= ~0o2000 }
    }
}

extension Caller {
    func isInGroup(_ group: UInt32) -> Bool {
        gid == group || identity!.groups.contains(group) || identity!.keepsSetGroupID
    }
}

extension AttributeChanges {
    /// Nothing but times set to now.
    var isTouch: Bool {
        if mode != nil || uid != nil || gid != nil || byteCount != nil { return false }
        if case .at = accessed { return false }
        if case .at = modified { return false }
        return true
    }
}

extension [UInt8] {
    /// Where the permissions of an entry with this tag are.
    private func place(_ tag: UInt8) -> Int? {
        stride(from: 4, to: count, by: 8).first { self[$0] == tag }.map { $0 + 2 }
    }

    /// The mode that goes with a list.
    var listMode: UInt32 {
        UInt32(self[place(1)!]) << 6 | UInt32(self[place(16) ?? place(4)!]) << 3 | UInt32(self[place(32)!])
    }

    /// The list after a chmod.
    mutating func takeMode(_ mode: UInt32) {
        self[place(1)!] = UInt8(mode >> 6 & 7)
        self[place(16) ?? place(4)!] = UInt8(mode >> 3 & 7)
        self[place(32)!] = UInt8(mode & 7)
    }
}
