// A scrub on its own thread: begun, asked for, ended; one at a time; kept to its rate; ended with its command and with the mount. And one
// beside random work, on a device that is used by several threads.

import Testing

@testable import Treering

@Suite struct ScrubControlTests {
    private func store(_ count: Int = 20) throws -> TestStore {
        let store = try TestStore(options: ScrubTests.options())
        for number in 0..<count {
            try store.write(store.make("file \(number)").inode, 0, [UInt8](repeating: UInt8(number), count: 100_000))
        }
        try store.volume.syncAndWait()
        return store
    }

    private func wait(_ store: TestStore, _ token: UInt64) throws -> ScrubStatus {
        while true {
            let status = try #require(store.volume.scrubStatus(token))
            if status.state != .running { return status }
            rest(nanoseconds: 1_000_000)
        }
    }

    private func figure(_ name: String, _ store: TestStore) throws -> UInt64 {
        try #require(store.volume.figures().first { $0.name == name }).value
    }

    @Test func itGoesThroughAndStatsTell() throws {
        let store = try store()
        #expect(try figure("scrub_last_result", store) == 0)
        let token = try store.volume.beginScrub(rate: 0)
        let status = try wait(store, token)
        #expect(status.state == .done && status.findingCount == 0 && status.doneByteCount > 2_000_000)
        #expect(try figure("scrub_last_result", store) == 1)
        #expect(try figure("scrub_last_bytes", store) == status.doneByteCount)
        #expect(try figure("scrub_last_end_seconds", store) > 1_700_000_000)
        // Another token is another scrub's.
        #expect(store.volume.scrubStatus(token ^ 2) == nil)
        try store.volume.unmount()
    }

    @Test func onlyOneRunsAndItEndsWhenAsked() throws {
        let store = try store()
        let token = try store.volume.beginScrub(rate: 1000)
        #expect(throws: Errno.busy) { try store.volume.beginScrub(rate: 0) }
        #expect(try figure("scrub_running", store) == 1)
        // Whoever does not know it cannot end it.
        store.volume.cancelScrub(token ^ 2)
        #expect(store.volume.scrubStatus(token)?.state == .running)
        store.volume.cancelScrub(token)
        #expect(try wait(store, token).state == .cancelled)
        #expect(try figure("scrub_last_result", store) == 3)
        let next = try store.volume.beginScrub(rate: 0)
        #expect(next != token && store.volume.scrubStatus(token) == nil)
        #expect(try wait(store, next).state == .done)
        #expect(try figure("scrub_last_result", store) == 1)
        try store.volume.unmount()
    }

    /// Nobody asks how far it is any more.
    @Test func itEndsWithItsCommand() throws {
        let store = try store()
        let token = try store.volume.beginScrub(rate: 1000)
        store.volume.state.withLock { $0.scrub!.heard -= ScrubStatus.patienceNanoseconds }
        while store.volume.state.withLock({ $0.scrub!.state == .running }) { rest(nanoseconds: 1_000_000) }
        #expect(store.volume.scrubStatus(token)?.state == .abandoned)
        try store.volume.unmount()
    }

    @Test func itEndsWithTheMount() throws {
        let store = try store()
        let token = try store.volume.beginScrub(rate: 1000)
        try store.volume.unmount()
        #expect(store.volume.scrubStatus(token)?.state == .cancelled)
        #expect(throws: Errno.busy) { try store.volume.beginScrub(rate: 0) }
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    @Test func aMountThatIsShutDownEndsIt() throws {
        let store = try store()
        let token = try store.volume.beginScrub(rate: 100_000)
        store.volume.shutDown(.flush, mayWait: true) { _ in }
        #expect(try wait(store, token).state == .failed)
        #expect(throws: Errno.ioError) { try store.volume.beginScrub(rate: 0) }
        try store.volume.unmount()
    }

    @Test func itKeepsToItsRate() throws {
        let store = try store()
        let begun = monotonicNanoseconds()
        let token = try store.volume.beginScrub(rate: 4 << 20)
        let status = try wait(store, token)
        let seconds = Double(monotonicNanoseconds() - begun) / 1e9
        // The first window comes free.
        #expect(seconds > Double(status.doneByteCount - 600_000) / Double(4 << 20))
        try store.volume.unmount()
    }

    /// Writers, removals, copies, the cleaner and checkpoints on one thread, scrubs without pause on another.
    @Test(arguments: [1, 2, 3] as [UInt64]) func besideOtherWorkNothingIsTakenForDamage(seed: UInt64) throws {
        var options = ScrubTests.options(.eager)
        options.indexCacheByteCount = 256 << 10
        let store = try TestStore(capacity: 16 << 20, options: options)
        var random = SimulatedRandom(seed: seed)
        var token = try store.volume.beginScrub(rate: 0)
        var scrubCount = 0
        for round in 0..<3000 {
            let name = "file \(random.next() % 40)"
            let inode = try (try? store.lookup(name).inode) ?? store.make(name).inode
            switch random.next() % 8 {
            case 0:
                try store.unlink(name)
                store.volume.forget(inode, 1000)
            case 1:
                if let other = try? store.lookup("file \(random.next() % 40)").inode {
                    _ = try? store.volume.perform { (core) throws(Stop) in
                        try core.copyRange(other, at: 0, inode, at: 0, 1 << 20, TestStore.context)
                    }
                }
            default:
                let count = Int([100, 3000, 5000, 60_000][Int(random.next() % 4)])
                let fill = UInt8(truncatingIfNeeded: random.next())
                try? store.write(inode, random.next() % 200_000, [UInt8](repeating: fill, count: count))
            }
            if round % 20 == 0 { store.volume.housekeeper.housekeep(commits: true, checkpoints: round % 60 == 0) }
            if let status = store.volume.scrubStatus(token), status.state != .running {
                #expect(status.findings == [] && status.state == .done)
                scrubCount += 1
                token = try store.volume.beginScrub(rate: 0)
            }
        }
        let last = try wait(store, token)
        #expect(last.findings == [])
        print(
            "seed \(seed): \(scrubCount) scrubs, \(store.volume.housekeeper.cleaner.cleanedSegmentCount) segments cleaned"
        )
        #expect(scrubCount > 0 && store.volume.housekeeper.cleaner.cleanedSegmentCount > 10)
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }
}
