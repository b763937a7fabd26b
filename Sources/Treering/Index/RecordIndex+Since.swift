// What records that are appended again in other segments must say of older changes of their keys.

/// How a log that is written again differs from the one for which its records were made.
struct RevisedLog {
    /// Every batch up to this one lies where it lay then.
    var settled: BatchSequence
    /// The first batch that is written again.
    var first: BatchSequence
}

extension RecordIndex {
    /// `since` of a change whose record is appended again. What was first established in a segment that is gone lies in
    /// another one now, perhaps an older one. What was established and removed in one segment needed no tombstone then,
    /// and may lie in two segments now.
    func since(of change: Change, _ since: BatchSequence, in log: RevisedLog) throws(PageMiss) -> BatchSequence {
        if since > log.settled { return table.stamp(through: min(since, log.first)) ?? since }
        guard since == .zero else { return since }
        switch change {
        case .dirent(let directory, let cookie, _, _, _, _): return try sinceOfTombstone(directory, .dirent, cookie)
        case .xattr(let inode, let cookie, _, _, _): return try sinceOfTombstone(inode, .xattr, cookie)
        default: return .zero
        }
    }
}
