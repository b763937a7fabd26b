// Reading directories, with cookies that stay valid whatever happens to other entries.

extension Core {
    static let cookieOfSelf: UInt64 = 1
    static let cookieOfParent: UInt64 = 2

    /// Calls `body` for the entries after `cookie` (0: from the start) until it returns false. If a page is missing
    /// after some entries were taken, it ends as if the buffer were full. After `blocked` it begins anew. `isAccess`:
    /// it counts as somebody's access.
    func readDirectory(
        _ number: InodeNumber, after cookie: UInt64, isAccess: Bool, _ body: (DirectoryEntry) throws(Stop) -> Bool
    ) throws(Stop) {
        try takeEntries(of: number, after: cookie, body)
        if isAccess { noteAccess(number) }
    }

    private func takeEntries(
        of number: InodeNumber, after cookie: UInt64, _ body: (DirectoryEntry) throws(Stop) -> Bool
    ) throws(Stop) {
        var takenCount = 0
        do throws(Stop) {
            try forEachEntry(of: number, after: cookie) { (entry) throws(Stop) in
                let isTaken = try body(entry)
                if isTaken { takenCount += 1 }
                return isTaken
            }
        } catch {
            if takenCount == 0 { throw error }
        }
    }

    private func forEachEntry(
        of number: InodeNumber, after cookie: UInt64, _ body: (DirectoryEntry) throws(Stop) -> Bool
    ) throws(Stop) {
        let directory = try self.directory(number).record
        if cookie < Self.cookieOfSelf, !(try body(Self.dot(".", number, Self.cookieOfSelf))) { return }
        let parent = number == .root ? number : directory.parent
        if cookie < Self.cookieOfParent, !(try body(Self.dot("..", parent, Self.cookieOfParent))) { return }
        var after = max(cookie, Self.cookieOfParent)
        while after < UInt64(Int64.max) {
            guard
                let found = try find({ () throws(PageMiss) in
                    try index.tree.next(atOrAfter: DirentEntry.key(number, after + 1))
                }), found.key.space == .tree, found.key.object == number.rawValue, found.key.kind == .dirent,
                let entry = DirentEntry(decoding: found.value)
            else { return }
            let item = DirectoryEntry(
                name: entry.name, inode: entry.inode, type: UInt32(entry.type) << 12, cookie: found.key.subkey)
            if !(try body(item)) { return }
            after = found.key.subkey
        }
    }

    private static func dot(_ name: StaticString, _ inode: InodeNumber, _ cookie: UInt64) -> DirectoryEntry {
        DirectoryEntry(
            name: UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount), inode: inode,
            type: 0o040000, cookie: cookie)
    }

    /// Like `readDirectory`, with attributes. Each entry taken counts as a lookup, "." and ".." excepted.
    func readDirectoryPlus(
        _ number: InodeNumber, after cookie: UInt64, isAccess: Bool, _ body: (DirectoryEntry, Attributes) -> Bool
    ) throws(Stop) {
        try readDirectory(number, after: cookie, isAccess: isAccess) { (entry) throws(Stop) in
            guard let inode = try self.find({ () throws(PageMiss) in try self.index.inode(entry.inode) }) else {
                if entry.cookie > Self.cookieOfParent {
                    self.report(
                        CorruptionReport(
                            place: "directory \(number.rawValue)",
                            reason: "an entry names inode \(entry.inode.rawValue), which is not there"))
                    throw .failed(.ioError)
                }
                return true
            }
            guard body(entry, Attributes(inode)) else { return false }
            if entry.cookie > Self.cookieOfParent { self.raiseLookups(entry.inode) }
            return true
        }
    }
}
