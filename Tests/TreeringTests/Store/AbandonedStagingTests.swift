// Which staging files are removed, and that nothing else is.

import Glibc
import Testing

@testable import Treering

@Suite struct AbandonedStagingTests {
    private static let uuid = StoreUUID(high: 1, low: 2)
    private static let day: Int64 = 86400
    private let place = TemporaryDirectory()
    private let stores = TemporaryDirectory()
    private let geometry = StagingGeometry(stagingByteCount: 1 << 20, segmentByteCount: 1 << 20)

    private func status(_ path: String) -> stat {
        var status = stat()
        precondition(stat(path, &status) == 0)
        return status
    }

    private func makeStore(_ name: String) -> String {
        let path = "\(stores.path.description)/\(name)"
        mkdir(path, 0o700)
        return path
    }

    private func header(_ path: String, identity: UInt64, epoch: UInt64 = 5) -> StagingHeader {
        let status = access(path, F_OK) == 0 ? status(path) : status(stores.path.description)
        return StagingHeader(
            uuid: Self.uuid, epoch: MountEpoch(epoch), generation: 1, device: UInt64(status.st_dev),
            directory: UInt64(status.st_ino), bootID: HostStaging.bootID(), owner: UInt64(geteuid()),
            identity: identity, geometry: geometry, path: Array(path.utf8))
    }

    private func name(_ identity: UInt64) -> String {
        "\(place.path.description)/treering-\(Self.uuid)-\(String(identity, radix: 16))"
    }

    /// The staging of a mount of the store at `path`; it lives for as long as the object.
    @discardableResult
    private func stage(_ path: String, identity: UInt64, epoch: UInt64 = 5) throws -> SharedMemory {
        let memory = try SharedMemory(creating: HostString(name(identity)), byteCount: geometry.byteCount)
        header(path, identity: identity, epoch: epoch).encode(into: memory.bytes)
        return memory
    }

    private func writeSuperblock(_ store: String, void: UInt64, uuid: StoreUUID = uuid) {
        var superblock = Superblock(
            uuid: uuid, generation: 1, epoch: MountEpoch(9), isClean: true, capacityByteCount: 64 << 20,
            segmentByteCount: 1 << 20, hashKey: uuid, nextInode: InodeNumber(5), highestSequence: RecordSequence(6),
            checkpoint: CheckpointNumber(7),
            position: LogPosition(
                lastBatch: BatchSequence(8), lastChecksum: 9, segment: SegmentNumber(10), incarnation: 11,
                offsetInSegment: 12288),
            formattedSeconds: 0, inodeCount: 1, checkpointEpoch: MountEpoch(9),
            indexRoot: IndexRoot(
                checkpoint: CheckpointNumber(7), page: PagePointer(address: PageAddress(3), birth: CheckpointNumber(6)),
                level: 1, entryCount: 20, pageCount: 128, usedPageCount: 6, bitmap: PageAddress(4)))
        superblock.staging = StagingHistory(void: MountEpoch(void), passed: MountEpoch(8), next: RecordSequence(7))
        let block = AlignedBuffer(byteCount: Superblock.slotByteCount)
        superblock.encode(into: block.bytes)
        let file = open("\(store)/superblock", O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        precondition(pwrite(file, block.bytes.baseAddress, block.bytes.count, 0) == block.bytes.count)
        close(file)
    }

    /// The identities of what is removed so many days after the mounts have ended.
    private func removed(days: Int64, uptime: Int64 = 1000 * day) -> Set<UInt64> {
        let now = Timestamp.now().seconds + days * Self.day + 60
        let paths = AbandonedStaging.remove(in: place.path, now: now, uptime: uptime).map(\.path.description)
        return Set(paths.map { UInt64($0.split(separator: "-").last!, radix: 16)! })
    }

    @Test func whatNobodyNeedsIsRemovedAfterItsTime() throws {
        let present = makeStore("present")
        let beyond = makeStore("beyond")
        let formattedAnew = makeStore("formatted anew")
        writeSuperblock(present, void: 4)
        writeSuperblock(beyond, void: 5)
        writeSuperblock(formattedAnew, void: 4, uuid: StoreUUID(high: 7, low: 8))
        try stage(present, identity: 1)
        try stage(beyond, identity: 2)
        try stage(formattedAnew, identity: 3)
        try stage("\(stores.path.description)/removed", identity: 4)
        try stage("/there-is-no-such-disk/store", identity: 5)
        #expect(removed(days: 0) == [])
        // The clock may have been set; the machine has not run for so long.
        #expect(removed(days: 100, uptime: 3600) == [])
        #expect(removed(days: 1) == [2, 3, 4])
        #expect(removed(days: 6) == [])
        #expect(removed(days: 7) == [5])
        #expect(removed(days: 400) == [])
        #expect(access(name(1), F_OK) == 0)
    }

    @Test func onlyWhatCertainlyIsStagingIsTouched() throws {
        let gone = "\(stores.path.description)/removed"
        let live = try stage(gone, identity: 1)
        try stage(gone, identity: 2)
        chmod(name(2), 0o644)
        try stage(gone, identity: 3)
        link(name(3), "\(stores.path.description)/another name")
        try stage(gone, identity: 4)
        rename(name(4), name(40))
        let damaged = try stage(gone, identity: 5)
        damaged.bytes[20] ^= 1
        mkfifo(name(6), 0o600)
        symlink(name(2), name(7))
        try stage(gone, identity: 8)
        truncate(name(8), 8192)
        mkdir(name(9), 0o600)
        #expect(removed(days: 400) == [])
        withExtendedLifetime((live, damaged)) {}
    }

    /// Another mount looked at a file that had just been made, and held its lock: the file's mount went on without.
    @Test func aFileThatIsBeingMadeGetsItsLockIfSomebodyLooksAtIt() throws {
        let file = HostString(name(1))
        let other = file.open(O_RDWR | O_CREAT, 0o600)
        try SharedMemory.lock(other)
        let own = file.open(O_RDWR, 0)
        #expect(throws: Errno.busy) { try SharedMemory.lock(own, patienceMilliseconds: 2) }
        let looker = try DeviceThread(name: "looker") {
            rest(nanoseconds: 5_000_000)
            close(other)
        }
        try SharedMemory.lock(own)
        looker.join()
        let third = file.open(O_RDWR, 0)
        #expect(throws: Errno.busy) { try SharedMemory.lock(third, patienceMilliseconds: 2) }
        close(own)
        close(third)
    }

    @Test func theHeaderSaysWhereTheStoreIs() throws {
        let path = makeStore("a \u{FC} store")
        let memory = try stage(path, identity: 1)
        let bytes = UnsafeRawBufferPointer(memory.bytes)
        #expect(StagingHeader(decoding: bytes) == header(path, identity: 1))
        // An earlier version says nothing, and a path that is too long is not said.
        var long = header(path, identity: 1)
        long.path = [UInt8](repeating: 0x61, count: 4000)
        long.encode(into: memory.bytes)
        #expect(StagingHeader(decoding: bytes)?.path == [])
        #expect(StagedStore(of: StagingHeader(decoding: bytes)!) == .present)
    }
}
