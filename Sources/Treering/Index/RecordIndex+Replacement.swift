// A replacement is a write over more extents than one hold of the lock may take out. It counts at once. The old extents
// are taken out some at a time. Until that is done, the new extent stands beside the tree, in `removals`, and walks
// over the file show it instead of the old ones (RecordIndex+Pieces.swift).
//
// Nothing else changes that part of the file meanwhile: a record that would must wait until the replacement is done
// (`conflict`). No checkpoint has a replacement in it, so the format has none: a replay makes it again.

extension RecordIndex {
    /// The most bytes of all replacements under way: what one write may bring. An extent has at least one byte, so this
    /// bounds the work that a checkpoint has to wait for.
    static let replacedByteCountLimit: UInt64 = 1 << 20

    /// Whether an extent over this range takes the place of so many that it is done in steps.
    func isReplacedInSteps(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64) throws(PageMiss) -> Bool {
        // A rebuild may take as long as it needs.
        guard pass == .live, to - from > UInt64(replacedExtentLimit) else { return false }
        let limit = replacedExtentLimit + 1
        return try extentCount(inode, from, to, limit: limit) == limit
    }

    func replaceInSteps(_ inode: InodeNumber, _ offset: UInt64, by extent: ExtentEntry) {
        let range = RemovalEntry(from: offset, to: offset + UInt64(extent.length))
        removals[inode, default: []].append(
            PendingRemoval(
                sequence: extent.origin.sequence, range: range, cursor: offset, byteCount: Int64(extent.length),
                replacement: extent))
        replacementCount += 1
        replacedByteCount += UInt64(extent.length)
    }

    /// Puts a replacement into the tree, once the old extents are out. Its page must have been touched.
    func putReplacement(_ extent: ExtentEntry, _ inode: InodeNumber, _ range: RemovalEntry) {
        precondition(
            replacementCount > 0 && range.to - range.from == UInt64(extent.length),
            "a replacement fills the range that was emptied for it")
        extent.encode(into: scratch)
        tree.put(ExtentEntry.key(inode, range.from), UnsafeRawBufferPointer(scratch.part(0, ExtentEntry.byteCount)))
        replacementCount -= 1
        replacedByteCount -= UInt64(extent.length)
    }

    /// An inode with this many removals under way gets another only when one is done, because walks over the file look
    /// at each of them.
    static let pendingRemovalLimit = 32

    /// The inode whose replacements, or some of whose removals, must be finished before a record may be applied. Nil if
    /// there is none.
    func conflict(of record: Record) -> InodeNumber? {
        guard !removals.isEmpty else { return nil }
        var found: InodeNumber?
        record.forEachChange { change, _, _ in found = found ?? conflict(of: change) }
        return found
    }

    private func conflict(of change: Change) -> InodeNumber? {
        switch change {
        case .extent(let inode, let offset, _, _, let count):
            let mayBegin = replacedByteCount + UInt64(count) <= Self.replacedByteCountLimit
            if !mayBegin { return replacedInode }
            return conflict(inode, offset, offset + UInt64(count))
        case .reserve(let inode, let from, let to): return conflict(inode, from, to)
        case .removeRange(let inode, let from, let to, _):
            if let pending = removals[inode], pending.count >= Self.pendingRemovalLimit { return inode }
            return conflict(inode, from, to)
        case .removeInode(let inode, _): return conflict(inode, 0, .max)
        case .move(let move): return conflict(of: move.change)
        case .inode, .dirent, .removeDirent, .xattr, .removeXattr, .payload, .orphan, .skipped: return nil
        }
    }

    private func conflict(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64) -> InodeNumber? {
        let isReplaced = removals[inode]?.contains {
            $0.replacement != nil && $0.range.from < to && from < $0.range.to
        }
        return isReplaced == true ? inode : nil
    }

    /// The extents of all replacements, with the keys that they will have in the tree.
    var replacements: [(key: IndexKey, extent: ExtentEntry)] {
        guard replacementCount > 0 else { return [] }
        return removals.flatMap { inode, pending in
            pending.compactMap { removal in
                removal.replacement.map { (ExtentEntry.key(inode, removal.range.from), $0) }
            }
        }
    }

    /// An inode with a replacement under way.
    var replacedInode: InodeNumber? {
        replacementCount == 0 ? nil : removals.first { $1.contains { $0.replacement != nil } }?.key
    }

    /// Whether any byte of a range is allocated.
    func isAllocated(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64) throws(PageMiss) -> Bool {
        guard from < to, conflict(inode, from, to) == nil else { return from < to }
        return try extentCount(inode, from, to, limit: 1) > 0
    }
}
