// A store of 100 TiB, and one of 20,000 segments in use: nothing that happens under the lock grows with their number.

import Testing

@testable import Treering

@Suite struct HugeStoreTests {
    @Test func aHundredTebibytes() throws {
        let capacity: UInt64 = 100 << 40
        let store = try TestStore(capacity: capacity)
        let count = store.volume.state.withLock { $0.core.table.countLimit }
        #expect(count == Int(capacity >> 26))
        for number in 0..<20 {
            let file = try store.make("file \(number)")
            try store.write(file.inode, UInt64(number) << 36, [UInt8](repeating: UInt8(number), count: 100_000))
        }
        let status = try store.volume.status()
        #expect(status.totalByteCount > capacity / 100 * 95)
        // Thousands of what each of these would take by looking at every segment: about 5 ms.
        let start = monotonicNanoseconds()
        for _ in 0..<2000 {
            _ = try store.volume.status()
            _ = store.volume.state.withLock { $0.core.log.space.pace(longest: WritePace.longestPace) }
            _ = store.volume.state.withLock { $0.core.table.absentNumber() }
            _ = store.volume.state.withLock { $0.core.table.hasDeadSegment }
        }
        for number in 1..<11 {
            try store.write(store.lookup("file \(number)").inode, 0, [1, 2, 3])
            store.volume.housekeeper.housekeep(commits: true, checkpoints: true)
        }
        #expect(monotonicNanoseconds() - start < 5_000_000_000)
        try store.remount()
        for number in 0..<20 {
            let file = try store.lookup("file \(number)").inode
            #expect(try store.read(file, UInt64(number) << 36, 10) == [UInt8](repeating: UInt8(number), count: 10))
        }
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }
}
