// Reservations and instant copies on a simulated device: what they promise, what they share, and that the accounting agrees.

import Testing

@testable import Treering

@Suite struct RangeTests {
    private func reserve(
        _ store: TestStore, _ inode: InodeNumber, _ mode: AllocateMode, _ offset: UInt64, _ count: UInt64
    )
        throws
    {
        let walk = AllocationWalk()
        _ = try store.volume.perform { (core) throws(Stop) in
            try core.allocate(inode, mode, at: offset, count, TestStore.context, walk)
        }
    }

    private func fill(_ value: UInt8, _ count: Int) -> [UInt8] { [UInt8](repeating: value, count: count) }

    private func copy(_ store: TestStore, _ source: InodeNumber, _ target: InodeNumber, _ count: UInt64) throws {
        var done: UInt64 = 0
        while done < count {
            let from = done
            let result = try store.volume.perform { (core) throws(Stop) in
                try core.copyRange(source, at: from, target, at: from, count - from, TestStore.context)
            }
            done += result.byteCount
            if result.byteCount == 0 { break }
        }
        #expect(done == count)
    }

    private func checkStore(_ store: TestStore) throws {
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    /// A crash leaves all of it or nothing.
    @Test func zeroingIsOneRecord() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        for piece in 0..<100 as Range<UInt64> { try store.write(inode, piece * 10_000, fill(UInt8(piece + 1), 5000)) }
        func next() -> UInt64 { store.volume.state.withLock { $0.core.log.nextSequence.rawValue } }
        for mode in [.zeroes, [.zeroes, .keepsSize]] as [AllocateMode] {
            let before = next()
            try reserve(store, inode, mode, 1000, 2_000_000)
            #expect(next() == before + 1)
        }
        let bytes = try store.volume.bytes { (core) throws(Stop) in try core.planRead(inode, at: 0, 4000) }
        #expect(bytes == fill(1, 1000) + fill(0, 3000))
        #expect(store.volume.state.withLock { $0.core.index.reservedByteCount } >= 1_999_000)
        try checkStore(store)
    }

    /// One record replaces only so much: what is cut off in between goes on behind what is done.
    @Test func zeroingManyPieces() throws {
        let store = try TestStore(capacity: 64 << 20)
        let inode = try store.make("file").inode
        for piece in 0..<1200 as Range<UInt64> { try store.write(inode, piece * 5000, fill(7, 10)) }
        let before = store.volume.state.withLock { $0.core.log.nextSequence.rawValue }
        try reserve(store, inode, .zeroes, 5000, 1198 * 5000)
        let count = store.volume.state.withLock { $0.core.log.nextSequence.rawValue } - before
        #expect(count > 1 && count < 12)
        let bytes = try store.volume.bytes { (core) throws(Stop) in try core.planRead(inode, at: 0, 6_000_000) }
        #expect(bytes.enumerated().filter { $1 != 0 }.map(\.offset) == Array(0..<10) + Array(5_995_000..<5_995_010))
        try checkStore(store)
    }

    /// Blocks of which every second byte was written have more holes than a record can name.
    @Test(arguments: [AllocateMode.zeroes, [.zeroes, .keepsSize], [], .keepsSize, [.punchesHole, .keepsSize]])
    func blocksWithManyHoles(mode: AllocateMode) throws {
        let store = try TestStore(capacity: 64 << 20)
        let inode = try store.make("file").inode
        for block in [0, 12_288] as [UInt64] {
            for offset in stride(from: block, to: block + 4096, by: 2) { try store.write(inode, offset, [7]) }
        }
        try reserve(store, inode, mode, 4095, 8194)
        let bytes = try store.volume.bytes { (core) throws(Stop) in try core.planRead(inode, at: 0, 20_000) }
        // Byte 12288 is the last of the range.
        let isCleared = mode.contains(.zeroes) || mode.contains(.punchesHole)
        let wanted = (0..<bytes.count).filter {
            $0 % 2 == 0 && ($0 < 4096 || $0 >= 12_288) && !(isCleared && $0 == 12_288)
        }
        #expect(bytes.enumerated().filter { $1 == 7 }.map(\.offset) == wanted)
        try checkStore(store)
    }

