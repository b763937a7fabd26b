// Damaged and hostile pages: a report, never a trap, whatever the bytes say and even under a right checksum.

import Testing

@testable import Treering

@Suite struct IndexHostileTests {
    /// An owner that turns damage into nil, as the file system turns it into EIO.
    private final class Owner {
        let file: PageFile
        let index: Index
        var reports: [CorruptionReport] = []

        init(_ file: PageFile, _ root: IndexRoot) {
            self.file = file
            index = Index(
                uuid: IndexHarness.uuid, cacheLimitByteCount: 1 << 20, root: root, building: root.checkpoint.next)
            index.checksEntries = false
            let memory = AlignedBuffer(byteCount: IndexPage.byteCount)
            var load = BitmapLoad(root: root, uuid: IndexHarness.uuid)
            do throws(CorruptionReport) {
                while let next = load.next {
                    if file.read(next.address, memory.bytes) != nil { return }
                    try load.add(memory.bytes)
                }
                try index.adopt(live: load, other: nil)
            } catch {
                reports.append(error)
            }
        }

        func run<Result>(_ operation: (Index) throws(PageMiss) -> Result) -> Result? {
            for _ in 0..<1000 {
                do throws(PageMiss) {
                    return try operation(index)
                } catch {
                    let fetch = index.beginFetch(error)
                    if file.read(error.address, fetch.buffer) != nil {
                        index.cancelFetch(fetch)
                        return nil
                    }
                    do throws(CorruptionReport) {
                        try index.install(fetch)
                    } catch {
                        reports.append(error)
                        return nil
                    }
                }
            }
            Issue.record("an operation misses for ever")
            return nil
        }

        /// Walks everything, going on after a miss where it was.
        func scan() {
            var from = IndexKey.min
            _ = run { index throws(PageMiss) in
                try index.scan(from: from, through: .max) { key, _ in
                    from = key
                    return true
                }
            }
        }
    }

    private func store(_ entryCount: Int, _ valueByteCount: Int) -> (PageFile, IndexRoot, [UInt32]) {
        let harness = IndexHarness(cachePageCount: 1000)
        var random = IndexRandom(seed: 3)
        for number in (0..<entryCount).shuffled(using: &random) {
            harness.put(indexKey(number), random.bytes(valueByteCount - random.below(min(valueByteCount, 600))))
        }
        harness.checkpoint()
        return (harness.file, harness.slots[0]!.root, harness.slots[0]!.pages.sorted())
    }

    private func seal(_ page: inout [UInt8]) {
        page.withUnsafeMutableBytes { _ = $0.seal(IndexPage.header.checksum) }
    }

    private func report(_ file: PageFile, _ root: IndexRoot) -> String? {
        let owner = Owner(file, root)
        owner.scan()
        return owner.reports.first?.reason
    }

    @Test func eachLieIsNamed() {
        let (file, root, _) = store(40, 50)
        let address = root.page.address.rawValue
        let good = file.pages[address]!
        #expect(report(file, root) == nil)
        func lie(_ change: (inout [UInt8]) -> Void) -> String {
            var page = good
            change(&page)
            seal(&page)
            file.pages[address] = page
            defer { file.pages[address] = good }
            return report(file, root) ?? "nothing"
        }
        let field = IndexPage.header
        let entry = field.entries.offset
        #expect(lie { $0[field.magic.offset] = 0 }.contains("not an index page"))
        #expect(lie { $0[field.uuidHigh.offset] ^= 1 }.contains("belongs to store"))
        #expect(lie { $0[field.address.offset] ^= 1 }.contains("written for address"))
        #expect(lie { $0[field.birth.offset] ^= 2 }.contains("of checkpoint"))
        #expect(lie { $0[field.level.offset] = 1 }.contains("level"))
        let count = field.count.offset..<field.count.end
        #expect(lie { $0.replaceSubrange(count, with: [255, 255]) }.contains("reach into the values"))
        #expect(lie { $0.replaceSubrange(count, with: [0, 0]) } != "nothing")
        #expect(lie { $0[entry + IndexKey.layout.word0.end - 1] = 255 }.contains("not ascending"))
        #expect(lie { $0[entry + IndexPage.leaf.valueOffset.end - 1] = 0 }.contains("overlap or leave"))
        #expect(lie { $0[field.deadByteCount.offset] ^= 1 }.contains("add up"))
        file.pages[address]![500] ^= 1
        #expect(report(file, root) == "its checksum is wrong")
    }

