// Names: lookup, making, linking, removing, renaming. Sources: POSIX.1-2017 and the man pages named at each operation.

extension Core {
    /// link(2): ext4's limit for files.
    static let linkCountLimit: UInt32 = 65_000

    func lookup(_ parent: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) -> Attributes {
        if let found = try lookupByHandle(parent, name) { return found }
        _ = try directory(parent)
        guard name.count <= Int(FileSystemStatus.nameByteCountLimit) else { throw .failed(.nameTooLong) }
        guard case .found(let dirent) = try slot(parent, name) else { throw .failed(.noEntry) }
        let entry = try inode(dirent.inode)
        raiseLookups(dirent.inode)
        return Attributes(entry)
    }

    /// "." and "..": with them the kernel finds the inode of a file handle (open_by_handle_at(2)) that it has
    /// forgotten, and the inode's parent. "." works for every inode, not for directories alone. Numbers are never used
    /// again, so the inode found is the one that was meant.
    private func lookupByHandle(
        _ number: InodeNumber, _ name: UnsafeRawBufferPointer
    ) throws(Stop) -> Attributes? {
        guard name.count <= 2, name.count > 0, name.allSatisfy({ $0 == UInt8(ascii: ".") }) else { return nil }
        guard var entry = try find({ () throws(PageMiss) in try index.inode(number) }), entry.record.linkCount > 0
        else { throw .failed(.stale) }
        if name.count == 2 {
            guard entry.record.isDirectory else { throw .failed(.notDirectory) }
            if number != .root { entry = try inode(entry.record.parent) }
        }
        raiseLookups(entry.record.inode)
        return Attributes(entry)
    }

    /// The kernel drops `count` lookups. An orphan without a lookup becomes reapable.
    func forget(_ inode: InodeNumber, _ count: UInt64) {
        guard let known = lookups[inode] else { return }
        if known > count {
            setLookups(inode, known - count)
            return
        }
        setLookups(inode, 0)
        // Whether it is still an orphan may need a page, so `reap` checks that later.
        if orphanCandidates.remove(inode) != nil { reapable.append(inode) }
    }

    /// mknod(2), mkdir(2), symlink(2).
    func make(
        _ parent: InodeNumber, _ name: UnsafeRawBufferPointer, _ new: NewInode, _ context: RequestContext
    ) throws(Stop) -> Attributes {
        try check(name: name)
        var directory = try liveDirectory(parent).record
        guard case .free(let cookie) = try slot(parent, name) else { throw .failed(try conflict(parent, name)) }
        guard UInt64(new.target?.count ?? 0) <= InodeRecord.targetByteCountLimit else { throw .failed(.nameTooLong) }
        guard InodeRecord.isType(new.mode >> 12) else { throw .failed(.invalid) }
        let time = now()
        var inode = newInode(new, context.caller, time)
        let inheritance = try inherit(&inode, from: directory, context.caller)
        if inode.isDirectory {
            inode.linkCount = 2
            inode.parent = parent
            try addLink(to: &directory)
        }
        directory.modified = time
        directory.changed = time
        let since = try find { () throws(PageMiss) in try index.sinceOfTombstone(parent, .dirent, cookie) }
        try commit(making: inode, .write, context) { writer in
            writer.inode(inode)
            writer.dirent(
                directory: parent, cookie: cookie, since: since, inode: inode.inode, mode: inode.mode, name: name)
            writer.inode(directory)
            write(inheritance, of: inode.inode, to: &writer)
            if let target = new.target {
                writer.payload(target)
                writer.extent(inode: inode.inode, offset: 0, byteCount: UInt32(target.count))
            }
        }
        raiseLookups(inode.inode)
        return Attributes(try self.inode(inode.inode))
    }

    func newInode(_ new: NewInode, _ caller: Caller, _ time: Timestamp) -> InodeRecord {
        InodeRecord(
            inode: log.nextInode, mode: new.mode, linkCount: 1, uid: caller.uid, gid: caller.gid,
            deviceNumber: new.deviceNumber, size: UInt64(new.target?.count ?? 0), since: .zero, now: time)
    }

    /// open(2) with O_TMPFILE: makes a file without a name. It is an orphan until link(2) gives it one.
    func makeUnnamed(_ parent: InodeNumber, _ mode: UInt32, _ context: RequestContext) throws(Stop) -> Attributes {
        let directory = try self.directory(parent).record
        try directory.requireNewNames()
        // The kernel asks this for a removed directory too. The error is that of ext4.
        guard directory.linkCount > 0 else { throw .failed(.notPermitted) }
        let time = now()
        var inode = newInode(NewInode(mode: 0o100000 | mode & 0o7777), context.caller, time)
        let inheritance = try inherit(&inode, from: directory, context.caller)
        inode.linkCount = 0
        try commit(making: inode, .write, context) { writer in
            writer.inode(inode)
            write(inheritance, of: inode.inode, to: &writer)
            writer.orphan(inode.inode)
        }
        raiseLookups(inode.inode)
        orphanCandidates.insert(inode.inode)
        return Attributes(try self.inode(inode.inode))
    }

