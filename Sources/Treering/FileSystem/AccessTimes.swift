// When a read changes the time of the last access.

/// Which reads change the time of the last access. Source: mount(8).
struct AccessTimes: Sendable {
    enum Rule: Sendable {
        case never
        /// Only if the access time is not later than the last change, or is a day old.
        case relative
        case always
    }

    var rule = Rule.relative
    var ofDirectories = true
    /// A read counts as later than a change only if it is later by more than this. Where the kernel keeps the times of
    /// changes, it takes them from a clock that moves by its tick. The time of making is ours and may then lie after
    /// the first write.
    var slackNanoseconds: Int64 = 0
    private static let daySeconds: Int64 = 86_400

    func needsUpdate(_ inode: InodeRecord, _ now: Timestamp) -> Bool {
        switch rule {
        case .never: return false
        case .always: return now != inode.accessed
        case .relative:
            let accessed = inode.accessed.earlier(by: slackNanoseconds)
            return accessed <= inode.modified || accessed <= inode.changed
                || now.seconds - Self.daySeconds >= inode.accessed.seconds
        }
    }
}

extension Timestamp {
    /// The time before this one by `nanoseconds`, which is less than a second.
    fileprivate func earlier(by nanoseconds: Int64) -> Timestamp {
        let rest = Int64(self.nanoseconds) - nanoseconds
        return rest >= 0
            ? Timestamp(seconds: seconds, nanoseconds: UInt32(rest))
            : Timestamp(seconds: seconds &- 1, nanoseconds: UInt32(rest + 1_000_000_000))
    }
}
