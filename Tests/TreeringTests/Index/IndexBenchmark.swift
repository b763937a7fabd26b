// What the index costs per operation, all pages in memory. Runs for a moment in every test run, so that it does not rot;
// TREERING_BENCH=1 with a release build gives the numbers.

import Glibc
import Testing

@testable import Treering

@Suite(.serialized) struct IndexBenchmark {
    private static let isMeasuring = getenv("TREERING_BENCH") != nil

    private func nanoseconds(_ name: String, _ count: Int, _ body: (Int) -> Void) {
        let start = ContinuousClock.now
        for number in 0..<count { body(number) }
        let time = (ContinuousClock.now - start) / count
        if Self.isMeasuring { print("index \(name): \(time.components.attoseconds / 1_000_000_000) ns") }
    }

    private func key(_ number: UInt64) -> IndexKey {
        IndexKey(space: .tree, object: number &* 0x9E37_79B9 & 0xFFFF_FFFF, kind: .inode, subkey: 0)
    }

    private func touched<Result>(_ body: () throws(PageMiss) -> Result) -> Result {
        do throws(PageMiss) { return try body() } catch { fatalError("\(error)") }
    }

    @Test(arguments: isMeasuring ? [100_000, 1_000_000] : [2000]) func costPerOperation(_ count: Int) {
        let index = Index(uuid: IndexHarness.uuid, cacheLimitByteCount: 1 << 30)
        let value = [UInt8](repeating: 3, count: 120)
        var random = IndexRandom(seed: 1)
        value.withUnsafeBytes { value in
            nanoseconds("put, random, new (\(count) entries of \(value.count) bytes)", count) {
                let key = key(UInt64($0))
                touched { () throws(PageMiss) in try index.touch(key) }
                index.put(key, value)
            }
        }
        let found = UnsafeMutablePointer<Int>.allocate(capacity: 1)
        defer { found.deallocate() }
        found.pointee = 0
        nanoseconds("lookup, random, level \(index.rootLevel)", count) { _ in
            let key = key(random.next() % UInt64(count))
            found.pointee += touched { () throws(PageMiss) in try index.withValue(of: key) { $0?.count ?? 0 } }
        }
        #expect(found.pointee == count * 120)
        nanoseconds("lookup, 1000 hot keys", count) {
            let key = key(UInt64($0 % 1000))
            found.pointee += touched { () throws(PageMiss) in try index.withValue(of: key) { $0?.count ?? 0 } }
        }
        nanoseconds("update in place, random", count) { _ in
            let key = key(random.next() % UInt64(count))
            index.update(key) { $0[0] = 1 }
        }
        value.withUnsafeBytes { value in
            nanoseconds("put, same length, random", count) { _ in index.put(key(random.next() % UInt64(count)), value) }
        }
        checkpoint(index)
        value.withUnsafeBytes { value in
            nanoseconds("put after a checkpoint, random (copies pages)", count / 20) { _ in
                index.put(key(random.next() % UInt64(count)), value)
            }
        }
        var total = 0
        nanoseconds("scan, per entry", 1) { _ in
            let start = ContinuousClock.now
            touched { () throws(PageMiss) in
                _ = try index.scan(from: .min, through: .max) { key, value in
                    total += value.count
                    return key < .max
                }
            }
            if Self.isMeasuring { print("index scan: \((ContinuousClock.now - start) / count) per entry") }
        }
        #expect(total == count * 120)
        nanoseconds("remove, random order", count) { index.remove(key(UInt64($0))) }
        #expect(index.entryCount == 0)
    }

    private func checkpoint(_ index: Index) {
        let start = ContinuousClock.now
        _ = index.freeze()
        let frozen = ContinuousClock.now
        var pageCount = 0
        while true {
            let pages = index.nextFrozenPages(max: 256)
            if pages.isEmpty { break }
            pageCount += pages.count
        }
        let sealed = ContinuousClock.now
        index.checkpointDurable()
        if Self.isMeasuring {
            print(
                "index freeze of \(pageCount) pages: \(frozen - start), sealing \((sealed - frozen) / pageCount) per page"
            )
            print("index checkpointDurable: \(ContinuousClock.now - sealed)")
        }
    }

    @Test func costOfAscendingInsertion() {
        let count = Self.isMeasuring ? 1_000_000 : 2000
        let index = Index(uuid: IndexHarness.uuid, cacheLimitByteCount: 1 << 30)
        let value = [UInt8](repeating: 3, count: 60)
        value.withUnsafeBytes { value in
            nanoseconds("put, ascending, new", count) {
                index.put(IndexKey(space: .tree, object: 9, kind: .extent, subkey: UInt64($0) << 12), value)
            }
        }
        #expect(index.entryCount == UInt64(count))
    }
}
