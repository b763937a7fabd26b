// What statfs shows can be had, and what was reserved can be written, in pieces of any size, on a store that is full for others.

import Testing

@testable import Treering

@Suite struct ReservationTests {
    private static var options: VolumeOptions {
        var options = VolumeOptions()
        options.stagingByteCount = 1 << 20
        options.indexCacheByteCount = 4 << 20
        // Pieces are joined where a reservation asks for it, and not before.
        options.defragmenting = .off
        options.bounds.packedPieceCount = 1
        return options
    }

    private func reserve(_ store: TestStore, _ inode: InodeNumber, _ offset: UInt64, _ count: UInt64) throws {
        let walk = AllocationWalk()
        _ = try store.volume.perform { (core) throws(Stop) in
            try core.allocate(inode, [], at: offset, count, TestStore.context, walk)
        }
    }

    /// Writes until there is no room; gives how much that was.
    @discardableResult
    private func fill(_ store: TestStore, _ name: String) throws -> UInt64 {
        let inode = try store.make(name).inode
        var offset: UInt64 = 0
        for count in [64 << 10, 4096] {
            do {
                while true {
                    try store.write(inode, offset, [UInt8](repeating: 7, count: count))
                    offset += UInt64(count)
                }
            } catch let error as Errno { #expect(error == .noSpace) }
        }
        return offset
    }

    private func check(_ store: TestStore) throws {
        try store.volume.unmount()
        #expect(try Checker.check(store.device.snapshotAfterKill(), readsData: true).problems == [])
    }

    /// A sixteenth more than that was asked for.
    @Test func allThatIsAvailableCanBeReserved() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options)
        let inode = try store.make("file").inode
        for _ in 0..<3 {
            let available = try store.volume.status().availableByteCount
            if available == 0 { break }
            try reserve(store, inode, try store.lookup("file").byteCount, available)
        }
        #expect(try store.volume.status().availableByteCount == 0)
        let size = try store.lookup("file").byteCount
        for offset in stride(from: 0, to: size, by: 32 << 10) {
            let count = min(32 << 10, size - offset)
            try store.write(inode, offset, [UInt8](repeating: 1, count: Int(count)))
        }
        #expect(store.volume.state.withLock { $0.core.index.reservedByteCount } == 0)
        try check(store)
    }

    @Test func allThatIsAvailableCanBeWritten() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options)
        let available = try store.volume.status().availableByteCount
        #expect(try fill(store, "file") >= available)
        try check(store)
    }

    /// Pieces of 1,000 bytes ended in ENOSPC at 80 %, of 80 bytes at 21 %; what takes blocks and part of another took the other's as well.
    @Test(arguments: [80, 1000, 3100, 5000, 8200]) func whatWasReservedIsWrittenInPieces(count: Int) throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options)
        let inode = try store.make("promised").inode
        let size: UInt64 = count == 80 ? 1 << 20 : 6 << 20
        try reserve(store, inode, 0, size)
        try fill(store, "filler")
        var offset: UInt64 = 0
        while offset < size {
            let length = min(UInt64(count), size - offset)
            do {
                try store.write(
                    inode, offset, [UInt8](repeating: UInt8(truncatingIfNeeded: offset), count: Int(length)))
            } catch {
                Issue.record("\(error) at \(offset) of \(size)")
                break
            }
            offset += length
        }
        for offset in stride(from: 0, to: size, by: count) where offset % 97 == 0 {
            let length = min(UInt64(count), size - offset)
            let expected = [UInt8](repeating: UInt8(truncatingIfNeeded: offset), count: Int(length))
            #expect(try store.read(inode, offset, Int(length)) == expected)
        }
        #expect(store.volume.state.withLock { $0.core.index.reservedByteCount } == 0)
        try check(store)
    }

    /// A block here, a block there: nothing to be joined with.
    @Test func whatWasReservedIsWrittenInSinglePieces() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options)
        let inode = try store.make("promised").inode
        let blockCount: UInt64 = 1024
        try reserve(store, inode, 0, blockCount * 4096)
        try fill(store, "filler")
        for part in [0, 2000, 700, 3900] as [UInt64] {
            for block in 0..<blockCount {
                let place = block * 389 % blockCount * 4096 + part
                try store.write(inode, place, [UInt8](repeating: UInt8(truncatingIfNeeded: part), count: 80))
            }
        }
        #expect(try store.read(inode, 389 * 4096 + 700, 80) == [UInt8](repeating: 188, count: 80))
        try check(store)
    }

    /// What a removal was still freeing was not waited for.
    @Test func aReservationWaitsForWhatComesFree() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options)
        let pieces = try store.make("pieces").inode
        for piece in 0..<3000 as Range<UInt64> {
            try store.write(pieces, piece * 200, [UInt8](repeating: 1, count: 150))
        }
        let inode = try store.make("file").inode
        try fill(store, "filler")
        #expect(throws: Errno.noSpace) { try reserve(store, inode, 0, 512 << 10) }
        try store.unlink("pieces")
        store.volume.state.withLock { $0.core.forget(pieces, 1) }
        #expect(store.volume.state.withLock { $0.core.isRoomComing })
        try reserve(store, inode, 0, 512 << 10)
        try check(store)
    }

    /// Extents that lie wholly or partly in a part of a file.
    private func extentCount(_ store: TestStore, _ inode: InodeNumber) throws -> Int {
        try store.volume.perform { (core) throws(Stop) in
            try core.find { () throws(PageMiss) in
                try core.index.extentCount(inode, 0, UInt64(Int64.max), limit: .max)
            }
        }
    }

    /// A write over very many pieces on a full store looked at all of them under one hold of the lock.
    @Test func whatIsReservedIsLookedAtInParts() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options)
        let inode = try store.make("promised").inode
        try reserve(store, inode, 0, 1 << 20)
        for number in 0..<1000 as Range<UInt64> { try store.write(inode, number * 2, [1]) }
        try fill(store, "filler")
        store.volume.state.withLock { $0.core.bounds.extentCount = 100 }
        let new = [UInt8](repeating: 9, count: 60_000)
        let memory = AlignedBuffer(byteCount: new.count)
        memory.bytes.copyBytes(from: new)
        var turnCount = 0
        var isDone = false
        while !isDone, turnCount < 1000 {
            do throws(Stop) {
                try store.volume.run { (core) throws(Stop) in
                    _ = try core.write(inode, at: 0, UnsafeRawBufferPointer(memory.bytes), [], .nobody)
                }
                isDone = true
            } catch {
                guard case .blocked(.turn) = error else {
                    store.volume.housekeeper.housekeep()
                    continue
                }
                turnCount += 1
                let known = store.volume.state.withLock { $0.core.knownReservations.count }
                #expect(known <= 1)
                // Somebody writes there meanwhile: what was known of it is not gone by.
                if turnCount == 3 {
                    #expect(known == 1)
                    try store.write(inode, 50, [7])
                    #expect(store.volume.state.withLock { $0.core.knownReservations.isEmpty })
                }
            }
        }
        #expect(isDone && turnCount >= 2000 / 100)
        #expect(store.volume.state.withLock { $0.core.knownReservations.isEmpty })
        #expect(try store.read(inode, 0, 60_000) == new)
        try check(store)
    }

    /// What is being removed hides very many extents that cannot be joined.
    @Test func whatIsHiddenIsPassedInParts() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options)
        let inode = try store.make("file").inode
        for number in 0..<5000 as Range<UInt64> { try store.write(inode, number * 2, [1]) }
        try store.volume.perform { (core) throws(Stop) in
            _ = try core.setAttributes(inode, AttributeChanges(byteCount: 0), TestStore.context)
        }
        for number in 0..<64 as Range<UInt64> {
            try store.write(inode, 40_960 + number * 64, [UInt8](repeating: 1, count: 64))
        }
        #expect(try extentCount(store, inode) == 5064)
        store.volume.state.withLock { $0.core.bounds.extentCount = 100 }
        var cursor: UInt64? = 0
        var parts = 0
        var found: Core.Joinable?
        while let from = cursor {
            let part = try store.volume.perform { (core) throws(Stop) in try core.nextJoinable(inode, from: from) }
            found = found ?? part.found
            cursor = part.next
            parts += 1
        }
        #expect(parts >= 50)
        #expect(found?.from == 40_960 && found?.to == 45_056 && found?.pieces.count == 64)
        try check(store)
    }
}
