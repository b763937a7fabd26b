// Which removals of ranges a file remembers, by offset. The index has their tombstones by age; a removal that covers older ones takes
// their place, and would have to look at all of them. Made when a file has many, kept in step by whoever buries and removes, dropped when
// it is in the way: it is never written.

/// The range tombstones of one inode, by where they begin.
struct RangeTombstones {
    struct Range {
        var from: UInt64
        var to: UInt64
        var sequence: RecordSequence
    }

    /// By beginning and age, when it is whole; before, by age.
    private var ranges: [Range] = []
    /// Those of this age or older are in it; nil when all are.
    fileprivate var builtThrough: RecordSequence? = .zero

    var count: Int { ranges.count }
    var isWhole: Bool { builtThrough == nil }

    /// Where one of this beginning stands, or would stand.
    private func position(of from: UInt64, _ sequence: RecordSequence) -> Int {
        var (low, high) = (0, ranges.count)
        while low < high {
            let middle = (low + high) / 2
            if (ranges[middle].from, ranges[middle].sequence) < (from, sequence) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        return low
    }

    mutating func insert(_ range: Range) {
        guard isWhole else {
            // What the walk that makes it has still to come to, it finds by itself.
            if range.sequence <= builtThrough! { ranges.append(range) }
            return
        }
        ranges.insert(range, at: position(of: range.from, range.sequence))
    }

    mutating func remove(_ from: UInt64, _ sequence: RecordSequence) {
        guard isWhole else { return ranges.removeAll { $0.sequence == sequence } }
        let place = position(of: from, sequence)
        guard place < ranges.count, ranges[place].from == from, ranges[place].sequence == sequence else { return }
        ranges.remove(at: place)
    }

    /// Takes in what the walk has come to. Called in the order of age.
    fileprivate mutating func takeIn(_ range: Range) {
        builtThrough = range.sequence
        ranges.append(range)
    }

    /// The walk is over.
    fileprivate mutating func complete() {
        builtThrough = nil
        ranges.sort { ($0.from, $0.sequence) < ($1.from, $1.sequence) }
    }

    /// Takes out those that lie within a range and are older than a record, all in one go.
    mutating func remove(within from: UInt64, _ to: UInt64, before sequence: RecordSequence) {
        ranges.removeAll { $0.from >= from && $0.to <= to && $0.sequence < sequence }
    }

    /// Those that lie within a range and are older than a record.
    func within(_ from: UInt64, _ to: UInt64, before sequence: RecordSequence) -> [RecordSequence] {
        var found: [RecordSequence] = []
        for range in ranges[position(of: from, .zero)...] {
            if range.from >= to { break }
            if range.to <= to, range.sequence < sequence { found.append(range.sequence) }
        }
        return found
    }
}

extension RecordIndex {
    /// A file with fewer is walked over each time.
    private static let walkedTombstoneLimit = 64
    /// Files that are remembered at a time, and tombstones of all of them.
    private static let rememberedFileLimit = 4
    private static let rememberedTombstoneLimit = 1 << 20

    /// The range tombstones of an inode that lie within a range and are older than `sequence`.
    func rangeTombstones(
        _ inode: InodeNumber, within from: UInt64, _ to: UInt64, before sequence: RecordSequence
    ) throws(PageMiss) -> [IndexKey] {
        // Only a hostile record has no number.
        guard sequence.rawValue > 0 else { return [] }
        if pass == .live, let known = try knownRangeTombstones(of: inode) {
            return known.within(from, to, before: sequence).map {
                TombstoneEntry.key(inode, .rangeTombstone, $0.rawValue)
            }
        }
        var keys: [IndexKey] = []
        try tree.scan(
            from: TombstoneEntry.key(inode, .rangeTombstone, 0),
            through: TombstoneEntry.key(inode, .rangeTombstone, sequence.rawValue - 1)
        ) { key, value in
            if let entry = TombstoneEntry(decoding: value), entry.from >= from, entry.to <= to { keys.append(key) }
            return true
        }
        return keys
    }

    /// Nil for a file that has few of them, or more than can be remembered.
    private func knownRangeTombstones(of inode: InodeNumber) throws(PageMiss) -> RangeTombstones? {
        if rangeTombstones[inode]?.isWhole != true {
            guard try hasManyRangeTombstones(inode) else { return nil }
            if rangeTombstones[inode] == nil {
                let count = rangeTombstones.values.reduce(0) { $0 + $1.count }
                if rangeTombstones.count >= Self.rememberedFileLimit || count >= Self.rememberedTombstoneLimit / 2 {
                    rangeTombstones.removeAll()
                }
                rangeTombstones[inode] = RangeTombstones()
            }
            try completeRangeTombstones(of: inode)
        }
        if rangeTombstones[inode]!.count > Self.rememberedTombstoneLimit { rangeTombstones[inode] = nil }
        return rangeTombstones[inode]
    }

    private func hasManyRangeTombstones(_ inode: InodeNumber) throws(PageMiss) -> Bool {
        var count = 0
        return try !tree.scan(
            from: TombstoneEntry.key(inode, .rangeTombstone, 0),
            through: TombstoneEntry.key(inode, .rangeTombstone, .max)
        ) { _, _ in
            count += 1
            return count <= Self.walkedTombstoneLimit
        }
    }

    /// Goes on where a missing page has stopped it.
    private func completeRangeTombstones(of inode: InodeNumber) throws(PageMiss) {
        var known = rangeTombstones.removeValue(forKey: inode)!
        defer { rangeTombstones[inode] = known }
        let next = known.builtThrough!.next.rawValue
        try tree.scan(
            from: TombstoneEntry.key(inode, .rangeTombstone, next),
            through: TombstoneEntry.key(inode, .rangeTombstone, .max)
        ) { key, value in
            if let entry = TombstoneEntry(decoding: value) {
                known.takeIn(.init(from: entry.from, to: entry.to, sequence: RecordSequence(key.subkey)))
            }
            return true
        }
        known.complete()
    }

    /// A range tombstone was put into the tree.
    func noteRangeTombstone(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64, _ sequence: RecordSequence) {
        rangeTombstones[inode]?.insert(.init(from: from, to: to, sequence: sequence))
    }

    /// An entry leaves the tree; its page is in memory.
    func forgetRangeTombstone(_ key: IndexKey) {
        guard key.kind == .rangeTombstone, let known = rangeTombstones[InodeNumber(key.object)], known.count > 0 else {
            return
        }
        let from = found { () throws(PageMiss) in
            try self.tree.withValue(of: key) { $0.flatMap { TombstoneEntry(decoding: $0) }?.from }
        }
        guard let from else { return }
        rangeTombstones[InodeNumber(key.object)]?.remove(from, RecordSequence(key.subkey))
    }
}
