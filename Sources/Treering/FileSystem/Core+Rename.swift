// Renaming in all its forms, each one record. Source: rename(2).

extension Core {
    /// rename(2), renameat2(2) with RENAME_NOREPLACE, RENAME_EXCHANGE and RENAME_WHITEOUT. That a directory does not move into
    /// itself is seen to by the kernel.
    func rename(
        _ parent: InodeNumber, _ name: UnsafeRawBufferPointer, _ newParent: InodeNumber,
        _ newName: UnsafeRawBufferPointer,
        _ flags: RenameFlags, _ caller: Caller
    ) throws(Stop) {
        try check(name: newName)
        let from = try directory(parent).record
        let to = parent == newParent ? from : try livingDirectory(newParent).record
        guard case .found(let source) = try slot(parent, name) else { throw .failed(.noEntry) }
        let target = try slot(newParent, newName)
        var move = Move(
            from: from, to: to, source: source, moved: try inode(source.inode).record, name: name, newName: newName,
            time: now())
        try from.requireRemoval(of: move.moved)
        if flags.contains(.whiteout) {
            var whiteout = newInode(NewInode(mode: 0o020000), caller, move.time)
            move.inheritance = try inherit(&whiteout, from: from, caller)
            move.whiteout = whiteout
        }
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
            try to.requireRemoval(of: victim.record)
            if flags.contains(.exchange) {
                try exchange(move, existing, victim.record)
                return
            }
            if move.moved.isDirectory {
                guard victim.record.isDirectory else { throw .failed(.notDirectory) }
                try requireEmpty(victim)
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
        /// What takes the old name.
        var whiteout: InodeRecord?
        var inheritance = Inheritance()
        var isAcross: Bool { from.inode != to.inode }
    }

    private func rename(_ move: Move, cookie: UInt64, since: BatchSequence, over victim: InodeRecord?) throws(Stop) {
        var move = move
        move.moved.changed = move.time
        move.from.modified = move.time
        move.from.changed = move.time
        if move.moved.isDirectory, move.isAcross {
            move.moved.parent = move.to.inode
            try moveLink(from: &move.from, to: &move.to)
        }
        if let victim, victim.isDirectory {
            if move.isAcross {
                try takeLink(from: &move.to, least: 3)
            } else {
                try takeLink(from: &move.from, least: 3)
            }
        }
        move.to.modified = move.time
        move.to.changed = move.time
        writer.reset()
        if let whiteout = move.whiteout {
            writer.inode(whiteout)
            writer.dirent(
                directory: move.from.inode, cookie: move.source.cookie, since: move.source.since, inode: whiteout.inode,
                mode: whiteout.mode, name: move.name)
            write(move.inheritance, of: whiteout.inode)
        } else {
            writer.removeDirent(directory: move.from.inode, cookie: move.source.cookie, since: move.source.since)
        }
        if let victim { try planUnlinked(victim, move.time) }
        writer.dirent(
            directory: move.to.inode, cookie: cookie, since: since, inode: move.moved.inode, mode: move.moved.mode,
            name: move.newName)
        writer.inode(move.moved)
        writer.inode(move.from)
        if move.isAcross { writer.inode(move.to) }
        if let whiteout = move.whiteout {
            try commit(making: whiteout, freesSpace: victim != nil)
        } else {
            try commit(freesSpace: victim != nil)
        }
        if let victim { noteUnlinked(victim) }
    }

    /// A directory goes from one directory into another.
    private func moveLink(from: inout InodeRecord, to: inout InodeRecord) throws(Stop) {
        try takeLink(from: &from, least: 3)
        try addLink(to: &to)
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
                try moveLink(from: &move.from, to: &move.to)
            }
            if other.isDirectory {
                other.parent = move.from.inode
                try moveLink(from: &move.to, to: &move.from)
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
