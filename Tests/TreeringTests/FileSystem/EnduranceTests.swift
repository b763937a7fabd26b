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
        try data.withUnsafeBytes { bytes in
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
}
