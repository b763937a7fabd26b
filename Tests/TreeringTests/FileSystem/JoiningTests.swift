// Pieces of a file that were written apart are joined in the background and on request, within bounds; what is shared stays shared.

import Testing

@testable import Treering

@Suite struct JoiningTests {
    private func store(
        capacity: UInt64 = 64 << 20, free: UInt64 = 256 << 20, _ policy: DefragmentPolicy = .auto
    ) throws -> TestStore {
        var options = VolumeOptions()
        options.defragmenting = policy
        options.defragmentFreeByteCount = free
        return try TestStore(capacity: capacity, options: options)
    }

    private func pieceCount(_ store: TestStore, _ inode: InodeNumber) throws -> Int {
        try store.pieces(of: inode).count
    }

    private func joined(_ store: TestStore) -> (byteCount: UInt64, pieceCount: UInt64) {
        store.volume.state.withLock { $0.core.joined }
    }

    /// Rounds until one joins nothing.
    private func housekeep(_ store: TestStore) {
        var before = UInt64.max
        while joined(store).pieceCount != before {
            before = joined(store).pieceCount
            for _ in 0..<10 {
                store.volume.housekeeper.housekeep()
                try? store.volume.syncAndWait()
            }
        }
    }

    /// Writes lines and syncs each, so that nothing can be packed.
    private func lines(_ store: TestStore, _ inode: InodeNumber, _ count: Int, _ expected: inout [UInt8]) throws {
        for number in 0..<count {
            let line = (0..<80).map { UInt8(truncatingIfNeeded: number &* 11 &+ $0) }
            try store.write(inode, UInt64(expected.count), line)
            try store.volume.syncAndWait()
            expected += line
        }
    }

    @Test func linesThatWereSyncedOneByOne() throws {
        let store = try store()
        let inode = try store.make("log").inode
        var expected: [UInt8] = []
        try lines(store, inode, 300, &expected)
        #expect(try pieceCount(store, inode) == 300)
        housekeep(store)
        // The last block of the file as well, which is not whole.
        #expect(try pieceCount(store, inode) <= 2)
        try lines(store, inode, 100, &expected)
        housekeep(store)
        #expect(try pieceCount(store, inode) < 3)
        try store.verify([(inode, expected)])
    }

    @Test func blocksThatWereOverwrittenHereAndThere() throws {
        let store = try store()
        let inode = try store.make("database").inode
        var expected = [UInt8](repeating: 1, count: 1 << 20)
        try store.write(inode, 0, expected)
        for number in 0..<200 {
            let start = number * 73 % 256 * 4096
            let block = [UInt8](repeating: UInt8(number), count: 4096)
            try store.write(inode, UInt64(start), block)
            expected.replaceSubrange(start..<start + 4096, with: block)
        }
        #expect(try pieceCount(store, inode) > 150)
        housekeep(store)
        #expect(try pieceCount(store, inode) < 60)
        try store.verify([(inode, expected)])
    }

    @Test func holesAndSharedPiecesStay() throws {
        let store = try store()
        let inode = try store.make("log").inode
        let copy = try store.make("copy").inode
        var expected: [UInt8] = []
        try lines(store, inode, 100, &expected)
        _ = try store.volume.perform { (core) throws(Stop) in
            try core.copyRange(inode, at: 0, copy, at: 0, 8000, TestStore.context)
        }
        let copied = expected
        try lines(store, inode, 100, &expected)
        // Far behind, with a hole between.
        try store.write(inode, 100_000, [9])
        expected += [UInt8](repeating: 0, count: 100_000 - expected.count) + [9]
        let stored = try store.lookup("log").storedByteCount
        housekeep(store)
        #expect(store.volume.state.withLock { $0.core.index.sharedByteCount } == 8000)
        #expect(try pieceCount(store, copy) == 100)
        #expect(try pieceCount(store, inode) < 120)
        #expect(try store.lookup("log").storedByteCount == stored)
        try store.verify([(inode, expected), (copy, copied)])
    }

