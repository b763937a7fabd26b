// Damaged stores and their repair: what was whole stays, what was lost is said, and a second check is clean.

import Testing

@testable import Treering

/// A store with some files, cleanly unmounted, to be damaged.
final class DamagedStore {
    let store: TestStore
    var device: SimulatedDevice
    /// What each file at the top should hold.
    private(set) var contents: [String: [UInt8]] = [:]

    /// The same store once more, whole.
    init(copying other: DamagedStore) throws {
        store = other.store
        device = other.device.snapshotAfterKill()
        contents = other.contents
    }

    init(checkpointsBetween: Bool = false) throws {
        store = try TestStore(capacity: 16 << 20)
        device = store.device
        for number in 0..<40 {
            let bytes = (0..<number * 977 % 30_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ number) }
            let name = "file \(number)"
            let inode = try store.make(name).inode
            try store.write(inode, 0, bytes)
            contents[name] = bytes
            if number % 4 == 0 { try store.volume.syncAndWait() }
            if checkpointsBetween, number % 13 == 0 { try store.volume.housekeeper.checkpoint() }
        }
        let directory = try store.make("directory", mode: 0o040755).inode
        for number in 0..<10 { _ = try store.make("inner \(number)", in: directory) }
        for number in 0..<8 {
            try store.unlink("file \(number * 5)")
            contents["file \(number * 5)"] = nil
        }
        try store.volume.syncAndWait()
        try store.volume.unmount()
    }

    /// The segments' batches: where each begins and how long its record area is.
    func batches() throws -> [(segment: SegmentNumber, offset: Int, header: BatchHeader)] {
        var found: [(SegmentNumber, Int, BatchHeader)] = []
        let recovery = try Recovery(device, indexCacheByteCount: 1 << 20) { _ in }
        for (number, segment) in recovery.headers.sorted(by: { $0.key < $1.key })
        where segment.header.state == .inUse {
            var offset = SegmentHeader.byteCount
            while case .batch(let batch) = try recovery.reader.batch(
                in: segment.header.segmentID, segment.file, at: offset, verifyPayload: false)
            {
                found.append((number, offset, batch.header))
                offset += batch.header.byteCount
            }
        }
        return found
    }

    func check(readsData: Bool = false) throws -> CheckReport {
        try Checker.check(device.snapshotAfterKill(), readsData: readsData, indexCacheByteCount: 1 << 20)
    }

    @discardableResult
    func repair() throws -> RepairReport { try Self.repair(device) }

    static func repair(_ device: SimulatedDevice) throws -> RepairReport {
        try Repairer.repair(indexCacheByteCount: 1 << 20, log: { _ in }) {
            device
        } mount: { (device, options) throws(MountError) in
            try Volume.mount(device, options, now: TestStore.now) { _ in }
        }
    }

    /// How each file reads in a new mount: equal, an error, or different.
    func compare() throws -> (equal: Int, missing: [String], failing: [String], different: [String]) {
        store.volume = try Volume.mount(device, VolumeOptions(), now: TestStore.now) { _ in }
        var result = (equal: 0, missing: [String](), failing: [String](), different: [String]())
        for (name, bytes) in contents.sorted(by: { $0.key < $1.key }) {
            guard let file = try? store.lookup(name) else {
                result.missing.append(name)
                continue
            }
            do {
                var found: [UInt8] = []
                while found.count < bytes.count {
                    let part = try store.read(file.inode, UInt64(found.count), min(4096, bytes.count - found.count))
                    if part.isEmpty { break }
                    found += part
                }
                if found == bytes, file.byteCount == UInt64(bytes.count) {
                    result.equal += 1
                } else {
                    result.different.append(name)
                }
            } catch { result.failing.append(name) }
        }
        return result
    }
}

@Suite struct RepairTests {
    @Test func aWholeStoreIsLeftAlone() throws {
        let damaged = try DamagedStore()
        let before = damaged.device.eventCount
        let report = try damaged.repair()
        #expect(report.found.isClean && report.left.isClean && report.steps.isEmpty)
        let lines = damaged.device.traceLines().filter { $0.contains("write") }
        #expect(damaged.device.eventCount > before)
        _ = try damaged.repair()
        #expect(damaged.device.traceLines().filter { $0.contains("write") } == lines, "nothing is written")
    }

