// Access control lists of inodes, stored as extended attributes. A list and the mode of its inode always agree, because
// one record changes both. The inode's flags say whether it has a list, so that a file without one needs no lookup.

extension Core {
    /// What a name means. Throws EOPNOTSUPP for an access control list that the kernel would not enforce.
    func classify(_ name: UnsafeRawBufferPointer) throws(Stop) -> XattrName {
        let found = try XattrName(name)
        if case .ordinary = found { return found }
        guard keepsAccessLists else { throw .failed(.notSupported) }
        return found
    }

    /// Reads a list that exists by the inode's flags: a missing one is damage.
    private func list(of inode: InodeNumber, _ name: StaticString) throws(Stop) -> (AccessControlList, XattrPlace) {
        if case .found(let found) = try find({ () throws(PageMiss) in
            try index.xattr(inode, XattrName.bytes(name), nameHash)
        }) {
            let list = try find { () throws(PageMiss) in
                try index.tree.withValue(of: XattrEntry.key(inode, found.cookie)) { value -> AccessControlList? in
                    guard case .inline(let bytes)? = value.flatMap({ XattrEntry(decoding: $0) })?.value else {
                        return nil
                    }
                    return AccessControlList(decoding: bytes)
                }
            }
            if let list { return (list, XattrPlace(cookie: found.cookie, since: found.since)) }
        }
        report(
            CorruptionReport(
                place: "inode \(inode.rawValue)", reason: "its access control list is missing or malformed"))
        throw .failed(.ioError)
    }

    /// Where an attribute lies or will lie.
    struct XattrPlace {
        var cookie: UInt64
        var since: BatchSequence
    }

    /// setxattr(2) of an ACL. The flags XATTR_CREATE and XATTR_REPLACE mean nothing here, as on ext4.
    func setAccessList(
        _ kind: XattrName, _ inode: InodeRecord, _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer,
        _ context: RequestContext
    ) throws(Stop) {
        guard let list = AccessControlList(decoding: value) else { throw .failed(.invalid) }
        guard list.entries.count <= AccessControlList.entryCountLimit else { throw .failed(.noSpace) }
        if inode.isSymbolicLink { throw .failed(.notSupported) }
        if case .defaultList = kind, !inode.isDirectory { throw .failed(.accessDenied) }
        var inode = inode
        inode.changed = now()
        if case .accessList = kind {
            inode.mode = inode.mode & ~0o777 | list.modeBits
            // A caller outside the file's group may not keep S_ISGID, as with chmod(2).
            if inode.mode & 0o2000 != 0, !(try context.caller.keepsSetGroupID(of: inode)) { inode.mode &= ~0o2000 }
            if list.isMode {
                guard inode.inodeFlags.contains(.hasAccessList) else {
                    return try commit(.write, context) { $0.inode(inode) }
                }
                return try removeAccessList(kind, inode, name, context)
            }
        }
        inode.inodeFlags.insert(kind.flag)
        let place = try place(inode.inode, name)
        try commit(.write, context) { writer in
            writer.xattr(
                inode: inode.inode, cookie: place.cookie, since: place.since, name: name, value: value,
                inPayload: false)
            writer.inode(inode)
        }
    }

    /// Removes an access control list. The mode stays. It is no error if there is no list, as on ext4.
    func removeAccessList(
        _ kind: XattrName, _ inode: InodeRecord, _ name: UnsafeRawBufferPointer, _ context: RequestContext
    ) throws(Stop) {
        var inode = inode
        guard case .found(let found) = try find({ () throws(PageMiss) in try index.xattr(inode.inode, name, nameHash) })
        else { return }
        inode.inodeFlags.remove(kind.flag)
        inode.changed = now()
        try commit(.removal, context) { writer in
            writer.removeXattr(inode: inode.inode, cookie: found.cookie, since: found.since)
            writer.inode(inode)
        }
    }

    /// The place of an attribute, old or new.
    func place(_ inode: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) -> XattrPlace {
        switch try find({ () throws(PageMiss) in try index.xattr(inode, name, nameHash) }) {
        case .found(let found): return XattrPlace(cookie: found.cookie, since: found.since)
        case .free(let cookie):
            return XattrPlace(
                cookie: cookie,
                since: try find { () throws(PageMiss) in try index.sinceOfTombstone(inode, .xattr, cookie) })
        case .none: throw .failed(.noSpace)
        }
    }

    /// chmod(2): the list that fits the new mode. It goes into the same record as the inode. Nil if there is no list.
    func accessListAfterChangingMode(_ inode: InodeRecord) throws(Stop) -> (AccessControlList, XattrPlace)? {
        guard inode.inodeFlags.contains(.hasAccessList) else { return nil }
        var (list, place) = try list(of: inode.inode, XattrName.accessListName)
        list.takeMode(inode.mode)
        return (list, place)
    }

    func write(
        _ list: AccessControlList, _ name: StaticString, of inode: InodeNumber, _ place: XattrPlace,
        to writer: inout RecordWriter
    ) {
        list.bytes.withUnsafeBytes { value in
            writer.xattr(
                inode: inode, cookie: place.cookie, since: place.since, name: XattrName.bytes(name), value: value,
                inPayload: false)
        }
    }

    // MARK: New inodes

    /// What a new inode takes over from its directory besides its group.
    struct Inheritance {
        var access: AccessControlList?
        var defaults: AccessControlList?
    }

    /// Settles owner group, mode, flags and lists of a new inode. Where the directory has a default list, the umask
    /// does not count. Source: acl(5), open(2), the description of S_ISGID in inode(7).
    func inherit(_ inode: inout InodeRecord, from directory: InodeRecord, _ caller: Caller) throws(Stop) -> Inheritance
    {
        inode.inodeFlags = directory.inodeFlags.intersection(.inherited)
        if directory.mode & 0o2000 != 0 {
            inode.gid = directory.gid
            if inode.isDirectory { inode.mode |= 0o2000 }
        }
        var inheritance = Inheritance()
        if inode.isSymbolicLink { return inheritance }
        guard directory.inodeFlags.contains(.hasDefaultList), keepsAccessLists else {
            inode.mode &= ~(caller.umask & 0o777)
            return inheritance
        }
        let (defaults, _) = try list(of: directory.inode, XattrName.defaultListName)
        let access = defaults.inherited(mode: inode.mode)
        inode.mode = inode.mode & ~0o777 | access.modeBits
        if !access.isMode {
            inheritance.access = access
            inode.inodeFlags.insert(.hasAccessList)
        }
        if inode.isDirectory {
            inheritance.defaults = defaults
            inode.inodeFlags.insert(.hasDefaultList)
        }
        return inheritance
    }

    /// Adds inherited lists to the record that makes the inode.
    func write(_ inheritance: Inheritance, of inode: InodeNumber, to writer: inout RecordWriter) {
        var taken: UInt64 = 0
        if let access = inheritance.access {
            taken = nameHash.cookie(XattrName.bytes(XattrName.accessListName))
            write(access, XattrName.accessListName, of: inode, XattrPlace(cookie: taken, since: .zero), to: &writer)
        }
        if let defaults = inheritance.defaults {
            let cookie = nameHash.cookie(XattrName.bytes(XattrName.defaultListName))
            let place = XattrPlace(cookie: cookie == taken ? cookie + 1 : cookie, since: .zero)
            write(defaults, XattrName.defaultListName, of: inode, place, to: &writer)
        }
    }
}