    @Test(arguments: [1, 2, 3, 4, 5, 6]) func hostileBytes(_ seed: UInt64) {
        var random = IndexRandom(seed: seed)
        let isDeep = seed % 2 == 0
        let (file, root, pages) = store(isDeep ? 700 : 300, isDeep ? 2680 : 60)
        let inner = pages.filter { file.pages[$0]![IndexPage.header.level.offset] != 0 }
        for _ in 0..<(isDeep ? 25 : 120) {
            let address = random.oneIn(2) ? pages.randomElement(using: &random)! : inner.randomElement(using: &random)!
            let good = file.pages[address]!
            var page = good
            mutate(&page, &random)
            if !random.oneIn(10) { seal(&page) }
            file.pages[address] = page
            exercise(file, root, isDeep ? 700 : 300, &random)
            file.pages[address] = good
        }
        var summary = IndexSummary()
        summary = IndexVerifier.verify(root: root, uuid: IndexHarness.uuid, checksEntries: false, read: file.read) {
            Issue.record("\($0)")
        }
        #expect(summary.isWhole && summary.entryCount == root.entryCount)
    }

    private func mutate(_ page: inout [UInt8], _ random: inout IndexRandom) {
        for _ in 0...random.below(3) {
            switch random.below(6) {
            case 0: page[random.below(page.count)] = UInt8(truncatingIfNeeded: random.next())
            case 1: page[36 + random.below(12)] = UInt8(truncatingIfNeeded: random.next())
            case 2: page[64 + random.below(400)] ^= 1 << UInt8(random.below(8))
            case 3:
                // Two entries swap, or one is there twice: of a leaf, an inner page, or just words.
                let size = [28, 36, 12, 8].randomElement(using: &random)!
                let a = 64 + random.below(20) * size
                let b = 64 + random.below(20) * size
                for byte in 0..<size { page[a + byte] = page[b + byte] }
            case 4:
                // A child named twice, its keys left alone.
                let a = 64 + random.below(20) * 36 + 24
                let b = 64 + random.below(20) * 36 + 24
                for byte in 0..<12 { page[a + byte] = page[b + byte] }
            default:
                let offset = 64 + 28 * random.below(30) + 24
                page[offset + random.below(4)] = UInt8(truncatingIfNeeded: random.next())
            }
        }
    }

    private func exercise(_ file: PageFile, _ root: IndexRoot, _ keyCount: Int, _ random: inout IndexRandom) {
        let damaged = IndexVerifier.verify(root: root, uuid: IndexHarness.uuid, checksEntries: false, read: file.read) {
            _ in
        }
        let owner = Owner(file, root)
        owner.scan()
        _ = owner.run { index throws(PageMiss) in try index.previous(before: .max)?.key }
        guard owner.index.canWrite else {
            #expect(!damaged.isWhole)
            return
        }
        for _ in 0..<60 {
            let key = indexKey(random.below(keyCount))
            let value = random.bytes(random.below(300))
            let removes = random.oneIn(2)
            _ = owner.run { index throws(PageMiss) in
                try index.touch(key)
                if removes { index.remove(key) } else { value.withUnsafeBytes { _ = index.put(key, $0) } }
            }
            _ = owner.run { index throws(PageMiss) in try index.next(atOrAfter: key)?.key }
            if random.oneIn(15) { checkpoint(owner.index, fails: random.oneIn(2)) }
        }
    }

    private func checkpoint(_ index: Index, fails: Bool) {
        _ = index.freeze()
        while !index.nextFrozenPages(max: 50).isEmpty {}
        if fails { index.checkpointFailed() } else { index.checkpointDurable() }
    }

    @Test func hostileRoots() {
        let (file, root, _) = store(100, 50)
        var random = IndexRandom(seed: 8)
        let memory = AlignedBuffer(byteCount: 4096)
        for _ in 0..<300 {
            root.encode(into: memory.bytes)
            for _ in 0...random.below(2) {
                // Not the upper bytes of the page count: a walk of a huge file takes its time.
                let position = random.below(IndexRoot.storedByteCount)
                if !(34..<40).contains(position) { memory.bytes[position] = UInt8(truncatingIfNeeded: random.next()) }
            }
            guard let lie = try? IndexRoot.decode(from: UnsafeRawBufferPointer(memory.bytes)) else { continue }
            exercise(file, lie, 100, &random)
        }
    }

