// The operations as FuseServer calls them: each runs under the lock, is short, and never waits. `request` is the kernel's number of a
// request that must not be carried out twice (`Operation.isOnce`).

extension Volume {
    func lookup(_ parent: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) -> Attributes {
        try run { (core) throws(Stop) in try core.lookup(parent, name) }
    }

    /// Never fails. An orphan that nobody knows any more is removed, now or by the housekeeper.
    func forget(_ inode: InodeNumber, _ count: UInt64) {
        // Counted in any case; `run` may refuse to run anything.
        let isOrphan = state.withLock { state in
            state.core.forget(inode, count)
            return state.core.reapable.last == inode && !state.core.isOver
        }
        guard isOrphan else { return }
        do throws(Stop) {
            try run { (core) throws(Stop) in
                guard core.reapable.last == inode else { return }
                try core.reap(inode)
                core.reapable.removeLast()
            }
        } catch {
            // The housekeeper does it, and fetches what it needs itself.
            if case .blocked(let blocker) = error, let miss = blocker.miss {
                change { $0.abandonFetch(miss.address, $1) }
            }
            housekeeper.kick()
        }
    }

    func attributes(_ inode: InodeNumber) throws(Stop) -> Attributes {
        try run { (core) throws(Stop) in try core.attributes(inode) }
    }

    func setAttributes(_ inode: InodeNumber, _ changes: AttributeChanges, _ caller: Caller) throws(Stop) -> Attributes {
        try run { (core) throws(Stop) in try core.setAttributes(inode, changes, caller) }
    }

    func make(
        _ parent: InodeNumber, _ name: UnsafeRawBufferPointer, _ new: NewInode, _ caller: Caller, for request: UInt64
    ) throws(Stop) -> Attributes {
        try run(for: request) { (core) throws(Stop) in try core.make(parent, name, new, caller) }
    }

    /// A regular file without a name.
    func makeUnnamed(_ parent: InodeNumber, _ mode: UInt32, _ caller: Caller) throws(Stop) -> Attributes {
        try run { (core) throws(Stop) in try core.makeUnnamed(parent, mode, caller) }
    }

    func link(
        _ inode: InodeNumber, _ parent: InodeNumber, _ name: UnsafeRawBufferPointer, for request: UInt64
    ) throws(Stop) -> Attributes {
        try run(for: request) { (core) throws(Stop) in try core.link(inode, parent, name) }
    }

    func unlink(_ parent: InodeNumber, _ name: UnsafeRawBufferPointer, for request: UInt64) throws(Stop) {
        try run(for: request) { (core) throws(Stop) in try core.unlink(parent, name) }
    }

    func removeDirectory(_ parent: InodeNumber, _ name: UnsafeRawBufferPointer, for request: UInt64) throws(Stop) {
        try run(for: request) { (core) throws(Stop) in try core.removeDirectory(parent, name) }
    }

    func rename(
        _ parent: InodeNumber, _ name: UnsafeRawBufferPointer, _ newParent: InodeNumber,
        _ newName: UnsafeRawBufferPointer,
        _ flags: RenameFlags, _ caller: Caller, for request: UInt64
    ) throws(Stop) {
        try run(for: request) { (core) throws(Stop) in try core.rename(parent, name, newParent, newName, flags, caller)
        }
    }

    /// Calls `body` for entries after `cookie` (0: from the start) until it returns false. After a block it begins anew.
    func readDirectory(_ inode: InodeNumber, after cookie: UInt64, _ body: (DirectoryEntry) -> Bool) throws(Stop) {
        try run { (core) throws(Stop) in
            try core.readDirectory(inode, after: cookie) { (entry) throws(Stop) in body(entry) }
            core.noteAccess(inode)
        }
    }

    /// The same with attributes; entries that `body` took (other than "." and "..") count as looked up.
    func readDirectoryPlus(
        _ inode: InodeNumber, after cookie: UInt64, _ body: (DirectoryEntry, Attributes) -> Bool
    ) throws(Stop) {
        try run { (core) throws(Stop) in
            try core.readDirectoryPlus(inode, after: cookie, body)
            core.noteAccess(inode)
        }
    }

