// The range tombstones of a file, by offset. The index has them by age. A removal takes the place of the older ones
// that it covers; without this table it would have to look at all tombstones of the file. The table is learnt when a
// file has many, kept in step when tombstones are put and removed, and dropped when it becomes too large. It is never
// written. Under one hold of the lock only a bounded part is learnt or looked at.

/// Where the search for the range tombstones that a removal covers goes on.
enum TombstoneCursor: Equatable {
    case start
    /// The file's tombstones are still being learnt. They are known up to this age.
    case learning(RecordSequence)
    case offset(UInt64, RecordSequence)
    case age(RecordSequence)
}

/// Some of the range tombstones that a removal covers; `next` is nil where these are the last.
struct CoveredTombstones {
    var keys: [IndexKey] = []
    var next: TombstoneCursor?
}

/// The range tombstones of one inode, by where they begin.
struct RangeTombstones {
    struct Range {
        var from: UInt64
        var to: UInt64
        var sequence: RecordSequence

        /// Whether a removal of `from..<to` takes its place. No extent reaches beyond off_t.
        func lies(within from: UInt64, _ to: UInt64) -> Bool {
            self.from >= from && min(self.to, UInt64(Int64.max)) <= min(to, UInt64(Int64.max))
        }
    }

    enum State: Equatable {
        /// Those of this age or older are in it.
        case learning(RecordSequence)
        case whole
        /// There are more than are remembered.
        case tooMany
    }

    /// By beginning and age, in chunks: putting one in or taking one out moves few others.
    private var chunks: [[Range]] = []
    private(set) var count = 0
    fileprivate(set) var state = State.learning(.zero)

    private static let chunkLimit = 512
    /// The most tombstones that are remembered of one file. If all files together have half as many, those are dropped
    /// before another file is begun.
    fileprivate static let rememberedLimit = 1 << 20

    /// Where a range of this beginning and age stands, or would stand. `chunks` must not be empty.
    private func place(of from: UInt64, _ sequence: RecordSequence) -> (chunk: Int, position: Int) {
        // The last chunk that does not begin behind it.
        let chunk = max(0, Self.firstIndex(in: chunks) { ($0[0].from, $0[0].sequence) > (from, sequence) } - 1)
        return (chunk, Self.firstIndex(in: chunks[chunk]) { ($0.from, $0.sequence) >= (from, sequence) })
    }