    /// Somebody changes the file between the reading of its pieces and their joining: then nothing is joined.
    @Test func whatHasChangedMeanwhileIsNotJoined() throws {
        for round in 0..<4 {
            let store = try store(.off)
            let inode = try store.make("log").inode
            let other = try store.make("other").inode
            var expected: [UInt8] = []
            try lines(store, inode, 100, &expected)
            let found = try store.volume.perform { (core) throws(Stop) in try core.nextJoinable(inode, from: 0).found }
            let joinable = try #require(found)
            let bytes = AlignedBuffer(byteCount: expected.count)
            bytes.bytes.copyBytes(from: expected)
            switch round {
            case 0:
                try store.volume.perform { (core) throws(Stop) in
                    _ = try core.setAttributes(inode, AttributeChanges(byteCount: 4000), TestStore.context)
                }
                expected = Array(expected.prefix(4000))
            case 1:
                try store.write(inode, 500, [1, 2, 3])
                expected.replaceSubrange(500..<503, with: [1, 2, 3])
            case 2:
                _ = try store.volume.perform { (core) throws(Stop) in
                    try core.copyRange(inode, at: 0, inode, at: 4000, 800, TestStore.context)
                }
                expected.replaceSubrange(4000..<4800, with: expected[0..<800])
            default:
                // The pieces are as they were, and another file shows them too.
                _ = try store.volume.perform { (core) throws(Stop) in
                    try core.copyRange(inode, at: 0, other, at: 0, 8000, TestStore.context)
                }
            }
            let isJoined = try store.volume.perform { (core) throws(Stop) in
                try core.join(inode, joinable, UnsafeRawBufferPointer(bytes.bytes).part(0, 8000))
            }
            #expect(!isJoined)
            try store.verify([(inode, expected)])
        }
    }

    /// A reserved part is written, read for joining, and reserved again before the pieces are compared.
    @Test func whatWasReservedAgainIsNotJoined() throws {
        let store = try store(.off)
        let inode = try store.make("f").inode
        try store.volume.perform { (core) throws(Stop) in
            _ = try core.allocate(inode, [], at: 0, 65536, TestStore.context, AllocationWalk())
        }
        for block in 0..<16 {
            try store.write(inode, UInt64(block * 4096), [UInt8](repeating: UInt8(block), count: 80))
            try store.volume.syncAndWait()
        }
        let found = try store.volume.perform { (core) throws(Stop) in try core.nextJoinable(inode, from: 0).found }
        let joinable = try #require(found)
        let reserved = try #require(joinable.pieces.first { $0.isReserved })
        try store.write(inode, reserved.offset, [UInt8](repeating: 0xAA, count: Int(reserved.byteCount)))
        let bytes = try store.read(inode, joinable.from, Int(joinable.to - joinable.from))
        try store.volume.perform { (core) throws(Stop) in
            _ = try core.allocate(
                inode, .zeroes, at: reserved.offset, reserved.byteCount, TestStore.context, AllocationWalk())
        }
        let isJoined = try store.volume.perform { (core) throws(Stop) in
            let buffer = AlignedBuffer(byteCount: bytes.count)
            buffer.bytes.copyBytes(from: bytes)
            return try core.join(inode, joinable, UnsafeRawBufferPointer(buffer.bytes).part(0, bytes.count))
        }
        #expect(!isJoined)
        let now = try store.read(inode, reserved.offset, Int(reserved.byteCount))
        #expect(now.allSatisfy { $0 == 0 })
    }

