// Honest figures of space and writing, and dead data that is punched out of live segments.

import Synchronization
import Testing

@testable import Treering

@Suite struct SpaceTests {
    private static func options(_ policy: CleaningPolicy = .auto) -> VolumeOptions {
        var options = VolumeOptions()
        options.cleaning = policy
        options.stagingByteCount = 1 << 20
        options.indexCacheByteCount = 2 << 20
        options.punchByteCountMinimum = 32 << 10
        return options
    }

    private func figure(_ name: String, _ store: TestStore) throws -> UInt64 {
        try #require(store.volume.figures().first { $0.name == name }).value
    }

    // MARK: What was written

    @Test func whatWasWrittenIsCountedSinceFormatting() throws {
        let store = try TestStore(options: Self.options(.off))
        let file = try store.make("file").inode
        try store.write(file, 0, [UInt8](repeating: 1, count: 1_000_000))
        let first = try figure("appended_since_format_bytes", store)
        #expect(first > 1_000_000 && first < 1_010_000)
        try store.remount(options: Self.options(.off))
        #expect(try figure("appended_since_format_bytes", store) == first)
        #expect(try figure("appended_bytes", store) == 0)
        // Killed without a checkpoint: the log tells.
        try store.write(file, 500_000, [UInt8](repeating: 2, count: 1_000_000))
        try store.write(file, 0, [3, 4, 5])
        try store.volume.syncAndWait()
        let second = try figure("appended_since_format_bytes", store)
        #expect(second > first + 1_000_000)
        store.volume = try Volume.mount(store.device.snapshotAfterKill(), Self.options(.off), now: TestStore.now) { _ in
        }
        #expect(try figure("appended_since_format_bytes", store) == second)
        #expect(try figure("moved_since_format_bytes", store) == 0)
    }

