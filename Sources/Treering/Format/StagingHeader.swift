// The header of a staging file: whose tail it holds. Layout in StagingLayout.swift.

/// What a staging file says of itself. It is replayed only where all of it matches the store and the machine.
struct StagingHeader: Equatable, Sendable {
    var uuid: StoreUUID
    var epoch: MountEpoch
    /// Generation of the superblock when the mount began.
    var generation: UInt64
    /// Device and inode of the store's directory.
    var device: UInt64
    var directory: UInt64
    var bootID: StoreUUID
    var owner: UInt64
    var identity: UInt64
    var slotCount: UInt32
    var recordAreaByteCount: UInt32
    var payloadAreaByteCount: UInt32

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        let bytes = bytes.part(0, StagingLayout.headerByteCount)
        bytes.zero(0, bytes.count)
        bytes.store(StagingLayout.magic, at: 0)
        bytes.store(1 as UInt32, at: 12)
        uuid.encode(into: bytes, at: 16)
        bytes.store(epoch.rawValue, at: 32)
        bytes.store(generation, at: 40)
        bytes.store(device, at: 48)
        bytes.store(directory, at: 56)
        bootID.encode(into: bytes, at: 64)
        bytes.store(owner, at: 80)
        bytes.store(identity, at: 88)
        bytes.store(slotCount, at: 96)
        bytes.store(recordAreaByteCount, at: 100)
        bytes.store(payloadAreaByteCount, at: 104)
        bytes.store(Checksum.crc32c(UnsafeRawBufferPointer(bytes), withHoleAt: 8), at: 8)
    }

    /// Nil where there is no whole header, or one whose sizes do not fit the file.
    init?(decoding whole: UnsafeRawBufferPointer) {
        guard whole.count >= StagingLayout.slotsOffset else { return nil }
        let bytes = whole.part(0, StagingLayout.headerByteCount)
        guard bytes.load(0, as: UInt64.self) == StagingLayout.magic,
            bytes.load(8, as: UInt32.self) == Checksum.crc32c(bytes, withHoleAt: 8),
            bytes.load(12, as: UInt32.self) == 1
        else { return nil }
        uuid = StoreUUID(decoding: bytes, at: 16)
        epoch = MountEpoch(bytes.load(32))
        generation = bytes.load(40)
        device = bytes.load(48)
        directory = bytes.load(56)
        bootID = StoreUUID(decoding: bytes, at: 64)
        owner = bytes.load(80)
        identity = bytes.load(88)
        slotCount = bytes.load(96)
        recordAreaByteCount = bytes.load(100)
        payloadAreaByteCount = bytes.load(104)
        let block = UInt32(blockByteCount)
        guard epoch.rawValue <= counterLimit / 2, slotCount > 0, slotCount <= 64, recordAreaByteCount >= block,
            recordAreaByteCount % block == 0,
            payloadAreaByteCount % block == 0, recordAreaByteCount <= 64 << 20, payloadAreaByteCount <= 64 << 20
        else { return nil }
        guard epoch.rawValue <= counterLimit, generation <= counterLimit else { return nil }
        let slot = Int(block) + Int(recordAreaByteCount) + Int(payloadAreaByteCount)
        guard whole.count >= StagingLayout.slotsOffset + Int(slotCount) * slot else { return nil }
    }

    init(
        uuid: StoreUUID, epoch: MountEpoch, generation: UInt64, device: UInt64, directory: UInt64, bootID: StoreUUID,
        owner: UInt64, identity: UInt64, geometry: StagingGeometry
    ) {
        self.uuid = uuid
        self.epoch = epoch
        self.generation = generation
        self.device = device
        self.directory = directory
        self.bootID = bootID
        self.owner = owner
        self.identity = identity
        slotCount = UInt32(geometry.slotCount)
        recordAreaByteCount = UInt32(geometry.recordAreaByteCount)
        payloadAreaByteCount = UInt32(geometry.payloadAreaByteCount)
    }
}
