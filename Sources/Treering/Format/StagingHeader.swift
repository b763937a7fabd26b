// The header of a staging file: it says of which mount the staging is. Its layout is in StagingLayout.swift.

/// The header of a staging file. Staging is replayed only if the header matches the store and the machine.
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
    /// The path of the store's directory when the mount began; empty if it is unknown or too long.
    var path: [UInt8] = []

    /// The last part of the file's name.
    var name: String { String(identity, radix: 16) }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        let bytes = bytes.part(0, StagingLayout.headerByteCount)
        bytes.zero(0, bytes.count)
        let field = StagingLayout.header
        bytes[field.magic] = StagingLayout.magic
        bytes[field.version] = StagingLayout.version
        bytes[field.uuid] = uuid
        bytes[field.epoch] = epoch
        bytes[field.generation] = generation
        bytes[field.device] = device
        bytes[field.directory] = directory
        bytes[field.bootID] = bootID
        bytes[field.owner] = owner
        bytes[field.identity] = identity
        bytes[field.slotCount] = slotCount
        bytes[field.recordAreaByteCount] = recordAreaByteCount
        bytes[field.payloadAreaByteCount] = payloadAreaByteCount
        if path.count <= field.path.byteCount {
            bytes[field.pathByteCount] = UInt16(path.count)
            path.withUnsafeBytes { bytes.copy($0, to: field.path.offset) }
        }
        bytes.seal(field.checksum)
    }

    /// Decodes the header of a whole staging file. Nil if the header is not whole or its sizes do not fit the file.
    init?(decoding whole: UnsafeRawBufferPointer) {
        guard whole.count >= StagingLayout.slotsOffset else { return nil }
        self.init(decodingHeader: whole.part(0, StagingLayout.headerByteCount), fileByteCount: whole.count)
    }

    /// The same, from the first block of a file of this length.
    init?(decodingHeader bytes: UnsafeRawBufferPointer, fileByteCount: Int) {
        let field = StagingLayout.header
        guard bytes[field.magic] == StagingLayout.magic,
            bytes.isSealed(by: field.checksum),
            bytes[field.version] == StagingLayout.version
        else { return nil }
        uuid = bytes[field.uuid]
        epoch = bytes[field.epoch]
        generation = bytes[field.generation]
        device = bytes[field.device]
        directory = bytes[field.directory]
        bootID = bytes[field.bootID]
        owner = bytes[field.owner]
        identity = bytes[field.identity]
        slotCount = bytes[field.slotCount]
        recordAreaByteCount = bytes[field.recordAreaByteCount]
        payloadAreaByteCount = bytes[field.payloadAreaByteCount]
        let block = UInt32(blockByteCount)
        guard epoch.rawValue <= counterLimit / 2, slotCount > 0, slotCount <= StagingLayout.slotCountLimit,
            recordAreaByteCount >= block,
            recordAreaByteCount % block == 0,
            payloadAreaByteCount % block == 0, recordAreaByteCount <= 64 << 20, payloadAreaByteCount <= 64 << 20
        else { return nil }
        guard epoch.rawValue <= counterLimit, generation <= counterLimit else { return nil }
        let slot = Int(block) + Int(recordAreaByteCount) + Int(payloadAreaByteCount)
        guard fileByteCount >= StagingLayout.slotsOffset + Int(slotCount) * slot else { return nil }
        let count = Int(bytes[field.pathByteCount])
        guard count <= field.path.byteCount else { return nil }
        path = Array(bytes.part(field.path.offset, count))
    }

    init(
        uuid: StoreUUID, epoch: MountEpoch, generation: UInt64, device: UInt64, directory: UInt64, bootID: StoreUUID,
        owner: UInt64, identity: UInt64, geometry: StagingGeometry, path: [UInt8] = []
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
        self.path = path
    }
}
