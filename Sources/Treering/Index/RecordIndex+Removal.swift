// Taking things out of the index: ranges of files, whole inodes, in one step or in many; and tombstones for what older
// segments still hold.

extension RecordIndex {
    // MARK: Extents

    /// Takes out what lies in a range and is older than `sequence`.
    func removeExtents(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64, before sequence: RecordSequence) {
        // All are found before the first is taken out. Otherwise the walk might pass leaves that have become empty, and
        // go on to one that was never touched.
        let extents = found { () throws(PageMiss) in try self.extents(inode, from, to) }
        var removed: Int64 = 0
        for (offset, extent) in extents where extent.origin.sequence < sequence {
            let low = max(offset, from)
            let high = min(offset + UInt64(extent.length), to)
            cut(inode, offset, extent, low, high)
            removed += Int64(high - low)
        }
        // In a rebuild, a range tombstone that the cleaner moved may come after the removal of its inode. Counting it
        // would bring the inode's entry back.
        let isGone = removals[inode]?.contains { $0.range.isWholeInode } ?? false
        if removed > 0 && !isGone { adjustDerived(inode, by: -removed) }
    }

    /// Takes the bytes `low..<high` out of one extent.
    private func cut(_ inode: InodeNumber, _ offset: UInt64, _ extent: ExtentEntry, _ low: UInt64, _ high: UInt64) {
        let end = offset + UInt64(extent.length)
        var pieces = 0
        if end > high {
            var right = extent
            right.length = UInt32(end - high)
            if !extent.isReserved { right.payloadOffset += UInt32(high - offset) }
            right.encode(into: scratch)
            tree.put(ExtentEntry.key(inode, high), UnsafeRawBufferPointer(scratch.part(0, ExtentEntry.byteCount)))
            pieces += 1
        }
        if low > offset {
            tree.update(ExtentEntry.key(inode, offset)) { $0[ExtentEntry.layout.length] = UInt32(low - offset) }
            pieces += 1
        } else {
            _ = tree.remove(ExtentEntry.key(inode, offset))
        }
        table.charge(extent.origin.segment, (pieces - 1) * ExtentEntry.charge)
        dropReference(
            extent.payload, extent.isReserved ? 0 : extent.payloadOffset + UInt32(low - offset), UInt32(high - low))
    }

    func removeRange(
        _ inode: InodeNumber, _ from: UInt64, _ to: UInt64, _ since: BatchSequence, _ until: BatchSequence?,
        _ origin: Origin
    ) {
        let covered = found { () throws(PageMiss) in
            try self.coveredTombstones(inode, from, to, before: origin.sequence, learns: false)
        }
        let count = found { () throws(PageMiss) in
            try self.extentCount(inode, from, to, limit: Self.immediateEntryLimit + 1)
        }
        let isImmediate = count <= Self.immediateEntryLimit
        if isImmediate { removeExtents(inode, from, to, before: origin.sequence) }
        if covered.next == nil { for key in covered.keys { _ = removeKeyed(key) } }
        putTombstone(inode, .rangeTombstone, origin.sequence.rawValue, since, until, origin, charge: 40, from, to)
        if isImmediate && covered.next == nil { return }
        // No extent reaches beyond off_t; `to` at the very end would mean the whole inode.
        let range = RemovalEntry(from: from, to: min(to, UInt64(Int64.max)))
        let allocated = found { () throws(PageMiss) in try self.inode(inode, includingStubs: true) }?.derived ?? 0
        var pending = PendingRemoval(sequence: origin.sequence, range: range, cursor: isImmediate ? range.to : from)
        if !isImmediate { pending.byteCount = Self.bounded(min(allocated, range.to - from)) }
        if covered.next == nil { pending.tombstones = nil }
        postpone(inode, pending)
    }

    private static func bounded(_ byteCount: UInt64) -> Int64 {
        Int64(min(byteCount, Change.reservedByteCountLimit))
    }

    private func postpone(_ inode: InodeNumber, _ pending: PendingRemoval) {
        pending.range.encode(into: scratch)
        let key = RemovalEntry.key(inode, pending.sequence)
        tree.put(key, UnsafeRawBufferPointer(scratch.part(0, RemovalEntry.byteCount)))
        removals[inode, default: []].append(pending)
    }

