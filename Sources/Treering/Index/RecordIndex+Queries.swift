// What FileSystem asks the index. Every query throws a page miss where it needs a page that is not in memory, and changes nothing.

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

    /// The extents that overlap a range, in order.
    func extents(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64) throws(PageMiss) -> [(UInt64, ExtentEntry)] {
        var found: [(UInt64, ExtentEntry)] = []
        var cursor = from
        while cursor < to, let (offset, extent) = try extent(inode, endingAfter: cursor, before: to) {
            found.append((offset, extent))
            cursor = offset + UInt64(extent.length)
        }
        return found
    }

    /// How many extents overlap a range, counting no further than `limit`.
    func extentCount(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64, limit: Int) throws(PageMiss) -> Int {
        var count = 0
        var cursor = from
        while count < limit, cursor < to, let (offset, extent) = try extent(inode, endingAfter: cursor, before: to) {
            count += 1
            cursor = offset + UInt64(extent.length)
        }
        return count
    }

    /// Calls `body` for every visible piece of `from..<to` in order, until it returns false: its file offset, length, payload
    /// and offset in the payload. Reserved pieces (payload 0) count only where `withReserved`.
    func forEachPiece(
        _ inode: InodeNumber, _ from: UInt64, _ to: UInt64, withReserved: Bool = false,
        _ body: (_ offset: UInt64, _ byteCount: UInt64, _ payload: PayloadID, _ payloadOffset: UInt32) throws(PageMiss)
            -> Bool
    ) throws(PageMiss) {
        let hidden = removals[inode] ?? []
        var cursor = from
        while cursor < to, let (offset, extent) = try extent(inode, endingAfter: cursor, before: to) {
            let end = min(to, offset + UInt64(extent.length))
            // In a damaged index extents may overlap: the earlier one counts.
            var low = max(cursor, offset)
            cursor = offset + UInt64(extent.length)
            if extent.isReserved && !withReserved { continue }
            while low < end {
                var high = end
                var isHidden = false
                for removal in hidden where extent.origin.sequence < removal.sequence {
                    if removal.range.from <= low, low < removal.range.to {
                        isHidden = true
                        high = min(high, removal.range.to)
                    } else if removal.range.from > low {
                        high = min(high, removal.range.from)
                    }
                }
                if !isHidden {
                    let skipped = extent.isReserved ? 0 : UInt32(low - offset)
                    guard try body(low, high - low, extent.payload, extent.payloadOffset + skipped) else { return }
                }
                low = high
            }
        }
    }

    // MARK: Everything of an inode

    /// The entries that belong to an inode besides itself: extents, attributes, tombstones. Nil when there are more than `limit`.
    func contents(of inode: InodeNumber, limit: Int) throws(PageMiss) -> [IndexKey]? {
        let keys = try someContents(of: inode, limit: limit + 1)
        return keys.count > limit ? nil : keys
    }

    func someContents(of inode: InodeNumber, limit: Int) throws(PageMiss) -> [IndexKey] {
        var keys: [IndexKey] = []
        for space in [KeySpace.tree, .tombstones] { try addContents(of: inode, in: space, limit: limit, to: &keys) }
        return keys
    }

    /// `contents` of a record that was touched. A page that is missing now lies behind all of them: an earlier change of the
    /// record has emptied the leaf in which the walk ended before.
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

    /// The range tombstones of an inode that lie within a range and are older than `sequence`.
    func rangeTombstones(
        _ inode: InodeNumber, within from: UInt64, _ to: UInt64, before sequence: RecordSequence
    ) throws(PageMiss) -> [IndexKey] {
        var keys: [IndexKey] = []
        // Only a hostile record has no number.
        guard sequence.rawValue > 0 else { return keys }
        try tree.scan(
            from: TombstoneEntry.key(inode, .rangeTombstone, 0),
            through: TombstoneEntry.key(inode, .rangeTombstone, sequence.rawValue - 1)
        ) { key, value in
            if let entry = TombstoneEntry(decoding: value), entry.from >= from, entry.to <= to { keys.append(key) }
            return true
        }
        return keys
    }
}

extension IndexKey {
    fileprivate func isExtent(of inode: InodeNumber) -> Bool {
        object == inode.rawValue && space == .tree && kind == .extent && subkey <= UInt64(Int64.max)
    }
}
