// Both slots of the superblock are lost: what a check says, what a repair makes of it, and when it leaves its hands off.

import Testing

@testable import Treering

/// How a superblock is lost.
enum SuperblockLoss: CaseIterable, Sendable {
    case zeros
    case random
    case truncated
    case missing

    func happen(to device: SimulatedDevice) throws {
        switch self {
        case .zeros, .random:
            for offset in Superblock.slotOffsets {
                try device.put(
                    .superblock, offset,
                    (0..<4096).map { self == .zeros ? 0 : UInt8(truncatingIfNeeded: $0 &* 167 &+ 3) })
            }
        case .truncated:
            let file = try device.open(.superblock, create: false)
            try device.resize(file, to: 1000)
            device.close(file)
        case .missing: try device.unlink(.superblock)
        }
        try device.syncDirectories()
    }
}

extension SimulatedDevice {
    /// Writes a block, and all of it durably.
    fileprivate func put(_ file: StoreFile, _ offset: UInt64, _ bytes: [UInt8]) throws {
        let handle = try open(file, create: false)
        defer { close(handle) }
        let block = AlignedBuffer(byteCount: bytes.count)
        block.bytes.copyBytes(from: bytes)
        try wait(Submission(.write, handle, offset: offset, block.bytes, tag: 0))
        try wait(Submission(.sync, handle, tag: 0))
    }

    /// Changes the header of a segment, its checksum included.
    fileprivate func edit(header number: UInt32, _ body: (UnsafeMutableRawBufferPointer) -> Void) throws {
        var bytes = Array(contents(of: .segment(SegmentNumber(number)))![..<SegmentHeader.byteCount])
        bytes.withUnsafeMutableBytes { bytes in
            body(bytes)
            bytes.seal(SegmentHeader.layout.checksum)
        }
        try put(.segment(SegmentNumber(number)), 0, bytes)
    }

    /// What every file holds.
    fileprivate var everything: [String: [UInt8]] {
        Dictionary(uniqueKeysWithValues: list().map { ($0.path, contents(of: $0)!) })
    }

    fileprivate func dropCopies() throws {
        for offset in Superblock.copyOffsets { try put(.index, offset, [UInt8](repeating: 0, count: 4096)) }
    }
}

@Suite struct SuperblockRepairTests {
    enum Remains: CaseIterable, Sendable {
        case copies
        case indexWithoutCopies
        case segments
    }

    private static func lose(_ loss: SuperblockLoss, _ remains: Remains, _ device: SimulatedDevice) throws {
        try loss.happen(to: device)
        switch remains {
        case .copies: break
        case .indexWithoutCopies: try device.dropCopies()
        case .segments: try device.unlink(.index)
        }
        try device.syncDirectories()
    }

