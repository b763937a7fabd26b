// Random operations, misses, evictions, checkpoints, failures and crashes against a plain dictionary.

import Testing

@testable import Treering

@Suite struct IndexModelTests {
    struct Plan: Sendable, CustomTestStringConvertible {
        var seed: UInt64
        var keyCount: Int
        var operationCount: Int
        var cachePageCount: Int
        var maxValueByteCount: Int
        var testDescription: String {
            "seed \(seed), \(keyCount) keys, \(operationCount) operations, cache \(cachePageCount), values \(maxValueByteCount)"
        }
    }

    static let plans: [Plan] = (1...3).flatMap { seed in
        [
            Plan(seed: seed, keyCount: 300, operationCount: 1800, cachePageCount: 4, maxValueByteCount: 60),
            Plan(seed: seed + 100, keyCount: 1200, operationCount: 1800, cachePageCount: 30, maxValueByteCount: 2680),
            Plan(seed: seed + 200, keyCount: 40, operationCount: 1800, cachePageCount: 3, maxValueByteCount: 2680),
            Plan(seed: seed + 300, keyCount: 4000, operationCount: 2000, cachePageCount: 8, maxValueByteCount: 200),
        ]
    }

    @Test(arguments: plans) func againstModel(_ plan: Plan) {
        var random = IndexRandom(seed: plan.seed)
        let harness = IndexHarness(cachePageCount: plan.cachePageCount)
        var pins: [PagePin] = []
        // Phases of growth and of shrinking, so that splits and merges both get deep.
        var removalWeight = 1
        for step in 0..<plan.operationCount {
            if step % 400 == 0 { removalWeight = [1, 1, 3, 8][random.below(4)] }
            operate(harness, plan, removalWeight, &random)
            if random.oneIn(8) { look(harness, plan, &random) }
            if random.oneIn(20) { holdPages(harness, &pins, &random) }
            if advanceCheckpoint(harness, &random) {
                pins = []
            }
            if random.oneIn(500) { harness.expectEqualToModel() }
        }
        for pin in pins { harness.index.unpin(pin) }
        harness.expectEqualToModel()
        if harness.index.checkpointInFlight != nil { harness.finishCheckpoint() }
        harness.checkpoint()
        harness.crash()
        harness.expectEqualToModel()
        #expect(harness.missCount > 0)
    }

    private func operate(
        _ harness: IndexHarness, _ plan: Plan, _ removalWeight: Int, _ random: inout IndexRandom
    ) {
        let key = indexKey(random.below(plan.keyCount))
        switch random.below(6 + removalWeight * 2) {
        case 0..<5:
            harness.put(key, random.bytes(valueByteCount(plan, &random)))
        case 5:
            let byte = UInt8(truncatingIfNeeded: random.next())
            let updated: Void? = harness.run { index throws(PageMiss) in
                try index.touch(key)
                return index.update(key) { $0.first != nil ? $0[0] = byte : () }
            }
            #expect((updated != nil) == (harness.model[key] != nil))
            if harness.model[key]?.isEmpty == false { harness.model[key]![0] = byte }
        case 6:
            several(harness, plan, &random)
        default:
            harness.remove(key)
        }
    }

    private func valueByteCount(_ plan: Plan, _ random: inout IndexRandom) -> Int {
        switch random.below(8) {
        case 0: return 0
        case 1: return plan.maxValueByteCount
        default: return random.below(plan.maxValueByteCount + 1)
        }
    }

    /// Several changes under one hold of the lock, everything touched before the first.
    private func several(_ harness: IndexHarness, _ plan: Plan, _ random: inout IndexRandom) {
        let changes = (0..<4).map { _ in
            (key: indexKey(random.below(plan.keyCount)), value: random.oneIn(3) ? nil : random.bytes(random.below(50)))
        }
        harness.run { index throws(PageMiss) in
            for change in changes { try index.touch(change.key) }
            for change in changes {
                if let value = change.value {
                    value.withUnsafeBytes { _ = index.put(change.key, $0) }
                } else {
                    index.remove(change.key)
                }
            }
        }
        for change in changes { harness.model[change.key] = change.value }
    }

    private func look(_ harness: IndexHarness, _ plan: Plan, _ random: inout IndexRandom) {
        let key = indexKey(random.below(plan.keyCount))
        let last = indexKey(random.below(plan.keyCount))
        let found = harness.run { index throws(PageMiss) in try index.value(of: key).map(Array.init) }
        #expect(found == harness.model[key])
        let next = harness.run { index throws(PageMiss) in
            try index.next(atOrAfter: key).map { ($0.key, Array($0.value)) }
        }
        let wantedNext = harness.model.keys.filter { $0 >= key }.min()
        #expect(next?.0 == wantedNext)
        #expect(next?.1 == wantedNext.flatMap { harness.model[$0] })
        let previous = harness.run { index throws(PageMiss) in try index.previous(before: key)?.key }
        #expect(previous == harness.model.keys.filter { $0 < key }.max())
        let inRange = harness.model.keys.filter { $0 >= key && $0 <= last }.count
        let touched = harness.run { index throws(PageMiss) in try index.touch(from: key, through: last, limit: 20) }
        #expect(touched == min(inRange, 20))
    }

    private func holdPages(_ harness: IndexHarness, _ pins: inout [PagePin], _ random: inout IndexRandom) {
        if pins.count > 2 {
            harness.index.unpin(pins.remove(at: random.below(pins.count)))
        } else if let pin = harness.index.pin(PageAddress(UInt32(random.below(harness.index.filePageCount)))) {
            pins.append(pin)
        }
    }

    /// Moves checkpoints on by a random step. Returns whether the process was restarted.
    private func advanceCheckpoint(_ harness: IndexHarness, _ random: inout IndexRandom) -> Bool {
        if random.oneIn(400) {
            harness.crash(preferOlder: random.oneIn(4))
            return true
        }
        guard harness.index.checkpointInFlight != nil else {
            if harness.index.needsCheckpoint || random.oneIn(60) {
                harness.freeze()
                if random.oneIn(6) { harness.index.checkpointAbandoned() }
            }
            return false
        }
        switch random.below(40) {
        case 0..<5: harness.finishWrites()
        case 5..<15: _ = harness.startWrites(max: 1 + random.below(4))
        case 15..<18: harness.finishCheckpoint()
        case 18: harness.failCheckpoint(&random)
        default: break
        }
        return false
    }
}
