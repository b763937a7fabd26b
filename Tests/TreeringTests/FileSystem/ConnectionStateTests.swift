// What a successor finds of a killed process: lookup counts through growing and shrinking tables, and requests that are done.

import Glibc
import Testing

@testable import Treering

@Suite struct ConnectionStateTests {
    @Test func countsAreFoundAgainThroughTablesOfAnySize() throws {
        let state = try ConnectionState()
        var counts: [InodeNumber: UInt64] = [:]
        func set(_ inode: UInt64, _ count: UInt64) {
            counts[InodeNumber(inode)] = count == 0 ? nil : count
            state.setCount(InodeNumber(inode), count, all: counts)
        }
        #expect(try state.takeOver(nextSequence: RecordSequence(1)).isEmpty)
        for inode in 1..<400_000 as Range<UInt64> { set(inode, inode % 7 + 1) }
        #expect(try state.takeOver(nextSequence: RecordSequence(1)) == counts)
        for inode in 1..<400_000 as Range<UInt64> where inode % 100 != 0 { set(inode, 0) }
        #expect(try state.takeOver(nextSequence: RecordSequence(1)) == counts)
        // Slots of what was forgotten are found free again: numbers go on for ever, the table does not.
        for inode in 400_000..<2_000_000 as Range<UInt64> {
            set(inode, 2)
            if inode >= 400_100 { set(inode - 100, 0) }
        }
        #expect(try state.takeOver(nextSequence: RecordSequence(1)) == counts)
        // Numbers that would all like the same slot.
        for inode in 1..<3000 as Range<UInt64> { set(inode << 40, 3) }
        #expect(try state.takeOver(nextSequence: RecordSequence(1)) == counts)
    }

    @Test func aRequestIsDoneWhenItsRecordWasRecovered() throws {
        let state = try ConnectionState()
        func note(_ request: UInt64, _ sequence: UInt64) { state.note(RecordSequence(sequence), request) }
        note(10, 1)
        note(12, 2)
        note(14, 3)
        _ = try state.takeOver(nextSequence: RecordSequence(3))
        #expect(state.isDone(10) && state.isDone(12))
        #expect(!state.isDone(14), "its record was lost, so it is to be done")
        #expect(!state.isDone(0) && !state.isDone(16))
        // The sequence that was lost is another request's now, and the first is not taken for done at the next kill.
        note(16, 3)
        note(14, 4)
        _ = try state.takeOver(nextSequence: RecordSequence(4))
        #expect(state.isDone(16) && !state.isDone(14))
        _ = try state.takeOver(nextSequence: RecordSequence(5))
        #expect(!state.isDone(14), "it was struck off when its record was lost")
    }

    /// More requests than there is room for: the last ones are known.
    @Test func theLastRequestsAreKnown() throws {
        let state = try ConnectionState()
        for request in 1...100_000 as ClosedRange<UInt64> {
            state.note(RecordSequence(request), request * 2)
        }
        _ = try state.takeOver(nextSequence: RecordSequence(1_000_000))
        let known = state.doneRequests
        #expect(known.count >= 50_000 && known.count <= 70_000)
        #expect(known.contains(200_000) && !known.contains(2))
    }

    /// An inode without a name stays for whom the kernel still knows it, and goes with the others at an ordinary mount.
    @Test func orphansThatTheKernelKnowsOutliveATakeover() throws {
        let state = try ConnectionState()
        var options = VolumeOptions()
        options.connection = state
        let store = try TestStore(options: options, keepsStaging: true)
        let known = try store.make("known").inode
        let forgotten = try store.make("forgotten").inode
        let named = try store.make("named").inode
        for name in ["known", "forgotten"] { try store.unlink(name) }
        store.volume.state.withLock { $0.core.setLookups(forgotten, 0) }
        let tail = try #require(StagedRecords(copying: UnsafeRawBufferPointer(store.stagingBuffer.bytes)))
        let killed = store.device.snapshotAfterKill()
        state.isInherited = true
        let next = try Volume.mount(killed, options, allStaged: [tail], now: TestStore.now) { _ in }
        next.housekeeper.housekeep()
        func exists(_ inode: InodeNumber) -> Bool {
            (try? next.perform { (core) throws(Stop) in try core.attributes(inode) }) != nil
        }
        #expect(exists(known) && !exists(forgotten) && exists(named))
        // It is removed while the successor serves, although it was looked up before.
        _ = try Array("named".utf8).withUnsafeBytes { name in
            try next.perform { (core) throws(Stop) in try core.unlink(.root, name, .nobody) }
        }
        next.housekeeper.housekeep()
        #expect(exists(named))
        for inode in [known, named] { next.forget(inode, 1) }
        next.housekeeper.housekeep()
        #expect(!exists(known) && !exists(named))
        try next.unmount()
        #expect(try Checker.check(killed, readsData: true).problems == [])
    }
}
