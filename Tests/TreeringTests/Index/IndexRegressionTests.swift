// Bugs of the index that were there once, each under its name.

import Testing

@testable import Treering

@Suite struct IndexRegressionTests {
    /// An emptied leaf was dropped at once, and its keys fell to a neighbour that was not in memory: the next change of the
    /// same record, whose leaf had been touched, trapped.
    @Test func emptiedLeafTakesTheNextEntryOfTheSameRecord() {
        for first in [0, 700, 1999] {
            let harness = IndexHarness(cachePageCount: 2)
            for number in 0..<2000 { harness.put(indexKey(number), [UInt8](repeating: 7, count: 30)) }
            harness.checkpoint()
            for number in [100, 1000, 1500, 400] {
                harness.run { index throws(PageMiss) in _ = try index.contains(indexKey(number)) }
            }
            let value = [UInt8](repeating: 8, count: 30)
            let keys = harness.run { index throws(PageMiss) -> [IndexKey] in
                let page = try index.leaf(for: indexKey(first)).page
                let keys = (0..<page.count).map { page.leafKey($0) }
                for key in keys { index.remove(key) }
                value.withUnsafeBytes { _ = index.put(keys[keys.count / 2], $0) }
                return keys
            }
            for key in keys { harness.model[key] = nil }
            harness.model[keys[keys.count / 2]] = value
            harness.expectEqualToModel()
            harness.checkpoint()
            harness.crash()
            harness.expectEqualToModel()
        }
    }

    /// Leaves may stay empty, on disk as well, and fill again.
    @Test func emptyLeavesAreReadBackAndFilledAgain() {
        let harness = IndexHarness(cachePageCount: 2)
        for number in 0..<2000 { harness.put(indexKey(number), [UInt8](repeating: 7, count: 30)) }
        harness.checkpoint()
        for number in 0..<2000 where number % 500 > 20 { harness.remove(indexKey(number)) }
        harness.expectEqualToModel()
        harness.checkpoint()
        harness.crash()
        harness.expectEqualToModel()
        for number in 0..<2000 { harness.put(indexKey(number), [UInt8](repeating: 9, count: 30)) }
        harness.expectEqualToModel()
        harness.checkpoint()
    }
}