    /// What joining writes is bounded by what programs write, also where all is idle.
    @Test func aFileThatIsOverwrittenForEver() throws {
        let store = try store(free: 0)
        let inode = try store.make("database").inode
        try store.write(inode, 0, [UInt8](repeating: 1, count: 4 << 20))
        for round in 0..<30 {
            for number in 0..<40 {
                // Seven small pieces in each of a few windows: joining them costs many times what they took.
                let window = (round * 7 + number / 7) % 64
                let offset = UInt64(window << 16 + number % 7 * 8192)
                try store.write(inode, offset, [UInt8](repeating: UInt8(round), count: 100))
            }
            for _ in 0..<20 { store.volume.housekeeper.housekeep() }
            let asked = store.volume.state.withLock { store.volume.writtenSinceMount($0.core).asked }
            #expect(joined(store).byteCount <= asked + 70_000)
        }
        #expect(joined(store).pieceCount > 0)
    }

    @Test func switchedOffAndOnRequest() throws {
        let store = try store(.off)
        let inode = try store.make("log").inode
        var expected: [UInt8] = []
        try lines(store, inode, 300, &expected)
        housekeep(store)
        #expect(try pieceCount(store, inode) == 300)
        final class Box: @unchecked Sendable { var answers: [DefragmentAnswer] = [] }
        let box = Box()
        store.volume.housekeeper.defragment(inode, from: 0) { box.answers.append($0) }
        store.volume.housekeeper.defragment(InodeNumber(999), from: 0) { box.answers.append($0) }
        for _ in 0..<3 { store.volume.housekeeper.housekeep() }
        guard box.answers.count == 2, case .done(nil, 300, let byteCount) = box.answers[0], byteCount < 30_000,
            case .done(nil, 0, 0) = box.answers[1]
        else {
            Issue.record("\(box.answers)")
            return
        }
        #expect(try pieceCount(store, inode) <= 2)
        try store.verify([(inode, expected)])
    }

    /// Whoever waits for joining is answered when the mount ends, although no round comes any more.
    @Test func requestsAreAnsweredAtTheEnd() throws {
        let store = try store(.off)
        let inode = try store.make("log").inode
        try store.write(inode, 0, [1])
        final class Box: @unchecked Sendable { var answers: [DefragmentAnswer] = [] }
        let box = Box()
        store.volume.housekeeper.defragment(inode, from: 0) { box.answers.append($0) }
        store.volume.finishRequests()
        store.volume.housekeeper.defragment(inode, from: 0) { box.answers.append($0) }
        #expect(box.answers.count == 2)
        try store.volume.unmount()
    }

    /// A round that joins on a full host ends: it does not wait for room that only it could make.
    @Test func defragmentOnAFullHost() throws {
        var options = VolumeOptions()
        options.defragmenting = .off
        let store = try TestStore(capacity: 64 << 20, options: options)
        let inode = try store.make("f").inode
        let block = [UInt8](repeating: 7, count: 3200)
        for number in 0..<5000 { try store.write(inode, UInt64(number * 3200), block) }
        try store.volume.syncAndWait()
        store.volume.housekeeper.housekeep()
        let space = store.device.hostSpace()
        store.device.limitHost(toByteCount: space.totalByteCount - space.availableByteCount)
        store.volume.housekeeper.housekeep()
        let sparse = try store.make("sparse").inode
        try store.volume.perform { (core) throws(Stop) in
            _ = try core.setAttributes(sparse, AttributeChanges(byteCount: 1 << 20), TestStore.context)
        }
        var count = 0
        while store.volume.state.withLock({ $0.core.table.pool.count > 0 }), count < 5000 {
            count += 1
            try store.volume.perform { (core) throws(Stop) in
                _ = try core.allocate(
                    sparse, [.punchesHole, .keepsSize], at: 0, 4096, TestStore.context, AllocationWalk())
            }
            try store.volume.syncAndWait()
        }
        let again = store.device.hostSpace()
        store.device.limitHost(toByteCount: again.totalByteCount - again.availableByteCount)
        store.volume.state.withLock { $0.core.log.space.isHostFull = true }
        store.volume.housekeeper.defragment(inode, from: 0) { _ in }
        store.volume.housekeeper.housekeep()
    }
}
