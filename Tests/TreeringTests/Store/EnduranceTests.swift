// Kills, full disks, crowds: what attacks on real mounts broke once, each under its name.

import Glibc
import Testing

@testable import Treering

@Suite struct EnduranceTests {
    /// A store whose staging the test can read after a kill.
    struct Staged {
        let device = SimulatedDevice()
        let memory: AlignedBuffer
        let volume: Volume<SimulatedDevice>

        init(capacity: UInt64, segmentByteCount: Int, stagingByteCount: Int) throws {
            let uuid = StoreUUID(high: 1, low: 2)
            try Volume.format(
                device,
                FormatOptions(
                    capacityByteCount: capacity, segmentByteCount: segmentByteCount, uuid: uuid,
                    hashKey: StoreUUID(high: 3, low: 4), now: TestStore.now))
            let geometry = StagingGeometry(stagingByteCount: stagingByteCount, segmentByteCount: segmentByteCount)
            memory = AlignedBuffer(byteCount: geometry.byteCount)
            memory.bytes.zero(0, memory.bytes.count)
            StagingHeader(
                uuid: uuid, epoch: MountEpoch(2), generation: 0, device: 0, directory: 0,
                bootID: StoreUUID(high: 0, low: 0), owner: 0, identity: 1, geometry: geometry
            ).encode(into: memory.bytes)
            volume = try Volume.mount(
                device, VolumeOptions(), staging: Staging(geometry: geometry, memory: memory.bytes, owner: memory),
                now: TestStore.now
            ) { _ in }
        }
    }

    /// A mount with little staging after a kill of one with much: its slots were too small for the tail's records, and it trapped.
    @Test func aTailOfLargeRecordsIsReplayedByAMountWithLessStaging() throws {
        let store = try Staged(capacity: 256 << 20, segmentByteCount: 8 << 20, stagingByteCount: 16 << 20)
        let data = [UInt8](repeating: 9, count: 1 << 20)
        let name = Array("file".utf8)
        let inode = try name.withUnsafeBytes { name in
            try store.volume.perform { (core) throws(Stop) in
                try core.make(.root, name, NewInode(mode: 0o100644), TestStore.context)
            }
        }.inode
        #expect(store.volume.maxWriteByteCount == 1 << 20)
        _ = try data.withUnsafeBytes { bytes in
            try store.volume.perform { (core) throws(Stop) in try core.write(inode, at: 0, bytes, [], .nobody) }
        }
        let killed = store.device.snapshotAfterKill(seed: 3)
        let tail = try #require(StagedRecords(copying: UnsafeRawBufferPointer(store.memory.bytes)))
        var options = VolumeOptions()
        options.stagingByteCount = 1 << 20
        let volume = try Volume.mount(killed, options, allStaged: [tail], now: TestStore.now) { _ in }
        #expect(try volume.bytes { (core) throws(Stop) in try core.planRead(inode, at: 0, 1 << 20) } == data)
        try volume.unmount()
        #expect(try Checker.check(killed, readsData: true).problems == [])
    }

    /// On a full host `rm` failed for ever: what was left of the head had gone to writes, and no segment could be made.
    @Test func removingWorksOnAFullHostAndBringsTheSpaceBack() throws {
        let device = try Self.wideStore()
        device.limitHost(toByteCount: 20 << 20)
        var options = VolumeOptions()
        options.stagingByteCount = 1 << 20
        options.indexCacheByteCount = 4 << 20
        let volume = try Volume.mount(device, options, now: TestStore.now) { _ in }
        for _ in 0..<2 {
            #expect(try Self.fill(volume) == .noSpace)
            let names = try Self.names(volume)
            #expect(names.count > 20)
            for name in names { try Self.unlink(volume, name) }
            for _ in 0..<4 { volume.housekeeper.housekeep() }
        }
        #expect(try volume.status().availableByteCount > 8 << 20)
        try volume.unmount()
        #expect(try Checker.check(device, readsData: true).problems == [])
    }

