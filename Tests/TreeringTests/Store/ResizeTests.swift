// Another capacity for a store in use: larger, smaller, refused, and with the power cut at every moment of it.

import Testing

@testable import Treering

@Suite struct ResizeTests {
    private static func options() -> VolumeOptions {
        var options = VolumeOptions()
        options.cleaning = .auto
        options.stagingByteCount = 1 << 20
        options.indexCacheByteCount = 2 << 20
        options.poolLimit = 3
        return options
    }

    private func capacity(_ store: TestStore) -> UInt64 {
        store.volume.state.withLock { state in
            #expect(state.core.table.countLimit == state.core.table.segments.count)
            #expect(state.superblock.segmentCountLimit == state.core.table.countLimit)
            return state.superblock.capacityByteCount
        }
    }

    private func data(_ number: Int) -> [UInt8] {
        (0..<100_000).map { UInt8(truncatingIfNeeded: $0 / 7 + number * 31) }
    }

    /// Files all over the store, of which every eighth stays.
    private func scatter(_ store: TestStore, count: Int) throws {
        for number in 0..<count {
            let file = try open("file \(number)", store)
            try store.write(file, 0, data(number))
            store.volume.forget(file, 1)
        }
        try store.volume.syncAndWait()
        for number in 0..<count where number % 8 != 0 { try store.unlink("file \(number)") }
    }

    private func readBack(_ volume: Volume<SimulatedDevice>, _ store: TestStore, count: Int) throws {
        for number in stride(from: 0, to: count, by: 8) {
            let inode = try Array("file \(number)".utf8).withUnsafeBytes { name in
                try volume.perform { (core) throws(Stop) in try core.lookup(.root, name) }
            }.inode
            let found = try volume.bytes { (core) throws(Stop) in try core.planRead(inode, at: 0, 100_000) }
            #expect(found == data(number), "file \(number)")
        }
    }

