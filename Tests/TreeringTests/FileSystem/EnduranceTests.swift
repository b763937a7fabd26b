// Kills, full disks, crowds: what attacks on real mounts broke once, each under its name.

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
                try core.make(.root, name, NewInode(mode: 0o100644), TestStore.caller)
            }
        }.inode
        #expect(store.volume.maxWriteByteCount == 1 << 20)
        _ = try data.withUnsafeBytes { bytes in
            try store.volume.perform { (core) throws(Stop) in try core.write(inode, at: 0, bytes) }
        }
        let killed = store.device.snapshotAfterKill(seed: 3)
        let tail = try #require(StagingTail(copying: UnsafeRawBufferPointer(store.memory.bytes)))
        var options = VolumeOptions()
        options.stagingByteCount = 1 << 20
        let volume = try Volume.mount(killed, options, tails: [tail], now: TestStore.now) { _ in }
        #expect(try volume.bytes { (core) throws(Stop) in try core.planRead(inode, at: 0, 1 << 20) } == data)
        try volume.unmount()
        #expect(try Checker.check(killed, readsData: true).problems == [])
    }

    /// On a full host `rm` failed for ever: what was left of the head had gone to writes, and no segment could be made.
    @Test func removingWorksOnAFullHostAndBringsTheSpaceBack() throws {
        let device = SimulatedDevice()
        try Volume.format(
            device,
            FormatOptions(
                capacityByteCount: 256 << 20, segmentByteCount: 1 << 20, uuid: StoreUUID(high: 1, low: 2),
                hashKey: StoreUUID(high: 3, low: 4), now: TestStore.now))
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
            for _ in 0..<4 { volume.housekeep() }
        }
        #expect(try volume.status().availableByteCount > 8 << 20)
        try volume.unmount()
        #expect(try Checker.check(device, readsData: true).problems == [])
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
                        return try core.make(.root, name, NewInode(mode: 0o100644), TestStore.caller).inode
                    }
                }
                _ = try data.withUnsafeBytes { bytes in
                    try volume.perform { (core) throws(Stop) in try core.write(made, at: 0, bytes) }
                }
                volume.forget(made, 1)
            } catch let error as Errno { return error }
        }
        return nil
    }

    private static func names(_ volume: Volume<SimulatedDevice>) throws -> [[UInt8]] {
        var names: [[UInt8]] = []
        try volume.perform { (core) throws(Stop) in
            names = []
            try core.readDirectory(.root, after: 2) { (entry) throws(Stop) in
                names.append(Array(entry.name))
                return true
            }
        }
        return names
    }

    private static func unlink(_ volume: Volume<SimulatedDevice>, _ name: [UInt8]) throws {
        try name.withUnsafeBytes { name in
            try volume.perform { (core) throws(Stop) in try core.unlink(.root, name) }
        }
    }
}