    /// All bytes or none; at most `maxWriteByteCount`. True when set-user-ID or set-group-ID bits were cleared.
    @discardableResult
    func write(
        _ inode: InodeNumber, at offset: UInt64, _ bytes: UnsafeRawBufferPointer, _ flags: WriteFlags, _ caller: Caller
    ) throws(Stop) -> Bool {
        try run { (core) throws(Stop) in try core.write(inode, at: offset, bytes, flags, caller) }
    }

    /// Plans a read; hand the plan to `execute`. `isAccess`: it changes the time of the last access.
    func read(_ inode: InodeNumber, at offset: UInt64, _ byteCount: Int, isAccess: Bool = true) throws(Stop) -> ReadPlan
    {
        try run { (core) throws(Stop) in
            let plan = try core.planRead(inode, at: offset, byteCount)
            if isAccess { core.noteAccess(inode) }
            return plan
        }
    }

    /// fallocate(2). True when set-user-ID or set-group-ID bits were cleared.
    func allocate(
        _ inode: InodeNumber, _ mode: AllocateMode, at offset: UInt64, _ byteCount: UInt64, _ caller: Caller,
        _ walk: AllocationWalk
    ) throws(Stop) -> Bool {
        try run { (core) throws(Stop) in
            try core.allocate(inode, mode, at: offset, byteCount, caller, walk)
        }
    }

    /// copy_file_range(2): may copy less than it was asked to.
    func copyRange(
        _ source: InodeNumber, at from: UInt64, _ target: InodeNumber, at to: UInt64, _ byteCount: UInt64,
        _ caller: Caller
    ) throws(Stop) -> CopyResult {
        try run { (core) throws(Stop) in
            try core.copyRange(source, at: from, target, at: to, byteCount, caller)
        }
    }

    /// lseek(2) for SEEK_DATA and SEEK_HOLE.
    func seek(_ inode: InodeNumber, _ walk: SeekWalk) throws(Stop) -> SeekResult {
        try run { (core) throws(Stop) in try core.seek(inode, walk) }
    }

    func readLink(_ inode: InodeNumber) throws(Stop) -> ReadPlan {
        try run { (core) throws(Stop) in
            let plan = try core.planReadLink(inode)
            core.noteAccess(inode)
            return plan
        }
    }

    func status() throws(Stop) -> FileSystemStatus {
        try run { (core) throws(Stop) in core.status() }
    }

    func xattr(_ inode: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) -> XattrValue {
        try run { (core) throws(Stop) in try core.xattr(inode, name) }
    }

    func xattrNames(_ inode: InodeNumber, _ walk: XattrListWalk, _ caller: Caller) throws(Stop) -> [UInt8] {
        try run { (core) throws(Stop) in try core.xattrNames(inode, walk, caller) }
    }

    func setXattr(
        _ inode: InodeNumber, _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, _ flags: SetXattrFlags,
        _ caller: Caller, for request: UInt64
    ) throws(Stop) {
        try run(for: request) { (core) throws(Stop) in try core.setXattr(inode, name, value, flags, caller) }
    }

    func removeXattr(_ inode: InodeNumber, _ name: UnsafeRawBufferPointer, for request: UInt64) throws(Stop) {
        try run(for: request) { (core) throws(Stop) in try core.removeXattr(inode, name) }
    }

    func inodeFlags(_ inode: InodeNumber) throws(Stop) -> InodeFlags {
        try run { (core) throws(Stop) in try core.inodeFlags(inode) }
    }

    func setInodeFlags(_ inode: InodeNumber, _ flags: InodeFlags) throws(Stop) {
        try run { (core) throws(Stop) in try core.setInodeFlags(inode, flags) }
    }

    func checkOpen(_ inode: InodeNumber, writes: Bool, appends: Bool) throws(Stop) {
        try run { (core) throws(Stop) in try core.checkOpen(inode, writes: writes, appends: appends) }
    }

    /// Whether a read would move the time of the last access because of a change since then, or because it is a day old.
    func isAccessDue(_ inode: InodeNumber) throws(Stop) -> Bool {
        try run { (core) throws(Stop) in try core.isAccessDue(inode) }
    }

    /// A number that other stores most likely do not have.
    var generation: UInt32 { state.withLock { UInt32(truncatingIfNeeded: $0.superblock.uuid.low) } | 1 }

    /// Without access control lists the kernel heeds none, so none are taken.
    func useAccessLists(_ isWanted: Bool) { state.withLock { $0.core.keepsAccessLists = isWanted } }
}
