// An operation that parks again while the page it waits for completes on another thread.

import Glibc
import Synchronization
import Testing

@testable import Treering

/// Where two threads have come, so that each can wait for the other.
private final class Stage: Sendable {
    private let reached = Atomic<Int>(0)

    func reach(_ stage: Int) { reached.store(stage, ordering: .sequentiallyConsistent) }

    func wait(for stage: Int) {
        for _ in 0..<100_000 where reached.load(ordering: .sequentiallyConsistent) < stage { usleep(100) }
    }
}

private final class Seen: Sendable {
    let pageCounts = Mutex<[Int]>([])
}

@Suite struct ParkingThreadsTests {
    /// A mounted store of which only what is above the leaves of the index is in memory.
    private static func cold() throws -> (Volume<SimulatedDevice>, SimulatedDevice, [InodeNumber]) {
        let settings = StoreSettings(cacheByteCount: 1 << 20)
        let store = try SimulatedStore(settings)
        let context = RequestContext.by(Caller(uid: 1, gid: 1, umask: 0, identity: .privileged))
        var inodes: [InodeNumber] = []
        for number in 0..<1000 {
            let made = try store.volume.perform { (core) throws(Stop) in
                try Operation.withName("file \(number)") { (name) throws(Stop) in
                    try core.make(.root, name, NewInode(mode: 0o100644), context)
                }
            }
            inodes.append(made.inode)
        }
        try store.volume.unmount()
        let cold = try SimulatedStore(
            settings, on: store.device.snapshotAfterKill(), clock: SimulationClock())
        _ = try cold.volume.perform { (core) throws(Stop) in try core.inode(inodes[500]) }
        return (cold.volume, cold.device, inodes)
    }

    /// The thread that had run it before let go of the pages that the operation still needed.
    @Test func anOperationThatParksAgainKeepsItsPages() throws {
        let (volume, device, inodes) = try Self.cold()
        let (first, second) = (inodes[200], inodes[800])
        let (stage, seen) = (Stage(), Seen())
        @Sendable func miss(_ inodes: [InodeNumber]) -> Blocker? {
            do throws(Stop) {
                try volume.run { (core) throws(Stop) in for inode in inodes { _ = try core.inode(inode) } }
                return nil
            } catch { if case .blocked(let blocker) = error { return blocker } else { return nil } }
        }
        volume.park(try #require(miss([first, second])), nil, mayWait: false) { attempt, _ in
            guard let again = miss([first, second]) else { return }
            volume.park(again, attempt, mayWait: false) { attempt, _ in
                seen.pageCounts.withLock { $0.append(attempt.pages.count) }
            }
            stage.reach(1)
            stage.wait(for: 2)
        }
        // The other thread comes to this one first, and stays there until the first thread has left.
        volume.park(try #require(miss([second])), nil, mayWait: false) { _, _ in
            stage.reach(2)
            stage.wait(for: 3)
        }
        #expect(device.inFlightCount == 2)
        let other = try DeviceThread(name: "completion") {
            stage.wait(for: 1)
            device.step()
        }
        device.step()
        stage.reach(3)
        other.join()
        #expect(seen.pageCounts.withLock { $0 } == [2])
        #expect(!volume.state.withLock { $0.hasWaiters })
        try volume.unmount()
    }

    @Test func aRetryIsToldWhetherItRunsWithinTheCallThatParkedIt() throws {
        let (volume, device, inodes) = try Self.cold()
        let told = Mutex<[Bool]>([])
        for (inode, mayWait) in [(inodes[200], true), (inodes[800], false)] {
            var missed: Blocker?
            do throws(Stop) { _ = try volume.run { (core) throws(Stop) in try core.inode(inode) } } catch {
                if case .blocked(let blocker) = error { missed = blocker }
            }
            volume.park(try #require(missed), nil, mayWait: mayWait) { _, isWithin in
                told.withLock { $0.append(isWithin) }
            }
            #expect(told.withLock { $0 } == [true])
        }
        device.step()
        #expect(told.withLock { $0 } == [true, false])
        try volume.unmount()
    }

    /// What is written again after a failure waits for every fetch to be over; one that was given up told nobody.
    @Test func whoWaitsForAFetchIsToldThatItWasGivenUp() throws {
        let (volume, _, inodes) = try Self.cold()
        var missed: PageMiss?
        do throws(Stop) { _ = try volume.run { (core) throws(Stop) in try core.inode(inodes[200]) } } catch {
            if case .blocked(.page(let miss)) = error { missed = miss }
        }
        let miss = try #require(missed)
        #expect(volume.state.withLock { $0.hasFetches })
        let waiting = try DeviceThread(name: "waiting") { volume.wait { !$0.hasFetches } }
        while volume.monitor.withLock({ volume.waitingThreadCount == 0 }) { usleep(100) }
        volume.change { $0.abandonFetch(miss.address, $1) }
        waiting.join()
        try volume.unmount()
    }
}
