// What FileSystem asks the index. Every query throws a page miss where it needs a page that is not in memory, and
// changes nothing.

/// A directory entry as found, without its name.
struct FoundDirent {
    var cookie: UInt64
    var inode: InodeNumber
    var type: UInt8
    var since: BatchSequence
}

extension RecordIndex {
    func inode(_ number: InodeNumber, includingStubs: Bool = false) throws(PageMiss) -> InodeEntry? {
        try tree.withValue(of: InodeEntry.key(number)) { bytes in
            guard let bytes, let entry = InodeEntry(inode: number, decoding: bytes) else { return nil }
            return entry.record.mode == 0 && !includingStubs ? nil : entry
        }
    }

    /// The entry of a name, or the cookie under which it can be made.
    enum Slot<Found> {
        case found(Found)
        case free(cookie: UInt64)
        /// Every discriminator of this hash is taken.
        case none
    }

    typealias NameSlot = Slot<FoundDirent>

    func dirent(_ directory: InodeNumber, _ name: UnsafeRawBufferPointer, _ hash: NameHash) throws(PageMiss) -> NameSlot
    {
        try slot(of: hash.cookie(name), { DirentEntry.key(directory, $0) }) { cookie, value in
            guard let entry = DirentEntry(decoding: value), entry.name.elementsEqual(name) else { return nil }
            return FoundDirent(cookie: cookie, inode: entry.inode, type: entry.type, since: entry.since)
        }
    }

    /// Looks through the entries that share a name's hash for the one that `match` takes.
    @inline(__always)
    private func slot<Found>(
        of base: UInt64, _ key: (UInt64) -> IndexKey, _ match: (UInt64, UnsafeRawBufferPointer) -> Found?
    ) throws(PageMiss) -> Slot<Found> {
        var expected = base
        var free: UInt64?
        var result: Found?
        let last = base | NameHash.discriminatorLimit
        try tree.scan(from: key(base), through: key(last)) { key, value in
            if free == nil, key.subkey != expected { free = expected }
            expected = key.subkey + 1
            result = match(key.subkey, value)
            return result == nil
        }
        if let result { return .found(result) }
        if let free { return .free(cookie: free) }
        return expected <= last ? .free(cookie: expected) : .none
    }

    /// What a new entry under this key must say about older ones: the tombstone's `since`, or 0.
    func sinceOfTombstone(_ inode: InodeNumber, _ kind: EntryKind, _ cookie: UInt64) throws(PageMiss) -> BatchSequence {
        try tree.withValue(of: TombstoneEntry.key(inode, kind, cookie)) { bytes in
            bytes.flatMap { TombstoneEntry(decoding: $0) }?.since ?? .zero
        }
    }

    // MARK: Attributes

    /// An extended attribute as found, without its value.
    struct FoundXattr {
        var cookie: UInt64
        var since: BatchSequence
    }

    func xattr(
        _ inode: InodeNumber, _ name: UnsafeRawBufferPointer, _ hash: NameHash
    ) throws(PageMiss) -> Slot<FoundXattr> {
        try slot(of: hash.cookie(name), { XattrEntry.key(inode, $0) }) { cookie, value in
            guard let entry = XattrEntry(decoding: value), entry.name.elementsEqual(name) else { return nil }
            return FoundXattr(cookie: cookie, since: entry.since)
        }
    }

    // MARK: Extents

    func extentEntry(_ key: IndexKey) throws(PageMiss) -> ExtentEntry? {
        try tree.withValue(of: key) { $0.flatMap { ExtentEntry(decoding: $0) } }
    }

    /// The first extent that ends after `offset` and begins before `limit`.
    func extent(_ inode: InodeNumber, endingAfter offset: UInt64, before limit: UInt64) throws(PageMiss) -> (
        UInt64, ExtentEntry
    )? {
        if let before = try tree.previous(before: ExtentEntry.key(inode, offset)), before.key.isExtent(of: inode),
            let extent = ExtentEntry(decoding: before.value), before.key.subkey + UInt64(extent.length) > offset
        {
            return before.key.subkey < limit ? (before.key.subkey, extent) : nil
        }
        guard let after = try tree.next(atOrAfter: ExtentEntry.key(inode, offset)), after.key.isExtent(of: inode),
            after.key.subkey < limit, let extent = ExtentEntry(decoding: after.value)
        else { return nil }
        return (after.key.subkey, extent)
    }