    // MARK: Inodes

    func remove(_ inode: InodeNumber, _ since: BatchSequence, _ until: BatchSequence?, _ origin: Origin) {
        let old = found { () throws(PageMiss) in try self.inode(inode, includingStubs: true) }
        if let old, old.record.mode != 0 { inodeCount &-= 1 }
        let keys = contentsInMemory(of: inode, limit: Self.immediateEntryLimit)
        for key in keys ?? [] { removeEntry(key) }
        _ = removeKeyed(InodeEntry.key(inode))
        _ = removeKeyed(OrphanEntry.key(inode))
        _ = removeKeyed(TombstoneEntry.key(inode, .inode, 0))
        // Removals of ranges end with their inode. Done later, they would bring the inode's entry back.
        for pending in removals.removeValue(forKey: inode) ?? [] {
            _ = tree.remove(RemovalEntry.key(inode, pending.sequence))
        }
        if keys == nil {
            let allocated = old.map { $0.record.isDirectory ? 0 : $0.derived } ?? 0
            var pending = PendingRemoval(sequence: origin.sequence, range: RemovalEntry(from: 0, to: .max))
            pending.byteCount = Self.bounded(allocated)
            postpone(inode, pending)
        }
        putTombstone(inode, .inode, 0, since, until, origin, charge: 24)
        rangeTombstones[inode] = nil
    }

    /// Takes out one entry of an inode that is gone.
    private func removeEntry(_ key: IndexKey) {
        guard key.space == .tree, key.kind == .extent else {
            _ = removeKeyed(key)
            return
        }
        guard let extent = found({ () throws(PageMiss) in try self.extentEntry(key) }) else { return }
        _ = tree.remove(key)
        table.charge(extent.origin.segment, -ExtentEntry.charge)
        dropReference(extent.payload, extent.payloadOffset, extent.length)
    }

    /// Does a bounded part of one removal under way, of `preferred` if that has any. Returns whether any removal is
    /// left.
    func continueRemovals(of preferred: InodeNumber? = nil) throws(PageMiss) -> Bool {
        guard let inode = preferred.flatMap({ removals[$0] == nil ? nil : $0 }) ?? removals.first?.key,
            // Replacements come first: what waits for one must not wait for an earlier removal, which may be of any
            // size. The order does no harm, because a replacement leaves nothing older in its range.
            let place = removals[inode]!.firstIndex(where: { $0.replacement != nil }) ?? removals[inode]!.indices.first
        else { return false }
        let first = removals[inode]![place]
        var isDone: Bool
        let live = table.liveByteCount
        if first.range.isWholeInode {
            let keys = try someContents(of: inode, limit: Self.immediateEntryLimit)
            for key in keys { try touchEntry(key) }
            try tree.touch(RemovalEntry.key(inode, first.sequence))
            for key in keys { removeEntry(key) }
            isDone = keys.count < Self.immediateEntryLimit
        } else {
            if first.replacement == nil {
                try tree.touch(RemovalEntry.key(inode, first.sequence))
            } else {
                try tree.touch(ExtentEntry.key(inode, first.range.from))
            }
            if first.cursor < first.range.to {
                try continueExtents(inode, at: place)
            } else {
                try continueTombstones(inode, at: place)
            }
            isDone = removals[inode]![place].isDone
        }
        removals[inode]![place].byteCount = max(0, first.byteCount - (live &- table.liveByteCount))
        if isDone {
            if let replacement = first.replacement {
                putReplacement(replacement, inode, first.range)
            } else {
                _ = tree.remove(RemovalEntry.key(inode, first.sequence))
            }
            removals[inode]!.remove(at: place)
            if removals[inode]!.isEmpty { removals[inode] = nil }
        }
        return !removals.isEmpty
    }

    /// Takes out the next few extents of a range.
    private func continueExtents(_ inode: InodeNumber, at place: Int) throws(PageMiss) {
        let pending = removals[inode]![place]
        try tree.touch(InodeEntry.key(inode))
        let reached = try touchSomeExtents(inode, pending.cursor, pending.range.to)
        removeExtents(inode, pending.cursor, reached, before: pending.sequence)
        // A replacement is counted step by step, as the extents that it replaces go.
        if pending.replacement != nil { adjustDerived(inode, by: Int64(reached - pending.cursor)) }
        removals[inode]![place].cursor = reached
    }