    @Test func aPageNamedTwiceIsReported() {
        let (file, root, _) = store(300, 60)
        let address = root.page.address.rawValue
        for byte in 0..<12 { file.pages[address]![64 + 36 * 2 + 24 + byte] = file.pages[address]![64 + 36 + 24 + byte] }
        seal(&file.pages[address]!)
        var reports: [String] = []
        _ = IndexVerifier.verify(root: root, uuid: IndexHarness.uuid, checksEntries: false, read: file.read) {
            reports.append($0.reason)
        }
        #expect(reports.contains("two places of the index name it"))
    }

    /// The pages of a level.
    private func inner(_ file: PageFile, _ pages: [UInt32], level: UInt8) -> [UInt32] {
        pages.filter { file.pages[$0]![36] == level }
    }

    @Test func aPageThatTheBitmapGivesAwayIsReported() {
        let (file, root, pages) = store(300, 60)
        let leaf = inner(file, pages, level: 0)[3]
        // As many pages as before, so that only the walk can tell.
        let free = root.pageCount - 1
        file.pages[root.bitmap.rawValue]![64 + Int(leaf) / 8] ^= 1 << UInt8(leaf % 8)
        file.pages[root.bitmap.rawValue]![64 + Int(free) / 8] ^= 1 << UInt8(free % 8)
        seal(&file.pages[root.bitmap.rawValue]!)
        #expect(report(file, root) == "the bitmap says that it is free")
        var reports: [CorruptionReport] = []
        _ = IndexVerifier.verify(root: root, uuid: IndexHarness.uuid, checksEntries: false, read: file.read) {
            reports.append($0)
        }
        #expect(reports.map(\.place) == ["index page \(leaf)", "index page \(free)"])
    }

    @Test func aPointerToAResidentPageOfAnotherLevelIsReported() {
        let (file, root, pages) = store(700, 2680)
        let top = IndexPage(copy(file.pages[root.page.address.rawValue]!))
        defer { top.base.deallocate() }
        #expect(top.level == 2)
        // The last leaf of the second inner page is "the first inner page", which the scan has used before.
        let first = top.child(0)
        let second = top.child(1).address.rawValue
        #expect(inner(file, pages, level: 1).contains(second))
        file.pages[second]!.withUnsafeMutableBytes { bytes in
            let page = IndexPage(bytes.baseAddress!)
            page.setChild(page.count - 1, PagePointer(address: first.address, birth: first.birth))
        }
        seal(&file.pages[second]!)
        #expect(report(file, root) == "two places of the index name it")
    }

    @Test func aPointerToAResidentPageWithAnotherBirthIsReported() {
        let harness = IndexHarness(cachePageCount: 1000)
        for number in 0..<300 { harness.put(indexKey(number), [UInt8](repeating: 1, count: 60)) }
        harness.checkpoint()
        harness.put(indexKey(0), [1])
        harness.checkpoint()
        let slot = harness.slots.compactMap { $0 }.max { $0.root.checkpoint < $1.root.checkpoint }!
        harness.file.pages[slot.root.page.address.rawValue]!.withUnsafeMutableBytes { bytes in
            let page = IndexPage(bytes.baseAddress!)
            page.setChild(1, PagePointer(address: page.child(0).address, birth: page.child(1).birth))
        }
        seal(&harness.file.pages[slot.root.page.address.rawValue]!)
        #expect(report(harness.file, slot.root) == "two places of the index name it")
    }

    private func copy(_ page: [UInt8]) -> UnsafeMutableRawPointer {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: IndexPage.byteCount, alignment: 4096)
        page.withUnsafeBytes { memory.copyMemory(from: $0.baseAddress!, byteCount: IndexPage.byteCount) }
        return memory
    }

    @Test func pagesDescribeThemselves() {
        let (file, root, pages) = store(300, 60)
        let texts = pages.map { address in file.pages[address]!.withUnsafeBytes { IndexPage.describe($0) } }
        #expect(texts.contains { $0.contains("leaf") } && texts.contains { $0.contains("inner, level 1") })
        #expect(texts.contains { $0.hasPrefix("page \(root.bitmap.rawValue): bitmap") })
        #expect(texts.allSatisfy { $0.hasSuffix("checksum good") })
        #expect([UInt8](repeating: 0, count: 8192).withUnsafeBytes { IndexPage.describe($0) } == "not an index page")
    }
}
