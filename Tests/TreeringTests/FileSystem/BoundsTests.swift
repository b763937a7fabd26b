// Work per request has bounds: files of very many pieces, attributes and removals are read, sought in, overwritten and listed in parts,
// with few pages held and none fetched over and over.

import Testing

@testable import Treering

@Suite struct BoundsTests {
    private static func caches(_ byteCount: Int) -> VolumeOptions {
        var options = VolumeOptions()
        options.indexCacheByteCount = byteCount
        return options
    }

    /// A file of so many extents of one byte each, at every `step`th byte.
    private func fileOfPieces(_ store: TestStore, _ count: Int, step: UInt64 = 1) throws -> InodeNumber {
        let inode = try store.make("pieces").inode
        store.volume.state.withLock { $0.core.bounds.packedPieceCount = 1 }
        for number in 0..<count { try store.write(inode, UInt64(number) * step, [UInt8(truncatingIfNeeded: number)]) }
        return inode
    }

    private func bytes(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0) } }

    private func missCount(_ store: TestStore) -> UInt64 {
        store.volume.state.withLock { $0.core.index.tree.counters.missCount }
    }

    /// What a part of the index has in pages, as a bound for the pages that one walk over it may fetch.
    private func pageCount(_ store: TestStore) -> UInt64 {
        UInt64(store.volume.state.withLock { $0.core.index.tree.usedPageCount })
    }

    /// A request of so many pieces that their reads had no numbers any more killed the mount.
    @Test func aReadOfMorePiecesThanATagHasNumbers() throws {
        let count = 70_000
        let store = try TestStore(capacity: 256 << 20)
        let inode = try fileOfPieces(store, count)
        try store.remount(options: Self.caches(1 << 20))
        let before = missCount(store)
        #expect(try store.read(inode, 0, 1 << 20) == bytes(count))
        // Extents and payloads are each met in order.
        #expect(missCount(store) - before <= pageCount(store) * 2)
        #expect(store.volume.state.withLock { $0.heldPageCountPeak } <= Attempt.aheadPageCount)
        #expect(try store.read(inode, UInt64(count) - 3, 10) == bytes(count).suffix(3))
    }

    /// The same where all of it is in staging or in memory, by a file that was doubled again and again.
    @Test func aFileDoubledByCopying() throws {
        let store = try TestStore(capacity: 256 << 20)
        let inode = try store.make("doubled").inode
        try store.write(inode, 0, [1])
        try store.write(inode, 1, [2])
        var size: UInt64 = 2
        while size < 131_072 {
            var copied: UInt64 = 0
            while copied < size {
                copied += try store.volume.perform { (core) throws(Stop) in
                    try core.copyRange(
                        inode, at: copied, inode, at: size + copied, size - copied, TestStore.context)
                }.byteCount
            }
            size *= 2
        }
        let expected = (0..<Int(size)).map { UInt8($0 % 2 + 1) }
        #expect(try store.read(inode, 0, Int(size)) == expected)
        try store.remount()
        #expect(try store.read(inode, 0, Int(size)) == expected)
    }

    @Test func partsOfAReadAreBounded() throws {
        let store = try TestStore()
        let inode = try fileOfPieces(store, 5000)
        try store.remount()
        let bounds = WorkBounds()
        let plan = try store.volume.perform { (core) throws(Stop) in try core.planRead(inode, at: 0, 5000) }
        #expect(!plan.isWhole && plan.filled <= bounds.pieceCount && plan.reads.count <= bounds.readCount)
        #expect(plan.reads.reduce(0) { $0 + $1.byteCount } <= bounds.scratchByteCount)
        // Neighbours come with one read.
        #expect(plan.reads.count < 4)
        store.volume.execute(plan, mayWait: true) { plan, error, _ in
            #expect(error == nil && Array(plan.bytes) == bytes(5000))
            #expect(plan.isWhole && plan.reads.isEmpty)
        }
        store.device.drain()
        let readers = store.volume.state.withLock { $0.core.table.segments.reduce(0) { $0 + $1.readerCount } }
        #expect(readers == 0)
    }

    /// Damage in the middle of a read that is done in parts is found, and lets go of everything.
    @Test func damageInALaterPartOfARead() throws {
        let store = try TestStore()
        let inode = try fileOfPieces(store, 5000)
        try store.remount()
        let place = try store.volume.perform { (core) throws(Stop) in
            try core.find { () throws(PageMiss) -> (SegmentNumber, UInt32) in
                let extent = try core.index.extents(inode, 4000, 4001)[0].1
                return try core.index.tree.withValue(of: PayloadEntry.key(extent.payload)) { value in
                    let entry = PayloadEntry(decoding: value!)!
                    return (entry.blocksSegment, entry.position)
                }
            }
        }
        store.device.flip(.segment(place.0), at: UInt64(place.1))
        #expect(throws: Errno.ioError) { try store.read(inode, 0, 5000) }
        #expect(try store.read(inode, 0, 3000) == Array(bytes(5000).prefix(3000)))
        let readers = store.volume.state.withLock { $0.core.table.segments.reduce(0) { $0 + $1.readerCount } }
        #expect(readers == 0)
    }

    /// A walk that began anew at each missing page fetched them again and again.
    @Test func seekingOverManyExtents() throws {
        let count = 30_000
        let store = try TestStore(capacity: 128 << 20)
        let inode = try fileOfPieces(store, count)
        try store.remount(options: Self.caches(256 << 10))
        let before = missCount(store)
        let walk = SeekWalk(.hole, from: 0)
        let found = try store.volume.perform { (core) throws(Stop) in try core.seek(inode, walk) }
        #expect(found.offset == UInt64(count))
        #expect(missCount(store) - before <= pageCount(store))
        #expect(throws: Stop.self) {
            try store.volume.run { (core) throws(Stop) in try core.seek(inode, SeekWalk(.hole, from: 0)) }
        }
    }

    @Test func listingManyAttributes() throws {
        let store = try TestStore(capacity: 128 << 20)
        let inode = try store.make("attributed").inode
        for number in 0..<8000 {
            try Array("user.\(number)".utf8).withUnsafeBytes { name in
                try store.volume.perform { (core) throws(Stop) in
                    try core.setXattr(inode, name, UnsafeRawBufferPointer(start: nil, count: 0), [], TestStore.context)
                }
            }
        }
        try store.remount(options: Self.caches(256 << 10))
        let before = missCount(store)
        let walk = XattrListWalk()
        let names = try store.volume.perform { (core) throws(Stop) in
            try core.xattrNames(inode, walk, TestStore.context)
        }
        // More than any caller can take, but not all of them.
        #expect(names.count > 65_536 && names.count < 65_536 + 256)
        #expect(missCount(store) - before <= pageCount(store))
    }

    /// Each removal looked at all that came before it. What it covers is found by where it lies.
    @Test func punchingManyTimes() throws {
        let count: UInt64 = 3000
        let store = try TestStore(capacity: 128 << 20)
        let inode = try store.make("punched").inode
        func punch(_ from: UInt64, _ byteCount: UInt64) throws {
            let walk = AllocationWalk()
            _ = try store.volume.perform { (core) throws(Stop) in
                try core.allocate(inode, [.punchesHole, .keepsSize], at: from, byteCount, TestStore.context, walk)
            }
        }
        try store.write(inode, count * 8192, [1])
        for number in 0..<count { try store.write(inode, number * 8192, [1]) }
        // What was written lies in older segments, so that the tombstones live on.
        try store.write(try store.make("other").inode, 0, [UInt8](repeating: 1, count: 3 << 20))
        var order = Array(0..<count)
        var random = IndexRandom(seed: 7)
        order.shuffle(using: &random)
        for number in order { try punch(number * 8192, 4096) }
        let known = store.volume.state.withLock { $0.core.index.rangeTombstones[inode] }
        #expect(known?.state == .whole && known?.count == Int(count))
        // Found by a walk and by offset, it is the same.
        for (from, to) in [(0, 8192), (8192 * 10, 8192 * 500), (4000, 8192 * 40 + 100)] as [(UInt64, UInt64)] {
            let (byOffset, all) = try store.volume.perform { (core) throws(Stop) in
                try core.find { () throws(PageMiss) in
                    let found = try covered(inode, from, to, core)
                    core.index.pass = .names
                    defer { core.index.pass = .live }
                    return (found, try covered(inode, from, to, core))
                }
            }
            #expect(!all.isEmpty && byOffset == all)
        }
        // One that covers many takes their place.
        try store.write(inode, 4096, [1])
        try punch(0, 8192 * (count / 2))
        store.volume.housekeeper.housekeep()
        #expect(store.volume.state.withLock { $0.core.index.rangeTombstones[inode]?.count } == Int(count / 2) + 1)
        try store.remount()
        try punch(8192 * (count - 10), 8192)
        try check(store)
    }

    private func covered(
        _ inode: InodeNumber, _ from: UInt64, _ to: UInt64, _ core: Core
    ) throws(PageMiss) -> Set<IndexKey> {
        var keys: Set<IndexKey> = []
        var cursor: TombstoneCursor? = .start
        while let place = cursor {
            let found = try core.index.coveredTombstones(
                inode, from, to, before: core.log.nextSequence, at: place, learns: true)
            keys.formUnion(found.keys)
            cursor = found.next
        }
        return keys
    }

    /// A file with so many range tombstones, and a byte behind all of them.
    private func punchedFile(_ store: TestStore, _ count: Int) throws -> InodeNumber {
        let inode = try store.make("punched").inode
        for number in 0...UInt64(count) { try store.write(inode, number * 8192, [1]) }
        try store.write(try store.make("other").inode, 0, [UInt8](repeating: 1, count: 3 << 20))
        let walk = AllocationWalk()
        for number in 0..<UInt64(count) {
            _ = try store.volume.perform { (core) throws(Stop) in
                try core.allocate(inode, [.punchesHole, .keepsSize], at: number * 8192, 4096, TestStore.context, walk)
            }
        }
        store.volume.housekeeper.housekeep()
        #expect(try tombstoneCount(store, inode) == count)
        return inode
    }

    private func tombstoneCount(_ store: TestStore, _ inode: InodeNumber) throws -> Int {
        try store.volume.perform { (core) throws(Stop) in
            try core.find { () throws(PageMiss) in
                var count = 0
                try core.index.tree.scan(
                    from: TombstoneEntry.key(inode, .rangeTombstone, 0),
                    through: TombstoneEntry.key(inode, .rangeTombstone, .max)
                ) { _, _ in
                    count += 1
                    return true
                }
                return count
            }
        }
    }

    /// The first byte stays, and so does the tombstone of the first block.
    private func cutAfterFirstByte(_ store: TestStore, _ inode: InodeNumber) throws {
        try store.volume.perform { (core) throws(Stop) in
            _ = try core.setAttributes(inode, AttributeChanges(byteCount: 1), TestStore.context)
        }
    }

    /// A removal that covered very many took them all out, and learnt them all, under one hold of the lock.
    @Test(arguments: [false, true]) func aRemovalThatCoversMany(isMountedAnew: Bool) throws {
        let count = 2000
        let store = try TestStore()
        store.volume.state.withLock { $0.core.bounds.extentCount = 100 }
        let inode = try punchedFile(store, count)
        if isMountedAnew {
            try store.remount()
            store.volume.state.withLock { $0.core.bounds.extentCount = 100 }
        }
        try cutAfterFirstByte(store, inode)
        #expect(volumeState(store).removals == 1)
        var before = try tombstoneCount(store, inode)
        #expect(before == count + 1)
        while volumeState(store).removals > 0 {
            _ = try store.volume.perform { (core) throws(Stop) in
                try core.find { () throws(PageMiss) in try core.index.continueRemovals() }
            }
            let after = try tombstoneCount(store, inode)
            #expect(before - after <= RecordIndex.immediateEntryLimit)
            before = after
        }
        #expect(before == 2)
        try check(store)
    }

    /// The power fails in between: the next mount goes on with it.
    @Test func aRemovalThatCoversManyIsGoneOnWith() throws {
        let store = try TestStore()
        let inode = try punchedFile(store, 300)
        try cutAfterFirstByte(store, inode)
        try store.volume.housekeeper.checkpoint()
        #expect(volumeState(store).removals == 1)
        store.volume = try Volume.mount(
            store.device.crash(seed: 3).device(), VolumeOptions(), now: TestStore.now
        ) { _ in }
        #expect(volumeState(store).removals == 1)
        store.volume.housekeeper.housekeep()
        #expect(volumeState(store).removals == 0)
        #expect(try tombstoneCount(store, inode) == 2)
        try check(store)
    }

    // MARK: Replacing many extents

    /// What a check finds in the store as a kill would leave it: nothing. The index made from the log equals the live one.
    private func check(_ store: TestStore) throws {
        try store.volume.syncAndWait()
        let killed = store.volume.device.snapshotAfterKill()
        #expect(try Checker.check(killed, readsData: true).problems.map(\.description) == [])
    }

    private func volumeState(_ store: TestStore) -> (replacements: Int, removals: Int) {
        store.volume.state.withLock { ($0.core.index.replacementCount, $0.core.index.removals.count) }
    }

    private func extentCount(_ store: TestStore, _ inode: InodeNumber) throws -> Int {
        try store.volume.perform { (core) throws(Stop) in
            try core.find { () throws(PageMiss) in
                try core.index.extentCount(inode, 0, UInt64(Int64.max), limit: .max)
            }
        }
    }

    /// One write over many extents counts at once, and takes them out in steps.
    @Test func aWriteOverManyExtents() throws {
        let count = 20_000
        let store = try TestStore(capacity: 128 << 20)
        let inode = try fileOfPieces(store, count)
        try store.remount(options: Self.caches(1 << 20))
        let new = [UInt8](repeating: 0xEE, count: 10_000)
        try store.write(inode, 5000, new)
        #expect(volumeState(store).replacements == 1)
        // What it takes is never counted twice.
        for _ in 0..<3 {
            #expect(try store.lookup("pieces").storedByteCount == UInt64(count))
            _ = try store.volume.perform { (core) throws(Stop) in
                try core.find { () throws(PageMiss) in try core.index.continueRemovals(of: inode) }
            }
        }
        #expect(volumeState(store).replacements == 1)
        var expected = bytes(count)
        expected.replaceSubrange(5000..<15_000, with: new)
        #expect(try store.read(inode, 0, count) == expected)
        #expect(try extentCount(store, inode) == count - 3 * RecordIndex.immediateEntryLimit)
        // Reads that begin and end in the middle of what is being replaced.
        #expect(try store.read(inode, 7000, 100) == Array(expected[7000..<7100]))
        #expect(try store.read(inode, 4990, 20) == Array(expected[4990..<5010]))
        #expect(try store.read(inode, 14_990, 20) == Array(expected[14_990..<15_010]))
        // A write into it waits for the rest.
        try store.write(inode, 6000, [1, 2, 3])
        expected.replaceSubrange(6000..<6003, with: [1, 2, 3])
        #expect(volumeState(store).replacements == 0)
        #expect(try store.read(inode, 0, count) == expected)
        #expect(try extentCount(store, inode) == count - 10_000 + 3)
        #expect(try store.lookup("pieces").storedByteCount == UInt64(count))
        try store.remount()
        #expect(try store.read(inode, 0, count) == expected)
        try check(store)
    }

    /// A removal of any size that came before a replacement does not keep a checkpoint, or other writers, waiting.
    @Test func aReplacementGoesBeforeARemoval() throws {
        let store = try TestStore()
        let inode = try fileOfPieces(store, 6000)
        try store.volume.perform { (core) throws(Stop) in
            _ = try core.setAttributes(inode, AttributeChanges(byteCount: 0), TestStore.context)
        }
        let new = [UInt8](repeating: 0xEE, count: 2000)
        try store.write(inode, 100, new)
        #expect(volumeState(store) == (1, 1))
        try store.volume.housekeeper.checkpoint()
        #expect(volumeState(store) == (0, 1), "the removal is still under way")
        #expect(try store.read(inode, 0, 10_000) == [UInt8](repeating: 0, count: 100) + new)
        store.volume.housekeeper.housekeep(commits: true, checkpoints: true)
        #expect(volumeState(store) == (0, 0))
        #expect(try store.read(inode, 0, 10_000) == [UInt8](repeating: 0, count: 100) + new)
        #expect(try extentCount(store, inode) == 1)
        try check(store)
    }

    /// What one allocation was told it can have, another may have been reserved before it is done.
    @Test func allocationsThatAreMeasuredTogether() throws {
        let store = try TestStore(capacity: 32 << 20)
        store.volume.state.withLock { $0.core.bounds.extentCount = 1 }
        let files = try ["one", "two"].map { try store.make($0).inode }
        for file in files { for number in 0..<3 as Range<UInt64> { try store.write(file, number * 8192, [1]) } }
        let room = try store.volume.perform { (core) throws(Stop) in core.status().availableByteCount }
        let wanted = room / 5 * 3
        let walks = [AllocationWalk(), AllocationWalk()]
        var outcomes: [Errno?] = [nil, nil]
        var isDone = [false, false]
        // Each does a part of its work in turn.
        while isDone.contains(false) {
            for (index, file) in files.enumerated() where !isDone[index] {
                do throws(Stop) {
                    _ = try store.volume.run { (core) throws(Stop) in
                        try core.allocate(file, .keepsSize, at: 0, wanted, TestStore.context, walks[index])
                    }
                    isDone[index] = true
                } catch {
                    if case .failed(let errno) = error { (outcomes[index], isDone[index]) = (errno, true) }
                    if case .blocked(.room) = error { store.volume.housekeeper.housekeep() }
                }
            }
        }
        #expect(outcomes.filter { $0 == nil }.count == 1 && outcomes.contains(.noSpace))
        let (reserved, limit) = store.volume.state.withLock {
            (
                SpaceAccounting.byteCount(ofReserved: $0.core.index.reservedByteCount),
                $0.core.log.space.liveByteCountLimit
            )
        }
        #expect(reserved <= limit)
    }

    /// A checkpoint, a truncation, a punch, a copy and a removal each while a replacement is under way.
    @Test(arguments: 0..<6) func meetsAReplacement(_ operation: Int) throws {
        let count = 4000
        let store = try TestStore()
        let inode = try fileOfPieces(store, count)
        let new = [UInt8](repeating: 0xEE, count: 2000)
        try store.write(inode, 1000, new)
        #expect(volumeState(store).replacements == 1)
        var expected = bytes(count)
        expected.replaceSubrange(1000..<3000, with: new)
        switch operation {
        case 0:
            try store.volume.housekeeper.checkpoint()
            #expect(volumeState(store).replacements == 0)
        case 1:
            try store.volume.perform { (core) throws(Stop) in
                _ = try core.setAttributes(inode, AttributeChanges(byteCount: 1500), TestStore.context)
            }
            expected.removeSubrange(1500...)
        case 2:
            let walk = AllocationWalk()
            _ = try store.volume.perform { (core) throws(Stop) in
                try core.allocate(inode, [.punchesHole, .keepsSize], at: 0, 4096, TestStore.context, walk)
            }
            expected = [UInt8](repeating: 0, count: count)
        case 3:
            let copied = try store.volume.perform { (core) throws(Stop) in
                try core.copyRange(inode, at: 900, inode, at: 10_000, 500, TestStore.context)
            }
            #expect(copied.byteCount == 100 || copied.byteCount == 500)
            expected += [UInt8](repeating: 0, count: 6000)
            expected += expected[900..<900 + Int(copied.byteCount)]
        case 4:
            try store.unlink("pieces")
            store.volume.forget(inode, store.volume.state.withLock { $0.core.lookups[inode] ?? 0 })
            store.volume.housekeeper.housekeep(commits: true, checkpoints: true)
            #expect(throws: Errno.stale) { try store.read(inode, 0, 1) }
            #expect(volumeState(store) == (0, 0))
        default:
            // A crash: the replay does it again.
            try store.volume.syncAndWait()
            let copy = store.device.crash(seed: 1).device()
            store.volume = try Volume.mount(copy, VolumeOptions(), now: TestStore.now) { _ in }
            #expect(volumeState(store).replacements == 0)
        }
        if operation != 4 { #expect(try store.read(inode, 0, 20_000) == expected) }
        try check(store)
    }
}
