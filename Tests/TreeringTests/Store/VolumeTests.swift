// A volume on a simulated device: files, remounts, crashes, checks, rebuilds. `TestStore` is for other tests too.

import Testing

@testable import Treering

/// A store on a simulated device, with operations by path component.
final class TestStore {
    let device: SimulatedDevice
    var volume: Volume<SimulatedDevice>
    static let context = RequestContext.by(
        Caller(uid: 1000, gid: 1000, umask: 0o022, identity: Identity(groups: [1000])))

    static func now() -> Timestamp { Timestamp(seconds: 1_000_000, nanoseconds: 5) }

    let stagingBuffer = AlignedBuffer(
        byteCount: StagingGeometry(stagingByteCount: 1 << 20, segmentByteCount: 1 << 20).byteCount)

    /// A segment without a live byte that no checkpoint needs any more, after three of them.
    func deadSegment() throws -> SegmentNumber {
        for _ in 0..<3 { try volume.housekeeper.checkpoint() }
        return try #require(
            volume.state.withLock { state in
                state.core.table.recyclable(through: state.slots.map(\.checkpoint).min()!).first
            })
    }

    /// The incarnation that a segment is in.
    func id(of number: SegmentNumber) -> SegmentID { volume.state.withLock { $0.core.table.id(of: number) } }

    /// Staging whose memory the test can read after a kill.
    func makeStaging() -> Staging {
        let geometry = StagingGeometry(stagingByteCount: 1 << 20, segmentByteCount: 1 << 20)
        stagingBuffer.bytes.zero(0, stagingBuffer.bytes.count)
        return Staging(geometry: geometry, memory: stagingBuffer.bytes, owner: stagingBuffer)
    }

    /// Says in a mount's staging whose it is.
    static func stamp(_ memory: AlignedBuffer, _ geometry: StagingGeometry, _ volume: Volume<SimulatedDevice>) {
        StagingHeader(
            uuid: StoreUUID(high: 1, low: 2), epoch: volume.state.withLock { $0.core.log.epoch }, generation: 0,
            device: 0, directory: 0, bootID: StoreUUID(high: 0, low: 0), owner: 0, identity: 1, geometry: geometry
        ).encode(into: memory.bytes)
    }

    init(capacity: UInt64 = 64 << 20, options: VolumeOptions = VolumeOptions(), keepsStaging: Bool = false) throws {
        device = SimulatedDevice()
        let format = FormatOptions(
            capacityByteCount: capacity, uuid: StoreUUID(high: 1, low: 2), hashKey: StoreUUID(high: 3, low: 4),
            now: Self.now)
        try Volume.format(device, format)
        volume = try Volume.mount(device, options, now: Self.now) { _ in }
        if keepsStaging {
            try volume.unmount()
            let staging = makeStaging()
            volume = try Volume.mount(device, options, staging: staging, now: Self.now) { _ in }
            Self.stamp(stagingBuffer, staging.geometry, volume)
        }
    }

    func remount(options: VolumeOptions = VolumeOptions()) throws {
        try volume.unmount()
        volume = try Volume.mount(device, options, now: Self.now) { _ in }
    }

    func make(_ name: String, in parent: InodeNumber = .root, mode: UInt32 = 0o100644) throws -> Attributes {
        try withBytes(name) { name in
            try volume.perform { (core) throws(Stop) in try core.make(parent, name, NewInode(mode: mode), Self.context)
            }
        }
    }

    func lookup(_ name: String, in parent: InodeNumber = .root) throws -> Attributes {
        try withBytes(name) { name in
            try volume.perform { (core) throws(Stop) in try core.lookup(parent, name) }
        }
    }

    func unlink(_ name: String, in parent: InodeNumber = .root) throws {
        try withBytes(name) { name in
            try volume.perform { (core) throws(Stop) in try core.unlink(parent, name, .nobody) }
        }
    }

    func write(_ inode: InodeNumber, _ offset: UInt64, _ bytes: [UInt8]) throws {
        let limit = volume.maxWriteByteCount
        try bytes.withUnsafeBytes { bytes in
            for start in stride(from: 0, to: bytes.count, by: limit) {
                let part = UnsafeRawBufferPointer(rebasing: bytes[start..<min(bytes.count, start + limit)])
                _ = try volume.perform { (core) throws(Stop) in
                    try core.write(inode, at: offset + UInt64(start), part, [], .nobody)
                }
            }
        }
    }

    func read(_ inode: InodeNumber, _ offset: UInt64, _ count: Int) throws -> [UInt8] {
        try volume.bytes { (core) throws(Stop) in try core.planRead(inode, at: offset, count) }
    }

    func names(in directory: InodeNumber = .root) throws -> [String] {
        var names: [String] = []
        var cursor: UInt64 = 2
        while true {
            let before = cursor
            try volume.perform { (core) throws(Stop) in
                try core.readDirectory(directory, after: cursor, isAccess: false) { (entry) throws(Stop) in
                    names.append(String(decoding: entry.name, as: UTF8.self))
                    cursor = entry.cookie
                    return true
                }
            }
            if cursor == before { return names.sorted() }
        }
    }

    private func withBytes<R>(_ text: String, _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try Array(text.utf8).withUnsafeBytes(body)
    }
}

@Suite struct VolumeTests {
    @Test func filesSurviveARemount() throws {
        let store = try TestStore()
        let file = try store.make("hello")
        let data = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        try store.write(file.inode, 0, data)
        try store.write(file.inode, 200_000, [1, 2, 3])
        #expect(try store.read(file.inode, 0, 100_000) == data)
        try store.remount()
        let found = try store.lookup("hello")
        #expect(found.byteCount == 200_003)
        #expect(try store.read(found.inode, 0, 100_000) == data)
        #expect(try store.read(found.inode, 99_999, 10) == [data[99_999]] + [UInt8](repeating: 0, count: 9))
        #expect(try store.read(found.inode, 199_999, 100) == [0, 1, 2, 3])
        #expect(try store.names() == ["hello"])
        try store.unlink("hello")
        try store.remount()
        #expect(try store.names() == [])
    }

