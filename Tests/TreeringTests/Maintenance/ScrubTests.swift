// A scrub of a mounted store: what is damaged is found and named as an offline check names it, and nothing else, whatever moves or goes
// away meanwhile. `scrub` is for other tests too.

import Testing

@testable import Treering

extension Volume {
    /// A scrub to its end on this thread. `pause` runs between its steps, `afterRead` between a read and what is made of it.
    func scrub(
        pause: @escaping () -> Bool = { true }, afterRead: @escaping () -> Void = {}
    ) -> (status: ScrubStatus, doubtCount: Int) {
        state.withLock { $0.scrub = ScrubStatus(token: 1, rate: 0, now: monotonicNanoseconds()) }
        let scrub = Scrub(self) { _, _ in pause() }
        scrub.afterRead = afterRead
        scrub.run()
        let status = state.withLock { $0.scrub! }
        #expect(state.withLock { $0.scrubReadCount } == 0)
        #expect(state.withLock { $0.core.table.segments.allSatisfy { $0.readerCount == 0 } })
        return (status, scrub.doubtCount)
    }
}

@Suite struct ScrubTests {
    static func options(_ policy: CleaningPolicy = .off) -> VolumeOptions {
        var options = VolumeOptions()
        options.cleaning = policy
        options.stagingByteCount = 1 << 20
        options.indexCacheByteCount = 1 << 20
        options.punchByteCountMinimum = 8 << 10
        options.poolLimit = 2
        return options
    }