    /// The first element that `isBehind` holds for; it must hold for all after that too. The end if there is none.
    private static func firstIndex<Element>(in elements: [Element], _ isBehind: (Element) -> Bool) -> Int {
        var (low, high) = (0, elements.count)
        while low < high {
            let middle = (low + high) / 2
            if isBehind(elements[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }

    mutating func insert(_ range: Range) {
        switch state {
        // The walk that learns will come to it.
        case .learning(let through) where range.sequence > through: return
        case .tooMany: return
        default: put(range)
        }
    }

    private mutating func put(_ range: Range) {
        guard count < Self.rememberedLimit else {
            (chunks, count, state) = ([], 0, .tooMany)
            return
        }
        count += 1
        guard !chunks.isEmpty else { return chunks.append([range]) }
        let (chunk, position) = place(of: range.from, range.sequence)
        chunks[chunk].insert(range, at: position)
        guard chunks[chunk].count > Self.chunkLimit else { return }
        let half = Array(chunks[chunk][(Self.chunkLimit / 2)...])
        chunks[chunk].removeLast(half.count)
        chunks.insert(half, at: chunks.index(after: chunk))
    }

    mutating func remove(_ from: UInt64, _ sequence: RecordSequence) {
        guard !chunks.isEmpty else { return }
        let (chunk, position) = place(of: from, sequence)
        guard position < chunks[chunk].count, chunks[chunk][position].from == from,
            chunks[chunk][position].sequence == sequence
        else { return }
        count -= 1
        chunks[chunk].remove(at: position)
        if chunks[chunk].isEmpty { chunks.remove(at: chunk) }
    }

    /// Takes in what the walk that learns has come to. Called in the order of age.
    fileprivate mutating func takeIn(_ range: Range?, _ sequence: RecordSequence) {
        guard case .learning = state else { return }
        state = .learning(sequence)
        if let range { put(range) }
    }

    /// Some of the tombstones that lie within a range and are older than a record, from `cursor` on. Looks at no more
    /// than `budget`, and returns no more than `limit`.
    fileprivate func covered(
        _ inode: InodeNumber, _ from: UInt64, _ to: UInt64, before sequence: RecordSequence,
        at cursor: (from: UInt64, sequence: RecordSequence), limit: Int, budget: Int
    ) -> CoveredTombstones {
        var found = CoveredTombstones()
        guard !chunks.isEmpty else { return found }
        var budget = budget
        var (chunk, position) = place(of: cursor.from, cursor.sequence)
        while chunk < chunks.count {
            for range in chunks[chunk][position...] {
                if range.from >= to { return found }
                if budget == 0 || found.keys.count == limit {
                    found.next = .offset(range.from, range.sequence)
                    return found
                }
                budget -= 1
                if range.lies(within: from, to), range.sequence < sequence {
                    found.keys.append(TombstoneEntry.key(inode, .rangeTombstone, range.sequence.rawValue))
                }
            }
            (chunk, position) = (chunk + 1, 0)
        }
        return found
    }
}

extension RecordIndex {
    /// A file with no more tombstones than this is walked over each time.
    private static let walkedTombstoneLimit = 64
    /// Files that are remembered at a time.
    private static let rememberedFileLimit = 4

    /// Some of the range tombstones of an inode that a removal of this age covers: few enough to be taken out in one
    /// step. `learns`: the file's tombstones may be learnt, or a part of them.
    func coveredTombstones(
        _ inode: InodeNumber, _ from: UInt64, _ to: UInt64, before sequence: RecordSequence,
        at cursor: TombstoneCursor = .start, learns: Bool
    ) throws(PageMiss) -> CoveredTombstones {
        // Only a hostile record has no number.
        guard sequence.rawValue > 0 else { return CoveredTombstones() }
        // A rebuild shares the lock with nobody, so it needs no bounds.
        guard pass == .live else {
            return try coveredTombstones(inode, from, to, before: sequence, age: .zero, limit: .max, budget: .max)
        }
        let (limit, budget) = (Self.immediateEntryLimit, tombstoneWalkLimit)
        if case .age(let reached) = cursor {
            return try coveredTombstones(inode, from, to, before: sequence, age: reached, limit: limit, budget: budget)
        }
        let hasMany = rangeTombstones[inode] != nil ? true : try hasManyRangeTombstones(inode)
        if hasMany {
            if learns { try learnRangeTombstones(of: inode) }
            switch rangeTombstones[inode]?.state ?? .learning(.zero) {
            case .whole:
                var place = (from: from, sequence: RecordSequence.zero)
                if case .offset(let offset, let sequence) = cursor { place = (offset, sequence) }
                return rangeTombstones[inode]!.covered(
                    inode, from, to, before: sequence, at: place, limit: limit, budget: budget)
            case .learning(let through):
                // Other files may have pushed this one out, so that learning does not advance. Then the tombstones are
                // walked over.
                if case .learning(let before) = cursor, through <= before { break }
                return CoveredTombstones(next: .learning(through))
            case .tooMany: break
            }
        }
        return try coveredTombstones(inode, from, to, before: sequence, age: .zero, limit: limit, budget: budget)
    }

    func touchCovered(
        _ inode: InodeNumber, _ from: UInt64, _ to: UInt64, before sequence: RecordSequence
    ) throws(PageMiss) {
        let covered = try coveredTombstones(inode, from, to, before: sequence, learns: true)
        for key in covered.keys { try tree.touch(key) }
    }

    /// The same, by a walk over all tombstones of the file in the order of age.
    private func coveredTombstones(
        _ inode: InodeNumber, _ from: UInt64, _ to: UInt64, before sequence: RecordSequence, age: RecordSequence,
        limit: Int, budget: Int
    ) throws(PageMiss) -> CoveredTombstones {
        var found = CoveredTombstones()
        var budget = budget
        try tree.scan(
            from: TombstoneEntry.key(inode, .rangeTombstone, age.rawValue),
            through: TombstoneEntry.key(inode, .rangeTombstone, sequence.rawValue - 1)
        ) { key, value in
            if budget == 0 || found.keys.count == limit {
                found.next = .age(RecordSequence(key.subkey))
                return false
            }
            budget -= 1
            if let range = RangeTombstones.Range(key, value), range.lies(within: from, to) { found.keys.append(key) }
            return true
        }
        return found
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

    /// Learns some more of a file's range tombstones.
    private func learnRangeTombstones(of inode: InodeNumber) throws(PageMiss) {
        if rangeTombstones[inode] == nil {
            let count = rangeTombstones.values.reduce(0) { $0 + $1.count }
            if rangeTombstones.count >= Self.rememberedFileLimit || count >= RangeTombstones.rememberedLimit / 2 {
                rangeTombstones.removeAll()
            }
            rangeTombstones[inode] = RangeTombstones()
        }
        guard case .learning(let through) = rangeTombstones[inode]!.state else { return }
        var known = rangeTombstones.removeValue(forKey: inode)!
        defer { rangeTombstones[inode] = known }
        var budget = tombstoneWalkLimit
        let isOver = try tree.scan(
            from: TombstoneEntry.key(inode, .rangeTombstone, through.next.rawValue),
            through: TombstoneEntry.key(inode, .rangeTombstone, .max)
        ) { key, value in
            guard budget > 0 else { return false }
            budget -= 1
            known.takeIn(RangeTombstones.Range(key, value), RecordSequence(key.subkey))
            return true
        }
        if isOver, known.state != .tooMany { known.state = .whole }
    }

    /// A range tombstone was put into the tree.
    func noteRangeTombstone(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64, _ sequence: RecordSequence) {
        rangeTombstones[inode]?.insert(.init(from: from, to: to, sequence: sequence))
    }

    /// An entry leaves the tree; its page is in memory.
    func forgetRangeTombstone(_ key: IndexKey) {
        let inode = InodeNumber(key.object)
        guard key.kind == .rangeTombstone, let count = rangeTombstones[inode]?.count, count > 0 else { return }
        let range = found { () throws(PageMiss) in
            try self.tree.withValue(of: key) { value in value.flatMap { RangeTombstones.Range(key, $0) } }
        }
        if let range { rangeTombstones[inode]?.remove(range.from, range.sequence) }
    }
}

extension RangeTombstones.Range {
    /// Nil if the entry is malformed.
    fileprivate init?(_ key: IndexKey, _ value: UnsafeRawBufferPointer) {
        guard let entry = TombstoneEntry(decoding: value) else { return nil }
        self.init(from: entry.from, to: entry.to, sequence: RecordSequence(key.subkey))
    }
}
