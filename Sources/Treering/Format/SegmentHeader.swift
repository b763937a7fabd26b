// The header of a segment: its block 0.

/// What a segment file says of itself, in its first 4,096 bytes.
struct SegmentHeader: Equatable, Sendable {
    struct Layout: DiskLayout {
        let magic = Field<UInt64>(0, "magic", "\"TRSEGMNT\"", as: .text)
        let checksum = Field<UInt32>(8, "checksum", "CRC-32C of the block with this field zero", as: .hexadecimal)
        let version = Field<UInt16>(12, "version", "1")
        let state = Field<UInt8>(14, "state (1 free, 2 in use)")
        let role = Field<UInt8>(15, "role (0 hot, 1 cold)")
        let uuid = Field<StoreUUID>(16, "store uuid", "that of the blocks")
        let number = Field<SegmentNumber>(32, "segment number")
        let incarnation = Field<UInt32>(36, "incarnation", "raised at each recycling")
        let epoch = Field<MountEpoch>(40, "mount epoch", "in which the segment was opened")
        let firstBatch = Field<BatchSequence>(48, "first batch", "its sequence: the segment's stamp")
        let segmentByteCount = Field<UInt32>(56, "segment size in bytes")
        let end = Field<UInt32>(
            60, "end (0: none declared)", "where recovery declared that the segment ends: from there on all is void")
        let hashKey = Field<StoreUUID>(
            64, "key of the name hash",
            "in use and hot: for a new superblock should both slots be lost; zero where an older version wrote it")
        let capacity = Field<UInt64>(80, "capacity in bytes", "the same")
        static let byteCount = blockByteCount
    }

    /// Values of the superblock that cannot be derived from the log. A new superblock is made from them if both slots
    /// are lost.
    struct ForSuperblock: Equatable, Sendable {
        var hashKey: StoreUUID
        var capacityByteCount: UInt64
    }

    static let layout = Layout()
    static let byteCount = Layout.byteCount
    static let version: UInt16 = 1
    /// The largest segment.
    static let byteCountLimit = 64 << 20
    static let magic: UInt64 = 0x544E_4D47_4553_5254  // "TRSEGMNT"

    enum State: UInt8 {
        case free = 1
        case inUse = 2
    }
    enum Role: UInt8 {
        case hot = 0
        case cold = 1
    }

    var state: State
    var role: Role = .hot
    var uuid: StoreUUID
    var number: SegmentNumber
    var incarnation: UInt32
    var epoch: MountEpoch
    var firstBatch: BatchSequence
    var segmentByteCount: UInt32
    var end: UInt32 = 0
    var forSuperblock: ForSuperblock?

    var segmentID: SegmentID { SegmentID(number, incarnation) }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count == Self.byteCount)
        precondition(end <= segmentByteCount && end % UInt32(blockByteCount) == 0)
        bytes.zero(0, bytes.count)
        let field = Self.layout
        bytes[field.magic] = Self.magic
        bytes[field.version] = Self.version
        bytes[field.state] = state.rawValue
        bytes[field.role] = role.rawValue
        bytes[field.uuid] = uuid
        bytes[field.number] = number
        bytes[field.incarnation] = incarnation
        bytes[field.epoch] = epoch
        bytes[field.firstBatch] = firstBatch
        bytes[field.segmentByteCount] = segmentByteCount
        bytes[field.end] = end
        if let forSuperblock {
            bytes[field.hashKey] = forSuperblock.hashKey
            bytes[field.capacity] = forSuperblock.capacityByteCount
        }
        bytes.seal(field.checksum)
    }

    /// Decodes a header; throws if it is damaged. Nil for a block of zeros: the segment was never used.
    static func decode(
        _ bytes: UnsafeRawBufferPointer, uuid: StoreUUID, number: SegmentNumber, segmentByteCount: UInt32
    ) throws(CorruptionReport) -> SegmentHeader? {
        let place = "segment \(number.rawValue), header"
        guard bytes.count == byteCount else { throw CorruptionReport(place: place, reason: "cut short") }
        let field = layout
        let magic = bytes[field.magic]
        if magic == 0 && bytes.allSatisfy({ $0 == 0 }) { return nil }
        guard magic == Self.magic else { throw CorruptionReport(place: place, reason: "no segment header") }
        guard bytes.isSealed(by: field.checksum) else {
            throw CorruptionReport(place: place, reason: "checksum does not match")
        }
        guard bytes[field.version] == version, let state = State(rawValue: bytes[field.state]),
            let role = Role(rawValue: bytes[field.role])
        else { throw CorruptionReport(place: place, reason: "unknown version, state or role") }
        var header = SegmentHeader(
            state: state, role: role, uuid: bytes[field.uuid], number: bytes[field.number],
            incarnation: bytes[field.incarnation], epoch: bytes[field.epoch], firstBatch: bytes[field.firstBatch],
            segmentByteCount: bytes[field.segmentByteCount], end: bytes[field.end])
        guard header.uuid == uuid, header.number == number else {
            throw CorruptionReport(
                place: place, reason: "belongs to segment \(header.number.rawValue) of store \(header.uuid)")
        }
        guard header.segmentByteCount == segmentByteCount, header.end <= segmentByteCount,
            header.end % UInt32(blockByteCount) == 0
        else { throw CorruptionReport(place: place, reason: "impossible size or end") }
        guard header.state == .free || header.firstBatch > .zero, header.firstBatch.rawValue <= counterLimit,
            header.epoch.rawValue <= counterLimit, header.incarnation <= UInt32(Int32.max)
        else { throw CorruptionReport(place: place, reason: "impossible counters") }
        let hashKey = bytes[field.hashKey]
        if hashKey != StoreUUID(high: 0, low: 0) {
            header.forSuperblock = ForSuperblock(hashKey: hashKey, capacityByteCount: bytes[field.capacity])
        }
        return header
    }
}

extension SegmentHeader {
    /// What a header says of its store, whichever store that is; nil unless the header is whole.
    static func origin(
        of bytes: UnsafeRawBufferPointer
    ) -> (version: UInt16, blockUUID: StoreUUID, segmentByteCount: UInt32)? {
        let field = layout
        guard bytes.count == byteCount, bytes[field.magic] == magic,
            bytes.isSealed(by: field.checksum)
        else { return nil }
        return (bytes[field.version], bytes[field.uuid], bytes[field.segmentByteCount])
    }
}
