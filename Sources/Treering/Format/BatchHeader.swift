// The header of a batch: the unit in which the log is written.

/// What a batch says of itself, in the first 128 bytes of its record area.
///
/// A batch begins on a 4 KiB boundary of its segment: this header, the records, zeros up to the next boundary, then
/// the payload blocks. It is written as one vectored write.
///
/// A salvaged batch is what a repair wrote in the place of one or more damaged batches. Void records replace the lost
/// records. Its payload blocks may be damaged. Its sequence is that of the last batch that it replaces.
struct BatchHeader: Equatable, Sendable {
    struct Layout: DiskLayout {
        let magic = Field<UInt64>(0, "magic", "\"TRBATCH1\"", as: .text)
        let checksum = Field<UInt32>(
            8, "checksum", "of the header with this field zero: the batch's checksum in the chain", as: .hexadecimal)
        let version = Field<UInt16>(12, "version", "1")
        let kind = Field<UInt8>(
            14, "kind (0 records, 1 reserved range)", "a reserved range has payload blocks only and is walked over")
        let flags = Field<Flags>(15, "flags (1: last of its segment, 2: salvaged)")
        let uuid = Field<StoreUUID>(16, "store uuid", "that of the blocks")
        let segment = Field<SegmentNumber>(32, "segment")
        let incarnation = Field<UInt32>(36, "incarnation", "of the segment")
        let epoch = Field<MountEpoch>(40, "mount epoch")
        let sequence = Field<BatchSequence>(48, "batch sequence")
        let previousChecksum = Field<UInt32>(56, "checksum of the batch before", as: .hexadecimal)
        let recordsChecksum = Field<UInt32>(
            60, "checksum of the record area", "of what follows this header", as: .hexadecimal)
        let recordAreaByteCount = Field<UInt32>(
            64, "record area in bytes", "this header included, not rounded")
        let recordCount = Field<UInt32>(68, "records")
        let payloadBlockCount = Field<UInt32>(72, "payload blocks", "of 4 KiB")
        let firstRecord = Field<RecordSequence>(80, "first record")
        let lastRecord = Field<RecordSequence>(
            88, "last record", "highest of the log so far, also when the batch has no record")
        let nextInode = Field<InodeNumber>(96, "next inode number")
        let durable = Field<BatchSequence>(
            104, "durable through batch", "the highest known to be so when this header was made")
        let salvagedChecksum = Field<UInt32>(
            112, "checksum in the chain, if salvaged", "the one that the batch had before; else 0", as: .hexadecimal)
        static let byteCount = 128
    }

    static let layout = Layout()
    static let byteCount = Layout.byteCount
    static let magic: UInt64 = 0x3148_4354_4142_5254  // "TRBATCH1"
    static let version: UInt16 = 1

    struct Flags: OptionSet, StoredNumber {
        let rawValue: UInt8
        static let endsSegment = Flags(1 << 0)
        static let isSalvaged = Flags(1 << 1)
        init(_ rawValue: UInt8) { self.rawValue = rawValue }
        init(rawValue: UInt8) { self.rawValue = rawValue }
    }

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
    /// The checksum of this batch in the chain, where it is not the header's own: set only in a salvaged batch, since
    /// the next batch names the checksum that was there before the repair.
    var salvagedChecksum: UInt32?

    var segmentID: SegmentID { SegmentID(segment, incarnation) }
    var isSalvaged: Bool { salvagedChecksum != nil }

    /// Where the payload area begins, from the start of the batch, in bytes.
    var payloadAreaOffset: Int { (Int(recordAreaByteCount) + blockByteCount - 1) & ~(blockByteCount - 1) }
    /// The whole batch in bytes.
    var byteCount: Int { payloadAreaOffset + Int(payloadBlockCount) * blockByteCount }

    /// Whether this batch comes right after `last` in the log. A salvaged batch may stand for several, so its sequence
    /// may skip some.
    func follows(_ last: BatchSequence) -> Bool { sequence == last.next || isSalvaged && sequence > last }

    private var hasPossibleCounters: Bool {
        let counters = [
            epoch.rawValue, sequence.rawValue, firstRecord.rawValue, lastRecord.rawValue, nextInode.rawValue,
            durable.rawValue,
        ]
        return sequence > .zero && counters.allSatisfy { $0 <= counterLimit }
    }

