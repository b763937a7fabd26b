// Removals that are done in steps: orphans (inodes without a name), truncated and replaced ranges, tombstones that hide
// nothing.

extension Housekeeper {
    /// Removes orphans. One that cannot be removed now (no space, a page that cannot be read) stays for the next round.
    func reapOrphans() {
        guard begin(.removing) else { return }
        defer { end(.removing) }
        var failed: [InodeNumber] = []
        while failed.count < 16, let inode = state.withLock({ $0.core.reapable.popLast() }) {
            do { try runWaiting { (core) throws(Stop) in try core.reap(inode) } } catch { failed.append(inode) }
        }
        state.withLock { state in
            state.core.isRemovalStuck = !failed.isEmpty
            if !failed.isEmpty { state.core.reapable.insert(contentsOf: failed, at: 0) }
        }
    }

    func finishRemovals() {
        guard begin(.removing) else { return }
        defer { end(.removing) }
        while state.withLock({ !$0.core.index.removals.isEmpty }) {
            do {
                try runWaiting { (core) throws(Stop) in
                    guard !core.isDirtyLimitReached else { throw .blocked(.room) }
                    _ = try core.find { () throws(PageMiss) in try core.index.continueRemovals() }
                }
            } catch {
                state.withLock { $0.core.isRemovalStuck = true }
                return
            }
            if isNeededElsewhere { return kick() }
        }
    }

    /// Finishes the removals of one inode.
    func finishRemovals(of inode: InodeNumber) throws(Errno) {
        while state.withLock({ $0.core.index.removals[inode] != nil }) {
            try runWaiting { (core) throws(Stop) in
                guard !core.isDirtyLimitReached else { throw .blocked(.room) }
                _ = try core.find { () throws(PageMiss) in try core.index.continueRemovals(of: inode) }
            }
        }
    }

    func sweepTombstones() {
        while let cursor = state.withLock({ $0.sweepCursor }) {
            do {
                let next = try runWaiting { (core) throws(Stop) in
                    guard !core.isDirtyLimitReached else { throw .blocked(.room) }
                    return try core.find { () throws(PageMiss) in try core.index.sweepTombstones(from: cursor) }
                }
                state.withLock { state in
                    // A segment recycled meanwhile has set the cursor back to the start.
                    if state.sweepCursor == cursor { state.sweepCursor = next }
                }
            } catch { return }
            if isNeededElsewhere { return kick() }
        }
    }
}
