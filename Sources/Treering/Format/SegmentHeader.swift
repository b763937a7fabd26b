// Block 0 of a segment.

/// What a segment file says of itself, in its first 4,096 bytes.
///
///     offset size field
///          0    8 magic "TRSEGMNT"
///          8    4 checksum (CRC-32C of the block with this field zero)
///         12    2 version (1)
///         14    1 state (1 free, 2 in use)
///         15    1 role (0 hot head, 1 cold head)
///         16   16 store uuid
///         32    4 segment number
///         36    4 incarnation: raised at each recycling
///         40    8 mount epoch in which the segment was opened
///         48    8 sequence of its first batch: the segment's stamp
///         56    4 segment size in bytes
///         60    4 end: 0, or where recovery declared that the segment ends (everything from there on is void)
///         64   16 in use and hot: key of the name hash, for a new superblock should both slots be lost; zero where an older version wrote it
///         80    8 the same: capacity in bytes
///         88 4008 zero
struct SegmentHeader: Equatable, Sendable {
    /// What is in the superblock and follows from nothing else.
    struct ForSuperblock: Equatable, Sendable {
        var hashKey: StoreUUID
        var capacityByteCount: UInt64
    }

    static let byteCount = 4096
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

    var life: SegmentLife { SegmentLife(number, incarnation) }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count == Self.byteCount)
        bytes.zero(0, bytes.count)
        bytes.store(Self.magic, at: 0)
        bytes.store(1 as UInt16, at: 12)
        bytes.store(state.rawValue, at: 14)
        bytes.store(role.rawValue, at: 15)
        uuid.encode(into: bytes, at: 16)
        bytes.store(number.rawValue, at: 32)
        bytes.store(incarnation, at: 36)
        bytes.store(epoch.rawValue, at: 40)
        bytes.store(firstBatch.rawValue, at: 48)
        bytes.store(segmentByteCount, at: 56)
        bytes.store(end, at: 60)
        if let forSuperblock {
            forSuperblock.hashKey.encode(into: bytes, at: 64)
            bytes.store(forSuperblock.capacityByteCount, at: 80)
        }
        bytes.store(Checksum.crc32c(UnsafeRawBufferPointer(bytes), withHoleAt: 8), at: 8)
    }

    /// The header in `bytes`, or why there is none. A block of zeros gives nil: a segment never used.
    static func decode(
        _ bytes: UnsafeRawBufferPointer, uuid: StoreUUID, number: SegmentNumber, segmentByteCount: UInt32
    ) throws(CorruptionReport) -> SegmentHeader? {
        let place = "segment \(number.rawValue), header"
        guard bytes.count == byteCount else { throw CorruptionReport(place: place, reason: "cut short") }
        let magic: UInt64 = bytes.load(0)
        if magic == 0 && bytes.allSatisfy({ $0 == 0 }) { return nil }
        guard magic == Self.magic else { throw CorruptionReport(place: place, reason: "no segment header") }
        guard bytes.load(8, as: UInt32.self) == Checksum.crc32c(bytes, withHoleAt: 8) else {
            throw CorruptionReport(place: place, reason: "checksum does not match")
        }
        guard bytes.load(12, as: UInt16.self) == 1, let state = State(rawValue: bytes.load(14)),
            let role = Role(rawValue: bytes.load(15))
        else { throw CorruptionReport(place: place, reason: "unknown version, state or role") }
        var header = SegmentHeader(
            state: state, role: role, uuid: StoreUUID(decoding: bytes, at: 16),
            number: SegmentNumber(bytes.load(32)), incarnation: bytes.load(36), epoch: MountEpoch(bytes.load(40)),
            firstBatch: BatchSequence(bytes.load(48)), segmentByteCount: bytes.load(56), end: bytes.load(60))
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
        let hashKey = StoreUUID(decoding: bytes, at: 64)
        if hashKey != StoreUUID(high: 0, low: 0) {
            header.forSuperblock = ForSuperblock(hashKey: hashKey, capacityByteCount: bytes.load(80))
        }
        return header
    }
}

extension SegmentHeader {
    /// What a header says of the store that it belongs to, whichever that is; nil where it is not whole.
    static func origin(
        of bytes: UnsafeRawBufferPointer
    ) -> (version: UInt16, blockUUID: StoreUUID, segmentByteCount: UInt32)? {
        guard bytes.count == byteCount, bytes.load(0, as: UInt64.self) == magic,
            bytes.load(8, as: UInt32.self) == Checksum.crc32c(bytes, withHoleAt: 8)
        else { return nil }
        return (bytes.load(12), StoreUUID(decoding: bytes, at: 16), bytes.load(56))
    }
}