    /// The index could not grow on a full host, and a create waited for ever for the checkpoint that would have freed a dead segment.
    /// When room came back, the index asked for more than there was.
    @Test func aHostWithoutRoomForTheIndexEndsInNoSpaceAndRecovers() throws {
        let device = try Self.wideStore()
        var options = VolumeOptions()
        options.stagingByteCount = 1 << 20
        options.indexCacheByteCount = 64 << 20
        device.limitHost(toByteCount: 20 << 20)
        let volume = try Volume.mount(device, options, now: TestStore.now) { _ in }
        #expect(try Self.fill(volume) == .noSpace)
        let names = try Self.names(volume)
        for (number, name) in names.enumerated() where number % 3 != 0 { try Self.unlink(volume, name) }
        let space = device.hostSpace()
        device.limitHost(toByteCount: space.totalByteCount - space.availableByteCount)
        #expect(try Self.makeEmptyFiles(volume, 100_000) == .noSpace)
        #expect(volume.state.withLock { $0.core.log.space.isCheckpointStuck })
        for _ in 0..<1000 { volume.housekeeper.housekeep(checkpoints: true) }
        device.limitHost(toByteCount: space.totalByteCount + 32 << 20)
        for _ in 0..<4 { volume.housekeeper.housekeep(checkpoints: true) }
        #expect(!volume.state.withLock { $0.core.log.space.isCheckpointStuck })
        for name in try Self.names(volume) { try Self.unlink(volume, name) }
        #expect(try Self.makeEmptyFiles(volume, 100) == nil)
        #expect(try Self.names(volume).count == 100)
        try volume.unmount()
        #expect(try Checker.check(device, readsData: true).problems == [])
    }

    /// A quota on the host made the mount read-only when the index had to grow.
    @Test func aQuotaThatIsUsedUpIsAFullDisk() {
        errno = EDQUOT
        #expect(Errno.last == .noSpace)
        #expect(Completion(tag: 0, result: -Int(EDQUOT)).error == .noSpace)
        #expect(Completion(tag: 0, result: -Int(EIO)).error == .ioError)
    }

    /// The reserve for removals went to writes as soon as a removal had opened it.
    @Test func writesLeaveTheReserveToRemovals() throws {
        let store = try TestStore(capacity: 16 << 20)
        #expect(try Self.fill(store.volume) == .noSpace)
        for name in try store.names().prefix(10) { try store.unlink(name) }
        try store.volume.syncAndWait()
        #expect(try Self.fill(store.volume) == .noSpace)
        for name in try store.names() { try store.unlink(name) }
        #expect(try store.names() == [])
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    /// A segment that the log ran durably into and whose header was damaged counted as never used: what it held was lost
    /// without a word, and its file removed.
    @Test func aDamagedHeaderOfASegmentThatTheLogRanIntoIsToldAndNotTidiedAway() throws {
        let store = try TestStore(capacity: 16 << 20)
        for number in 0..<12 {
            let inode = try store.make("file\(number)").inode
            try store.write(inode, 0, [UInt8](repeating: 7, count: 300_000))
            try store.volume.syncAndWait()
        }
        for number in [1, 2] as [UInt32] {
            let killed = store.device.snapshotAfterKill(seed: 5)
            let file = StoreFile.segment(SegmentNumber(number))
            killed.damage(file, at: 33)
            #expect(throws: MountError.self) { try Volume.mount(killed, VolumeOptions(), now: TestStore.now) { _ in } }
            #expect(killed.list().contains(file))
        }
    }

    /// Damage that cannot be told from a power cut is at least told: whole batches were given up in silence.
    @Test func batchesGivenUpBehindADamagedOneAreTold() throws {
        let store = try TestStore(capacity: 64 << 20)
        for number in 0..<12 {
            let inode = try store.make("file\(number)").inode
            try store.write(inode, 0, [UInt8](repeating: 7, count: 100_000))
        }
        try store.volume.syncAndWait()
        let killed = store.device.snapshotAfterKill(seed: 5)
        killed.damage(.segment(SegmentNumber(0)), at: 8192 + 200)
        let said = Lines()
        _ = try Volume.mount(killed, VolumeOptions(), now: TestStore.now) { said.lines.append($0) }
        #expect(said.lines.contains { $0.contains("given up") })
    }

    /// A mount after a clean unmount writes two segments, and the power goes when only the second has landed: that was taken for
    /// damage, since the second segment is of a later mount than the checkpoint.
    @Test func aPowerCutInTheFirstBatchAfterACleanUnmountIsNoDamage() throws {
        let store = try TestStore(capacity: 64 << 20)
        try store.remount()
        let inode = try store.make("file").inode
        for part in 0..<20 { try store.write(inode, UInt64(part * 100_000), [UInt8](repeating: 7, count: 100_000)) }
        store.volume.device.drain()
        let position = store.volume.state.withLock { $0.superblock.position }
        let killed = store.device.snapshotAfterKill(seed: 5)
        killed.damage(.segment(position.segment), at: UInt64(position.offsetInSegment) + 200)
        let volume = try Volume.mount(killed, VolumeOptions(), now: TestStore.now) { _ in }
        try volume.unmount()
        #expect(try Checker.check(killed, readsData: true).problems == [])
    }

    private final class Lines: @unchecked Sendable {
        var lines: [String] = []
    }

    /// What the kernel writes back from its cache does not change times: it tells those by itself, and in any order.
    @Test func aWriteFromTheKernelsCacheKeepsTheTimes() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        var changes = AttributeChanges()
        changes.modified = .at(Timestamp(seconds: 5, nanoseconds: 6))
        changes.changed = .at(Timestamp(seconds: 7, nanoseconds: 8))
        _ = try store.volume.perform { (core) throws(Stop) in try core.setAttributes(inode, changes, TestStore.context)
        }
        _ = try ([1, 2, 3] as [UInt8]).withUnsafeBytes { bytes in
            try store.volume.perform { (core) throws(Stop) in try core.write(inode, at: 0, bytes, .keepsTimes, .nobody)
            }
        }
        let found = try store.lookup("file")
        #expect(found.modified == Timestamp(seconds: 5, nanoseconds: 6))
        #expect(found.changed == Timestamp(seconds: 7, nanoseconds: 8))
    }

