// Named cases of generations, page reuse, and what a checkpoint may and may not touch.

import Testing

@testable import Treering

@Suite struct IndexCheckpointTests {
    private func filled(_ count: Int = 400, cachePageCount: Int = 64) -> IndexHarness {
        let harness = IndexHarness(cachePageCount: cachePageCount)
        for number in 0..<count { harness.put(indexKey(number), [UInt8](repeating: 1, count: 100)) }
        return harness
    }

    @Test func aFrozenPageDoesNotChange() {
        let harness = filled()
        harness.freeze()
        while harness.startWrites(max: 3) {}
        for number in 0..<400 { harness.put(indexKey(number), [UInt8](repeating: 2, count: 100)) }
        #expect(harness.index.frozenByteCount > 0 && harness.index.dirtyByteCount > 0)
        harness.finishWrites()
        harness.finishCheckpoint()
        #expect(harness.index.frozenByteCount == 0)
        harness.expectEqualToModel()
        harness.crash()
        #expect(harness.model[indexKey(0)]?.first == 1)
        harness.expectEqualToModel()
    }

    @Test func frozenPagesComeInOrderOfAddress() {
        let harness = filled()
        _ = harness.index.freeze()
        var last: UInt32 = 0
        var longest = 1
        var run = 1
        for page in harness.index.nextFrozenPages(max: .max >> 1) {
            #expect(page.address.rawValue > last)
            run = page.address.rawValue == last + 1 ? run + 1 : 1
            longest = max(longest, run)
            last = page.address.rawValue
            #expect(Int(bitPattern: page.bytes.baseAddress!) % 4096 == 0)
        }
        #expect(longest > 5)
        #expect(harness.index.nextFrozenPages(max: 9).isEmpty)
    }

    @Test func aFailedCheckpointLeavesItsPlacesAlone() {
        let harness = filled()
        harness.checkpoint()
        harness.put(indexKey(5), [9])
        harness.freeze()
        let failed = harness.index.nextFrozenPages(max: 1000).map(\.address)
        harness.put(indexKey(6), [8])
        harness.index.checkpointFailed()
        harness.freeze()
        let next = harness.index.nextFrozenPages(max: 1000).map(\.address)
        #expect(Set(failed).isDisjoint(with: next))
        #expect(next.count == failed.count)
        harness.index.checkpointFailed()
        harness.expectEqualToModel()
        harness.checkpoint()
        harness.crash()
        harness.expectEqualToModel()
    }

    @Test func anAbandonedCheckpointKeepsItsPlaces() {
        let harness = filled()
        harness.freeze()
        let used = harness.index.usedPageCount
        harness.index.checkpointAbandoned()
        #expect(harness.index.isDirty)
        harness.checkpoint()
        #expect(harness.index.usedPageCount == used)
        harness.crash()
        harness.expectEqualToModel()
    }

    /// Each attempt on a full host left a bitmap's pages behind; after minutes of them the index asked for gigabytes, and no room that
    /// came back was enough.
    @Test func abandonedCheckpointsDoNotNeedMoreOfTheFileEachTime() {
        let harness = filled()
        harness.checkpoint()
        harness.put(indexKey(5), [9])
        harness.freeze()
        harness.index.checkpointAbandoned()
        let (pageCount, heldCount) = (harness.index.filePageCount, harness.index.heldPageCount)
        for round in 0..<1000 {
            harness.freeze()
            // Some of its pages may have been written.
            if round % 2 == 0 { _ = harness.index.nextFrozenPages(max: round) }
            harness.index.checkpointAbandoned()
        }
        #expect(harness.index.filePageCount == pageCount)
        #expect(harness.index.heldPageCount == heldCount)
        harness.checkpoint()
        harness.crash()
        harness.expectEqualToModel()
    }