    @Test func whatWasReservedIsWrittenOnAFullStore() throws {
        let store = try TestStore(capacity: 32 << 20)
        let reserved = try store.make("promised").inode
        let filler = try store.make("filler").inode
        let before = try store.volume.status().availableByteCount
        let size: UInt64 = 6 << 20
        try reserve(store, reserved, [], 0, size)
        #expect(try store.volume.status().availableByteCount + size <= before)
        let piece = [UInt8](repeating: 1, count: 64 << 10)
        var failure: Errno?
        for index in 0..<1000 as Range<UInt64> {
            do { try store.write(filler, index * UInt64(piece.count), piece) } catch {
                failure = error as? Errno
                break
            }
        }
        #expect(failure == .noSpace)
        for offset in stride(from: 0, to: size, by: piece.count) {
            do { try store.write(reserved, offset, piece) } catch {
                Issue.record("writing what was promised at \(offset) of \(size): \(error)")
                break
            }
        }
        #expect(store.volume.state.withLock { $0.core.index.reservedByteCount } == 0)
        #expect(throws: Errno.noSpace) { try reserve(store, reserved, [], size, 1 << 30) }
        try checkStore(store)
    }

    @Test func reservationsOutliveARemountAndGoWithTheFile() throws {
        let store = try TestStore()
        let file = try store.make("file").inode
        try reserve(store, file, .keepsSize, 5000, 3 << 20)
        try store.write(file, 8192, [UInt8](repeating: 2, count: 100))
        let reserved = store.volume.state.withLock { $0.core.index.reservedByteCount }
        #expect(reserved == 3 << 20 + 4096 - 100)
        try store.remount()
        #expect(store.volume.state.withLock { $0.core.index.reservedByteCount } == reserved)
        _ = try store.lookup("file")
        try store.unlink("file")
        store.volume.forget(file, 1)
        store.volume.housekeeper.housekeep()
        #expect(store.volume.state.withLock { $0.core.index.reservedByteCount } == 0)
        try checkStore(store)
    }

