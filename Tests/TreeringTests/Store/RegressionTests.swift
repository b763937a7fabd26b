// Bugs that were there once, each under its name.

import Synchronization
import Testing

@testable import Treering

@Suite struct RegressionTests {
    /// A file of so many extents that removing them takes several steps.
    private func makeFragmented(_ store: TestStore, _ name: String, count: Int = 200) throws -> InodeNumber {
        let inode = try store.make(name).inode
        for piece in 0..<count { try store.write(inode, UInt64(piece * 500), [UInt8](repeating: 7, count: 100)) }
        return inode
    }

    private func truncate(_ store: TestStore, _ inode: InodeNumber, _ size: UInt64) throws {
        var changes = AttributeChanges()
        changes.byteCount = size
        _ = try store.volume.perform { (core) throws(Stop) in try core.setAttributes(inode, changes, TestStore.context)
        }
    }

    private func checkStore(_ store: TestStore) throws {
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    /// The steps of a truncation to 0 took everything of the inode: attributes, and what was written after it.
    @Test func truncatingAFragmentedFileToZeroKeepsWhatIsWrittenAfterwards() throws {
        let store = try TestStore()
        let inode = try makeFragmented(store, "file")
        let name = Array("user.a".utf8)
        try name.withUnsafeBytes { name in
            try store.volume.perform { (core) throws(Stop) in try core.setXattr(inode, name, name, [], .nobody) }
        }
        try truncate(store, inode, 0)
        try store.write(inode, 1000, [1, 2, 3])
        store.volume.housekeeper.housekeep()
        #expect(try store.read(inode, 998, 10) == [0, 0, 1, 2, 3])
        let walk = XattrListWalk()
        let names = try store.volume.perform { (core) throws(Stop) in try core.xattrNames(inode, walk, .nobody) }
        #expect(names == name + [0])
        try checkStore(store)
    }

    /// The steps of a truncation went on after the file was gone and left an inode entry without a record.
    @Test func removingAFileWhoseTruncationIsNotFinishedLeavesNothing() throws {
        for wasForgotten in [true, false] {
            let store = try TestStore()
            let inode = try makeFragmented(store, "file")
            try truncate(store, inode, 100)
            if wasForgotten { store.volume.forget(inode, 1) }
            try store.unlink("file")
            if !wasForgotten { store.volume.forget(inode, 1) }
            store.volume.housekeeper.housekeep()
            try checkStore(store)
        }
    }

    /// A mount raises the epoch before its first checkpoint: when it died then, the next one took the batches of the
    /// mount before for foreign and lost them, synced or not.
    @Test func whatWasSyncedSurvivesTwoCrashesBeforeTheNextCheckpoint() throws {
        let store = try TestStore()
        let file = try store.make("hello")
        try store.write(file.inode, 0, [1, 2, 3])
        try store.volume.syncAndWait()
        var device = store.device
        for round in 0..<3 {
            device = device.crash(seed: UInt64(round)).device()
            store.volume = try Volume.mount(device, VolumeOptions(), now: TestStore.now) { _ in }
            #expect(try store.lookup("hello").inode == file.inode)
            #expect(try store.read(file.inode, 0, 10) == [1, 2, 3])
        }
    }

    /// An orphan whose removal failed once was forgotten until the next mount.
    @Test func anOrphanThatCannotBeRemovedNowIsRemovedLater() throws {
        var options = VolumeOptions()
        options.indexCacheByteCount = 64 << 10
        let store = try TestStore(options: options)
        let file = try store.make("file")
        try store.unlink("file")
        // The index is full of changes, and no checkpoint can be written.
        store.device.inject(SimulatedFault(.fail(.noSpace), kinds: [.write], file: .index, isLasting: true))
        #expect(throws: Errno.noSpace) { for number in 0..<5000 { _ = try store.make("file \(number)") } }
        store.volume.state.withLock { $0.core.forget(file.inode, 1) }
        store.volume.housekeeper.housekeep()
        #expect(store.volume.state.withLock { $0.core.reapable } == [file.inode])
        store.device.clearFaults()
        store.volume.housekeeper.housekeep()
        store.volume.housekeeper.housekeep()
        #expect(store.volume.state.withLock { $0.core.reapable } == [])
    }

    /// The header of a later segment had reached the disk, the segment before it had not: a legal end of the log, but the
    /// store was refused as damaged.
    @Test func aLaterSegmentWithoutTheOneBeforeItIsATail() throws {
        let store = try TestStore()
        let file = try store.make("file").inode
        try store.volume.syncAndWait()
        store.volume = try Volume.mount(store.device.snapshotAfterKill(), VolumeOptions(), now: TestStore.now) { _ in }
        for piece in 0..<24 { try store.write(file, UInt64(piece) * 100_000, [UInt8](repeating: 1, count: 100_000)) }
        let device = store.volume.device
        device.drain()
        let segments = store.volume.state.withLock { state in
            state.core.table.segments.enumerated().filter {
                $0.element.state == .inUse && $0.element.epoch == MountEpoch(3)
            }
            .sorted { $0.element.firstBatch < $1.element.firstBatch }.map { SegmentNumber(UInt32($0.offset)) }
        }
        #expect(segments.count >= 2)
        let killed = device.snapshotAfterKill()
        killed.damage(.segment(segments[0]), at: 4096)
        store.volume = try Volume.mount(killed, VolumeOptions(), now: TestStore.now) { _ in }
        #expect(try store.lookup("file").byteCount == 0)
    }

    /// Taking out a file's last extents emptied the leaf of payloads behind them; the walk went on to the next leaf, which
    /// nobody had brought into memory, and trapped.
    @Test func truncatingTheLastFileDoesNotWalkIntoALeafThatWasNotTouched() throws {
        var options = VolumeOptions()
        options.indexCacheByteCount = 64 << 10
        let store = try TestStore(options: options)
        let other = try store.make("other").inode
        let last = try store.make("last").inode
        let large = [UInt8](repeating: 1, count: 128 << 10)
        for piece in 0..<10 { try store.write(last, UInt64(piece) << 17, large) }
        for piece in 0..<150 { try store.write(other, UInt64(piece) << 17, large) }
        for piece in 0..<45 { try store.write(other, UInt64(piece) << 17, large) }
        try store.volume.housekeeper.checkpoint()
        for piece in 100..<150 { _ = try store.read(other, UInt64(piece) << 17, 1 << 17) }
        try truncate(store, last, 0)
        #expect(try store.read(other, 149 << 17, 3) == [1, 1, 1])
        try checkStore(store)
    }

    /// A killed mount had renamed a prepared segment and not yet synced the directory; its successor wrote into it, and a
    /// power cut took the name away with everything that was synced.
    @Test func aSegmentNamedByAKilledMountKeepsItsName() throws {
        let store = try TestStore()
        let file = try store.make("file").inode
        try store.volume.syncAndWait()
        store.device.keepHistory()
        for piece in 0..<8 { try store.write(file, UInt64(piece) * 100_000, [UInt8](repeating: 1, count: 100_000)) }
        try store.volume.syncAndWait()
        let events = store.device.trace.compactMap { $0.kind == .rename ? $0.completedAt : nil }
            .filter { store.device.crashPoints.contains($0) }
        #expect(!events.isEmpty)
        for event in events {
            let killed = store.device.snapshotAfterKill(at: event)
            let successor = try Volume.mount(killed, VolumeOptions(), now: TestStore.now) { _ in }
            store.volume = successor
            try store.write(file, 5, [4, 5, 6])
            try successor.syncAndWait()
            for state in killed.crashStates() {
                store.volume = try Volume.mount(state.device(), VolumeOptions(), now: TestStore.now) { _ in }
                #expect(try store.read(file, 5, 3) == [4, 5, 6], "\(state)")
            }
        }
    }

    /// A segment whose end was declared after a crash, and which the log left before the next checkpoint, was taken for
    /// the open head for ever: it was never recycled.
    @Test func aSegmentLeftAfterACrashIsSealed() throws {
        let store = try TestStore()
        let one = try store.make("one").inode
        let two = try store.make("two").inode
        try store.volume.syncAndWait()
        var device = store.device
        // Each mount's segment is left alone by the next; the second mount ends before a checkpoint.
        for round in 0..<4 {
            device = device.crash(seed: UInt64(round)).device()
            store.volume = try Volume.mount(device, VolumeOptions(), now: TestStore.now) { _ in }
            if round < 2 { try store.write(round == 0 ? one : two, 0, [1]) }
            try store.volume.syncAndWait()
            if round != 1 { try store.volume.housekeeper.checkpoint() }
        }
        try store.write(one, 0, [2])
        let open = store.volume.state.withLock { state in
            state.core.table.segments.filter { $0.state == .inUse && !$0.isSealed }.count
        }
        #expect(open == 1)
        let copy = device.snapshotAfterKill()
        #expect(try Checker.check(copy, readsData: true).problems == [])
    }

    /// FORGET of an orphan whose pages were not in memory began to fetch them and waited for nothing: each time a page of the cache was
    /// lost, and the housekeeper waited for ever for a page that nobody was reading.
    @Test func forgettingWhatIsNotInMemoryLeavesNoFetchBehind() throws {
        var options = VolumeOptions()
        options.indexCacheByteCount = 64 << 10
        let store = try TestStore(options: options)
        var files: [InodeNumber] = []
        for number in 0..<1500 { files.append(try store.make("file \(number)").inode) }
        try store.volume.housekeeper.checkpoint()
        for number in 0..<100 { try store.unlink("file \(number)") }
        try store.volume.housekeeper.checkpoint()
        // What comes last is in memory, the orphans' pages are not.
        for file in files.suffix(700) {
            _ = try store.volume.perform { (core) throws(Stop) in try core.attributes(file) }
        }
        for file in files.prefix(100) { store.volume.forget(file, 1) }
        #expect(store.volume.state.withLock { !$0.hasFetches })
        #expect(store.volume.state.withLock { !$0.core.reapable.isEmpty })
        for file in files.suffix(1400) { store.volume.forget(file, 1) }
        while store.volume.state.withLock({ !$0.core.reapable.isEmpty }) { store.volume.housekeeper.housekeep() }
        #expect(store.volume.state.withLock { !$0.hasFetches })
        try checkStore(store)
    }

    /// A write of the log had failed, an fsync waited for it to be made good, and a checkpoint that failed closed the log: nobody told
    /// the fsync, which waited for ever (as in `mount-scripts/test faults`).
    @Test func anFsyncIsAnsweredWhenTheLogIsClosed() throws {
        let store = try TestStore()
        let file = try store.make("file").inode
        try store.write(file, 0, [1, 2, 3])
        store.volume.state.withLock { $0.core.log.suspension = .ioError }
        let answer = Mutex<Errno??>(nil)
        store.volume.sync(mayWait: false) { errno in answer.withLock { $0 = .some(errno) } }
        #expect(answer.withLock { $0 } == nil)
        store.volume.housekeeper.closeLog(.ioError)
        #expect(store.volume.isReadOnly)
        #expect(answer.withLock { $0 } == .some(.ioError))
    }

    /// On a host that takes the length of the index and not its pages (copy on write), each attempt at a checkpoint needed more of the file.
    @Test func pagesThatFindNoRoomNeedNoMoreOfTheIndexEachTime() throws {
        let store = try TestStore()
        for number in 0..<500 { _ = try store.make("file \(number)") }
        store.device.inject(SimulatedFault(.fail(.noSpace), kinds: [.write], file: .index, isLasting: true))
        store.volume.housekeeper.checkpointReporting()
        let count = store.volume.state.withLock { $0.core.index.tree.filePageCount }
        for _ in 0..<100 { store.volume.housekeeper.checkpointReporting() }
        #expect(store.volume.state.withLock { $0.core.index.tree.filePageCount } == count)
        #expect(!store.volume.isReadOnly)
        store.device.clearFaults()
        try store.volume.housekeeper.checkpoint()
        try checkStore(store)
    }

    /// Once the log was closed, removals went on no more, and an allocation in their file waited for them for ever.
    @Test func anAllocationDoesNotWaitForRemovalsOnAClosedLog() throws {
        let store = try TestStore()
        let inode = try makeFragmented(store, "file")
        try truncate(store, inode, 100)
        #expect(store.volume.state.withLock { $0.core.index.removals[inode] != nil })
        store.volume.housekeeper.closeLog(.ioError)
        #expect(throws: Errno.readOnly) {
            let walk = AllocationWalk()
            try store.volume.perform { (core) throws(Stop) in
                _ = try core.allocate(inode, [], at: 0, 1 << 20, TestStore.context, walk)
            }
        }
    }