    /// Makes files of 100,000 bytes until that fails.
    private static func fill(_ volume: Volume<SimulatedDevice>) throws -> Errno? {
        let data = [UInt8](repeating: 7, count: 100_000)
        for number in 0..<10_000 {
            do {
                let name = Array("file\(number)".utf8)
                let made = try name.withUnsafeBytes { name in
                    try volume.perform { (core) throws(Stop) -> InodeNumber in
                        do throws(Stop) { return try core.lookup(.root, name).inode } catch {
                            guard case .failed(.noEntry) = error else { throw error }
                        }
                        return try core.make(.root, name, NewInode(mode: 0o100644), TestStore.context).inode
                    }
                }
                _ = try data.withUnsafeBytes { bytes in
                    try volume.perform { (core) throws(Stop) in try core.write(made, at: 0, bytes, [], .nobody) }
                }
                volume.forget(made, 1)
            } catch let error as Errno { return error }
        }
        return nil
    }

    /// Far larger than the host that it is put on.
    private static func wideStore() throws -> SimulatedDevice {
        let device = SimulatedDevice()
        try Volume.format(
            device,
            FormatOptions(
                capacityByteCount: 256 << 20, segmentByteCount: 1 << 20, uuid: StoreUUID(high: 1, low: 2),
                hashKey: StoreUUID(high: 3, low: 4), now: TestStore.now))
        return device
    }

    /// A create that finds no room runs again after a round of the housekeeper, as in a mount; nil also where it would do so for ever.
    private static func makeEmptyFiles(_ volume: Volume<SimulatedDevice>, _ count: Int) throws -> Errno? {
        for number in 0..<count {
            let name = Array("empty\(number)".utf8) + [UInt8](repeating: 46, count: 150)
            var made: InodeNumber?
            for _ in 0..<50 where made == nil {
                do {
                    made = try name.withUnsafeBytes { name in
                        try volume.run { (core) throws(Stop) in
                            try core.make(.root, name, NewInode(mode: 0o100644), TestStore.context).inode
                        }
                    }
                } catch let stop as Stop {
                    if case .failed(let errno) = stop { return errno == .exists ? nil : errno }
                    try volume.syncAndWait()
                    volume.housekeeper.housekeep()
                }
            }
            guard let made else { return nil }
            volume.forget(made, 1)
        }
        return nil
    }

    private static func names(_ volume: Volume<SimulatedDevice>) throws -> [[UInt8]] {
        var names: [[UInt8]] = []
        try volume.perform { (core) throws(Stop) in
            names = []
            try core.readDirectory(.root, after: 2, isAccess: false) { (entry) throws(Stop) in
                names.append(Array(entry.name))
                return true
            }
        }
        return names
    }

    private static func unlink(_ volume: Volume<SimulatedDevice>, _ name: [UInt8]) throws {
        try name.withUnsafeBytes { name in
            try volume.perform { (core) throws(Stop) in try core.unlink(.root, name, .nobody) }
        }
    }
}
