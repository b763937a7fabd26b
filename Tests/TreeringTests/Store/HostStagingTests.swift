// A mount's staging file on this machine: it is moved to the store where its name was removed, and a mount that is shut down keeps it.

import Glibc
import Testing

@testable import Treering

@Suite struct HostStagingTests {
    private let place = TemporaryDirectory()
    private let uuid = StoreUUID(high: HostStaging.randomWord(), low: HostStaging.randomWord())
    private let device = SimulatedDevice()

    private func format() throws {
        try Volume.format(
            device, FormatOptions(capacityByteCount: 64 << 20, uuid: uuid, hashKey: uuid, now: TestStore.now))
    }

    private func mount(
        _ device: SimulatedDevice
    ) throws -> (volume: Volume<SimulatedDevice>, staging: HostStaging) {
        let staging = try HostStaging(directory: place.path, uuid: uuid) { _ in }
        return (try Volume.mount(device, VolumeOptions(), hostStaging: staging, now: TestStore.now) { _ in }, staging)
    }

    private func make(_ volume: Volume<SimulatedDevice>, _ name: String) throws {
        _ = try Array(name.utf8).withUnsafeBytes { name in
            try volume.perform { (core) throws(Stop) in
                try core.make(.root, name, NewInode(mode: 0o100644), TestStore.context)
            }
        }
    }

    private func names(_ volume: Volume<SimulatedDevice>) throws -> [String] {
        var names: [String] = []
        try volume.perform { (core) throws(Stop) in
            try core.readDirectory(.root, after: 2, isAccess: false) { (entry) throws(Stop) in
                names.append(String(decoding: entry.name, as: UTF8.self))
                return true
            }
        }
        return names.sorted()
    }

    private func passedCount(_ volume: Volume<SimulatedDevice>) -> UInt64 {
        volume.state.withLock { $0.superblock.staging.passedCount }
    }

    /// The superblock could not name the new file, which counted as the mount's staging all the same.
    @Test func stagingThatTheSuperblockCannotNameIsMovedLater() throws {
        try format()
        let (volume, staging) = try mount(device)
        staging.unlink()
        device.inject(
            SimulatedFault(.fail(.noSpace), kinds: [.write, .writeDurable], file: .superblock, isLasting: true))
        for _ in 0..<3 {
            volume.housekeeper.housekeep()
            #expect(staging.hasVanished)
            #expect(try place.path.names() == [])
        }
        device.clearFaults()
        volume.housekeeper.housekeep()
        #expect(!staging.hasVanished)
        #expect(try place.path.names().count == 1)
        #expect(volume.state.withLock { $0.superblock.stagingIdentity } == staging.identity)
        try make(volume, "a")
        let (next, _) = try mount(device.snapshotAfterKill())
        #expect(try names(next) == ["a"])
        #expect(passedCount(next) == 0)
        try next.unmount()
        #expect(try place.path.names() == [])
    }

    /// Nothing was lost, and the next mount counted a killed one that it had passed over.
    @Test(arguments: [Volume<SimulatedDevice>.ShutDownMode.flush, .flushLog], [false, true])
    func aMountThatIsFlushedAndShutDownIsNotMissed(_ mode: Volume<SimulatedDevice>.ShutDownMode, isKilled: Bool) throws
    {
        try format()
        let (volume, _) = try mount(device)
        try make(volume, "a")
        volume.shutDown(mode, mayWait: true) { #expect($0 == nil) }
        if !isKilled { try volume.unmount() }
        let (next, _) = try mount(device.snapshotAfterKill())
        #expect(passedCount(next) == 0)
        #expect(try names(next) == ["a"])
        try next.unmount()
    }

    /// What was in staging alone is lost as if the power had failed, and that is told.
    @Test func aMountThatIsShutDownWithoutAFlushIsMissed() throws {
        try format()
        let (volume, _) = try mount(device)
        try make(volume, "a")
        volume.shutDown(.discard, mayWait: true) { #expect($0 == nil) }
        try volume.unmount()
        let (next, _) = try mount(device)
        #expect(passedCount(next) == 1)
        #expect(try names(next) == [])
        try next.unmount()
    }
}
