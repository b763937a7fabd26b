// Lookups and walks in key order. Nothing here modifies the index; any of it may find that a page is missing.

/// An entry, its value borrowed from the page it lies in.
struct IndexEntry {
    var key: IndexKey
    var value: UnsafeRawBufferPointer
}

extension Index {
    /// A leaf, and the range of keys that it is responsible for.
    struct LeafRange {
        var page: IndexPage
        var lower: IndexKey
        /// Not included; `IndexKey.max` at the right edge.
        var upper: IndexKey
    }

    /// The leaf that holds `key`, or with `isBefore` the greatest key below it.
    @inline(__always)
    func leaf(for key: IndexKey, isBefore: Bool = false) throws(PageMiss) -> LeafRange {
        var pointer = root
        var level = rootLevel
        var lower = IndexKey.min
        var upper = IndexKey.max
        while true {
            let frame = resident(pointer, level: level)
            if frame < 0 {
                counters.missCount &+= 1
                throw PageMiss(
                    pointer: pointer, level: UInt8(level), lower: lower, upper: upper, isRoot: level == rootLevel)
            }
            let page = cache.page(frame)
            if level == 0 {
                counters.hitCount &+= UInt64(rootLevel &+ 1)
                return LeafRange(page: page, lower: lower, upper: upper)
            }
            let position = isBefore ? page.childPosition(before: key) : page.childPosition(of: key)
            if position > 0 { lower = page.innerKey(position) }
            if position &+ 1 < page.count { upper = page.innerKey(position &+ 1) }
            pointer = page.child(position)
            level &-= 1
        }
    }

    /// The value of an entry, borrowed; nil if there is none.
    func value(of key: IndexKey) throws(PageMiss) -> UnsafeRawBufferPointer? {
        let page = try leaf(for: key).page
        let position = page.leafPosition(of: key)
        guard position < page.count, page.leafKey(position) == key else { return nil }
        return UnsafeRawBufferPointer(page.value(position))
    }

    /// Runs `body` with the value of an entry, nil if there is none.
    @inline(__always)
    func withValue<Result>(
        of key: IndexKey, _ body: (UnsafeRawBufferPointer?) -> Result
    ) throws(PageMiss) -> Result {
        body(try value(of: key))
    }

    func contains(_ key: IndexKey) throws(PageMiss) -> Bool { try value(of: key) != nil }

    /// The entry with the smallest key at or above `key`.
    func next(atOrAfter key: IndexKey) throws(PageMiss) -> IndexEntry? {
        var key = key
        while true {
            let range = try leaf(for: key)
            let position = range.page.leafPosition(of: key)
            if position < range.page.count { return range.page.indexEntry(position) }
            if range.upper == .max { return nil }
            key = range.upper
        }
    }

    /// The entry with the greatest key below `key`.
    func previous(before key: IndexKey) throws(PageMiss) -> IndexEntry? {
        var key = key
        while true {
            let range = try leaf(for: key, isBefore: true)
            let position = range.page.leafPosition(of: key)
            if position > 0 { return range.page.indexEntry(position - 1) }
            if range.lower == .min { return nil }
            key = range.lower
        }
    }

    /// Walks the entries with keys from `first` through `last` in order until `body` returns false; `body` must not
    /// modify the index. Returns false if `body` ended it. After a miss, continue above the last key that `body` saw.
    @discardableResult
    func scan(
        from first: IndexKey, through last: IndexKey, _ body: (IndexKey, UnsafeRawBufferPointer) -> Bool
    ) throws(PageMiss) -> Bool {
        var key = first
        while key <= last {
            let range = try leaf(for: key)
            let page = range.page
            var position = page.leafPosition(of: key)
            while position < page.count {
                let entry = page.indexEntry(position)
                if entry.key > last { return true }
                if !body(entry.key, entry.value) { return false }
                position += 1
            }
            if range.upper == .max { return true }
            key = range.upper
        }
        return true
    }

    /// Makes sure that everything a `put`, `remove` or `update` of `key` needs is in memory.
    func touch(_ key: IndexKey) throws(PageMiss) { _ = try leaf(for: key) }

    /// Touches the first entries of a range, at most `limit`. Returns how many there are; fewer than `limit` means that
    /// these are all.
    func touch(from first: IndexKey, through last: IndexKey, limit: Int) throws(PageMiss) -> Int {
        var count = 0
        var key = first
        while key <= last && count < limit {
            let range = try leaf(for: key)
            let start = range.page.leafPosition(of: key)
            let end = last < range.upper ? range.page.leafPosition(after: last) : range.page.count
            count += max(0, end - start)
            if range.upper == .max { break }
            key = range.upper
        }
        return min(count, limit)
    }
}

extension IndexPage {
    @inline(__always)
    fileprivate func indexEntry(_ position: Int) -> IndexEntry {
        IndexEntry(key: leafKey(position), value: UnsafeRawBufferPointer(value(position)))
    }

    /// The first position whose key is above `key`.
    fileprivate func leafPosition(after key: IndexKey) -> Int {
        let position = leafPosition(of: key)
        return position < count && leafKey(position) == key ? position + 1 : position
    }
}