    private func conflict(_ parent: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) -> Errno {
        if case .found = try slot(parent, name) { return .exists }
        return .noSpace
    }

    /// link(2). An inode without a name may get one. That is right only for a file made by O_TMPFILE without O_EXCL.
    /// The kernel knows that (I_LINKABLE) and checks it; the store does not know.
    func link(
        _ target: InodeNumber, _ parent: InodeNumber, _ name: UnsafeRawBufferPointer, _ context: RequestContext
    ) throws(Stop) -> Attributes {
        try check(name: name)
        var inode = try self.inode(target).record
        guard !inode.isDirectory else { throw .failed(.notPermitted) }
        try inode.requireUnprotected()
        guard inode.linkCount < Self.linkCountLimit else { throw .failed(.tooManyLinks) }
        var directory = try liveDirectory(parent).record
        guard case .free(let cookie) = try slot(parent, name) else { throw .failed(try conflict(parent, name)) }
        let since = try find { () throws(PageMiss) in try index.sinceOfTombstone(parent, .dirent, cookie) }
        let time = now()
        try addLink(to: &inode)
        inode.changed = time
        directory.modified = time
        directory.changed = time
        try commit(.write, context) { writer in
            writer.inode(inode)
            writer.dirent(directory: parent, cookie: cookie, since: since, inode: target, mode: inode.mode, name: name)
            writer.inode(directory)
        }
        orphanCandidates.remove(target)
        raiseLookups(target)
        return Attributes(try self.inode(target))
    }

    /// unlink(2).
    func unlink(_ parent: InodeNumber, _ name: UnsafeRawBufferPointer, _ context: RequestContext) throws(Stop) {
        var directory = try self.directory(parent).record
        guard case .found(let dirent) = try slot(parent, name) else { throw .failed(.noEntry) }
        let inode = try self.inode(dirent.inode).record
        guard !inode.isDirectory else { throw .failed(.isDirectory) }
        try directory.requireRemoval(of: inode)
        let time = now()
        directory.modified = time
        directory.changed = time
        try commit(.removal, context) { (writer) throws(Stop) in
            writer.removeDirent(directory: parent, cookie: dirent.cookie, since: dirent.since)
            try writeUnlinked(inode, time, to: &writer)
            writer.inode(directory)
        }
        noteUnlinked(inode)
    }

    /// rmdir(2).
    func removeDirectory(
        _ parent: InodeNumber, _ name: UnsafeRawBufferPointer, _ context: RequestContext
    ) throws(Stop) {
        var directory = try self.directory(parent).record
        guard case .found(let dirent) = try slot(parent, name) else { throw .failed(.noEntry) }
        let victim = try self.inode(dirent.inode)
        try directory.requireRemoval(of: victim.record)
        guard victim.record.isDirectory else { throw .failed(.notDirectory) }
        try requireEmpty(victim)
        let time = now()
        directory.modified = time
        directory.changed = time
        try takeLink(from: &directory, least: 3)
        try commit(.removal, context) { (writer) throws(Stop) in
            writer.removeDirent(directory: parent, cookie: dirent.cookie, since: dirent.since)
            try writeUnlinked(victim.record, time, to: &writer)
            writer.inode(directory)
        }
        noteUnlinked(victim.record)
    }

    /// Writes the changes of an inode that loses a name. After its last name it is removed, or is an orphan while the
    /// kernel knows it.
    func writeUnlinked(_ inode: InodeRecord, _ time: Timestamp, to writer: inout RecordWriter) throws(Stop) {
        var inode = inode
        try takeLink(from: &inode, least: 1)
        if inode.isDirectory { inode.linkCount = 0 }
        inode.changed = time
        if inode.linkCount > 0 {
            writer.inode(inode)
        } else if lookups[inode.inode] != nil {
            writer.inode(inode)
            writer.orphan(inode.inode)
        } else {
            writer.removeInode(inode.inode, since: inode.since)
        }
    }

    func noteUnlinked(_ inode: InodeRecord) {
        if (inode.isDirectory || inode.linkCount == 1) && lookups[inode.inode] != nil {
            orphanCandidates.insert(inode.inode)
        }
    }

    /// Removes an orphan for good. Does nothing if the inode has a name or a lookup.
    func reap(_ inode: InodeNumber) throws(Stop) {
        guard lookups[inode] == nil,
            let entry = try find({ () throws(PageMiss) in try index.inode(inode) }), entry.record.linkCount == 0
        else { return }
        try commit(.removal, .nobody) { $0.removeInode(inode, since: entry.record.since) }
    }
}