    @Test(arguments: [0, 1]) func aDamagedSlotOfTheSuperblockIsWrittenAnew(_ slot: Int) throws {
        let damaged = try DamagedStore()
        damaged.device.damage(.superblock, at: Superblock.slotOffsets[slot] + 100)
        #expect(try damaged.check().needs == [.superblock])
        #expect(try damaged.repair().left.isClean)
        #expect(try SuperblockPair.read(damaged.device).complaint == nil)
        #expect(try damaged.compare().equal == damaged.contents.count)
    }

    @Test func anyDamageToTheIndexIsMendedFromTheLog() throws {
        var random = SimulatedRandom(seed: 5)
        let whole = try DamagedStore(checkpointsBetween: true)
        for _ in 0..<12 {
            let damaged = try DamagedStore(copying: whole)
            let root = try SuperblockPair.read(damaged.device).newest().indexRoot
            for _ in 0..<1 + random.next() % 40 {
                damaged.device.damage(
                    .index, at: random.next() % (root.pageCount * 8192), bits: UInt8(random.next() % 255 + 1))
            }
            let found = try damaged.check()
            let report = try damaged.repair()
            #expect(report.left.isClean, "\(report.left.problems)")
            #expect(found.isClean || !report.found.needs.isDisjoint(with: [.index, .superblock]))
            #expect(try damaged.compare().equal == whole.contents.count)
        }
    }

    /// Damage in the records of any batch before the checkpoint: the index remembers all but inline data.
    @Test(arguments: [2, 3, 4, 5, 9]) func aDamagedRecordIsWrittenAgainFromTheIndex(_ number: Int) throws {
        let damaged = try DamagedStore()
        let batch = try damaged.batches()[number]
        let place = batch.offset + (number == 3 ? 50 : Int(batch.header.recordAreaByteCount) / 2)
        damaged.device.damage(.segment(batch.segment), at: UInt64(place))
        let report = try damaged.repair()
        #expect(report.found.needs.contains(.log))
        #expect(report.left.isClean, "\(report.left.problems)")
        #expect(try damaged.check(readsData: true).isClean)
        let files = try damaged.compare()
        #expect(files.missing == [] && files.different == [] && files.failing.count <= 2, "\(files)")
        #expect(try damaged.store.names(in: damaged.store.lookup("directory").inode).count == 10)
    }

    /// The same with the index gone: files that the lost records changed last are in an older state, everything else is as it was.
    @Test func aDamagedRecordWithoutAnIndexLosesNoMoreThanItself() throws {
        let whole = try DamagedStore()
        let batches = try whole.batches()
        for number in stride(from: 1, to: batches.count, by: max(1, batches.count / 6)) {
            let damaged = try DamagedStore(copying: whole)
            let batch = batches[number]
            damaged.device.damage(
                .segment(batch.segment), at: UInt64(batch.offset + Int(batch.header.recordAreaByteCount) / 2))
            try damaged.device.unlink(.index)
            let report = try damaged.repair()
            #expect(report.left.isClean, "\(number): \(report.left.problems)")
            let files = try damaged.compare()
            #expect(files.missing.count + files.different.count + files.failing.count <= 2, "\(number): \(files)")
        }
    }

    @Test func aDamagedDataBlockGivesErrorsAndTheRestOfTheFileIsReadable() throws {
        let damaged = try DamagedStore()
        let batch = try #require(damaged.batches().last { $0.header.payloadBlockCount > 2 })
        damaged.device.damage(
            .segment(batch.segment), at: UInt64(batch.offset + batch.header.payloadAreaOffset + 4096 + 7))
        #expect(try damaged.check().isClean)
        let found = try damaged.check(readsData: true)
        #expect(found.unreadableCount == 1)
        #expect(found.problems.first?.path?.hasPrefix("/file ") == true, "\(found.problems)")
        let report = try damaged.repair()
        #expect(report.found.needs == [.data] && report.left.isClean)
        let again = try damaged.check(readsData: true)
        #expect(again.isClean && again.knownLostCount == 1)
        #expect(try damaged.compare().failing.count == 1)
    }

    @Test func aDamagedSegmentHeaderIsMendedFromTheIndexOrTheBatches() throws {
        for hasIndex in [true, false] {
            let damaged = try DamagedStore()
            damaged.device.damage(.segment(SegmentNumber(0)), at: 20)
            if !hasIndex { try damaged.device.unlink(.index) }
            let report = try damaged.repair()
            #expect(report.found.needs.contains(.log))
            #expect(report.left.isClean, "\(report.left.problems)")
            #expect(try damaged.compare().equal == damaged.contents.count)
        }
    }