    @Test func placesAreReusedOnlyWhenBothSlotsHaveMovedOn() {
        let harness = filled(2000)
        for round in 0..<30 {
            for number in 0..<2000 where number % 40 == round {
                harness.put(indexKey(number), [UInt8](repeating: 3, count: 100))
            }
            harness.checkpoint()
        }
        // Live pages, and the generations that either slot still needs: the file does not grow for ever.
        let live = harness.index.usedPageCount
        #expect(harness.index.filePageCount < 4 * live + 256)
        #expect(harness.index.heldPageCount < 2 * live)
        let before = harness.index.heldPageCount
        #expect(before > 0)
        harness.index.release(through: CheckpointNumber(0))
        #expect(harness.index.heldPageCount == before)
    }

    @Test func anOlderSlotMountsAndTheNewerStaysWhole() {
        let harness = filled()
        harness.checkpoint()
        harness.put(indexKey(1), [1])
        harness.checkpoint()
        let newer = harness.slots.compactMap { $0 }.max { $0.root.checkpoint < $1.root.checkpoint }!
        harness.crash(preferOlder: true)
        for number in 0..<400 { harness.put(indexKey(number), [7]) }
        harness.freeze()
        while harness.startWrites(max: 8) {}
        harness.finishWrites()
        #expect(harness.verifiedPages(newer.root, newer.model) == newer.pages)
        harness.finishCheckpoint()
        harness.crash()
        harness.expectEqualToModel()
    }

    @Test func rootSurvivesEncoding() throws {
        let harness = filled()
        harness.checkpoint()
        let root = harness.slots[0]!.root
        let memory = AlignedBuffer(byteCount: 4096)
        root.encode(into: memory.bytes.part(100, IndexRoot.storedByteCount))
        let bytes = UnsafeRawBufferPointer(memory.bytes).part(100, IndexRoot.storedByteCount)
        #expect(try IndexRoot.decode(from: bytes) == root)
    }

    @Test func aPinFollowsItsPage() throws {
        let harness = filled()
        harness.checkpoint()
        let address = try harness.index.leaf(for: indexKey(100)).page.address
        let pin = harness.index.pin(address)!
        harness.put(indexKey(100), [2])
        let moved = try harness.index.leaf(for: indexKey(100)).page.address
        #expect(moved != address && !harness.index.isPresent(address))
        harness.checkpoint()
        for _ in 0..<20 { _ = harness.index.cache.evict(limit: 0) }
        #expect(harness.index.isPresent(moved))
        harness.index.unpin(pin)
        for _ in 0..<20 { _ = harness.index.cache.evict(limit: 0) }
        #expect(harness.index.residentByteCount == 0)
        harness.expectEqualToModel()
    }

    @Test func aPinOutlivesAPageThatGoes() throws {
        let harness = filled()
        harness.checkpoint()
        let clean = harness.index.pin(try harness.index.leaf(for: indexKey(10)).page.address)!
        harness.put(indexKey(399), [1])
        harness.freeze()
        let frozen = harness.index.pin(try harness.index.leaf(for: indexKey(399)).page.address)!
        for number in 0..<400 { harness.remove(indexKey(number)) }
        harness.finishCheckpoint()
        harness.index.unpin(clean)
        harness.index.unpin(frozen)
        harness.checkpoint()
        harness.crash()
        harness.expectEqualToModel()
    }

    @Test func theCacheKeepsItsBound() {
        let harness = filled(3000, cachePageCount: 16)
        harness.checkpoint()
        for number in stride(from: 0, to: 3000, by: 7) {
            _ = harness.run { index throws(PageMiss) in try index.contains(indexKey(number)) }
            harness.index.evict()
            #expect(harness.index.residentByteCount <= harness.index.cacheLimitByteCount)
        }
        #expect(harness.index.counters.evictionCount > 0)
        #expect(!harness.index.needsCheckpoint)
    }

    @Test func pagesDoNotComeFreeBeforeTheCheckpointIsDurable() async {
        await #expect(processExitsWith: .failure) {
            let index = Index(uuid: IndexHarness.uuid, cacheLimitByteCount: 1 << 20)
            let root = index.freeze()
            index.release(through: root.checkpoint)
        }
    }
}
