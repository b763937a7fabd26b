// When an fsync is expected, and what that changes: the write is under way before it is asked for.

import Testing

@testable import Treering

@Suite struct SyncPredictorTests {
    /// Rounds of so many records, each with a sync; then whether a sync is likely after one, two, three... more records.
    private func likely(after rounds: [Int], next count: Int) -> [Bool] {
        var predictor = SyncPredictor()
        for round in rounds {
            for _ in 0..<round { predictor.noteRecord() }
            predictor.noteSync()
        }
        return (0..<count).map { _ in
            predictor.noteRecord()
            return predictor.isSyncLikely
        }
    }

    @Test func twoRoundsAlikeMakeAThird() {
        #expect(likely(after: [], next: 3) == [false, false, false])
        #expect(likely(after: [1], next: 3) == [false, false, false])
        #expect(likely(after: [1, 1], next: 3) == [true, false, false])
        #expect(likely(after: [5, 2, 2], next: 3) == [false, true, false])
        // A sync of nothing is none.
        #expect(likely(after: [2, 0, 2, 0], next: 3) == [false, true, false])
    }

    @Test func anotherRoundEndsIt() {
        #expect(likely(after: [1, 1, 2], next: 3) == [false, false, false])
        #expect(likely(after: [1, 2, 1, 2], next: 3) == [false, false, false])
        #expect(likely(after: [100, 100], next: 101).allSatisfy { !$0 })
    }

    @Test func anExpectedSyncIsUnderWayBeforeItIsAskedFor() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        let bytes = [UInt8](repeating: 1, count: 100)
        for round in 0..<3 as Range<UInt64> {
            try store.write(inode, round * 100, bytes)
            let before = store.device.trace.count
            store.volume.writeAhead()
            // The first round had the making of the file in it as well.
            #expect(store.device.trace.count == before)
            try store.volume.syncAndWait()
        }
        try store.write(inode, 300, bytes)
        let before = store.device.trace.count
        store.volume.writeAhead()
        #expect(store.device.trace.dropFirst(before).map(\.kind) == [.writeDurable])
        try store.volume.syncAndWait()
        #expect(store.device.trace.count == before + 1)
        // It counts as durable: a power cut keeps it.
        let crashed = store.device.crash(seed: 1).device()
        let next = try Volume.mount(crashed, VolumeOptions(), now: TestStore.now) { _ in }
        #expect(try next.bytes { (core) throws(Stop) in try core.planRead(inode, at: 0, 400) }.count == 400)
    }

    /// A guess that was wrong costs one write and is not repeated at once.
    @Test func aWrongGuessIsNotRepeated() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        for round in 0..<3 as Range<UInt64> {
            try store.write(inode, round * 100, [1])
            try store.volume.syncAndWait()
        }
        var count = 0
        for round in 3..<20 as Range<UInt64> {
            try store.write(inode, round * 100, [1])
            let before = store.device.trace.count
            store.volume.writeAhead()
            count += store.device.trace.count - before
        }
        #expect(count == 1)
        try store.volume.syncAndWait()
        #expect(store.volume.state.withLock { $0.core.log.tracker.durable == $0.core.log.lastBatch })
    }
}