    /// A page that the housekeeper had read was evicted before it was held, by an operation that waited for room and ran in between. So it
    /// was read for ever.
    @Test func aPageThatWasReadIsHeldBeforeOthersRun() throws {
        var options = VolumeOptions()
        options.indexCacheByteCount = 8 * IndexPage.byteCount
        let store = try TestStore(options: options)
        for number in 0..<2000 { _ = try store.make("file \(number)") }
        try store.remount(options: options)
        let volume = store.volume
        let isOver = Mutex(false)
        // Finds no room, again and again. Each run drops pages beyond the cache's bound, as every operation does.
        @Sendable func waitForRoom(_ attempt: Attempt?) {
            volume.park(.room, attempt, mayWait: false) { attempt, _ in
                guard !isOver.withLock({ $0 }) else { return }
                try? volume.run { _ in }
                waitForRoom(attempt)
            }
        }
        func attributes(of number: UInt64) throws {
            var runCount = 0
            _ = try volume.perform { (core) throws(Stop) in
                runCount += 1
                guard runCount < 100 else { throw .failed(.busy) }
                return try core.attributes(InodeNumber(number))
            }
        }
        let numbers = stride(from: 2, through: 2000, by: 50) as StrideThrough<UInt64>
        for number in numbers { try attributes(of: number) }
        waitForRoom(nil)
        // The cache is full of pages that are held.
        let held = volume.state.withLock { state in
            let tree = state.core.index.tree
            return (0..<tree.filePageCount).compactMap { HeldPage(tree, PageAddress(UInt32($0))) }
        }
        #expect(held.count == 8)
        for number in numbers { try attributes(of: number) }
        volume.state.withLock { _ in for page in held { page.letGo() } }
        isOver.withLock { $0 = true }
        volume.wakeRoomWaiters()
        try checkStore(store)
    }
}
