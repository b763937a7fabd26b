// The header of a batch: the unit in which the log is written.

/// What a batch says of itself, in the first 128 bytes of its record area.
///
/// A batch lies on a 4 KiB boundary of its segment: this header, the records, zeros up to the next boundary, then
/// the payload blocks. It is written as one vectored write.
///
///     offset size field
///          0    8 magic "TRBATCH1"
///          8    4 checksum of the header (128 bytes with this field zero): the batch's checksum in the chain
///         12    2 version (1)
///         14    1 kind (0 records, 1 reserved range: payload blocks only, walked over)
///         15    1 flags (bit 0: the last batch of its segment; bit 1: mended by `check --repair`)
///         16   16 store uuid
///         32    4 segment
///         36    4 incarnation of the segment
///         40    8 mount epoch
///         48    8 batch sequence
///         56    4 checksum of the batch before it
///         60    4 checksum of the record area after this header
///         64    4 record area in bytes, this header included, not rounded
///         68    4 number of records
///         72    4 payload area in blocks of 4 KiB
///         76    4 zero
///         80    8 sequence of the first record
///         88    8 sequence of the last record (highest of the log so far, also when the batch has no record)
///         96    8 next inode number
///        104    8 highest batch sequence known to be durable when this header was made
///        112    4 mended: the batch's checksum in the chain, which is the one that the batch had before; else 0
///        116   12 zero
///
/// A mended batch stands where one or more were damaged: what was lost of its records is void, its payload blocks may be damaged,
/// and its sequence is that of the last batch that it stands for.
struct BatchHeader: Equatable, Sendable {
    static let byteCount = 128
    static let magic: UInt64 = 0x3148_4354_4142_5254  // "TRBATCH1"
    static let incarnationOffset = 36

    enum Kind: UInt8 {
        case records = 0
        case reservedRange = 1
    }

    var kind: Kind = .records
    var endsSegment: Bool
    var uuid: StoreUUID
    var segment: SegmentNumber
    var incarnation: UInt32
    var epoch: MountEpoch
    var sequence: BatchSequence
    var previousChecksum: UInt32
    var recordsChecksum: UInt32
    var recordAreaByteCount: UInt32
    var recordCount: UInt32
    var payloadBlockCount: UInt32
    var firstRecord: RecordSequence
    var lastRecord: RecordSequence
    var nextInode: InodeNumber
    var durable: BatchSequence
    /// What the next batch calls the checksum of this one, where that is not the header's own: the batch was mended.
    var mendedChecksum: UInt32?

    var life: SegmentLife { SegmentLife(segment, incarnation) }
    var isMended: Bool { mendedChecksum != nil }

    /// Where the payload area begins, from the start of the batch, in bytes.
    var payloadAreaOffset: Int { (Int(recordAreaByteCount) + blockByteCount - 1) & ~(blockByteCount - 1) }
    /// The whole batch in bytes.
    var byteCount: Int { payloadAreaOffset + Int(payloadBlockCount) * blockByteCount }

    /// Whether this is the batch right behind another.
    func follows(_ last: BatchSequence) -> Bool { sequence == last.next || isMended && sequence > last }

    private var hasPossibleCounters: Bool {
        let counters = [
            epoch.rawValue, sequence.rawValue, firstRecord.rawValue, lastRecord.rawValue, nextInode.rawValue,
            durable.rawValue,
        ]
        return sequence > .zero && counters.allSatisfy { $0 <= counterLimit }
    }

    /// Writes the header and gives its checksum in the chain.
    @discardableResult
    func encode(into bytes: UnsafeMutableRawBufferPointer) -> UInt32 {
        precondition(bytes.count == Self.byteCount)
        bytes.zero(0, bytes.count)
        bytes.store(Self.magic, at: 0)
        bytes.store(1 as UInt16, at: 12)
        bytes.store(kind.rawValue, at: 14)
        bytes.store((endsSegment ? 1 : 0) | (isMended ? 2 : 0) as UInt8, at: 15)
        uuid.encode(into: bytes, at: 16)
        bytes.store(segment.rawValue, at: 32)
        bytes.store(incarnation, at: 36)
        bytes.store(epoch.rawValue, at: 40)
        bytes.store(sequence.rawValue, at: 48)
        bytes.store(previousChecksum, at: 56)
        bytes.store(recordsChecksum, at: 60)
        bytes.store(recordAreaByteCount, at: 64)
        bytes.store(recordCount, at: 68)
        bytes.store(payloadBlockCount, at: 72)
        bytes.store(firstRecord.rawValue, at: 80)
        bytes.store(lastRecord.rawValue, at: 88)
        bytes.store(nextInode.rawValue, at: 96)
        bytes.store(durable.rawValue, at: 104)
        bytes.store(mendedChecksum ?? 0, at: 112)
        let checksum = Checksum.crc32c(UnsafeRawBufferPointer(bytes), withHoleAt: 8)
        bytes.store(checksum, at: 8)
        return mendedChecksum ?? checksum
    }

    /// The header at the start of `bytes` with its checksum in the chain; nil when there is none that is whole and of this segment's
    /// present life. `room` is what is left of the segment from here on.
    static func decode(
        _ bytes: UnsafeRawBufferPointer, uuid: StoreUUID, in life: SegmentLife, room: Int
    ) -> (header: BatchHeader, checksum: UInt32)? {
        guard bytes.count >= byteCount, bytes.load(0, as: UInt64.self) == magic else { return nil }
        let bytes = bytes.part(0, byteCount)
        let checksum: UInt32 = bytes.load(8)
        guard checksum == Checksum.crc32c(bytes, withHoleAt: 8), bytes.load(12, as: UInt16.self) == 1,
            let kind = Kind(rawValue: bytes.load(14))
        else { return nil }
        let header = BatchHeader(
            kind: kind, endsSegment: bytes.load(15, as: UInt8.self) & 1 != 0, uuid: StoreUUID(decoding: bytes, at: 16),
            segment: SegmentNumber(bytes.load(32)), incarnation: bytes.load(36), epoch: MountEpoch(bytes.load(40)),
            sequence: BatchSequence(bytes.load(48)), previousChecksum: bytes.load(56), recordsChecksum: bytes.load(60),
            recordAreaByteCount: bytes.load(64), recordCount: bytes.load(68), payloadBlockCount: bytes.load(72),
            firstRecord: RecordSequence(bytes.load(80)), lastRecord: RecordSequence(bytes.load(88)),
            nextInode: InodeNumber(bytes.load(96)), durable: BatchSequence(bytes.load(104)),
            mendedChecksum: bytes.load(15, as: UInt8.self) & 2 != 0 ? bytes.load(112, as: UInt32.self) : nil)
        guard header.uuid == uuid, header.life == life,
            header.recordAreaByteCount >= UInt32(byteCount), header.byteCount <= room, header.hasPossibleCounters
        else { return nil }
        return (header, header.mendedChecksum ?? checksum)
    }
}