    /// Calls `body` for the extents that overlap a range, in order, until it returns false.
    func forEachExtent(
        _ inode: InodeNumber, _ from: UInt64, _ to: UInt64,
        _ body: (_ offset: UInt64, _ extent: ExtentEntry) throws(PageMiss) -> Bool
    ) throws(PageMiss) {
        guard from < to else { return }
        // The extent that begins before the range may reach into it.
        if let before = try tree.previous(before: ExtentEntry.key(inode, from)), before.key.isExtent(of: inode),
            let extent = ExtentEntry(decoding: before.value), before.key.subkey + UInt64(extent.length) > from
        {
            guard try body(before.key.subkey, extent) else { return }
        }
        // Keys end where off_t does.
        let last = ExtentEntry.key(inode, min(to - 1, UInt64(Int64.max)))
        var key = ExtentEntry.key(inode, from)
        while key <= last {
            let leaf = try tree.leaf(for: key)
            for position in leaf.page.leafPosition(of: key)..<leaf.page.count {
                let found = leaf.page.leafKey(position)
                guard found <= last,
                    let extent = ExtentEntry(decoding: UnsafeRawBufferPointer(leaf.page.value(position))),
                    try body(found.subkey, extent)
                else { return }
            }
            key = leaf.upper
        }
    }

    /// The extents that overlap a range, in order.
    func extents(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64) throws(PageMiss) -> [(UInt64, ExtentEntry)] {
        var found: [(UInt64, ExtentEntry)] = []
        try forEachExtent(inode, from, to) { offset, extent in
            found.append((offset, extent))
            return true
        }
        return found
    }

    /// How many extents overlap a range, counting no further than `limit`.
    func extentCount(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64, limit: Int) throws(PageMiss) -> Int {
        var count = 0
        try forEachExtent(inode, from, to) { _, _ in
            count += 1
            return count < limit
        }
        return count
    }

    // MARK: Everything of an inode

    /// The entries that belong to an inode besides itself: extents, attributes, tombstones. Nil when there are more
    /// than `limit`.
    func contents(of inode: InodeNumber, limit: Int) throws(PageMiss) -> [IndexKey]? {
        let keys = try someContents(of: inode, limit: limit + 1)
        return keys.count > limit ? nil : keys
    }

    func someContents(of inode: InodeNumber, limit: Int) throws(PageMiss) -> [IndexKey] {
        var keys: [IndexKey] = []
        for space in [KeySpace.tree, .tombstones] { try addContents(of: inode, in: space, limit: limit, to: &keys) }
        return keys
    }

    /// Like `contents`, for applying a record that was touched. A page that is missing now lies behind all of these
    /// entries: an earlier change of the record has emptied the leaf in which the walk ended when the record was
    /// touched.
    func contentsInMemory(of inode: InodeNumber, limit: Int) -> [IndexKey]? {
        var keys: [IndexKey] = []
        for space in [KeySpace.tree, .tombstones] {
            do throws(PageMiss) { try addContents(of: inode, in: space, limit: limit + 1, to: &keys) } catch {
                continue
            }
        }
        return keys.count > limit ? nil : keys
    }

    private func addContents(
        of inode: InodeNumber, in space: KeySpace, limit: Int, to keys: inout [IndexKey]
    ) throws(PageMiss) {
        try tree.scan(
            from: IndexKey(space: space, object: inode.rawValue, kind: EntryKind.inode.rawValue + 1, subkey: 0),
            through: IndexKey(space: space, object: inode.rawValue, kind: UInt8.max, subkey: .max)
        ) { key, _ in
            guard keys.count < limit else { return false }
            keys.append(key)
            return true
        }
    }
}

extension IndexKey {
    fileprivate func isExtent(of inode: InodeNumber) -> Bool {
        object == inode.rawValue && space == .tree && kind == .extent && subkey <= UInt64(Int64.max)
    }
}