    @Test(arguments: SuperblockLoss.allCases, Remains.allCases)
    func aLostSuperblockIsMadeAnew(_ loss: SuperblockLoss, _ remains: Remains) throws {
        let damaged = try DamagedStore(checkpointsBetween: true)
        let before = try SuperblockPair.read(damaged.device).newest()
        try Self.lose(loss, remains, damaged.device)
        let bytes = damaged.device.everything

        let error = #expect(throws: MountError.self) { try damaged.compare() }
        #expect(error?.description.contains("treering check --repair") == true)
        let found = try damaged.check(readsData: true)
        #expect(!found.isClean && found.needs.contains(.superblock))
        let effect = try #require(found.problems.first?.effect)
        #expect(effect.contains(remains == .copies ? "copy in the file `index`" : "headers of the segments"))
        #expect(found.problemCount == 1 || remains != .copies, "\(found.problems)")
        let view = try StoreView.open(damaged.device, indexCacheByteCount: 1 << 20, log: { _ in })
        var names = 0
        var cookie: UInt64 = 0
        while let name = try view.name(in: .root, after: cookie) { (names, cookie) = (names + 1, name.cookie) }
        #expect(names == damaged.contents.count + 1)
        #expect(damaged.device.everything == bytes, "neither a check nor an export changes anything")

        let report = try damaged.repair()
        #expect(report.steps.first?.contains("the superblock was made anew") == true, "\(report.steps)")
        #expect(report.left.isClean, "\(report.left.problems)")
        #expect(report.found.problemCount == found.problemCount)
        let after = try SuperblockPair.read(damaged.device).newest()
        #expect(after.uuid == before.uuid && after.hashKey == before.hashKey && after.isClean)
        #expect(
            after.capacityByteCount == before.capacityByteCount && after.segmentByteCount == before.segmentByteCount)
        #expect(after.nextInode == before.nextInode && after.highestSequence == before.highestSequence)
        #expect(after.inodeCount == before.inodeCount && after.epoch > before.epoch)
        #expect(try damaged.check(readsData: true).isClean)
        #expect(try damaged.compare().equal == damaged.contents.count)
    }

    /// Segments that were emptied and given back leave gaps in the log, also right before its end.
    @Test(arguments: [false, true]) func segmentsThatWereGivenBackAreNotMissed(hasIndex: Bool) throws {
        let store = try TestStore(capacity: 64 << 20)
        let kept = try store.make("kept").inode
        try store.write(kept, 0, [1, 2, 3])
        let scratch = try store.make("scratch").inode
        let piece = [UInt8](repeating: 7, count: 60_000)
        for round in 0..<60 as Range<UInt64> { try store.write(scratch, round * 60_000, piece) }
        try store.unlink("scratch")
        store.volume.forget(scratch, 1)
        store.volume.housekeeper.housekeep(commits: true, checkpoints: true)
        let last = try store.make("last").inode
        try store.write(last, 0, [4, 5, 6])
        for _ in 0..<3 { try store.volume.housekeeper.checkpoint() }
        store.volume.housekeeper.recycleSegments()
        try store.volume.unmount()
        let device = store.device.snapshotAfterKill()
        var inUseCount = 0
        for case .segment(let number) in device.list() {
            let bytes = device.contents(of: .segment(number))![..<SegmentHeader.byteCount]
            let header = try bytes.withUnsafeBytes {
                try SegmentHeader.decode(
                    $0, uuid: StoreUUID(high: 1, low: 2), number: number, segmentByteCount: 1 << 20)
            }
            if header?.state == .inUse { inUseCount += 1 } else { try device.unlink(.segment(number)) }
        }
        try device.syncDirectories()
        #expect(inUseCount > 1 && inUseCount < 4, "of five or more")
        try Self.lose(.zeros, hasIndex ? .copies : .segments, device)
        #expect(try DamagedStore.repair(device).left.isClean)
        store.volume = try Volume.mount(device, VolumeOptions(), now: TestStore.now) { _ in }
        #expect(try store.read(store.lookup("kept").inode, 0, 10) == [1, 2, 3])
        #expect(try store.read(store.lookup("last").inode, 0, 10) == [4, 5, 6])
        #expect(throws: Errno.noEntry) { try store.lookup("scratch") }
    }

    /// What a killed mount had acknowledged and not written is taken in, also where the newer copy is damaged and does not know of that mount.
    @Test(arguments: Remains.allCases, [false, true])
    func whatStagingHoldsIsTakenIn(_ remains: Remains, damagesNewerCopy: Bool) throws {
        let store = try TestStore(capacity: 16 << 20, keepsStaging: true)
        for number in 0..<20 { _ = try store.make("file \(number)") }
        let device = store.device.snapshotAfterKill()
        let tail = try #require(StagedRecords(copying: UnsafeRawBufferPointer(store.stagingBuffer.bytes)))
        let lost = try SuperblockPair.read(device).newest()
        var header = tail.header
        header.epoch = lost.epoch
        header.generation = lost.generation
        if damagesNewerCopy {
            let generations = try SuperblockPair.readCopies(device).summary.map(\.generation)
            let newer = generations[0] > generations[1] ? 0 : 1
            device.damage(.index, at: Superblock.copyOffsets[newer] + 99)
        }
        try Self.lose(.random, remains, device)
        let report = try Repairer.repair(
            indexCacheByteCount: 1 << 20, log: { _ in }, staging: { $0 == header.uuid ? [header] : [] }
        ) {
            device
        } mount: { (device, options) throws(MountError) in
            let superblock = try SuperblockPair.read(device).newest()
            #expect(superblock.epoch >= header.epoch && superblock.generation >= header.generation)
            return try Volume.mount(device, options, allStaged: [tail], now: TestStore.now) { _ in }
        }
        #expect(report.left.isClean, "\(report.left.problems)")
        #expect(report.found.notes.contains { $0.contains("staging") }, "\(report.found.notes)")
        store.volume = try Volume.mount(device, VolumeOptions(), now: TestStore.now) { _ in }
        for number in 0..<20 { _ = try store.lookup("file \(number)") }
        _ = try store.make("another")
        try store.volume.unmount()
        #expect(try Checker.check(device.snapshotAfterKill(), readsData: true).isClean)
    }

    /// A repair cut off at any of its writes is done by a second one.
    @Test(arguments: Remains.allCases) func aRepairCutOffAnywhereCanBeDoneAgain(_ remains: Remains) throws {
        var random = SimulatedRandom(seed: 3)
        var stateCount = 0
        for loss in SuperblockLoss.allCases {
            let damaged = try DamagedStore(checkpointsBetween: true)
            try Self.lose(loss, remains, damaged.device)
            damaged.device = damaged.device.crash(seed: 1).device()
            damaged.device.keepHistory()
            #expect(try damaged.repair().left.isClean)
            for event in damaged.device.crashPoints.shuffled(using: &random).prefix(Self.pointCount) {
                let states = damaged.device.crashStates(at: event, exhaustiveUpTo: 3, samples: 3, seed: random.next())
                guard let state = states.randomElement(using: &random) else { continue }
                stateCount += 1
                let again = try DamagedStore(copying: damaged)
                again.device = state.device()
                let second = try again.repair()
                #expect(second.left.isClean, "\(loss), \(state): \(second.left.problems)")
                let files = try again.compare()
                #expect(files.equal == damaged.contents.count, "\(loss), \(state): \(files)")
            }
        }
        #expect(stateCount > 4)
    }

    private static var pointCount: Int {
        #if DEBUG
            return 2
        #else
            return 20
        #endif
    }

    // MARK: Hands off

    private static func expectRefused(_ device: SimulatedDevice, _ text: String, kind: MountError.Kind = .damaged)
        throws
    {
        let bytes = device.everything
        let error = #expect(throws: MountError.self) { try DamagedStore.repair(device) }
        #expect(error?.kind == kind && error?.description.contains(text) == true, "\(String(describing: error))")
        #expect(device.everything == bytes, "nothing may be written")
    }

    @Test(arguments: Remains.allCases) func segmentsOfTwoStoresAreLeftAlone(_ remains: Remains) throws {
        let damaged = try DamagedStore()
        try Self.lose(.zeros, remains, damaged.device)
        try damaged.device.edit(header: 1) { $0[SegmentHeader.layout.uuid] = StoreUUID(high: 9, low: 9) }
        try Self.expectRefused(damaged.device, "belong to different stores")
    }

    @Test func segmentsOfTwoSizesAreLeftAlone() throws {
        let damaged = try DamagedStore()
        try Self.lose(.missing, .segments, damaged.device)
        try damaged.device.edit(header: 1) { $0[SegmentHeader.layout.segmentByteCount] = 2 << 20 }
        try Self.expectRefused(damaged.device, "belong to different stores")
    }

    @Test func aSegmentOfAnUnknownVersionIsLeftAlone() throws {
        let damaged = try DamagedStore()
        try Self.lose(.truncated, .copies, damaged.device)
        try damaged.device.edit(header: 1) { $0[SegmentHeader.layout.version] = 2 }
        try Self.expectRefused(damaged.device, "version 2", kind: .newer)
    }

    @Test func theIndexOfAnotherStoreIsLeftAlone() throws {
        let damaged = try DamagedStore()
        var other = try SuperblockPair.read(damaged.device).newest()
        other.uuid = StoreUUID(high: 9, low: 9)
        for slot in 0..<2 { try SuperblockPair.write(other, slot: slot, damaged.device) }
        try Self.lose(.zeros, .copies, damaged.device)
        try Self.expectRefused(damaged.device, "the copy in the file `index` is of store")
    }

    @Test func differentKeysAreLeftAlone() throws {
        let damaged = try DamagedStore()
        try Self.lose(.zeros, .segments, damaged.device)
        let inUse = (0..<4 as Range<UInt32>).last {
            damaged.device.contents(of: .segment(SegmentNumber($0)))?[SegmentHeader.layout.state.offset]
                == SegmentHeader.State.inUse.rawValue
        }
        let free = try #require((0..<4 as Range<UInt32>).first { $0 != inUse })
        try damaged.device.edit(header: free) { $0[SegmentHeader.layout.hashKey] = StoreUUID(high: 8, low: 8) }
        try Self.expectRefused(damaged.device, "different keys")
    }

    @Test func nothingIsMadeOfNothing() throws {
        let damaged = try DamagedStore()
        try Self.lose(.zeros, .segments, damaged.device)
        for case .segment(let number) in damaged.device.list() { try damaged.device.unlink(.segment(number)) }
        try Self.expectRefused(damaged.device, "no segment with a whole header")
    }

    @Test func aSuperblockOfALaterVersionIsLeftAlone() throws {
        let damaged = try DamagedStore()
        var bytes = Array(damaged.device.contents(of: .superblock)![..<Superblock.slotByteCount])
        bytes.withUnsafeMutableBytes { bytes in
            bytes[Superblock.layout.version] = 9
            bytes.seal(Superblock.layout.checksum)
        }
        try SuperblockLoss.random.happen(to: damaged.device)
        try damaged.device.put(.superblock, 0, bytes)
        try Self.expectRefused(damaged.device, "format version 9", kind: .newer)
    }

    /// What the host does not read today it may read tomorrow: a repair that went by the rest would void it.
    @Test(arguments: Remains.allCases) func aSegmentThatCannotBeReadIsNotLeftOut(_ remains: Remains) throws {
        let damaged = try DamagedStore()
        try Self.lose(.zeros, remains, damaged.device)
        let bytes = damaged.device.everything
        damaged.device.inject(
            SimulatedFault(.fail(.ioError), kinds: [.read], file: .segment(SegmentNumber(0)), isLasting: true))
        let text = "segment 0 cannot be read"
        if remains == .copies {
            let report = try damaged.repair()
            #expect(!report.left.isClean && report.steps.isEmpty)
            #expect(report.left.notes.contains { $0.contains(text) }, "\(report.left.notes)")
        } else {
            let error = #expect(throws: MountError.self) { try damaged.repair() }
            #expect(error?.description.contains(text) == true)
        }
        damaged.device.clearFaults()
        #expect(damaged.device.everything == bytes, "nothing may be written")
        #expect(try damaged.repair().left.isClean)
        #expect(try damaged.compare().equal == damaged.contents.count)
    }

    /// Without the key of the name hash, files can be got out and not be looked up.
    @Test func aStoreOfAnEarlierVersionIsExportedAndNotRepaired() throws {
        let damaged = try DamagedStore()
        for case .segment(let number) in damaged.device.list() {
            try damaged.device.edit(header: number.rawValue) { $0.zero(64, 24) }
        }
        try Self.lose(.zeros, .indexWithoutCopies, damaged.device)
        let bytes = damaged.device.everything
        let report = try damaged.repair()
        #expect(!report.left.isClean && report.steps.isEmpty)
        #expect(report.left.notes.contains { $0.contains("treering export") })
        #expect(damaged.device.everything == bytes, "nothing may be written")
        let view = try StoreView.open(damaged.device, indexCacheByteCount: 1 << 20, log: { _ in })
        #expect(try view.name(in: .root, after: 0) != nil)
    }

    // MARK: The copies

    @Test(arguments: [0, 1]) func aDamagedCopyIsFoundAndWrittenAnew(_ copy: Int) throws {
        let damaged = try DamagedStore()
        for offset in Superblock.copyOffsets.prefix(copy + 1) { damaged.device.damage(.index, at: offset + 100) }
        if copy == 0 {
            let generations = try SuperblockPair.read(damaged.device).summary.map(\.generation)
            if generations[0] < generations[1] { damaged.device.damage(.index, at: Superblock.copyOffsets[1] + 100) }
        }
        #expect(try damaged.check().needs == [.superblock])
        #expect(try damaged.repair().left.isClean)
        let newest = try SuperblockPair.read(damaged.device).newest()
        #expect(try SuperblockPair.readCopies(damaged.device).newest() == newest)
        #expect(try damaged.compare().equal == damaged.contents.count)
    }

    /// Copies that mounts of an earlier version have not kept up to date: only what never changes is taken from them.
    @Test(arguments: [1, 4] as [UInt64]) func oldCopiesAreNotGoneBy(mountCount: UInt64) throws {
        let store = try TestStore(capacity: 16 << 20)
        let kept = try store.make("kept").inode
        try store.volume.unmount()
        try StoreIdentity.renew(store.device, to: StoreUUID(high: 5, low: 6))
        let old = try Superblock.copyOffsets.map { offset in
            Array(try #require(store.device.contents(of: .index))[Int(offset)..<Int(offset) + 4096])
        }
        for round in 0..<mountCount {
            store.volume = try Volume.mount(store.device, VolumeOptions(), now: TestStore.now) { _ in }
            let scratch = try store.make("scratch").inode
            for piece in 0..<30 {
                try store.write(scratch, UInt64(piece) * 60_000, [UInt8](repeating: 7, count: 60_000))
            }
            try store.write(kept, 0, [UInt8(round)])
            try store.unlink("scratch")
            store.volume.forget(scratch, 1)
            for _ in 0..<3 { store.volume.housekeeper.housekeep(commits: true, checkpoints: true) }
            for _ in 0..<3 { try store.volume.housekeeper.checkpoint() }
            store.volume.housekeeper.recycleSegments()
            try store.volume.unmount()
        }
        for (offset, bytes) in zip(Superblock.copyOffsets, old) { try store.device.put(.index, offset, bytes) }
        let expected = try SuperblockPair.read(store.device).newest()
        try SuperblockLoss.zeros.happen(to: store.device)
        let report = try DamagedStore.repair(store.device)
        #expect(report.left.isClean && report.lost == [], "\(report.left.problems)")
        #expect(report.steps.first?.contains("headers of the segments") == true, "\(report.steps)")
        let superblock = try SuperblockPair.read(store.device).newest()
        #expect(superblock.uuid == expected.uuid && superblock.blockUUID == expected.blockUUID)
        store.volume = try Volume.mount(store.device, VolumeOptions(), now: TestStore.now) { _ in }
        #expect(try store.read(store.lookup("kept").inode, 0, 10) == [UInt8(mountCount - 1)])
        #expect(throws: Errno.noEntry) { try store.lookup("scratch") }
    }

    /// A store that had got another uuid keeps it.
    @Test func aRenewedUUIDIsKept() throws {
        let damaged = try DamagedStore()
        let other = StoreUUID(high: 5, low: 6)
        try StoreIdentity.renew(damaged.device, to: other)
        try Self.lose(.zeros, .copies, damaged.device)
        #expect(try damaged.repair().left.isClean)
        let superblock = try SuperblockPair.read(damaged.device).newest()
        #expect(superblock.uuid == other && superblock.blockUUID == StoreUUID(high: 1, low: 2))
        #expect(try damaged.compare().equal == damaged.contents.count)
    }
}
