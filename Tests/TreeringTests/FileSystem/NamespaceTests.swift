// Names and lives of inodes in corners that a mount cannot show alone: links of files without a name, handles, limits, shutting down.

import Testing

@testable import Treering

@Suite struct NamespaceTests {
    private func link(_ store: TestStore, _ inode: InodeNumber, _ name: String) throws {
        try Array(name.utf8).withUnsafeBytes { name in
            _ = try store.volume.perform { (core) throws(Stop) in try core.link(inode, .root, name, .nobody) }
        }
    }

    private func makeUnnamed(_ store: TestStore) throws -> InodeNumber {
        try store.volume.perform { (core) throws(Stop) in try core.makeUnnamed(.root, 0o600, TestStore.context).inode }
    }

    private func checkStore(_ store: TestStore) throws {
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    @Test func anUnnamedFileLivesUntilItIsForgottenOrGetsAName() throws {
        let store = try TestStore()
        let gone = try makeUnnamed(store)
        let kept = try makeUnnamed(store)
        try store.write(kept, 0, [1, 2, 3])
        try link(store, kept, "kept")
        store.volume.forget(gone, 1)
        store.volume.forget(kept, 2)
        store.volume.housekeeper.housekeep()
        #expect(throws: Errno.stale) {
            try store.volume.perform { (core) throws(Stop) in try core.attributes(gone) }
        }
        try store.remount()
        #expect(try store.lookup("kept").linkCount == 1)
        #expect(try store.read(kept, 0, 9) == [1, 2, 3])
        try checkStore(store)
    }

    /// Linked, unlinked and linked again while it is open: each time it leaves the orphans or comes back to them.
    @Test func anInodeMayBecomeAnOrphanMoreThanOnce() throws {
        let store = try TestStore()
        let inode = try makeUnnamed(store)
        for _ in 0..<3 {
            try link(store, inode, "name")
            try store.unlink("name")
        }
        try store.volume.syncAndWait()
        try checkStore(store)
    }

    @Test func filesHave65000LinksAtMost() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        try store.volume.perform { (core) throws(Stop) in
            var record = try core.inode(inode).record
            record.linkCount = Core.linkCountLimit - 1
            try core.commit(.write, .nobody) { $0.inode(record) }
        }
        try link(store, inode, "last")
        #expect(throws: Errno.tooManyLinks) { try link(store, inode, "one too many") }
    }

    @Test func handlesLeadToWhatIsThereAndToNothingElse() throws {
        let store = try TestStore()
        let directory = try store.make("d", mode: 0o040755).inode
        let file = try store.make("f", in: directory).inode
        #expect(try store.lookup(".", in: file).inode == file)
        #expect(try store.lookup(".", in: directory).inode == directory)
        #expect(try store.lookup("..", in: directory).inode == .root)
        #expect(try store.lookup("..", in: .root).inode == .root)
        #expect(throws: Errno.notDirectory) { try store.lookup("..", in: file) }
        #expect(throws: Errno.stale) { try store.lookup(".", in: InodeNumber(12345)) }
        try store.unlink("f", in: directory)
        #expect(throws: Errno.stale) { try store.lookup(".", in: file) }
        // Each answer counted as a lookup.
        #expect(store.volume.state.withLock { $0.core.lookups[directory] } == 2)
    }

    @Test func aShutDownVolumeFailsEverythingAndWritesNothing() throws {
        let store = try TestStore()
        _ = try store.make("before")
        try store.volume.syncAndWait()
        _ = try store.make("lost")
        store.volume.shutDown(.discard, mayWait: true) { #expect($0 == nil) }
        let writes = store.device.eventCount
        #expect(throws: Errno.ioError) { try store.lookup("before") }
        #expect(throws: Errno.ioError) { try store.make("after") }
        #expect(throws: Errno.ioError) { try store.volume.syncAndWait() }
        store.volume.housekeeper.housekeep(commits: true, checkpoints: true)
        #expect(store.device.eventCount == writes)
        try store.remount()
        #expect(try store.lookup("before").linkCount == 1)
        #expect(throws: Errno.noEntry) { try store.lookup("lost") }
        try checkStore(store)
    }

    @Test func shuttingDownWithAFlushLosesNothing() throws {
        let store = try TestStore()
        _ = try store.make("kept")
        store.volume.shutDown(.flushLog, mayWait: true) { #expect($0 == nil) }
        try store.remount()
        #expect(try store.lookup("kept").linkCount == 1)
        try checkStore(store)
    }

    /// A rule of time, not of order: what is read is noted where it was not read since it changed, or for a day.
    @Test func accessTimesFollowRelatime() {
        func inode(accessed: Int64, modified: Int64, changed: Int64) -> InodeRecord {
            var inode = InodeRecord(
                inode: InodeNumber(5), mode: 0o100644, linkCount: 1, uid: 0, gid: 0, deviceNumber: 0, size: 0,
                since: .zero, now: Timestamp(seconds: accessed, nanoseconds: 0))
            inode.modified = Timestamp(seconds: modified, nanoseconds: 0)
            inode.changed = Timestamp(seconds: changed, nanoseconds: 0)
            return inode
        }
        let now = Timestamp(seconds: 1_000_000, nanoseconds: 0)
        let times = AccessTimes()
        #expect(!times.needsUpdate(inode(accessed: 999_000, modified: 998_000, changed: 998_000), now))
        #expect(times.needsUpdate(inode(accessed: 999_000, modified: 999_000, changed: 0), now))
        #expect(times.needsUpdate(inode(accessed: 999_000, modified: 0, changed: 999_001), now))
        #expect(times.needsUpdate(inode(accessed: 913_600, modified: 0, changed: 0), now))
        #expect(!AccessTimes(rule: .never).needsUpdate(inode(accessed: 0, modified: 1, changed: 1), now))
        #expect(AccessTimes(rule: .always).needsUpdate(inode(accessed: 999_999, modified: 1, changed: 1), now))
        // The farthest past there is.
        let first = inode(accessed: .min, modified: 0, changed: 0)
        #expect(AccessTimes(slackNanoseconds: 10_000_000).needsUpdate(first, now))
    }
}