    /// Takes out some of the tombstones that a removal covers.
    private func continueTombstones(_ inode: InodeNumber, at place: Int) throws(PageMiss) {
        let pending = removals[inode]![place]
        guard let cursor = pending.tombstones else { return }
        let covered = try coveredTombstones(
            inode, pending.range.from, pending.range.to, before: pending.sequence, at: cursor, learns: true)
        for key in covered.keys { try tree.touch(key) }
        for key in covered.keys { _ = removeKeyed(key) }
        removals[inode]![place].tombstones = covered.next
    }

    /// Touches the next few extents of a range; gives where they end.
    private func touchSomeExtents(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64) throws(PageMiss) -> UInt64 {
        var cursor = to
        var count = 0
        try forEachExtent(inode, from, to) { offset, extent throws(PageMiss) in
            if count == Self.immediateEntryLimit {
                cursor = offset
                return false
            }
            count += 1
            if !extent.isReserved { try tree.touch(PayloadEntry.key(extent.payload)) }
            if offset + UInt64(extent.length) > to { try tree.touch(ExtentEntry.key(inode, to)) }
            return true
        }
        // What begins before `from` may be cut there.
        try tree.touch(ExtentEntry.key(inode, from))
        return cursor
    }

    // MARK: Tombstones

    /// Puts a tombstone if an older segment may still hold what was removed. `until`: of a tombstone that was moved.
    func putTombstone(
        _ inode: InodeNumber, _ kind: EntryKind, _ subkey: UInt64, _ since: BatchSequence, _ until: BatchSequence?,
        _ origin: Origin, charge: Int, _ from: UInt64 = 0, _ to: UInt64 = 0
    ) {
        let key = TombstoneEntry.key(inode, kind, subkey)
        let stamp = until ?? table[origin.segment].firstBatch
        _ = removeKeyed(key)
        let since = since == .zero ? stamp : since
        guard table.holdsAnything(since: since, until: stamp, besides: origin.segment) else { return }
        let charge = charge + Change.moveOverheadByteCount
        TombstoneEntry(origin: origin, charge: charge, since: since, until: stamp, from: from, to: to).encode(
            into: scratch)
        tree.put(key, UnsafeRawBufferPointer(scratch.part(0, TombstoneEntry.byteCount)))
        if kind == .rangeTombstone { noteRangeTombstone(inode, from, to, origin.sequence) }
        table.charge(origin.segment, charge)
    }

    /// Drops tombstones that hide nothing any more, a bounded number of them from `cursor` on; gives where to go on.
    func sweepTombstones(from cursor: IndexKey) throws(PageMiss) -> IndexKey? {
        var dead: [IndexKey] = []
        var count = 0
        var next: IndexKey?
        try tree.scan(from: cursor, through: .max) { key, value in
            guard key.space == .tombstones else { return false }
            if count >= 256 {
                next = key
                return false
            }
            count += 1
            if let entry = TombstoneEntry(decoding: value),
                !table.holdsAnything(since: entry.since, until: entry.until, besides: entry.origin.segment)
            {
                dead.append(key)
            }
            return true
        }
        for key in dead { try tree.touch(key) }
        for key in dead { _ = removeKeyed(key) }
        return next
    }

    /// After a rebuild: takes out payloads without a reference, a bounded number of them from `cursor` on. Returns
    /// where to go on.
    func dropUnreferencedPayloads(from cursor: IndexKey) throws(PageMiss) -> IndexKey? {
        var dead: [IndexKey] = []
        var count = 0
        var next: IndexKey?
        try tree.scan(from: cursor, through: .max) { key, value in
            guard key.space == .payloads else { return false }
            if count >= 256 {
                next = key
                return false
            }
            count += 1
            if let entry = PayloadEntry(decoding: value), entry.referencedByteCount == 0 { dead.append(key) }
            return true
        }
        for key in dead { try tree.touch(key) }
        for key in dead { _ = removeKeyed(key) }
        return next
    }

    static let firstPayload = IndexKey(space: .payloads, object: 0, kind: 0, subkey: 0)
    static let firstTombstone = IndexKey(space: .tombstones, object: 0, kind: 0, subkey: 0)
}
