// Names: lookup, making, linking, removing, renaming. Sources: POSIX.1-2017 and the man pages named at each operation.

extension Core {
    /// link(2): ext4's limit for files.
    static let linkCountLimit: UInt32 = 65_000

    func lookup(_ parent: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) -> Attributes {
        _ = try directory(parent)
        guard name.count <= Int(FileSystemStatus.nameByteCountLimit) else { throw .failed(.nameTooLong) }
        guard case .found(let dirent) = try slot(parent, name) else { throw .failed(.noEntry) }
        let entry = try inode(dirent.inode)
        raiseLookups(dirent.inode)
        return Attributes(entry)
    }

    /// The kernel forgets; an orphan that nobody knows any more is given to the housekeeper.
    func forget(_ inode: InodeNumber, _ count: UInt64) {
        guard let known = lookups[inode] else { return }
        if known > count {
            lookups[inode] = known - count
            return
        }
        lookups[inode] = nil
        // Whether it is an orphan may need a page; the housekeeper looks.
        if orphanCandidates.remove(inode) != nil { reapable.append(inode) }
    }

    /// mknod(2), mkdir(2), symlink(2).
    func make(
        _ parent: InodeNumber, _ name: UnsafeRawBufferPointer, _ new: NewInode, _ caller: Caller
    ) throws(Stop) -> Attributes {
        try check(name: name)
        var directory = try livingDirectory(parent).record
        guard case .free(let cookie) = try slot(parent, name) else { throw .failed(try conflict(parent, name)) }
        let time = now()
        var inode = InodeRecord(
            inode: log.nextInode, mode: new.mode, linkCount: 1, uid: caller.uid, gid: caller.gid,
            deviceNumber: new.deviceNumber, size: UInt64(new.target?.count ?? 0), since: .zero, now: time)
        if directory.mode & 0o2000 != 0 {
            inode.gid = directory.gid
            if inode.isDirectory { inode.mode |= 0o2000 }
        }
        if inode.isDirectory {
            inode.linkCount = 2
            inode.parent = parent
            directory.linkCount += 1
        }
        directory.modified = time
        directory.changed = time
        let since = try find { () throws(PageMiss) in try index.sinceOfTombstone(parent, .dirent, cookie) }
        writer.reset()
        writer.inode(inode)
        writer.dirent(
            directory: parent, cookie: cookie, since: since, inode: inode.inode, mode: inode.mode, name: name)
        writer.inode(directory)
        if let target = new.target {
            writer.payload(target)
            writer.extent(inode: inode.inode, offset: 0, byteCount: UInt32(target.count))
        }
        log.nextInode = InodeNumber(inode.inode.rawValue + 1)
        do { try commit() } catch {
            log.nextInode = inode.inode
            throw error
        }
        raiseLookups(inode.inode)
        return Attributes(try self.inode(inode.inode))
    }

    private func conflict(_ parent: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) -> Errno {
        if case .found = try slot(parent, name) { return .exists }
        return .noSpace
    }

    /// link(2).
    func link(_ target: InodeNumber, _ parent: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) -> Attributes {
        try check(name: name)
        var inode = try self.inode(target).record
        guard !inode.isDirectory else { throw .failed(.notPermitted) }
        guard inode.linkCount < Self.linkCountLimit else { throw .failed(.tooManyLinks) }
        guard inode.linkCount > 0 else { throw .failed(.noEntry) }
        var directory = try livingDirectory(parent).record
        guard case .free(let cookie) = try slot(parent, name) else { throw .failed(try conflict(parent, name)) }
        let since = try find { () throws(PageMiss) in try index.sinceOfTombstone(parent, .dirent, cookie) }
        let time = now()
        inode.linkCount += 1
        inode.changed = time
        directory.modified = time
        directory.changed = time
        writer.reset()
        writer.inode(inode)
        writer.dirent(directory: parent, cookie: cookie, since: since, inode: target, mode: inode.mode, name: name)
        writer.inode(directory)
        try commit()
        raiseLookups(target)
        return Attributes(try self.inode(target))
    }

    /// unlink(2).
    func unlink(_ parent: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) {
        var directory = try self.directory(parent).record
        guard case .found(let dirent) = try slot(parent, name) else { throw .failed(.noEntry) }
        let inode = try self.inode(dirent.inode).record
        guard !inode.isDirectory else { throw .failed(.isDirectory) }
        let time = now()
        directory.modified = time
        directory.changed = time
        writer.reset()
        writer.removeDirent(directory: parent, cookie: dirent.cookie, since: dirent.since)
        planUnlinked(inode, time)
        writer.inode(directory)
        try commit(freesSpace: true)
        noteUnlinked(inode)
    }

    /// rmdir(2).
    func removeDirectory(_ parent: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) {
        var directory = try self.directory(parent).record
        guard case .found(let dirent) = try slot(parent, name) else { throw .failed(.noEntry) }
        let victim = try self.inode(dirent.inode)
        guard victim.record.isDirectory else { throw .failed(.notDirectory) }
        guard victim.derived == 0 else { throw .failed(.notEmpty) }
        let time = now()
        directory.modified = time
        directory.changed = time
        directory.linkCount -= 1
        writer.reset()
        writer.removeDirent(directory: parent, cookie: dirent.cookie, since: dirent.since)
        planUnlinked(victim.record, time)
        writer.inode(directory)
        try commit(freesSpace: true)
        noteUnlinked(victim.record)
    }