    @Test func aCopyOutlivesTheOriginalAndIsCleanedWithIt() throws {
        let store = try TestStore()
        let source = try store.make("source").inode
        let target = try store.make("target").inode
        let bytes = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 8) }
        for offset in stride(from: 0, to: bytes.count, by: 50_000) {
            try store.write(source, UInt64(offset), Array(bytes[offset..<offset + 50_000]))
        }
        let live = store.volume.state.withLock { $0.core.table.liveByteCount }
        try copy(store, source, target, UInt64(bytes.count))
        #expect(store.volume.state.withLock { $0.core.table.liveByteCount } - live < 4096)
        try store.write(source, 1000, [UInt8](repeating: 9, count: 10_000))
        #expect(try store.read(target, 0, 300_000) == bytes)
        try store.unlink("source")
        store.volume.forget(source, 1)
        try store.remount()
        #expect(try store.read(try store.lookup("target").inode, 0, 300_000) == bytes)
        try checkStore(store)
    }

    /// More extents than one record or one call can name.
    @Test func copiesOfFragmentedFilesGoOnWhereTheyEnded() throws {
        let store = try TestStore()
        let source = try store.make("source").inode
        let target = try store.make("target").inode
        try store.write(target, 0, [UInt8](repeating: 5, count: 100_000))
        for piece in 0..<1500 { try store.write(source, UInt64(piece * 100), [UInt8](repeating: 7, count: 50)) }
        try copy(store, source, target, 1499 * 100 + 50)
        #expect(try store.read(target, 0, 149_950) == store.read(source, 0, 149_950))
        try checkStore(store)
    }

    /// Found by random operations, seed 3: nobody but the one who waited could have finished what it waited for.
    @Test(.timeLimit(.minutes(1))) func anAllocationFinishesTheRemovalsThatItWaitsFor() throws {
        let store = try TestStore()
        let file = try store.make("file").inode
        for piece in 0..<3000 { try store.write(file, UInt64(piece * 100), [UInt8](repeating: 7, count: 50)) }
        var changes = AttributeChanges()
        changes.byteCount = 0
        let truncation = changes
        _ = try store.volume.perform { (core) throws(Stop) in
            try core.setAttributes(file, truncation, TestStore.context)
        }
        #expect(store.volume.state.withLock { $0.core.index.removals[file] != nil }, "some of it is still to be done")
        try reserve(store, file, [], 0, 100_000)
        #expect(store.volume.state.withLock { $0.core.index.removals[file] == nil })
        try checkStore(store)
    }

    @Test func aPayloadThatTooManyNameIsNotSharedFurther() throws {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 8192, alignment: 16)
        defer { memory.deallocate() }
        let store = try TestStore()
        let source = try store.make("source").inode
        let target = try store.make("target").inode
        try store.write(source, 0, [UInt8](repeating: 1, count: 8192))
        let id = try store.volume.perform { (core) throws(Stop) in
            try core.find { () throws(PageMiss) in try core.index.extents(source, 0, 1)[0].1.payload }
        }
        // As if half a million copies had been made.
        store.volume.state.withLock { state in
            let index = state.core.index
            index.replacePayload(id) { entry in
                let count = entry.encodeNaming(0, 100, more: true, keepsDead: false, into: index.scratch)!
                index.scratch.store(UInt32(1) << 31, at: count - 8)
                return count
            }
        }
        #expect(throws: Errno.notSupported) { try copy(store, source, target, 8192) }
    }

    @Test func privilegesGoWhenOthersAllocateOrCopy() throws {
        let store = try TestStore()
        let file = try store.make("file", mode: 0o106755).inode
        let other = try store.make("other").inode
        try store.write(other, 0, [1, 2, 3])
        try reserve(store, file, [], 0, 10)
        #expect(try store.volume.attributes(file).mode & 0o7777 == 0o755)
    }

    private func seek(_ store: TestStore, _ inode: InodeNumber, _ target: SeekTarget, _ offset: UInt64) throws -> UInt64
    {
        let walk = SeekWalk(target, from: offset)
        let result = try store.volume.perform { (core) throws(Stop) in try core.seek(inode, walk) }
        // The hole lies before data, and where a hole was looked for.
        if target == .data {
            #expect(
                result.hole.lowerBound == offset && result.offset ?? result.hole.upperBound == result.hole.upperBound)
        }
        if target == .hole { #expect(result.hole.lowerBound == result.offset) }
        guard let found = result.offset else { throw Errno.noAddress }
        return found
    }

    @Test func holesBeginAndEndWithBlocksOrTheFile() throws {
        let store = try TestStore()
        let file = try store.make("file").inode
        try store.write(file, 5000, [1, 2, 3])
        try store.write(file, 8191, [4, 5])
        try store.write(file, 40_000, [UInt8](repeating: 6, count: 1000))
        // Written are the blocks 4096 to 12288 and 36864 to 45056, of which the file has the part before 41000.
        #expect(try seek(store, file, .data, 0) == 4096)
        #expect(try seek(store, file, .data, 4097) == 4097)
        #expect(try seek(store, file, .hole, 0) == 0)
        #expect(try seek(store, file, .hole, 4096) == 12_288)
        #expect(try seek(store, file, .hole, 5003) == 12_288)
        #expect(try seek(store, file, .hole, 12_287) == 12_288)
        #expect(try seek(store, file, .data, 12_288) == 36_864)
        #expect(try seek(store, file, .hole, 36_900) == 41_000)
        #expect(throws: Errno.noAddress) { try seek(store, file, .data, 41_000) }
        #expect(throws: Errno.noAddress) { try seek(store, file, .hole, 41_000) }
        // What is only reserved is a hole, also beside what is written.
        try reserve(store, file, [], 12_288, 4096)
        #expect(try seek(store, file, .hole, 4096) == 12_288)
        #expect(try seek(store, file, .data, 12_288) == 36_864)
        try checkStore(store)
    }

    // ext4 writes zeros where a hole is copied: there the copy has no holes.
    @Test func aCopiedHoleIsAHole() throws {
        let store = try TestStore()
        let source = try store.make("source").inode
        let target = try store.make("target").inode
        try store.write(source, 69_632, [UInt8](repeating: 1, count: 4096))
        try store.write(source, 102_406, [2])
        try store.write(target, 0, [UInt8](repeating: 3, count: 131_072))
        try copy(store, source, target, 102_407)
        #expect(try seek(store, target, .data, 0) == 69_632)
        #expect(try seek(store, target, .hole, 69_632) == 73_728)
        #expect(try seek(store, target, .data, 73_728) == 102_400)
        // Its last block has the target's own bytes behind what was copied.
        #expect(try seek(store, target, .hole, 102_400) == 131_072)
        try checkStore(store)
    }
}
