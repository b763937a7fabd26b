// What random faults have found in writing the log again, and in the recovery of stores whose device failed.

import Synchronization
import Testing

@testable import Treering

@Suite struct RelocationRegressionTests {
    private let writes: Set<TraceEntry.Kind> = [.write, .writeDurable]

    private func relocationCount(_ store: TestStore) -> Int { store.volume.state.withLock { $0.relocationCount } }

    private func fill(_ value: UInt8) -> [UInt8] { [UInt8](repeating: value, count: 50_000) }

    private func checkStore(_ store: TestStore) throws {
        try store.volume.unmount()
        #expect(try Checker.check(store.device.snapshotAfterKill(), readsData: true).problems == [])
    }

    /// An operation that found room and then missed a page had left a batch open; it counted as one that had left its slot.
    @Test func anOpenBatchWithoutARecordGoesWithItsPlace() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        try store.volume.syncAndWait()
        try store.write(inode, 0, fill(1))
        store.device.inject(SimulatedFault(.fail(.ioError), kinds: writes))
        store.volume.state.withLock { state in
            let log = state.core.log
            log.closeBatch(durable: false)
            #expect(log.makeRoom(recordByteCount: 100, payloadByteCount: 0, .write) == .ready)
            #expect(!log.hasOpenRecords)
        }
        try store.volume.syncAndWait()
        #expect(relocationCount(store) == 1)
        try store.write(inode, 50_000, fill(2))
        #expect(try store.read(inode, 0, 100_000) == fill(1) + fill(2))
        try checkStore(store)
    }

    /// While the log was being written again nothing ran, and what the kernel forgot was not counted.
    @Test func aForgetCountsWhileTheLogIsSuspended() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        store.volume.state.withLock { $0.core.log.suspension = .ioError }
        store.volume.forget(inode, 1)
        store.volume.state.withLock { state in
            #expect(state.core.lookups[inode] == nil)
            state.core.log.suspension = nil
        }
    }

    /// The log failed while a dead mount's staging was appended again: inodes without a name were looked for in the index that was given up.
    @Test func orphansAreFoundInTheIndexThatTookOver() throws {
        let store = try TestStore(keepsStaging: true)
        let inode = try store.make("file").inode
        let orphan = try store.make("orphan").inode
        try store.volume.syncAndWait()
        for piece in 0..<12 as Range<UInt64> { try store.write(inode, piece * 50_000, fill(UInt8(piece))) }
        try store.unlink("orphan")
        let tail = try #require(StagedRecords(copying: UnsafeRawBufferPointer(store.stagingBuffer.bytes)))
        let killed = store.device.snapshotAfterKill()
        var options = VolumeOptions()
        options.stagingByteCount = 256 << 10
        killed.inject(SimulatedFault(.fail(.ioError), kinds: writes, file: .segment(SegmentNumber(1))))
        let volume = try Volume.mount(killed, options, allStaged: [tail], now: TestStore.now) { _ in }
        #expect(volume.state.withLock { $0.relocationCount } == 1)
        volume.housekeeper.housekeep()
        #expect(throws: Errno.stale) { try volume.perform { (core) throws(Stop) in try core.attributes(orphan) } }
        try volume.unmount()
        #expect(try Checker.check(killed, readsData: true).problems == [])
    }

    /// On a host that stayed full all operations waited for ever, reads too.
    @Test func aHostThatStaysFullLetsReadsGoOnAndTellsWriters() throws {
        var options = VolumeOptions()
        options.lateTryLimit = 2
        let store = try TestStore(options: options)
        let volume = store.volume
        let inode = try store.make("file").inode
        try store.write(inode, 0, fill(1))
        try volume.syncAndWait()
        try store.write(inode, 0, fill(2))
        store.device.inject(SimulatedFault(.fail(.noSpace), kinds: writes, isLasting: true))
        let answers = Mutex<[String]>([])
        func sync() {
            volume.sync(mayWait: true, isRequest: true) { error in
                answers.withLock { $0.append("sync \(String(describing: error))") }
            }
        }
        @Sendable func write(_ attempt: Attempt?) {
            do throws(Stop) {
                let bytes = AlignedBuffer(byteCount: 100)
                _ = try volume.run { (core) throws(Stop) in
                    try core.write(inode, at: 60_000, UnsafeRawBufferPointer(bytes.bytes), [], TestStore.context)
                }
                answers.withLock { $0.append("written") }
            } catch {
                switch error {
                case .failed(let error): answers.withLock { $0.append("write \(error)") }
                case .blocked(let blocker):
                    volume.park(blocker, attempt, mayWait: false) { attempt, _ in write(attempt) }
                }
            }
        }
        func read() throws -> [UInt8]? {
            var plan: ReadPlan?
            do throws(Stop) {
                plan = try volume.run { (core) throws(Stop) in try core.read(inode, at: 0, 50_000, isAccess: true) }
            } catch {
                guard case .blocked(.room) = error else { throw error }
            }
            guard let plan else { return nil }
            defer { volume.recycle(plan) }
            #expect(!plan.needsIO)
            return Array(plan.bytes)
        }
        sync()
        write(nil)
        #expect(volume.isLogSuspended)
        #expect(try read() == nil)
        volume.housekeeper.relocateWhereSuspended()
        #expect(try read() == fill(2))
        #expect(answers.withLock { $0 } == [])
        volume.housekeeper.relocateWhereSuspended()
        let full = Errno.noSpace
        #expect(answers.withLock { $0.sorted() } == ["sync \(String(describing: full as Errno?))", "write \(full)"])
        sync()
        write(nil)
        #expect(answers.withLock { $0.count } == 4)
        #expect(try read() == fill(2))
        let byteCount = try volume.run { (core) throws(Stop) in try core.attributes(inode).byteCount }
        #expect(byteCount == 50_000)
        store.device.clearFaults()
        volume.housekeeper.relocateWhereSuspended()
        answers.withLock { $0 = [] }
        write(nil)
        sync()
        #expect(answers.withLock { $0 } == ["written", "sync nil"])
        #expect(!volume.isReadOnly)
        try checkStore(store)
    }

    /// A dead segment whose header found no room on a host that copies was never free, and writers waited for it.
    @Test func aDeadSegmentGoesBackToAHostWithoutRoomForItsHeader() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        for value in 0..<40 as Range<UInt8> { try store.write(inode, 0, fill(value)) }
        let number = try store.deadSegment()
        store.device.inject(SimulatedFault(.fail(.noSpace), kinds: writes, file: .segment(number), isLasting: true))
        try store.volume.housekeeper.recycle(number)
        #expect(store.volume.state.withLock { $0.core.table[number].state == .absent })
        #expect(!store.device.list().contains(.segment(number)))
        store.device.clearFaults()
        // Killed here: the index knows of a segment that is gone, and nothing was in it.
        let killed = store.device.snapshotAfterKill()
        let volume = try Volume.mount(killed, VolumeOptions(), now: TestStore.now) { _ in }
        try volume.unmount()
        #expect(try Checker.check(killed, readsData: true).problems == [])
        try checkStore(store)
    }

    // MARK: What records say of older ones

    private func since(_ volume: Volume<SimulatedDevice>, _ name: String) throws -> BatchSequence {
        try Array(name.utf8).withUnsafeBytes { name in
            try volume.perform { (core) throws(Stop) in
                guard case .found(let found) = try core.slot(.root, name) else { throw .failed(.noEntry) }
                return found.since
            }
        }
    }

    /// A name made, removed and made again in one segment, of which only the first is durable there.
    private func makeTwice(_ store: TestStore) throws -> (name: String, stamp: BatchSequence) {
        _ = try store.make("name")
        try store.volume.syncAndWait()
        let stamp = try since(store.volume, "name")
        try store.unlink("name")
        _ = try store.make("name")
        #expect(try since(store.volume, "name") == stamp)
        return ("name", stamp)
    }

    /// No tombstone had been needed while both lay in one segment; the record of the second did not know of the first.
    @Test func aNameThatDiedInItsSegmentIsRememberedElsewhere() throws {
        let store = try TestStore()
        let (name, stamp) = try makeTwice(store)
        store.device.inject(SimulatedFault(.fail(.ioError), kinds: writes))
        try store.volume.syncAndWait()
        #expect(relocationCount(store) == 1)
        #expect(try since(store.volume, name) == stamp)
        try checkStore(store)
    }

    /// The same where the second comes from the staging of a mount that was killed.
    @Test func aNameThatDiedInItsSegmentIsRememberedAfterAKill() throws {
        let store = try TestStore(keepsStaging: true)
        let (name, stamp) = try makeTwice(store)
        let tail = try #require(StagedRecords(copying: UnsafeRawBufferPointer(store.stagingBuffer.bytes)))
        let killed = store.device.snapshotAfterKill()
        let volume = try Volume.mount(killed, VolumeOptions(), allStaged: [tail], now: TestStore.now) { _ in }
        #expect(try since(volume, name) == stamp)
        try volume.unmount()
        #expect(try Checker.check(killed, readsData: true).problems == [])
    }

    /// What was said of segments that are gone is said of those that took their place.
    @Test func sinceNamesTheSegmentThatABatchLiesInNow() throws {
        let table = SegmentTable(segmentByteCount: 1 << 20, countLimit: 8)
        let stamps: [(UInt64, SegmentHeader.Role)] = [(5, .hot), (8, .hot), (9, .cold), (11, .hot)]
        for (number, (stamp, role)) in stamps.enumerated() {
            table.restore(
                SegmentNumber(UInt32(number)),
                UsageEntry(
                    firstBatch: BatchSequence(stamp), lastBatch: .zero, epoch: MountEpoch(1), live: 0, incarnation: 1,
                    end: 0, state: .inUse, role: role))
        }
        let tree = Index(uuid: StoreUUID(high: 1, low: 2), cacheLimitByteCount: 1 << 20)
        let index = RecordIndex(tree: tree, table: table)
        let root = InodeNumber.root
        // In the first segment, so the second and the last may keep it alive.
        index.putTombstone(
            root, .dirent, 77, BatchSequence(5), BatchSequence(8),
            Origin(sequence: RecordSequence(9), segment: SegmentNumber(0)), charge: 32)
        func since(_ batch: UInt64, first: UInt64, cookie: UInt64 = 1) throws -> UInt64 {
            let change = Change.dirent(
                directory: root, cookie: cookie, since: BatchSequence(batch), inode: root, type: 8,
                name: UnsafeRawBufferPointer(start: nil, count: 0))
            let log = RevisedLog(settled: BatchSequence(7), first: BatchSequence(first))
            return try index.since(of: change, BatchSequence(batch), in: log).rawValue
        }
        #expect(try since(3, first: 8) == 3)
        #expect(try since(9, first: 8) == 8)
        #expect(try since(20, first: 8) == 8)
        #expect(try since(10, first: 12) == 8)
        #expect(try since(12, first: 12) == 11)
        #expect(try since(0, first: 8) == 0)
        #expect(try since(0, first: 8, cookie: 77) == 5)
    }

    // MARK: Recovery

    /// A head that never got a record had a usage entry and no header; its number was used again in the same incarnation.
    @Test func aSegmentOpenedInVainIsNotMistakenForItsNextLife() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        try store.volume.syncAndWait()
        let first = store.device.crash(seed: 1).device()
        var volume = try Volume.mount(first, VolumeOptions(), now: TestStore.now) { _ in }
        volume.housekeeper.prepareSegment()
        let vain = volume.state.withLock { state in
            _ = state.core.log.makeRoom(recordByteCount: 100, payloadByteCount: 0, .write)
            return state.core.log.head!
        }
        try volume.housekeeper.checkpoint()
        let second = first.crash(seed: 2).device()
        volume = try Volume.mount(second, VolumeOptions(), now: TestStore.now) { _ in }
        // Another becomes the head before it.
        while volume.state.withLock({ $0.core.table.pool.last! == vain }) { volume.housekeeper.prepareSegment() }
        store.volume = volume
        for piece in 0..<30 as Range<UInt64> { try store.write(inode, piece * 50_000, fill(UInt8(piece))) }
        try volume.syncAndWait()
        let third = second.crash(seed: 3).device()
        volume = try Volume.mount(third, VolumeOptions(), now: TestStore.now) { _ in }
        let table = volume.state.withLock { $0.core.table }
        let reader = BatchReader(
            device: third, uuid: StoreUUID(high: 1, low: 2), segmentByteCount: table.segmentByteCount)
        #expect(table[vain].state == .inUse)
        let header = try #require(try reader.segmentHeader(vain, table[vain].file!))
        #expect(table[vain].firstBatch == header.firstBatch)
        try volume.unmount()
        #expect(try Checker.check(third, readsData: true).problems == [])
    }

    /// The host showed the lost bytes to the next mount, which flushed them and took them for durable.
    @Test func whatAFailedFlushLeftIsWrittenAgainByTheNextMount() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        try store.write(inode, 0, fill(1))
        store.volume.state.withLock { $0.core.log.closeBatch(durable: false) }
        try store.write(inode, 50_000, fill(2))
        store.device.inject(SimulatedFault(.failAndLose(.ioError), kinds: [.sync]))
        // Before the old end was declared: all of it still belongs to the log.
        store.device.inject(SimulatedFault(.fail(.ioError), kinds: [.syncDirectories]))
        #expect(throws: Errno.ioError) { try store.volume.syncAndWait() }
        #expect(store.volume.isReadOnly)
        let killed = store.device.snapshotAfterKill()
        let next = try Volume.mount(killed, VolumeOptions(), now: TestStore.now) { _ in }
        #expect(try next.bytes { (core) throws(Stop) in try core.planRead(inode, at: 0, 100_000) } == fill(1) + fill(2))
        for seed in 0..<4 as Range<UInt64> {
            let crashed = killed.crash(seed: seed).device()
            let last = try Volume.mount(crashed, VolumeOptions(), now: TestStore.now) { _ in }
            #expect(
                try last.bytes { (core) throws(Stop) in try core.planRead(inode, at: 0, 100_000) } == fill(1) + fill(2))
        }
    }

    /// It wrote what it read the second time, unseen: where the host had dropped the lost page by then, old bytes for good.
    @Test func onlyWhatWasVerifiedIsWrittenAgain() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        try store.write(inode, 0, fill(1))
        try store.volume.syncAndWait()
        let killed = store.device.snapshotAfterKill()
        let before = killed.trace.count
        _ = try Volume.mount(killed, VolumeOptions(), now: TestStore.now) { _ in }
        let calls = killed.trace[before...].filter {
            [.read, .writeDurable, .write].contains($0.kind) && $0.file == .segment(SegmentNumber(0))
        }
        let write = try #require(calls.firstIndex { $0.kind != .read && $0.byteCount > SegmentHeader.byteCount })
        let reads = calls[..<write].count { $0.kind == .read }
        let again = store.device.snapshotAfterKill()
        again.inject(SimulatedFault(.flip(8192), kinds: [.read], file: .segment(SegmentNumber(0)), nth: reads))
        #expect(throws: MountError.self) { try Volume.mount(again, VolumeOptions(), now: TestStore.now) { _ in } }
        #expect(again.faultCount == 0)
        // Nothing was spoilt: read as it is, it is all there.
        let next = try Volume.mount(again, VolumeOptions(), now: TestStore.now) { _ in }
        #expect(try next.bytes { (core) throws(Stop) in try core.planRead(inode, at: 0, 50_000) } == fill(1))
    }

    /// The same of a header: a segment that was seen to be free was in use again after a power cut.
    @Test func aHeaderThatAFailedFlushLeftIsWrittenAgain() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        for piece in 0..<24 as Range<UInt64> { try store.write(inode, 0, fill(UInt8(piece))) }
        try store.unlink("file")
        store.volume.forget(inode, 1)
        let dead = try store.deadSegment()
        store.device.inject(SimulatedFault(.failAndLose(.ioError), kinds: [.sync], file: .segment(dead)))
        store.volume.housekeeper.recycleSegments()
        #expect(store.device.faultCount == 0)
        let killed = store.device.snapshotAfterKill()
        _ = try Volume.mount(killed, VolumeOptions(), now: TestStore.now) { _ in }
        let crashed = killed.crash(seed: 1).device()
        let reader = BatchReader(device: crashed, uuid: StoreUUID(high: 1, low: 2), segmentByteCount: 1 << 20)
        let header = try reader.segmentHeader(dead, crashed.open(.segment(dead), create: false))
        #expect(header?.state == .free)
    }

    /// Its name was gone and the segment still in use: it became the head of the log again, in a file that nobody would find.
    @Test func aSegmentWhoseNameIsGoneIsNotUsedAgain() throws {
        var options = VolumeOptions()
        options.poolLimit = 0
        let store = try TestStore(options: options)
        let inode = try store.make("file").inode
        for piece in 0..<24 as Range<UInt64> { try store.write(inode, 0, fill(UInt8(piece))) }
        try store.unlink("file")
        store.volume.forget(inode, 1)
        let dead = try store.deadSegment()
        store.device.inject(SimulatedFault(.fail(.ioError), kinds: [.syncDirectories]))
        store.volume.housekeeper.recycleSegments()
        #expect(store.device.faultCount == 0)
        store.volume.state.withLock { state in
            #expect(state.core.table[dead].state == .absent)
            #expect(state.core.table[dead].file == nil)
        }
        try checkStore(store)
    }

    /// What a failed write of the superblock has left may be seen and lost again: the log is not recovered from there, and the slot
    /// that it was to go to is the next to be written.
    @Test func theSuperblockGoneByIsTheLastOneWrittenWhole() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        func superblockWrites() -> [UInt64] {
            store.device.trace.filter { $0.kind == .writeDurable && $0.file == .superblock }.map(\.offset)
        }
        for round in 0..<8 {
            try store.write(inode, 0, fill(UInt8(round)))
            store.device.inject(SimulatedFault(.failTorn(.ioError), kinds: writes, file: .superblock))
            #expect(throws: Errno.ioError) { try store.volume.housekeeper.checkpoint() }
            let failed = try #require(superblockWrites().last)
            try store.write(inode, 50_000, fill(UInt8(round)))
            store.device.inject(SimulatedFault(.fail(.ioError), kinds: writes))
            try store.volume.syncAndWait()
            #expect(relocationCount(store) == round + 1)
            try store.volume.housekeeper.checkpoint()
            #expect(superblockWrites().last == failed)
        }
        try checkStore(store)
    }

    /// The cleaner moved a tombstone that went with its inode then: an index made from the log had it, the live one did not.
    @Test func aTombstoneOfAnInodeThatIsBeingRemovedIsNotMoved() throws {
        let store = try TestStore()
        let filler = try store.make("filler").inode
        let inode = try store.make("file").inode
        func fillSegment() throws {
            let head = store.volume.state.withLock { $0.core.log.head }
            while store.volume.state.withLock({ $0.core.log.head == head }) { try store.write(filler, 0, fill(1)) }
        }
        // More than what is removed in one step.
        for piece in 0..<100 as Range<UInt64> { try store.write(inode, piece * 8192, [1, 2, 3]) }
        try fillSegment()
        let walk = AllocationWalk()
        try store.volume.perform { (core) throws(Stop) in
            _ = try core.allocate(inode, [.punchesHole, .keepsSize], at: 0, 8192, TestStore.context, walk)
        }
        try store.volume.syncAndWait()
        let victim = try #require(store.volume.state.withLock { $0.core.log.head })
        try fillSegment()
        try store.unlink("file")
        store.volume.forget(inode, 1)
        try store.volume.syncAndWait()
        store.volume.state.withLock { state in
            #expect(state.core.index.removals[inode] != nil)
            #expect(state.core.table[victim].isSealed)
        }
        try store.volume.housekeeper.empty(store.id(of: victim))
        #expect(store.volume.housekeeper.cleaner.cleanedSegmentCount == 1)
        // The removal comes to its end first.
        #expect(store.volume.state.withLock { $0.core.index.removals[inode] == nil })
        try checkStore(store)
    }
}