    @Test func aLargerStoreHoldsMore() throws {
        let store = try TestStore(capacity: 16 << 20, options: Self.options())
        let before = try store.volume.status().availableByteCount
        var count = 0
        while (try? fill(store, count)) != nil { count += 1 }
        #expect(store.volume.resizeAndWait(to: 48 << 20) == .done(capacity: 48 << 20))
        #expect(capacity(store) == 48 << 20)
        #expect(try store.volume.status().totalByteCount > before + 24 << 20)
        for number in count..<count + 250 { try fill(store, number) }
        try store.remount(options: Self.options())
        #expect(capacity(store) == 48 << 20)
        for number in 0..<count + 250 {
            #expect(try store.read(store.lookup("full \(number)").inode, 0, 100_000) == data(number))
        }
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    private func fill(_ store: TestStore, _ number: Int) throws {
        try store.write(open("full \(number)", store), 0, data(number))
    }

    /// Makes a file where there is none: the store may have been full after that.
    private func open(_ name: String, _ store: TestStore) throws -> InodeNumber {
        if let found = try? store.lookup(name) { return found.inode }
        return try store.make(name).inode
    }

    @Test func aSmallerStoreKeepsEverything() throws {
        let store = try TestStore(capacity: 64 << 20, options: Self.options())
        try scatter(store, count: 400)
        #expect(store.volume.resizeAndWait(to: 24 << 20) == .done(capacity: 24 << 20))
        #expect(capacity(store) == 24 << 20)
        #expect(store.volume.housekeeper.cleaner.cleanedSegmentCount > 0)
        try readBack(store.volume, store, count: 400)
        for case .segment(let number) in store.device.list() { #expect(number.rawValue < 24) }
        try store.remount(options: Self.options())
        try readBack(store.volume, store, count: 400)
        // It is full where it should be, and can be emptied.
        var count = 0
        while (try? fill(store, count)) != nil { count += 1 }
        #expect(count > 20 && count < 190)
        for name in try store.names() where name.hasPrefix("full") { try store.unlink(name) }
        try readBack(store.volume, store, count: 400)
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
        _ = try IndexRebuild.rebuild(store.device) { _ in }
        store.volume = try Volume.mount(store.device, Self.options(), now: TestStore.now) { _ in }
        #expect(capacity(store) == 24 << 20)
        try readBack(store.volume, store, count: 400)
        #expect(store.volume.resizeAndWait(to: 64 << 20) == .done(capacity: 64 << 20))
        try scatter(store, count: 400)
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    @Test func whatDoesNotFitIsRefused() throws {
        let store = try TestStore(capacity: 64 << 20, options: Self.options())
        for number in 0..<300 { try fill(store, number) }
        guard case .tooSmall(let least) = store.volume.resizeAndWait(to: 32 << 20) else {
            Issue.record("it was not refused")
            return
        }
        #expect(least > 36 << 20 && least < 48 << 20)
        #expect(capacity(store) == 64 << 20)
        guard case .tooSmall = store.volume.resizeAndWait(to: least - 1) else {
            Issue.record("less than the least was not refused")
            return
        }
        #expect(store.volume.resizeAndWait(to: least) == .done(capacity: least))
        #expect(store.volume.resizeAndWait(to: 1 << 60) == .failed(.invalid))
        #expect(store.volume.resizeAndWait(to: 0) != .done(capacity: 0))
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    /// The power fails at any moment: the store has the old capacity or the new one, and everything in it.
    @Test(arguments: [24, 96]) func aPowerCutLeavesOneOfBoth(capacity: UInt64) throws {
        let store = try TestStore(capacity: 64 << 20, options: Self.options())
        try scatter(store, count: 200)
        try store.volume.unmount()
        let device = store.device.snapshotAfterKill()
        store.volume = try Volume.mount(device, Self.options(), now: TestStore.now) { _ in }
        device.keepHistory()
        #expect(store.volume.resizeAndWait(to: capacity << 20) == .done(capacity: capacity << 20))
        let points = Array(device.crashPoints)
        var capacities: Set<UInt64> = []
        for number in 0..<40 {
            let event = points[number * (points.count - 1) / 39]
            for state in device.crashStates(at: event, exhaustiveUpTo: 1, samples: 2, seed: UInt64(number)).prefix(2) {
                let after = state.device()
                let volume = try Volume.mount(after, Self.options(), now: TestStore.now) { _ in }
                capacities.insert(volume.state.withLock { $0.superblock.capacityByteCount >> 20 })
                try readBack(volume, store, count: 200)
                try volume.unmount()
                #expect(try Checker.check(after, readsData: false).problems == [])
            }
        }
        #expect(capacities == [64, capacity])
    }

    /// A failure of the disk leaves the store as it was.
    @Test func aFailureTakesItBack() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options())
        try scatter(store, count: 50)
        store.device.inject(SimulatedFault(.fail(.ioError), kinds: [.writeDurable], file: .superblock))
        #expect(store.volume.resizeAndWait(to: 64 << 20) == .failed(.ioError))
        #expect(capacity(store) == 32 << 20)
        #expect(store.volume.resizeAndWait(to: 64 << 20) == .done(capacity: 64 << 20))
        try readBack(store.volume, store, count: 50)
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    private final class Answer: @unchecked Sendable { var answer: ResizeAnswer? }

    /// Makes a store smaller, with a write before each round of that. `atTheEnd` runs before the one that makes it durable.
    private func shrink(_ store: TestStore, _ atTheEnd: () throws -> Void) throws -> ResizeAnswer {
        let answer = Answer()
        let late = try store.make("late").inode
        store.volume.housekeeper.resize(to: 24 << 20) { answer.answer = $0 }
        var isOver = false
        var round: UInt8 = 0
        while true {
            if let answer = answer.answer {
                #expect(isOver)
                #expect(try store.read(late, 0, 3000) == [UInt8](repeating: round, count: 3000))
                return answer
            }
            round &+= 1
            try store.write(late, 0, [UInt8](repeating: round, count: 3000))
            let isVacated = store.volume.state.withLock { state in
                let table = state.core.table
                let head = Int(state.core.log.position.segment.rawValue)
                return state.resize!.isLimited && table.countLimit == 24 && head < 24
                    && table.beyondLimit(.inUse).isEmpty
            }
            if isVacated, !isOver {
                isOver = true
                try atTheEnd()
            }
            _ = store.volume.housekeeper.continueResize()
        }
    }

    /// The log was recovered with the table that it was to have, and the mount turned read-only.
    @Test func theLogFailsWhileTheSmallerCapacityIsMadeDurable() throws {
        let store = try TestStore(capacity: 64 << 20, options: Self.options())
        try scatter(store, count: 200)
        let answer = try shrink(store) {
            let head = store.volume.state.withLock { $0.core.log.position.segment }
            store.device.inject(
                SimulatedFault(.fail(.ioError), kinds: [.write, .writeDurable], file: .segment(head)))
        }
        #expect(store.device.faultCount == 0)
        #expect(store.volume.state.withLock { $0.relocationCount } == 1)
        #expect(!store.volume.isReadOnly && answer == .done(capacity: 24 << 20))
        #expect(capacity(store) == 24 << 20)
        try readBack(store.volume, store, count: 200)
        try store.remount(options: Self.options())
        #expect(capacity(store) == 24 << 20)
        try readBack(store.volume, store, count: 200)
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    /// A slot that a failed write may have left with the smaller capacity is written again before a segment beyond it is used.
    @Test func theSmallerCapacityThatFailedIsTakenBack() throws {
        let store = try TestStore(capacity: 64 << 20, options: Self.options())
        try scatter(store, count: 200)
        let answer = try shrink(store) {
            for nth in 1...2 {
                store.device.inject(
                    SimulatedFault(.failTorn(.ioError), kinds: [.writeDurable], file: .superblock, nth: nth))
            }
        }
        #expect(answer == .failed(.ioError) && store.device.faultCount == 0)
        #expect(capacity(store) == 64 << 20)
        for number in 0..<300 { try fill(store, number) }
        try store.volume.syncAndWait()
        let inUse = store.volume.state.withLock { $0.core.table.segments.lastIndex { $0.state == .inUse }! }
        #expect(inUse >= 24)
        for seed in 0..<4 as Range<UInt64> {
            let after = store.device.crash(seed: seed).device()
            let volume = try Volume.mount(after, Self.options(), now: TestStore.now) { _ in }
            #expect(volume.state.withLock { $0.superblock.capacityByteCount } == 64 << 20)
            try readBack(volume, store, count: 200)
            try volume.unmount()
            #expect(try Checker.check(after, readsData: true).problems == [])
        }
    }

    /// The same for the larger one, of which one slot knew.
    @Test func theLargerCapacityThatFailedIsTakenBack() throws {
        let store = try TestStore(capacity: 32 << 20, options: Self.options())
        store.device.inject(SimulatedFault(.fail(.ioError), kinds: [.writeDurable], file: .superblock, nth: 2))
        #expect(store.volume.resizeAndWait(to: 64 << 20) == .failed(.ioError))
        #expect(capacity(store) == 32 << 20)
        let after = store.device.crash(seed: 1).device()
        let volume = try Volume.mount(after, Self.options(), now: TestStore.now) { _ in }
        #expect(volume.state.withLock { $0.superblock.capacityByteCount } == 32 << 20)
    }
}
