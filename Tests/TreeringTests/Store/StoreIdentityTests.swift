// Another uuid for a store: nothing else changes, everything that reads or writes the store goes on, and a power cut at any moment leaves it
// with the old one or the new one.

import Testing

@testable import Treering

@Suite struct StoreIdentityTests {
    private static let old = StoreUUID(high: 1, low: 2)
    private static let new = StoreUUID(high: 5, low: 6)

    private func data(_ number: Int) -> [UInt8] { [UInt8](repeating: UInt8(number), count: number * 3001) }

    private func filled(count: Int = 20) throws -> TestStore {
        let store = try TestStore(capacity: 16 << 20)
        for number in 0..<count { try store.write(store.make("file \(number)").inode, 0, data(number)) }
        return store
    }

    private func readBack(_ volume: Volume<SimulatedDevice>, _ store: TestStore, count: Int = 20) throws {
        store.volume = volume
        for number in 0..<count {
            #expect(try store.read(store.lookup("file \(number)").inode, 0, 1 << 20) == data(number))
        }
    }

    private func mount(_ device: SimulatedDevice) throws -> Volume<SimulatedDevice> {
        try Volume.mount(device, VolumeOptions(), now: TestStore.now) { _ in }
    }

    @Test func theStoreGoesOnUnderAnotherUUID() throws {
        let store = try filled()
        try store.volume.unmount()
        let device = store.device
        let before = device.eventCount
        let names = try StoreIdentity.renew(device, to: Self.new)
        #expect(names.old == Self.old && names.new == Self.new)
        // Two superblocks, their copies and flushes, whatever there is in the store.
        #expect(device.eventCount - before < 24)
        let pair = try SuperblockPair.read(device)
        for case .success(let slot) in pair.slots {
            #expect(slot.uuid == Self.new && slot.blockUUID == Self.old && slot.isClean && slot.stagingIdentity == 0)
        }
        #expect(pair.complaint == nil)
        #expect(try Checker.check(device, readsData: true).problems == [])
        try readBack(mount(device), store)
        for number in 20..<30 { try store.write(store.make("file \(number)").inode, 0, data(number)) }
        try store.volume.syncAndWait()
        // Killed, recovered, and given another one once more.
        let killed = device.snapshotAfterKill()
        #expect(throws: MountError.self) { try StoreIdentity.renew(killed, to: Self.old) }
        try readBack(mount(killed), store, count: 30)
        #expect(store.volume.scrub().status.findings == [])
        try store.volume.unmount()
        let third = StoreUUID(high: 7, low: 8)
        #expect(try StoreIdentity.renew(killed, to: third).old == Self.new)
        #expect(try SuperblockPair.read(killed).newest().blockUUID == Self.old)
        // The index is made anew, and the store repaired, with what the blocks carry.
        _ = try IndexRebuild.rebuild(killed) { _ in }
        #expect(try Checker.check(killed, readsData: true).problems == [])
        killed.damage(.index, at: 8192 + 50)
        killed.damage(.superblock, at: 90)
        let report = try Repairer.repair(indexCacheByteCount: 1 << 20, log: { _ in }) {
            killed
        } mount: { (device, options) throws(MountError) in
            try Volume.mount(device, options, now: TestStore.now) { _ in }
        }
        #expect(!report.found.isClean && report.left.isClean)
        #expect(try SuperblockPair.read(killed).newest().uuid == third)
        try readBack(mount(killed), store, count: 30)
        try store.volume.unmount()
    }

    @Test func aPowerCutLeavesOneOfBoth() throws {
        let store = try filled()
        try store.volume.unmount()
        let device = store.device.snapshotAfterKill()
        device.keepHistory()
        try StoreIdentity.renew(device, to: Self.new)
        var seen: Set<UInt64> = []
        for event in device.crashPoints {
            for state in device.crashStates(at: event, exhaustiveUpTo: 6, samples: 8, seed: UInt64(event)) {
                let after = state.device()
                let superblock = try SuperblockPair.read(after).newest()
                seen.insert(superblock.uuid.high)
                #expect(superblock.blockUUID == Self.old && superblock.isClean)
                let volume = try mount(after)
                try readBack(volume, store)
                try volume.unmount()
                // The mount has gone on with the name it found, in both slots.
                let pair = try SuperblockPair.read(after)
                for case .success(let slot) in pair.slots { #expect(slot.uuid == superblock.uuid) }
                #expect(try Checker.check(after, readsData: true).problems == [])
            }
        }
        #expect(seen == [Self.old.high, Self.new.high])
    }

    /// A disk that fails leaves the store with one of both, and usable.
    @Test(arguments: 1...4) func aFailureLeavesOneOfBoth(nth: Int) throws {
        let store = try filled()
        try store.volume.unmount()
        let kinds: Set<TraceEntry.Kind> = [.writeDurable, .sync]
        store.device.inject(SimulatedFault(.fail(.ioError), kinds: kinds, file: .superblock, nth: nth))
        #expect(throws: MountError.self) { try StoreIdentity.renew(store.device, to: Self.new) }
        store.device.clearFaults()
        let uuid = try SuperblockPair.read(store.device).newest().uuid
        #expect(uuid == Self.old || uuid == Self.new)
        try readBack(mount(store.device), store)
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    /// The slot says so by a feature that an older program refuses.
    @Test func thePairOfUUIDsIsAnIncompatibleFeature() throws {
        let store = try filled(count: 1)
        try store.volume.unmount()
        #expect(try SuperblockPair.read(store.device).newest().incompatibleFeatures == 0)
        try StoreIdentity.renew(store.device, to: Self.new)
        let bytes = try #require(store.device.contents(of: .superblock))
        let field = Superblock.layout
        var slot = Array(bytes[..<Superblock.slotByteCount])
        slot.withUnsafeMutableBytes { slot in
            #expect(slot[field.incompatible] == 1)
            slot[field.incompatible] |= 2
            slot.seal(field.checksum)
        }
        #expect(throws: Superblock.Refusal.self) { try slot.withUnsafeBytes { try Superblock(decoding: $0) } }
    }

    /// Slots of different stores are told by what their blocks carry.
    @Test func slotsOfDifferentStoresAreStillRefused() throws {
        let store = try filled(count: 1)
        try store.volume.unmount()
        var superblock = try SuperblockPair.read(store.device).newest()
        superblock.uuid = Self.new
        superblock.generation += 1
        try SuperblockPair.write(superblock, slot: 0, store.device)
        #expect(throws: MountError.self) { try SuperblockPair.read(store.device).newest() }
    }
}