    @Test func aMissingSegmentLosesItsDataAndNoName() throws {
        let damaged = try DamagedStore()
        try damaged.device.unlink(.segment(SegmentNumber(0)))
        try damaged.device.syncDirectories()
        let report = try damaged.repair()
        #expect(report.left.isClean, "\(report.left.problems) \(report.steps)")
        let files = try damaged.compare()
        #expect(files.missing == [] && files.different == [], "\(files)")
    }

    @Test func aDamagedBatchHeaderIsMadeOutFromItsRecords() throws {
        let damaged = try DamagedStore()
        let batch = try damaged.batches()[4]
        for place in [3, 40, 70] { damaged.device.damage(.segment(batch.segment), at: UInt64(batch.offset + place)) }
        try damaged.device.unlink(.index)
        let report = try damaged.repair()
        #expect(report.left.isClean, "\(report.left.problems)")
        #expect(try damaged.compare().equal == damaged.contents.count)
    }

    /// A cleanly unmounted log must end where the superblock says: what is damaged of its last batch is no torn tail.
    @Test func theTailOfACleanStoreIsVerified() throws {
        for place in [50, 200] {
            let damaged = try DamagedStore()
            let batch = try #require(damaged.batches().last)
            damaged.device.damage(.segment(batch.segment), at: UInt64(batch.offset + place))
            #expect(try damaged.check().needs.contains(.log))
            let report = try damaged.repair()
            #expect(report.left.isClean, "\(report.left.problems)")
            let files = try damaged.compare()
            #expect(files.equal == damaged.contents.count, "\(files)")
            let inode = try damaged.store.make("new").inode
            try damaged.store.write(inode, 0, [1, 2, 3])
            try damaged.store.volume.unmount()
            #expect(try damaged.check(readsData: true).isClean)
        }
    }

    /// A repair cut off at any of its writes leaves a store that a second repair makes as good as the first would have.
    @Test func aRepairCutOffAnywhereCanBeDoneAgain() throws {
        let whole = try DamagedStore(checkpointsBetween: true)
        let batches = try whole.batches()
        var random = SimulatedRandom(seed: 7)
        var stateCount = 0
        for round in 0..<4 {
            let damaged = try DamagedStore(copying: whole)
            let batch = batches[3 + round * 4]
            damaged.device.damage(
                .segment(batch.segment), at: UInt64(batch.offset + Int(batch.header.recordAreaByteCount) / 2))
            if let data = batches.last(where: { $0.header.payloadBlockCount > 2 }) {
                damaged.device.damage(
                    .segment(data.segment), at: UInt64(data.offset + data.header.payloadAreaOffset + 5000))
            }
            switch round {
            case 1: try damaged.device.unlink(.index)
            case 2: damaged.device.damage(.segment(SegmentNumber(0)), at: 100)
            default: break
            }
            try damaged.device.syncDirectories()
            damaged.device = damaged.device.crash(seed: 1).device()
            damaged.device.keepHistory()
            let first = try damaged.repair()
            #expect(first.left.isClean, "\(first.left.problems)")
            let points = damaged.device.crashPoints
            let states = points.shuffled(using: &random).prefix(Self.pointCount).flatMap { event in
                damaged.device.crashStates(at: event, exhaustiveUpTo: 3, samples: 3, seed: random.next())
                    .shuffled(using: &random).prefix(2)
            }
            let reference = try DamagedStore(copying: damaged)
            let best = try reference.compare()
            for state in states {
                stateCount += 1
                let again = try DamagedStore(copying: damaged)
                again.device = state.device()
                let second = try again.repair()
                #expect(second.left.isClean, "round \(round), \(state): \(second.left.problems)")
                let files = try again.compare()
                #expect(
                    Set(files.missing).isSubset(of: best.missing) && Set(files.failing).isSubset(of: best.failing)
                        && Set(files.different).isSubset(of: best.different),
                    "round \(round), \(state): \(files), not \(best)")
            }
        }
        #expect(stateCount > 8)
    }

    private static var pointCount: Int {
        #if DEBUG
            return 3
        #else
            return 60
        #endif
    }
}