    private func bytes(_ number: Int, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 / 5 &* 7 &+ number &* 31) }
    }

    private func setAttribute(_ inode: InodeNumber, _ value: [UInt8], _ store: TestStore) throws {
        try Array("user.large".utf8).withUnsafeBytes { name in
            try value.withUnsafeBytes { value in
                try store.volume.perform { (core) throws(Stop) in
                    try core.setXattr(inode, name, value, [], TestStore.context)
                }
            }
        }
    }

    private func copy(_ source: InodeNumber, _ target: InodeNumber, _ count: UInt64, _ store: TestStore) throws {
        _ = try store.volume.perform { (core) throws(Stop) in
            try core.copyRange(source, at: 0, target, at: 0, count, TestStore.context)
        }
    }

    /// Files of many sizes in directories, copies, holes, attributes, and blocks of which only parts are shown.
    private func filled(options: VolumeOptions = options()) throws -> TestStore {
        let store = try TestStore(capacity: 32 << 20, options: options)
        for number in 0..<6 {
            let directory = try store.make("directory \(number)", mode: 0o040755).inode
            for inner in 0..<8 {
                let file = try store.make("file \(inner)", in: directory).inode
                let count = [10, 700, 2900, 4096, 9000, 40_000, 150_000][inner % 7]
                try store.write(file, 0, bytes(number * 8 + inner, count))
                if inner == 5 {
                    try copy(file, store.make("copy", in: directory).inode, 30_000, store)
                    try store.write(file, 5000, bytes(99, 6000))
                    try setAttribute(file, bytes(number, 30_000), store)
                }
            }
            if number == 3 {
                let file = try store.lookup("file 6", in: directory).inode
                try store.unlink("file 6", in: directory)
                store.volume.forget(file, 2)
            }
        }
        store.volume.housekeeper.housekeep()
        try store.volume.syncAndWait()
        return store
    }

    /// Where each live block, or inline payload, lies.
    private func places(_ store: TestStore) throws -> [(segment: SegmentNumber, position: UInt32, byteCount: Int)] {
        var places: [(segment: SegmentNumber, position: UInt32, byteCount: Int)] = []
        try StoreView(store.volume).forEach(.payloads) { _, value in
            guard let entry = PayloadEntry(decoding: value) else { return }
            entry.forEachStored { index, _, named in
                guard named > 0 else { return }
                let count = entry.isInline ? Int(entry.length) : blockByteCount
                places.append((entry.blocksSegment, entry.position(ofStored: index), count))
            }
        }
        return places
    }

    // MARK: What is found

    @Test func aWholeStoreIsClean() throws {
        let store = try filled()
        for _ in 0..<2 {
            let count = try places(store).count
            let status = store.volume.scrub().status
            #expect(status.state == .done)
            #expect(status.findings == [])
            #expect(status.blockCount == UInt64(count))
            #expect(status.doneByteCount == status.totalByteCount && status.doneByteCount > 1_000_000)
            try store.remount(options: Self.options())
        }
        var options = Self.options()
        options.isReadOnly = true
        try store.remount(options: options)
        #expect(store.volume.scrub().status.findings == [])
        #expect(store.volume.complaints() == [])
    }

    /// Whatever live byte of data changes, it is found, and told as `check --data` tells it.
    @Test func damagedDataIsToldAsAnOfflineCheckTellsIt() throws {
        let store = try filled()
        try store.volume.housekeeper.checkpoint()
        var random = SimulatedRandom(seed: 5)
        let places = try places(store)
        for round in 0..<12 {
            for _ in 0..<(round == 11 ? 40 : 1) {
                let place = places[Int(random.next() % UInt64(places.count))]
                store.device.damage(
                    .segment(place.segment), at: UInt64(place.position) + random.next() % UInt64(place.byteCount))
            }
            let offline = try Checker.check(store.device.snapshotAfterKill(), readsData: true)
            let expected = Set(offline.problems.filter { $0.effect?.contains("reading") ?? false })
            let status = store.volume.scrub().status
            let found = Set(status.findings.filter { $0.effect?.contains("reading") ?? false })
            #expect(found == expected, "round \(round)")
            #expect(!found.isEmpty && found.allSatisfy { $0.path != nil })
            #expect(status.findingCount == UInt64(status.findings.count))
            #expect(store.volume.complaints().count >= found.count)
        }
    }

    @Test func copiesAreAllNamed() throws {
        let store = try TestStore(options: Self.options())
        let directory = try store.make("a b", mode: 0o040755).inode
        let file = try store.make("original", in: directory).inode
        try store.write(file, 0, bytes(1, 20_000))
        try copy(file, store.make("copy").inode, 20_000, store)
        try store.volume.syncAndWait()
        let place = try #require(places(store).sorted { $0.position < $1.position }.dropFirst(2).first)
        store.device.damage(.segment(place.segment), at: UInt64(place.position) + 9)
        let found = store.volume.scrub().status.findings
        #expect(found.map(\.path) == ["/a b/original", "/copy"])
        #expect(found.allSatisfy { $0.place == "bytes 8192..<12288" })
    }

    /// A scrub did not know what replaces many extents: no file was said to show it.
    @Test func damageOfAReplacementUnderWay() throws {
        let store = try TestStore(options: Self.options())
        let inode = try store.make("pieces").inode
        store.volume.state.withLock { $0.core.bounds.packedPieceCount = 1 }
        for number in 0..<2000 as Range<UInt64> { try store.write(inode, number, [1]) }
        try store.write(inode, 0, bytes(1, 8192))
        try store.volume.syncAndWait()
        let place = try store.volume.perform { (core) throws(Stop) in
            try core.find { () throws(PageMiss) -> (segment: SegmentNumber, position: UInt32)? in
                guard let payload = core.index.replacements.first?.extent.payload else { return nil }
                return try core.index.tree.withValue(of: PayloadEntry.key(payload)) { value in
                    value.flatMap { PayloadEntry(decoding: $0) }.map { ($0.blocksSegment, $0.position) }
                }
            }
        }
        let (segment, position) = try #require(place)
        store.device.damage(.segment(segment), at: UInt64(position) + 5000)
        let found = store.volume.scrub().status.findings
        #expect(found.map(\.path) == ["/pieces"] && found.map(\.place) == ["bytes 4096..<8192"])
        #expect(store.volume.state.withLock { $0.core.index.replacementCount } == 1)
    }

    /// Damage in the records of a batch is found though nothing reads them in normal work, and the files are named.
    @Test func aDamagedLogIsFound() throws {
        let store = try filled()
        try store.volume.housekeeper.checkpoint()
        let victim = try #require(
            store.volume.state.withLock { state in
                state.core.table.segments.indices.first { number in
                    let segment = state.core.table.segments[number]
                    return segment.isSealed && segment.role == .hot && segment.live > 0
                }
            })
        let number = SegmentNumber(UInt32(victim))
        #expect(store.volume.scrub().status.findings == [])
        // The second batch: header, then records.
        let (file, incarnation) = store.volume.state.withLock { state in
            (state.core.table[number].file!, state.core.table[number].incarnation)
        }
        let reader = BatchReader(
            device: store.device, uuid: StoreUUID(high: 1, low: 2), segmentByteCount: 1 << 20)
        let first = try reader.batch(
            in: SegmentID(number, incarnation), file, at: SegmentHeader.byteCount, verifyPayload: false)
        guard case .batch(let batch) = first else {
            Issue.record("the first batch cannot be read")
            return
        }
        let offset = SegmentHeader.byteCount + (batch.header.endsSegment ? 0 : batch.header.byteCount)
        for place in [offset + 20, offset + BatchHeader.byteCount + 40] {
            store.device.damage(.segment(number), at: UInt64(place))
            let status = store.volume.scrub().status
            #expect(status.findings.contains { $0.place.hasPrefix("segment \(victim) at \(offset)..<") })
            #expect(status.findings.contains { $0.path != nil && $0.place.hasSuffix("entries") })
            store.device.damage(.segment(number), at: UInt64(place))
        }
        store.device.damage(.segment(number), at: 40)
        #expect(store.volume.scrub().status.findings.map(\.place) == ["segment \(victim), its header"])
    }

    /// The log of the head, as far as it is written.
    @Test func theHeadOfTheLogIsRead() throws {
        let store = try TestStore(options: Self.options())
        for number in 0..<5 {
            try store.write(store.make("file \(number)").inode, 0, bytes(number, 9000))
            try store.volume.syncAndWait()
        }
        #expect(store.volume.scrub().status.findings == [])
        store.device.damage(.segment(SegmentNumber(0)), at: UInt64(SegmentHeader.byteCount + BatchHeader.byteCount + 9))
        let found = store.volume.scrub().status.findings
        #expect(found.count == 1 && found[0].place.hasPrefix("segment 0 at 4096..<"))
    }

    @Test func damagedSlotsAndPagesAreFound() throws {
        let store = try filled()
        try store.remount(options: Self.options())
        #expect(store.volume.scrub().status.findings == [])
        for slot in Superblock.slotOffsets {
            store.device.damage(.superblock, at: slot + 300)
            #expect(store.volume.scrub().status.findings.map(\.place) == ["superblock"])
            store.device.damage(.superblock, at: slot + 300)
        }
        // Every page of the tree and of its bitmap, in memory or not.
        let root = store.volume.state.withLock { $0.superblock.indexRoot }
        var pages: Set<UInt64> = [UInt64(root.bitmap.rawValue)]
        let file = store.volume.state.withLock { $0.indexFile }
        _ = IndexVerifier.verify(
            root: root, uuid: StoreUUID(high: 1, low: 2),
            read: store.device.pages(of: file), onPage: { page in _ = pages.insert(UInt64(page.address.rawValue)) },
            onDamage: { Issue.record("\($0)") })
        #expect(pages.count > 4)
        for page in pages {
            store.device.damage(.index, at: page * 8192 + 100)
            let found = store.volume.scrub().status.findings
            #expect(found.count == 1 && found[0].description.contains("page \(page)"), "page \(page): \(found)")
            store.device.damage(.index, at: page * 8192 + 100)
        }
        #expect(store.volume.scrub().status.findings == [])
    }

    /// A device that fails once, or always.
    @Test func unreadableDataIsTold() throws {
        let store = try TestStore(options: Self.options())
        try store.write(store.make("file").inode, 0, bytes(1, 8192))
        try store.volume.syncAndWait()
        let place = try #require(places(store).first)
        let count = store.volume.scrub().status.doneByteCount
        store.device.inject(SimulatedFault(.fail(.ioError), kinds: [.read], file: .segment(place.segment)))
        let once = store.volume.scrub().status
        #expect(once.findings == [] && once.doneByteCount >= count)
        store.device.inject(
            SimulatedFault(.fail(.ioError), kinds: [.read], file: .segment(place.segment), isLasting: true))
        let found = store.volume.scrub().status.findings
        #expect(found.contains { $0.path == "/file" && $0.reason.contains("cannot be read") })
    }

    // MARK: What is not damage

    /// What is acknowledged and not on the disk yet is left to the next scrub.
    @Test func whatIsOnItsWayIsNoDamage() throws {
        let store = try TestStore(options: Self.options())
        let file = try store.make("file").inode
        var count = 0
        let status = store.volume.scrub {
            count += 1
            try? store.write(file, UInt64(count) * 5000, self.bytes(count, 5000))
            return true
        }.status
        #expect(status.findings == [] && count > 3)
    }

    /// All that was looked at and not read yet moves elsewhere, and its segments are recycled and written again.
    @Test func whatMovesMeanwhileIsNoDamage() throws {
        let store = try filled()
        try store.volume.housekeeper.checkpoint()
        var roundCount = 0
        let result = store.volume.scrub {
            guard roundCount < 20, store.volume.state.withLock({ $0.scrub!.blockCount > 0 }) else { return true }
            roundCount += 1
            try? store.volume.syncAndWait()
            for number in store.volume.state.withLock({ state in
                state.core.table.segments.indices.filter {
                    state.core.table.segments[$0].isSealed && state.core.table.segments[$0].live > 0
                }
            }) { _ = store.volume.housekeeper.clean(store.id(of: SegmentNumber(UInt32(number)))) }
            for number in 0..<4 {
                store.volume.housekeeper.housekeep(commits: true, checkpoints: true)
                let name = "new \(number)"
                if let file = (try? store.lookup(name).inode) ?? (try? store.make(name).inode) {
                    try? store.write(file, 0, self.bytes(roundCount, 200_000))
                }
            }
            return true
        }
        #expect(result.status.state == .done && result.status.findings == [])
        #expect(result.doubtCount > 0, "nothing has moved between a look and a read")
        #expect(store.volume.housekeeper.cleaner.cleanedSegmentCount > 0)
    }

    /// A block that does not match is read again, and asked for again: the disk may have erred once, or the file may be gone.
    @Test(arguments: [false, true]) func aDoubtIsLookedAtAgain(isRemoved: Bool) throws {
        let store = try TestStore(options: Self.options())
        let file = try store.make("file").inode
        try store.write(file, 0, bytes(1, 8192))
        try store.volume.syncAndWait()
        let place = try #require(places(store).first)
        store.device.flip(.segment(place.segment), at: UInt64(place.position) + 77)
        let result = store.volume.scrub {
            guard store.volume.state.withLock({ $0.scrub!.blockCount > 0 }) else { return true }
            if isRemoved {
                try? store.unlink("file")
                store.volume.forget(file, 9)
                store.volume.housekeeper.housekeep()
            } else {
                store.device.removeFaults()
            }
            return true
        }
        #expect(result.doubtCount == 1)
        #expect(result.status.state == .done && result.status.findings == [])
    }

    /// What was looked at is removed before it is read, and its blocks are punched.
    @Test func whatIsRemovedMeanwhileIsNoDamage() throws {
        var options = Self.options()
        options.stagingByteCount = 8 << 20
        let store = try TestStore(capacity: 256 << 20, options: options)
        // A leaf names more than one read brings.
        #expect(store.volume.maxWriteByteCount >= 60_000)
        let kept = try store.make("kept").inode
        var dropped: [InodeNumber] = []
        for number in 0..<6 { dropped.append(try store.make("dropped \(number)").inode) }
        for piece in 0..<120 as Range<UInt64> {
            try store.write(kept, piece * 60_000, bytes(Int(piece), 60_000))
            try store.write(dropped[Int(piece) % 6], piece * 60_000, bytes(Int(piece), 60_000))
        }
        try store.volume.syncAndWait()
        try store.volume.housekeeper.checkpoint()
        var roundCount = 0
        let result = store.volume.scrub {
            guard roundCount < 6, store.volume.state.withLock({ $0.scrub!.blockCount > 0 }) else { return true }
            try? store.unlink("dropped \(roundCount)")
            store.volume.forget(dropped[roundCount], 9)
            roundCount += 1
            store.volume.housekeeper.housekeep(commits: true, checkpoints: true)
            while store.volume.housekeeper.findDeadBlocks() {}
            for _ in 0..<3 {
                store.volume.housekeeper.housekeep(commits: true, checkpoints: true)
                try? store.volume.housekeeper.checkpoint()
                store.volume.housekeeper.punchWaiting()
            }
            return true
        }
        #expect(store.volume.state.withLock { $0.punchedByteCount } > 0)
        #expect(result.status.state == .done && result.status.findings == [])
    }

    /// While the log fails and is written again elsewhere, a scrub waits, and goes on with the new index.
    @Test func aLogThatIsWrittenAgainIsNoDamage() throws {
        let store = try filled()
        var count = 0
        let status = store.volume.scrub {
            count += 1
            if count == 4 {
                store.device.inject(SimulatedFault(.fail(.ioError), kinds: [.write, .writeDurable]))
                try? store.write(store.make("late").inode, 0, self.bytes(count, 90_000))
                try? store.volume.syncAndWait()
            }
            return true
        }.status
        #expect(store.volume.state.withLock { $0.relocationCount } == 1)
        #expect(status.state == .done && status.findings == [])
    }

    /// What a repair has repaired, or marked as lost, is no damage any more.
    @Test(arguments: 1...6 as ClosedRange<UInt64>) func aRepairedStoreIsClean(seed: UInt64) throws {
        let damaged = try DamagedStore(checkpointsBetween: seed % 2 == 0)
        var random = SimulatedRandom(seed: seed)
        let batches = try damaged.batches()
        for _ in 0..<3 {
            let batch = batches[Int(random.next() % UInt64(batches.count))]
            let place = UInt64(batch.offset) + random.next() % UInt64(batch.header.byteCount)
            damaged.device.damage(.segment(batch.segment), at: place)
        }
        if seed == 3 { damaged.device.damage(.segment(batches[0].segment), at: 40) }
        #expect(try damaged.repair().left.isClean)
        _ = try damaged.compare()
        let status = damaged.store.volume.scrub().status
        #expect(status.state == .done && status.findings == [])
    }

    /// It raised the count of readers of a segment whose header was being written anew, and the mount trapped.
    @Test func aSegmentThatIsBeingResetIsLeftAlone() throws {
        let store = try filled()
        try store.volume.syncAndWait()
        let scrub = Scrub(store.volume) { _, _ in true }
        let (number, incarnation) = store.volume.state.withLock { state -> (SegmentNumber, UInt32) in
            let table = state.core.table
            let index = table.segments.firstIndex { $0.state == .inUse }!
            return (SegmentNumber(UInt32(index)), table.segments[index].incarnation)
        }
        func isHeld() throws -> Bool { try scrub.holding(SegmentID(number, incarnation)) { _ in true } ?? false }
        #expect(try isHeld())
        store.volume.state.withLock { $0.core.table[number].isBeingReset = true }
        #expect(try !isHeld())
        store.volume.state.withLock { $0.core.table[number].isBeingReset = false }
        #expect(try isHeld())
    }

    /// And a segment that a scrub has come to since it was chosen is not reset.
    @Test func aSegmentThatIsReadIsNotReset() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        for piece in 0..<24 as Range<UInt64> { try store.write(inode, 0, bytes(Int(piece), 50_000)) }
        try store.unlink("file")
        store.volume.forget(inode, 1)
        let dead = try store.deadSegment()
        store.volume.state.withLock { $0.core.table[dead].readerCount += 1 }
        try store.volume.housekeeper.recycle(dead)
        #expect(store.volume.state.withLock { $0.core.table[dead].state } == .inUse)
        store.volume.state.withLock { $0.core.table[dead].readerCount -= 1 }
        try store.volume.housekeeper.recycle(dead)
        #expect(store.volume.state.withLock { $0.core.table[dead].state } != .inUse)
    }
}