    /// An inode loses a name: its record, and what happens when it was the last.
    private func planUnlinked(_ inode: InodeRecord, _ time: Timestamp) {
        var inode = inode
        inode.linkCount = inode.isDirectory ? 0 : inode.linkCount - 1
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

    private func noteUnlinked(_ inode: InodeRecord) {
        if (inode.isDirectory || inode.linkCount == 1) && lookups[inode.inode] != nil {
            orphanCandidates.insert(inode.inode)
        }
    }

    /// Removes an orphan for good. Called by the housekeeper, and for every orphan at a mount.
    func reap(_ inode: InodeNumber) throws(Stop) {
        guard lookups[inode] == nil,
            let entry = try find({ () throws(PageMiss) in try index.inode(inode) }), entry.record.linkCount == 0
        else { return }
        writer.reset()
        writer.removeInode(inode, since: entry.record.since)
        try commit(freesSpace: true)
    }

    // MARK: Rename

    /// rename(2), renameat2(2) with RENAME_NOREPLACE and RENAME_EXCHANGE.
    func rename(
        _ parent: InodeNumber, _ name: UnsafeRawBufferPointer, _ newParent: InodeNumber,
        _ newName: UnsafeRawBufferPointer,
        _ flags: RenameFlags
    ) throws(Stop) {
        try check(name: newName)
        let from = try directory(parent).record
        let to = parent == newParent ? from : try livingDirectory(newParent).record
        guard case .found(let source) = try slot(parent, name) else { throw .failed(.noEntry) }
        let target = try slot(newParent, newName)
        let move = Move(
            from: from, to: to, source: source, moved: try inode(source.inode).record, name: name, newName: newName,
            time: now())
        switch target {
        case .none: throw .failed(.noSpace)
        case .free(let cookie):
            if flags.contains(.exchange) { throw .failed(.noEntry) }
            let since = try find { () throws(PageMiss) in try index.sinceOfTombstone(newParent, .dirent, cookie) }
            try rename(move, cookie: cookie, since: since, over: nil)
        case .found(let existing):
            if flags.contains(.noReplace) { throw .failed(.exists) }
            if existing.inode == source.inode { return }
            let victim = try inode(existing.inode)
            if flags.contains(.exchange) {
                try exchange(move, existing, victim.record)
                return
            }
            if move.moved.isDirectory {
                guard victim.record.isDirectory else { throw .failed(.notDirectory) }
                guard victim.derived == 0 else { throw .failed(.notEmpty) }
            } else if victim.record.isDirectory {
                throw .failed(.isDirectory)
            }
            try rename(move, cookie: existing.cookie, since: existing.since, over: victim.record)
        }
    }

    private struct Move {
        var from: InodeRecord
        var to: InodeRecord
        var source: FoundDirent
        var moved: InodeRecord
        var name: UnsafeRawBufferPointer
        var newName: UnsafeRawBufferPointer
        var time: Timestamp
        var isAcross: Bool { from.inode != to.inode }
    }

    private func rename(_ move: Move, cookie: UInt64, since: BatchSequence, over victim: InodeRecord?) throws(Stop) {
        var move = move
        move.moved.changed = move.time
        move.from.modified = move.time
        move.from.changed = move.time
        if move.moved.isDirectory, move.isAcross {
            move.moved.parent = move.to.inode
            move.from.linkCount -= 1
            move.to.linkCount += 1
        }
        if let victim, victim.isDirectory {
            if move.isAcross { move.to.linkCount -= 1 } else { move.from.linkCount -= 1 }
        }
        move.to.modified = move.time
        move.to.changed = move.time
        writer.reset()
        writer.removeDirent(directory: move.from.inode, cookie: move.source.cookie, since: move.source.since)
        if let victim { planUnlinked(victim, move.time) }
        writer.dirent(
            directory: move.to.inode, cookie: cookie, since: since, inode: move.moved.inode, mode: move.moved.mode,
            name: move.newName)
        writer.inode(move.moved)
        writer.inode(move.from)
        if move.isAcross { writer.inode(move.to) }
        try commit(freesSpace: victim != nil)
        if let victim { noteUnlinked(victim) }
    }

    private func exchange(_ move: Move, _ existing: FoundDirent, _ other: InodeRecord) throws(Stop) {
        var move = move
        var other = other
        other.changed = move.time
        move.moved.changed = move.time
        move.from.modified = move.time
        move.from.changed = move.time
        move.to.modified = move.time
        move.to.changed = move.time
        if move.isAcross {
            if move.moved.isDirectory {
                move.moved.parent = move.to.inode
                move.from.linkCount -= 1
                move.to.linkCount += 1
            }
            if other.isDirectory {
                other.parent = move.from.inode
                move.to.linkCount -= 1
                move.from.linkCount += 1
            }
        }
        writer.reset()
        writer.dirent(
            directory: move.to.inode, cookie: existing.cookie, since: existing.since, inode: move.moved.inode,
            mode: move.moved.mode, name: move.newName)
        writer.dirent(
            directory: move.from.inode, cookie: move.source.cookie, since: move.source.since, inode: other.inode,
            mode: other.mode, name: move.name)
        writer.inode(move.moved)
        writer.inode(other)
        writer.inode(move.from)
        if move.isAcross { writer.inode(move.to) }
        try commit()
    }
}
