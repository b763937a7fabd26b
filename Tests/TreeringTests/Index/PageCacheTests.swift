// The parts below the tree: the map from addresses to frames, the clock, and the allocator.

import Testing

@testable import Treering

@Suite struct IndexPageCacheTests {
    @Test func theMapAgreesWithADictionary() {
        var random = IndexRandom(seed: 21)
        var cache = PageCache(expectedPageCount: 4)
        var model: [UInt32: Int] = [:]
        for _ in 0..<20000 {
            let address = UInt32(1 + random.below(600))
            if let frame = model[address] {
                #expect(cache.find(PageAddress(address)) == frame)
                if random.oneIn(2) {
                    cache.drop(frame)
                    model[address] = nil
                } else {
                    let other = UInt32(1 + random.below(600))
                    guard model[other] == nil else { continue }
                    cache.move(frame, to: PageAddress(other))
                    model[address] = nil
                    model[other] = frame
                }
            } else {
                #expect(cache.find(PageAddress(address)) == -1)
                if random.oneIn(3) && model.count > 200 { continue }
                model[address] = cache.insert(cache.takeBuffer(), at: PageAddress(address), .clean)
            }
        }
        #expect(cache.residentCount == model.count && cache.cleanCount == model.count)
        for (address, frame) in model { #expect(cache.find(PageAddress(address)) == frame) }
        while cache.evict(limit: 0) > 0 || cache.residentCount > 0 {}
        #expect(cache.cleanCount == 0)
    }

    @Test func theClockKeepsPagesInUse() {
        var cache = PageCache(expectedPageCount: 64)
        for address in 1...100 { _ = cache.insert(cache.takeBuffer(), at: PageAddress(UInt32(address)), .clean) }
        _ = cache.evict(limit: 99)
        for address in 1...10 where cache.find(PageAddress(UInt32(address))) >= 0 {
            cache.touch(cache.find(PageAddress(UInt32(address))), level: 1)
        }
        let inner = (1...10).filter { cache.find(PageAddress(UInt32($0))) >= 0 }
        _ = cache.evict(limit: 20)
        #expect(inner.allSatisfy { cache.find(PageAddress(UInt32($0))) >= 0 })
    }

    @Test func dirtyAndPinnedPagesStay() {
        var cache = PageCache(expectedPageCount: 8)
        let dirty = cache.insert(cache.takeBuffer(), at: PageAddress(1), .dirty)
        let pinned = cache.insert(cache.takeBuffer(), at: PageAddress(2), .clean)
        let pin = cache.pin(pinned)
        for _ in 0..<10 { #expect(cache.evict(limit: 0) == 0) }
        cache.unpin(pin)
        cache.setState(dirty, .clean)
        for _ in 0..<10 { _ = cache.evict(limit: 0) }
        #expect(cache.residentCount == 0)
    }
}

@Suite struct IndexPageAllocatorTests {
    @Test func noPageIsOutTwiceAndHeldOnesWait() {
        var random = IndexRandom(seed: 31)
        var allocator = PageAllocator()
        var used: [PageAddress] = []
        var heldUntil: [UInt32: UInt64] = [:]
        var checkpoint: UInt64 = 1
        for _ in 0..<20000 {
            switch random.below(20) {
            case 0:
                checkpoint += 1
                allocator.release(through: CheckpointNumber(checkpoint - 1))
                heldUntil = heldUntil.filter { $0.value >= checkpoint }
            case 1..<12 where used.count < 3000:
                let address = allocator.allocate()
                #expect(address.rawValue != 0 && heldUntil[address.rawValue] == nil)
                #expect(Int(address.rawValue) < allocator.pageCount)
                used.append(address)
            default:
                guard !used.isEmpty else { continue }
                let address = used.remove(at: random.below(used.count))
                if random.oneIn(3) {
                    allocator.free(address)
                } else {
                    allocator.free(address, heldFor: CheckpointNumber(checkpoint))
                    heldUntil[address.rawValue] = checkpoint
                }
            }
            #expect(allocator.usedCount == used.count + 1)
        }
        #expect(Set(used).count == used.count)
        #expect(allocator.heldCount == heldUntil.count)
    }

    @Test func pagesComeInRuns() {
        var allocator = PageAllocator()
        let first = (0..<1000).map { _ in allocator.allocate() }
        // Every other page is free, and one long run: that is taken first.
        for address in first where address.rawValue % 2 == 0 || (500..<540).contains(address.rawValue) {
            allocator.free(address)
        }
        let next = (0..<30).map { _ in allocator.allocate().rawValue }
        #expect(zip(next, next.dropFirst()).filter { $1 == $0 + 1 }.count >= 28)
    }

    @Test func aFragmentedFileIsUsedBeforeItGrowsForEver() {
        var allocator = PageAllocator()
        let first = (0..<6000).map { _ in allocator.allocate() }
        for address in first where address.rawValue % 2 == 0 { allocator.free(address) }
        let before = allocator.pageCount
        for _ in 0..<2000 { _ = allocator.allocate() }
        #expect(allocator.pageCount == before)
    }
}
