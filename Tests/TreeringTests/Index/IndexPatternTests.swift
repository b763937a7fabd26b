// Orders of insertion and removal that decide how full pages get, and the edges of sizes.

import Testing

@testable import Treering

@Suite struct IndexPatternTests {
    private static let value = [UInt8](repeating: 7, count: 60)

    private func fill(_ order: some Sequence<Int>, value: [UInt8] = IndexPatternTests.value) -> Index {
        let index = Index(uuid: IndexHarness.uuid, cacheLimitByteCount: 64 << 20)
        value.withUnsafeBytes { bytes in for number in order { index.put(indexKey(number), bytes) } }
        return index
    }

    /// The share of leaves' room that is in use.
    private func fullness(_ index: Index, _ order: Int) throws -> Double {
        var leaves = Set<UnsafeMutableRawPointer>()
        var used = 0
        for number in 0..<order {
            let page = try index.leaf(for: indexKey(number)).page
            if leaves.insert(page.base).inserted { used += page.usedByteCount }
        }
        return Double(used) / Double(leaves.count * IndexPage.capacityByteCount)
    }

    @Test func ascendingInsertionsFillPages() throws {
        let index = fill(0..<4000)
        #expect(try fullness(index, 4000) > 0.95)
        #expect(index.entryCount == 4000)
    }

    @Test func descendingInsertionsFillPages() throws {
        #expect(try fullness(fill((0..<4000).reversed()), 4000) > 0.9)
    }

    @Test func ascendingInsertionsInTheMiddleFillPages() throws {
        let index = fill([0, 1, 2, 3, 9000, 9001, 9002])
        Self.value.withUnsafeBytes { bytes in for number in 10..<4000 { index.put(indexKey(number), bytes) } }
        #expect(try fullness(index, 4000) > 0.85)
    }

    @Test func randomInsertionsHalfFillPages() throws {
        var random = IndexRandom(seed: 5)
        let index = fill((0..<4000).shuffled(using: &random))
        #expect(try fullness(index, 4000) > 0.6)
    }

    @Test(arguments: [0, 1, 2]) func deletingEverythingLeavesOnePage(_ order: Int) throws {
        let harness = IndexHarness(cachePageCount: 6)
        for number in 0..<1500 { harness.put(indexKey(number), [UInt8](repeating: UInt8(number & 255), count: 60)) }
        harness.checkpoint()
        var random = IndexRandom(seed: 9)
        let numbers =
            order == 0 ? Array(0..<1500) : order == 1 ? (0..<1500).reversed() : (0..<1500).shuffled(using: &random)
        for (step, number) in numbers.enumerated() {
            harness.remove(indexKey(number))
            if step % 100 == 0 { harness.checkpoint() }
        }
        harness.checkpoint()
        harness.checkpoint()
        // Page 0, the root leaf, one page of bitmap.
        #expect(harness.slots[0]!.pages.count == 2)
        #expect(harness.index.usedPageCount == 3)
        #expect(harness.index.rootLevel == 0)
        harness.put(indexKey(3), [1])
        harness.expectEqualToModel()
    }

    @Test func largestValuesMakeAThreeLevelTree() throws {
        let harness = IndexHarness(cachePageCount: 400)
        var random = IndexRandom(seed: 11)
        for number in (0..<700).shuffled(using: &random) {
            harness.put(indexKey(number), random.bytes(IndexPage.maxValueByteCount))
            if harness.index.needsCheckpoint { harness.checkpoint() }
        }
        #expect(harness.index.rootLevel == 2)
        harness.checkpoint()
        harness.crash()
        harness.expectEqualToModel()
        for number in (0..<700).shuffled(using: &random) {
            harness.remove(indexKey(number))
            if harness.index.needsCheckpoint { harness.checkpoint() }
        }
        harness.checkpoint()
        #expect(harness.index.rootLevel == 0)
        #expect(harness.index.counters.mergeCount > 0)
    }

    /// Ascending, inner pages merge with their left neighbour; descending, with their right one.
    @Test(arguments: [true, false]) func innerPagesMerge(_ isAscending: Bool) {
        let harness = IndexHarness(cachePageCount: 3000)
        var random = IndexRandom(seed: 17)
        for number in (0..<1400).shuffled(using: &random) { harness.put(indexKey(number), random.bytes(2600)) }
        #expect(harness.index.rootLevel == 2)
        let numbers = (0..<1400).filter { $0 % 16 != 0 }
        for number in isAscending ? numbers : numbers.reversed() { harness.remove(indexKey(number)) }
        #expect(harness.index.rootLevel == 1)
        harness.expectEqualToModel()
        harness.checkpoint()
        harness.crash()
        harness.expectEqualToModel()
    }

    @Test func aPageHoldsThreeLargestValues() {
        #expect(3 * (IndexPage.leafEntryByteCount + IndexPage.maxValueByteCount) <= IndexPage.capacityByteCount)
        let index = fill(0..<3, value: [UInt8](repeating: 1, count: IndexPage.maxValueByteCount))
        #expect(index.rootLevel == 0)
    }

    @Test func aValueMayGrowAndShrinkInAFullPage() {
        let harness = IndexHarness(cachePageCount: 8)
        var random = IndexRandom(seed: 13)
        for number in 0..<200 { harness.put(indexKey(number), random.bytes(40)) }
        for length in [2680, 0, 100, 2680, 7, 1000, 1] {
            for number in stride(from: 0, to: 200, by: 9) { harness.put(indexKey(number), random.bytes(length)) }
            harness.expectEqualToModel()
        }
    }

    @Test func aLeftNeighbourThatGoesLeavesItsRangeToTheNext() {
        // Child 0 of an inner page goes; keys below the separator of child 1 then belong to that, also when it splits.
        let harness = IndexHarness(cachePageCount: 64)
        for number in 1000..<1400 { harness.put(indexKey(number), [UInt8](repeating: 1, count: 60)) }
        for number in 1000..<1100 { harness.remove(indexKey(number)) }
        for number in (0..<1100).reversed() { harness.put(indexKey(number), [UInt8](repeating: 2, count: 60)) }
        harness.checkpoint()
        harness.crash()
        harness.expectEqualToModel()
    }
}