    @Test func whatTheCleanerWroteIsCountedSinceFormatting() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options(.off))
        try halfDead(store)
        let asked = try figure("appended_since_format_bytes", store)
        try store.remount(options: Self.options(.eager))
        for _ in 0..<4 { store.volume.housekeeper.housekeep(commits: true, checkpoints: true) }
        let moved = try figure("moved_bytes", store)
        #expect(moved > 100_000)
        #expect(try figure("moved_since_format_bytes", store) == moved)
        #expect(try figure("appended_since_format_bytes", store) == asked)
        let percent = try figure("write_amplification_since_format_percent", store)
        #expect(percent == (asked + moved) * 100 / asked)
        try store.remount(options: Self.options(.off))
        #expect(try figure("moved_since_format_bytes", store) == moved)
        #expect(try figure("write_amplification_percent", store) == 100)
    }

    // MARK: What is shared

    private func copy(_ source: InodeNumber, to name: String, _ store: TestStore, _ count: UInt64) throws -> InodeNumber
    {
        let target = try store.make(name).inode
        var done: UInt64 = 0
        while done < count {
            let part = try store.volume.perform { (core) throws(Stop) in
                try core.copyRange(source, at: done, target, at: done, count - done, TestStore.context)
            }
            done += part.byteCount
        }
        return target
    }

    @Test func sharedBytesAreCounted() throws {
        let store = try TestStore(options: Self.options(.off))
        let file = try store.make("file").inode
        try store.write(file, 0, [UInt8](repeating: 1, count: 800_000))
        #expect(try figure("shared_bytes", store) == 0)
        let first = try copy(file, to: "first", store, 800_000)
        #expect(try figure("shared_bytes", store) == 800_000)
        _ = try copy(file, to: "second", store, 800_000)
        #expect(try figure("shared_bytes", store) == 1_600_000)
        try store.write(first, 4096, [UInt8](repeating: 2, count: 8192))
        #expect(try figure("shared_bytes", store) == 1_600_000 - 8192)
        try store.remount(options: Self.options(.off))
        #expect(try figure("shared_bytes", store) == 1_600_000 - 8192)
        for name in ["file", "first"] { try store.unlink(name) }
        try store.remount(options: Self.options(.off))
        #expect(try figure("shared_bytes", store) == 0)
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    /// A store that was made before shared bytes were counted mounts, does not say how many there are, and learns it with a new index.
    @Test func aStoreFromBeforeSharedBytesWereCounted() throws {
        let store = try TestStore(options: Self.options(.off))
        let file = try store.make("file").inode
        try store.write(file, 0, [UInt8](repeating: 1, count: 800_000))
        _ = try copy(file, to: "copy", store, 800_000)
        store.volume.state.withLock { $0.core.index.sharedByteCount = nil }
        try store.remount(options: Self.options(.off))
        #expect(!store.volume.figures().contains { $0.name == "shared_bytes" })
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
        _ = try IndexRebuild.rebuild(store.device) { _ in }
        store.volume = try Volume.mount(store.device, Self.options(.off), now: TestStore.now) { _ in }
        #expect(try figure("shared_bytes", store) == 800_000)
    }

    // MARK: Punching

    /// Two files in turn; the first is removed. Gives the one that stays.
    @discardableResult
    private func halfDead(_ store: TestStore) throws -> InodeNumber {
        let dead = try store.make("dead").inode
        let kept = try store.make("kept").inode
        for piece in 0..<40 as Range<UInt64> {
            try store.write(dead, piece * 65536, [UInt8](repeating: 200, count: 65536))
            try store.write(kept, piece * 16384, [UInt8](repeating: UInt8(piece), count: 16384))
        }
        try store.unlink("dead")
        store.volume.forget(dead, 1)
        store.volume.housekeeper.housekeep()
        try store.volume.syncAndWait()
        return kept
    }

    private func readBack(_ file: InodeNumber, _ store: TestStore) throws {
        for piece in 0..<40 as Range<UInt64> {
            #expect(try store.read(file, piece * 16384, 16384) == [UInt8](repeating: UInt8(piece), count: 16384))
        }
    }

    private func hostByteCount(_ device: SimulatedDevice) -> UInt64 {
        let space = device.hostSpace()
        return space.totalByteCount - space.availableByteCount
    }

    @Test func deadDataIsPunchedWhenIdle() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options())
        let kept = try halfDead(store)
        let before = hostByteCount(store.device)
        for _ in 0..<8 { store.volume.housekeeper.housekeep() }
        let punched = try figure("punched_bytes", store)
        #expect(punched > 1_500_000)
        #expect(hostByteCount(store.device) + punched <= before + (1 << 20))
        #expect(try figure("moved_bytes", store) == 0)
        try readBack(kept, store)
        // Nothing more is found where nothing more has died.
        for _ in 0..<4 { store.volume.housekeeper.housekeep() }
        #expect(try figure("punched_bytes", store) == punched)
        try store.remount(options: Self.options())
        try readBack(kept, store)
        for _ in 0..<4 { store.volume.housekeeper.housekeep() }
        #expect(try figure("punched_bytes", store) == 0)
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
        // The log is whole without what was punched.
        _ = try IndexRebuild.rebuild(store.device) { _ in }
        store.volume = try Volume.mount(store.device, Self.options(), now: TestStore.now) { _ in }
        try readBack(kept, store)
        try store.volume.unmount()
        let dump = try segmentDump(store)
        #expect(dump.contains("of its payload blocks are zeros: punched"))
        #expect(!dump.contains("DAMAGED"))
    }

    private func segmentDump(_ store: TestStore) throws -> String {
        let lines = Lines()
        for number in 0..<3 as Range<UInt32> { try Dump.segment(store.device, number) { lines.all.append($0) } }
        return lines.all.joined(separator: "\n")
    }

    private final class Lines {
        var all: [String] = []
    }

    /// Either superblock slot must be mountable: what died after the older of them was frozen stays.
    @Test func nothingIsPunchedBeforeTwoCheckpoints() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options(.off))
        try halfDead(store)
        while store.volume.housekeeper.findDeadBlocks() {}
        #expect(store.volume.housekeeper.puncher.waiting.count >= 3)
        store.volume.housekeeper.punchWaiting()
        #expect(try figure("punched_bytes", store) == 0)
        try store.volume.housekeeper.checkpoint()
        store.volume.housekeeper.punchWaiting()
        #expect(try figure("punched_bytes", store) == 0)
        try store.volume.housekeeper.checkpoint()
        store.volume.housekeeper.punchWaiting()
        #expect(try figure("punched_bytes", store) > 0)
        #expect(store.volume.housekeeper.puncher.waiting.isEmpty)
    }

    @Test func nothingIsPunchedWhileSomebodyReads() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options(.off))
        try halfDead(store)
        while store.volume.housekeeper.findDeadBlocks() {}
        for _ in 0..<2 { try store.volume.housekeeper.checkpoint() }
        let segments = store.volume.housekeeper.puncher.waiting.map(\.segmentID.number)
        store.volume.state.withLock { state in for number in segments { state.core.table[number].readerCount += 1 } }
        store.volume.housekeeper.punchWaiting()
        #expect(try figure("punched_bytes", store) == 0)
        store.volume.state.withLock { state in for number in segments { state.core.table[number].readerCount -= 1 } }
        store.volume.housekeeper.punchWaiting()
        #expect(try figure("punched_bytes", store) > 0)
    }

    /// A punched segment that has died altogether is not given to the head again as it is.
    @Test func aPunchedSegmentIsMadeAnew() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options())
        let kept = try halfDead(store)
        for _ in 0..<8 { store.volume.housekeeper.housekeep() }
        #expect(try figure("punched_bytes", store) > 0)
        try store.unlink("kept")
        store.volume.forget(kept, 1)
        for _ in 0..<4 { store.volume.housekeeper.housekeep(commits: true, checkpoints: true) }
        let device = store.device
        let (isFit, inUseCount) = store.volume.state.withLock { state in
            let table = state.core.table
            return (table.pool.allSatisfy { device.hole(in: table[$0].file!, from: 0) == nil }, table.inUseCount)
        }
        #expect(isFit)
        #expect(inUseCount <= 2)
        try halfDead(store)
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    @Test func aHostThatCannotPunchIsAskedOnce() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options())
        let kept = try halfDead(store)
        store.device.inject(SimulatedFault(.fail(.notSupported), kinds: [.punch]))
        for _ in 0..<8 { store.volume.housekeeper.housekeep() }
        #expect(store.device.trace.filter { $0.kind == .punch }.count == 1)
        #expect(try figure("punched_bytes", store) == 0)
        try readBack(kept, store)
    }

    /// FITRIM punches where segments cannot be emptied.
    @Test func trimmingPunches() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options(.off))
        let kept = try halfDead(store)
        store.device.inject(SimulatedFault(.fail(.ioError), kinds: [.read]))
        let answer = Mutex<UInt64?>(nil)
        store.volume.housekeeper.trim { count in answer.withLock { $0 = count } }
        for _ in 0..<60 where answer.withLock({ $0 == nil }) { store.volume.housekeeper.housekeep() }
        let punched = try figure("punched_bytes", store)
        #expect(punched > 1_500_000)
        #expect(try #require(answer.withLock { $0 }) >= punched)
        #expect(try figure("moved_bytes", store) == 0)
        try readBack(kept, store)
    }

    /// Eight free segments were kept at hand for ever, 512 MiB of a large store: at rest that is one thing, on request another.
    @Test func trimmingGivesFreeSegmentsBack() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options())
        let inode = try store.make("gone").inode
        for round in 0..<12 as Range<UInt64> {
            try store.write(inode, round << 20, [UInt8](repeating: 1, count: 1 << 20))
        }
        try store.unlink("gone")
        store.volume.forget(inode, 1)
        for _ in 0..<8 { store.volume.housekeeper.housekeep() }
        #expect(store.volume.state.withLock { $0.core.table.pool.count } == store.volume.options.poolLimit)
        let answer = Mutex<UInt64?>(nil)
        store.volume.housekeeper.trim { count in answer.withLock { $0 = count } }
        for _ in 0..<60 where answer.withLock({ $0 == nil }) { store.volume.housekeeper.housekeep() }
        #expect(try #require(answer.withLock { $0 }) >= 5 << 20)
        let (goal, pool) = store.volume.state.withLock {
            ($0.core.log.space.preparedSegmentGoal, $0.core.table.pool.count)
        }
        #expect(pool == goal)
        var fileCount = 0
        for case .segment in store.device.list() { fileCount += 1 }
        #expect(fileCount == store.volume.state.withLock { $0.core.table.fileCount })
        // They come back when they are needed.
        let again = try store.make("again").inode
        for round in 0..<12 as Range<UInt64> {
            try store.write(again, round << 20, [UInt8](repeating: 2, count: 1 << 20))
        }
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    /// FITRIM with a range: what lies elsewhere in the store stays, and what is nowhere is refused.
    @Test func trimmingHeedsItsRange() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options())
        let volume = store.volume
        let inode = try store.make("gone").inode
        for round in 0..<12 as Range<UInt64> {
            try store.write(inode, round << 20, [UInt8](repeating: 1, count: 1 << 20))
        }
        try store.unlink("gone")
        volume.forget(inode, 1)
        for _ in 0..<8 { volume.housekeeper.housekeep() }
        let pool = volume.state.withLock { Set($0.core.table.pool) }
        func trim(_ start: UInt64, _ byteCount: UInt64) throws -> UInt64 {
            let segments = try #require(volume.housekeeper.segmentsToTrim(from: start, byteCount: byteCount, least: 0))
            let answer = Mutex<UInt64?>(nil)
            volume.housekeeper.trim(segments) { count in answer.withLock { $0 = count } }
            for _ in 0..<60 where answer.withLock({ $0 == nil }) { volume.housekeeper.housekeep() }
            return try #require(answer.withLock { $0 })
        }
        // Nothing lies at the end of the store, and half a segment is none.
        let free = try #require(pool.min(by: { $0.rawValue < $1.rawValue }))
        let place = UInt64(free.rawValue) << 20
        #expect(try trim(31 << 20, .max) == 0)
        #expect(try trim(place, 1 << 19) == 0)
        #expect(volume.state.withLock { Set($0.core.table.pool) } == pool)
        #expect(try trim(place, 1 << 20) == 1 << 20)
        #expect(volume.state.withLock { Set($0.core.table.pool) } == pool.subtracting([free]))
        #expect(volume.housekeeper.segmentsToTrim(from: 32 << 20, byteCount: .max, least: 0) == nil)
        #expect(volume.housekeeper.segmentsToTrim(from: 0, byteCount: 4095, least: 0) == nil)
        #expect(volume.housekeeper.segmentsToTrim(from: 0, byteCount: .max, least: 2 << 20) == nil)
        #expect(volume.housekeeper.segmentsToTrim(from: 0, byteCount: .max, least: 0) == .all)
    }

    /// Writes went on in a head that the cleaner had opened out of the reserve, and ate up what it gained: a store at 90 % ended in ENOSPC
    /// with hundreds of megabytes to be gained.
    @Test func writesLeaveAHeadAloneThatIsOfTheReserve() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options(.off))
        let inode = try store.make("file").inode
        try store.write(inode, 0, [UInt8](repeating: 1, count: 100_000))
        try store.volume.syncAndWait()
        store.volume.state.withLock { state in
            let log = state.core.log
            #expect(log.head != nil && !log.space.isShortOfSegments)
            // As if all free segments but one had gone to the cleaner.
            log.space.withheldSegmentCount = log.table.freeCount
            #expect(log.space.isShortOfSegments)
            #expect(log.makeRoom(recordByteCount: 100, payloadByteCount: 0, .write) != .ready)
            #expect(log.makeRoom(recordByteCount: 100, payloadByteCount: 0, .removal) == .ready)
            log.space.withheldSegmentCount = 0
            #expect(log.makeRoom(recordByteCount: 100, payloadByteCount: 0, .write) == .ready)
        }
    }
}