    /// A file written in small pieces costs one request to the disk, not one for each piece; and each piece is still verified.
    @Test func whatWasWrittenTogetherIsReadTogether() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        let pieces = (0..<16 as Range<UInt8>).map { [UInt8](repeating: $0, count: 8192) }
        for (number, piece) in pieces.enumerated() { try store.write(inode, UInt64(number) << 13, piece) }
        try store.remount()
        let plan = try store.volume.perform { (core) throws(Stop) in try core.planRead(inode, at: 8192, 15 << 13) }
        #expect(plan.reads.count == 1)
        let (segment, place) = (plan.reads[0].segmentID.number, plan.reads[0].position)
        #expect(store.volume.state.withLock { $0.core.table[segment].readerCount } == 1)
        store.volume.execute(plan, mayWait: true) { plan, error, _ in
            #expect(error == nil && Array(plan.bytes) == pieces[1...].flatMap { $0 })
        }
        #expect(store.volume.state.withLock { $0.core.table[segment].readerCount } == 0)
        store.device.flip(.segment(segment), at: place + 9 << 13)
        #expect(try store.read(inode, 0, 8192) == pieces[0])
        #expect(throws: Errno.ioError) { try store.read(inode, 0, 16 << 13) }
    }

    @Test func whatWasSyncedIsThereAfterACrash() throws {
        let store = try TestStore()
        for index in 0..<50 {
            let file = try store.make("file\(index)")
            try store.write(file.inode, UInt64(index), Array("data \(index)".utf8))
        }
        try store.volume.syncAndWait()
        let crashed = store.device.crash(seed: 7).device()
        let volume = try Volume.mount(crashed, VolumeOptions()) { _ in }
        var names = 0
        try volume.perform { (core) throws(Stop) in
            try core.readDirectory(.root, after: 2, isAccess: false) { (_) throws(Stop) in
                names += 1
                return true
            }
        }
        #expect(names == 50)
    }
}

extension VolumeTests {
    @Test func checkFindsNothingAfterAMixtureOfOperations() throws {
        let store = try TestStore(capacity: 32 << 20)
        for round in 0..<30 {
            let file = try store.make("f\(round)")
            try store.write(file.inode, 0, [UInt8](repeating: UInt8(round), count: 300_000))
            try store.write(file.inode, 1000, [UInt8](repeating: 9, count: 5000))
            if round >= 3 { try store.unlink("f\(round - 3)") }
            store.volume.housekeeper.housekeep(commits: true, checkpoints: true)
        }
        try store.volume.syncAndWait()
        let crashed = store.device.crash(seed: 1).device()
        let report = try Checker.check(crashed, readsData: true)
        #expect(report.problems == [])
        try store.volume.unmount()
        let final = try Checker.check(store.device, readsData: true)
        #expect(final.problems == [])
        #expect(final.notes == [])
        #expect(final.recordCount > 0)
    }
}

extension VolumeTests {
    @Test func aRebuiltIndexIsTheSame() throws {
        let store = try TestStore(capacity: 16 << 20)
        var inodes: [InodeNumber] = []
        for round in 0..<20 {
            let file = try store.make("f\(round)")
            inodes.append(file.inode)
            try store.write(file.inode, 0, [UInt8](repeating: UInt8(round), count: 100_000))
            if round % 3 == 0 { try store.unlink("f\(round)") }
        }
        try store.volume.unmount()
        try store.device.unlink(.index)
        let count = try IndexRebuild.rebuild(store.device) { _ in }
        #expect(count > 0)
        let report = try Checker.check(store.device, readsData: true)
        #expect(report.problems == [])
        store.volume = try Volume.mount(store.device, VolumeOptions(), now: TestStore.now) { _ in }
        #expect(try store.names().count == 13)
        #expect(try store.read(inodes[1], 50_000, 3) == [1, 1, 1])
    }

    @Test func aKilledMountLosesNothingItAcknowledged() throws {
        for sync in [false, true] {
            let store = try TestStore(capacity: 16 << 20, keepsStaging: true)
            var written: [(InodeNumber, [UInt8])] = []
            for round in 0..<40 {
                let file = try store.make("f\(round)")
                let data = [UInt8](repeating: UInt8(round), count: 1000 + round * 2000)
                try store.write(file.inode, 0, data)
                written.append((file.inode, data))
                if sync, round == 20 { try store.volume.syncAndWait() }
                if round % 7 == 0 { try store.unlink("f\(round)") }
            }
            let killed = store.device.snapshotAfterKill(seed: 3)
            let tail = try #require(StagedRecords(copying: UnsafeRawBufferPointer(store.stagingBuffer.bytes)))
            store.volume = try Volume.mount(killed, VolumeOptions(), allStaged: [tail], now: TestStore.now) { _ in }
            for (round, (inode, data)) in written.enumerated() where round % 7 != 0 {
                #expect(try store.lookup("f\(round)").inode == inode)
                #expect(try store.read(inode, 0, 1 << 20) == data)
            }
            #expect(try store.names().count == 34)
            try store.volume.unmount()
            #expect(try Checker.check(killed, readsData: true).problems == [])
        }
    }
}

extension Volume {
    func status() throws(Errno) -> FileSystemStatus { try perform { (core) throws(Stop) in core.status() } }

    func attributes(_ inode: InodeNumber) throws(Errno) -> Attributes {
        try perform { (core) throws(Stop) in try core.attributes(inode) }
    }
}