    /// Writes the header and returns its checksum in the chain, which the next batch carries.
    @discardableResult
    func encode(into bytes: UnsafeMutableRawBufferPointer) -> UInt32 {
        precondition(bytes.count == Self.byteCount)
        precondition(recordAreaByteCount >= UInt32(Self.byteCount))
        precondition(byteCount <= SegmentHeader.byteCountLimit - SegmentHeader.byteCount)
        bytes.zero(0, bytes.count)
        let field = Self.layout
        bytes[field.magic] = Self.magic
        bytes[field.version] = Self.version
        bytes[field.kind] = kind.rawValue
        bytes[field.flags] = [endsSegment ? .endsSegment : [], isSalvaged ? .isSalvaged : []]
        bytes[field.uuid] = uuid
        bytes[field.segment] = segment
        bytes[field.incarnation] = incarnation
        bytes[field.epoch] = epoch
        bytes[field.sequence] = sequence
        bytes[field.previousChecksum] = previousChecksum
        bytes[field.recordsChecksum] = recordsChecksum
        bytes[field.recordAreaByteCount] = recordAreaByteCount
        bytes[field.recordCount] = recordCount
        bytes[field.payloadBlockCount] = payloadBlockCount
        bytes[field.firstRecord] = firstRecord
        bytes[field.lastRecord] = lastRecord
        bytes[field.nextInode] = nextInode
        bytes[field.durable] = durable
        bytes[field.salvagedChecksum] = salvagedChecksum ?? 0
        let checksum = bytes.seal(field.checksum)
        return salvagedChecksum ?? checksum
    }

    /// The header at the start of `bytes`, and its checksum in the chain. Nil unless it is whole, of this store and
    /// this incarnation of the segment, and the batch fits into `room`, the bytes from here to the end of the segment.
    static func decode(
        _ bytes: UnsafeRawBufferPointer, uuid: StoreUUID, in segmentID: SegmentID, room: Int
    ) -> (header: BatchHeader, checksum: UInt32)? {
        let field = layout
        guard bytes.count >= byteCount, bytes[field.magic] == magic else { return nil }
        let bytes = bytes.part(0, byteCount)
        guard bytes.isSealed(by: field.checksum), bytes[field.version] == version,
            let kind = Kind(rawValue: bytes[field.kind])
        else { return nil }
        let flags = bytes[field.flags]
        let header = BatchHeader(
            kind: kind, endsSegment: flags.contains(.endsSegment), uuid: bytes[field.uuid],
            segment: bytes[field.segment], incarnation: bytes[field.incarnation], epoch: bytes[field.epoch],
            sequence: bytes[field.sequence], previousChecksum: bytes[field.previousChecksum],
            recordsChecksum: bytes[field.recordsChecksum], recordAreaByteCount: bytes[field.recordAreaByteCount],
            recordCount: bytes[field.recordCount], payloadBlockCount: bytes[field.payloadBlockCount],
            firstRecord: bytes[field.firstRecord], lastRecord: bytes[field.lastRecord],
            nextInode: bytes[field.nextInode], durable: bytes[field.durable],
            salvagedChecksum: flags.contains(.isSalvaged) ? bytes[field.salvagedChecksum] : nil)
        guard header.uuid == uuid, header.segmentID == segmentID,
            header.recordAreaByteCount >= UInt32(byteCount), header.byteCount <= room, header.hasPossibleCounters
        else { return nil }
        return (header, claimedChecksum(bytes))
    }

    /// The incarnation that the bytes claim, unverified; nil where they do not begin with the magic of a batch.
    static func claimedIncarnation(_ bytes: UnsafeRawBufferPointer) -> UInt32? {
        guard bytes.count >= byteCount, bytes[layout.magic] == magic else { return nil }
        return bytes[layout.incarnation]
    }

    /// The checksum in the chain of the batch that begins with these bytes. Nothing is verified.
    static func claimedChecksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        bytes[bytes[layout.flags].contains(.isSalvaged) ? layout.salvagedChecksum : layout.checksum]
    }
}
