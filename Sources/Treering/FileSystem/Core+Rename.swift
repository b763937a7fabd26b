// Renaming in all its forms, each one record. Source: rename(2).

extension Core {
    /// rename(2), renameat2(2) with RENAME_NOREPLACE, RENAME_EXCHANGE and RENAME_WHITEOUT. The kernel makes sure that a
    /// directory does not move into itself.
    func rename(
        _ parent: InodeNumber, _ name: UnsafeRawBufferPointer, _ newParent: InodeNumber,
        _ newName: UnsafeRawBufferPointer,
        _ flags: RenameFlags, _ context: RequestContext
    ) throws(Stop) {
        try check(name: newName)
        let from = try directory(parent).record
        let to = parent == newParent ? from : try liveDirectory(newParent).record
        guard case .found(let source) = try slot(parent, name) else { throw .failed(.noEntry) }
        let target = try slot(newParent, newName)
        var move = Move(
            from: from, to: to, source: source, moved: try inode(source.inode).record, name: name, newName: newName,
            time: now())
        try from.requireRemoval(of: move.moved)
        if flags.contains(.whiteout) {
            var whiteout = newInode(NewInode(mode: 0o020000), context.caller, move.time)
            move.inheritance = try inherit(&whiteout, from: from, context.caller)
            move.whiteout = whiteout
        }
        switch target {
        case .none: throw .failed(.noSpace)
        case .free(let cookie):
            if flags.contains(.exchange) { throw .failed(.noEntry) }
            let since = try find { () throws(PageMiss) in try index.sinceOfTombstone(newParent, .dirent, cookie) }
            try rename(move, cookie: cookie, since: since, over: nil, context)
        case .found(let existing):
            if flags.contains(.noReplace) { throw .failed(.exists) }
            if existing.inode == source.inode { return }
            let victim = try inode(existing.inode)
            try to.requireRemoval(of: victim.record)
            if flags.contains(.exchange) {
                try exchange(move, existing, victim.record, context)
                return
            }
            if move.moved.isDirectory {
                guard victim.record.isDirectory else { throw .failed(.notDirectory) }
                try requireEmpty(victim)
            } else if victim.record.isDirectory {
                throw .failed(.isDirectory)
            }
            try rename(move, cookie: existing.cookie, since: existing.since, over: victim.record, context)
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

    private func rename(
        _ move: Move, cookie: UInt64, since: BatchSequence, over victim: InodeRecord?, _ context: RequestContext
    ) throws(Stop) {
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
        let tier: SpaceTier = victim == nil ? .write : .removal
        let planned = move
        func writeAll(to writer: inout RecordWriter) throws(Stop) {
            self.write(planned, to: &writer)
            if let victim { try writeUnlinked(victim, planned.time, to: &writer) }
            writer.dirent(
                directory: planned.to.inode, cookie: cookie, since: since, inode: planned.moved.inode,
                mode: planned.moved.mode, name: planned.newName)
            writer.inode(planned.moved)
            writer.inode(planned.from)
            if planned.isAcross { writer.inode(planned.to) }
        }
        if let whiteout = move.whiteout {
            try commit(making: whiteout, tier, context, writeAll)
        } else {
            try commit(tier, context, writeAll)
        }
        if let victim { noteUnlinked(victim) }
    }

    /// Writes what becomes of the old name: it is removed, or it names the whiteout.
    private func write(_ move: Move, to writer: inout RecordWriter) {
        if let whiteout = move.whiteout {
            writer.inode(whiteout)
            writer.dirent(
                directory: move.from.inode, cookie: move.source.cookie, since: move.source.since, inode: whiteout.inode,
                mode: whiteout.mode, name: move.name)
            write(move.inheritance, of: whiteout.inode, to: &writer)
        } else {
            writer.removeDirent(directory: move.from.inode, cookie: move.source.cookie, since: move.source.since)
        }
    }

    /// A directory goes from one directory into another.
    private func moveLink(from: inout InodeRecord, to: inout InodeRecord) throws(Stop) {
        try takeLink(from: &from, least: 3)
        try addLink(to: &to)
    }

    private func exchange(
        _ move: Move, _ existing: FoundDirent, _ other: InodeRecord, _ context: RequestContext
    ) throws(Stop) {
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
        try commit(.write, context) { writer in
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
        }
    }
}
