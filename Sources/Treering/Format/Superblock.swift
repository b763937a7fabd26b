// The superblock: two slots in the file `superblock`, written in turn, each whole and with its own checksum.

/// What a store says of itself, and where its last checkpoint is.
///
/// Two slots of 4,096 bytes, at 0 and at 65,536; the valid slot with the higher generation counts. Page 0 of the file `index`, which no
/// index uses, has a copy of both, at 0 and at 4,096: written before the slot, and read where neither slot is whole any more.
///
///     offset size field
///          0    8 magic "TREERING"
///          8    4 checksum (CRC-32C of the slot with this field zero)
///         12    2 format version (2)
///         14    1 checksum type (1: CRC-32C)
///         15    1 zero
///         16    8 compatible features
///         24    8 read-only-compatible features
///         32    8 incompatible features
///         40   16 format uuid (constant for this format)
///         56   16 store uuid
///         72    8 generation of this slot
///         80    8 mount epoch
///         88    8 flags (bit 0: cleanly unmounted)
///         96    8 capacity in bytes
///        104    4 segment size in bytes
///        108    4 index page size in bytes (8,192)
///        112    4 alignment of offsets and lengths (4,096)
///        116    4 alignment of memory (4,096)
///        120   16 key of the name hash
///        136   16 boot id of the last mount
///        152    8 staging identity of the last mount
///        160    8 next inode number
///        168    8 highest record sequence
///        176    8 checkpoint number
///        184    8 batch sequence that the checkpoint includes the log through
///        192    4 checksum of that batch's header
///        196    4 segment in which the log goes on
///        200    4 incarnation of that segment
///        204    4 offset in that segment at which the next batch begins
///        208    8 time of formatting, seconds since 1970
///        216    8 number of inodes
///        224    8 mount epoch that froze the checkpoint: no batch after its position is of an earlier one
///        232    8 bytes of files that are reserved but not written
///        240    8 bytes of records and data that operations brought since formatting
///        248    8 bytes that the cleaner wrote since formatting
///        256   64 index root (`IndexRoot`)
///        320    8 bytes that files share
///        328    8 the checkpoint that counted those; where it is another one, nobody has
///        336   16 uuid of the blocks: what segments, batches and index pages carry; zero where that is the store uuid
///        352    8 staging of mounts through this epoch is void (`StagingHistory`); zero: written by a version that did not note it
///        360    8 staging of mounts through this epoch was passed over
///        368    8 the sequence that the next record would have got then
///        376    8 killed mounts that were passed over since formatting
///        384    8 the epoch of the mount whose staging had been passed over and is being taken in; zero: none
///        392  120 zero
///        512  512 room for snapshot roots, zero
///       1024 3072 zero
///
/// Incompatible features: bit 0, the uuid of the blocks is not the store uuid.
///
/// Where 240 to 255 are zero, the store was written before those were counted.
struct Superblock: Equatable {
    static let slotByteCount = 4096
    static let slotOffsets: [UInt64] = [0, 65536]
    static let copyOffsets: [UInt64] = [0, 4096]
    static let fileByteCount: UInt64 = 65536 + 4096
    static let magic: UInt64 = 0x474E_4952_4545_5254  // "TREERING"
    static let version: UInt16 = 2
    static let formatUUID = StoreUUID(high: 0x7472_6565_7269_6e67, low: 0x9b1d_52c8_6f30_4ea7)
    static let indexPageByteCount: UInt32 = 8192
    /// The store has got another uuid than the one that its blocks were written with.
    static let hasBlockUUID: UInt64 = 1 << 0
    static let knownIncompatibleFeatures = hasBlockUUID

    var compatibleFeatures: UInt64 = 0
    var readOnlyCompatibleFeatures: UInt64 = 0
    var incompatibleFeatures: UInt64 = 0
    /// The store's name, by which its staging is found.
    var uuid: StoreUUID
    /// What segments, batches and index pages carry, where that is not the store's uuid.
    var ownBlockUUID: StoreUUID?
    var generation: UInt64
    var epoch: MountEpoch
    var isClean: Bool
    var capacityByteCount: UInt64
    var segmentByteCount: UInt32
    var hashKey: StoreUUID
    var bootID = StoreUUID(high: 0, low: 0)
    var stagingIdentity: UInt64 = 0
    /// Which staging continues the log.
    var staging = StagingHistory()
    var nextInode: InodeNumber
    var highestSequence: RecordSequence
    var checkpoint: CheckpointNumber
    var position: LogPosition
    var formattedSeconds: Int64
    var inodeCount: UInt64
    var reservedByteCount: UInt64 = 0
    var written = WrittenByteCounts()
    /// Nil where a store was made before they were counted.
    var sharedByteCount: UInt64?
    var checkpointEpoch: MountEpoch
    var indexRoot: IndexRoot

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count == Self.slotByteCount)
        bytes.zero(0, bytes.count)
        bytes.store(Self.magic, at: 0)
        bytes.store(Self.version, at: 12)
        bytes.store(Checksum.typeCRC32C, at: 14)
        bytes.store(compatibleFeatures, at: 16)
        bytes.store(readOnlyCompatibleFeatures, at: 24)
        bytes.store(incompatibleFeatures | (ownBlockUUID == nil ? 0 : Self.hasBlockUUID), at: 32)
        Self.formatUUID.encode(into: bytes, at: 40)
        uuid.encode(into: bytes, at: 56)
        bytes.store(generation, at: 72)
        bytes.store(epoch.rawValue, at: 80)
        bytes.store(isClean ? 1 : 0 as UInt64, at: 88)
        bytes.store(capacityByteCount, at: 96)
        bytes.store(segmentByteCount, at: 104)
        bytes.store(Self.indexPageByteCount, at: 108)
        bytes.store(UInt32(blockByteCount), at: 112)
        bytes.store(UInt32(blockByteCount), at: 116)
        hashKey.encode(into: bytes, at: 120)
        bootID.encode(into: bytes, at: 136)
        bytes.store(stagingIdentity, at: 152)
        bytes.store(nextInode.rawValue, at: 160)
        bytes.store(highestSequence.rawValue, at: 168)
        bytes.store(checkpoint.rawValue, at: 176)
        position.encode(into: bytes, at: 184)
        bytes.store(formattedSeconds, at: 208)
        bytes.store(inodeCount, at: 216)
        bytes.store(checkpointEpoch.rawValue, at: 224)
        bytes.store(reservedByteCount, at: 232)
        bytes.store(written.asked, at: 240)
        bytes.store(written.moved, at: 248)
        bytes.store(sharedByteCount ?? 0, at: 320)
        bytes.store(sharedByteCount == nil ? 0 : checkpoint.rawValue, at: 328)
        ownBlockUUID?.encode(into: bytes, at: 336)
        bytes.store(staging.void.rawValue, at: 352)
        bytes.store(staging.passed.rawValue, at: 360)
        bytes.store(staging.next.rawValue, at: 368)
        bytes.store(staging.passedCount, at: 376)
        bytes.store(staging.taking.rawValue, at: 384)
        indexRoot.encode(into: bytes, at: 256)
        bytes.store(Checksum.crc32c(UnsafeRawBufferPointer(bytes), withHoleAt: 8), at: 8)
    }

    /// Why a slot cannot be used.
    enum Refusal: Error, Equatable {
        /// No superblock at all: another kind of file.
        case foreign
        /// A superblock of a version or with features that this program does not know; the text names both.
        case newer(String)
        /// A superblock whose bytes are damaged; the text says how.
        case damaged(String)
    }

    /// Read-only-compatible features that this program does not know: the store may be mounted read-only.
    var unknownReadOnlyFeatures: UInt64 { readOnlyCompatibleFeatures }

    /// What segments, batches and index pages carry.
    var blockUUID: StoreUUID { ownBlockUUID ?? uuid }

    /// How many segments the capacity allows.
    var segmentCountLimit: Int { Int(capacityByteCount / UInt64(segmentByteCount)) }

    /// Gives the store the capacity of so many segments, unless its own allows as many.
    mutating func setSegmentCount(_ count: Int) {
        if count != segmentCountLimit { capacityByteCount = UInt64(count) * UInt64(segmentByteCount) }
    }
}

extension Superblock {
    /// Decodes a slot; nothing in it is trusted before its checksum and its numbers were checked.
    init(decoding bytes: UnsafeRawBufferPointer) throws(Refusal) {
        guard bytes.count == Self.slotByteCount else { throw .damaged("it is only \(bytes.count) bytes long") }
        guard bytes.load(0, as: UInt64.self) == Self.magic else {
            throw .foreign
        }
        guard bytes.load(8, as: UInt32.self) == Checksum.crc32c(bytes, withHoleAt: 8) else {
            throw .damaged("its checksum does not match")
        }
        let version: UInt16 = bytes.load(12)
        guard version == Self.version else {
            throw .newer("it has format version \(version); this treering knows version \(Self.version)")
        }
        guard StoreUUID(decoding: bytes, at: 40) == Self.formatUUID else { throw .foreign }
        guard bytes.load(14, as: UInt8.self) == Checksum.typeCRC32C else {
            throw .newer(
                "it uses checksum type \(bytes.load(14, as: UInt8.self)); this treering knows type 1 (CRC-32C)")
        }
        incompatibleFeatures = bytes.load(32)
        let unknown = incompatibleFeatures & ~Self.knownIncompatibleFeatures
        guard unknown == 0 else {
            throw .newer("it uses features 0x\(String(unknown, radix: 16)), which this treering does not know")
        }
        guard bytes.load(108, as: UInt32.self) == Self.indexPageByteCount,
            bytes.load(112, as: UInt32.self) == UInt32(blockByteCount),
            bytes.load(116, as: UInt32.self) <= UInt32(blockByteCount)
        else { throw .newer("it has page size or alignments other than 8192/4096, which this treering does not know") }
        compatibleFeatures = bytes.load(16)
        readOnlyCompatibleFeatures = bytes.load(24)
        uuid = StoreUUID(decoding: bytes, at: 56)
        if incompatibleFeatures & Self.hasBlockUUID != 0 { ownBlockUUID = StoreUUID(decoding: bytes, at: 336) }
        generation = bytes.load(72)
        epoch = MountEpoch(bytes.load(80))
        isClean = bytes.load(88, as: UInt64.self) & 1 != 0
        capacityByteCount = bytes.load(96)
        segmentByteCount = bytes.load(104)
        hashKey = StoreUUID(decoding: bytes, at: 120)
        bootID = StoreUUID(decoding: bytes, at: 136)
        stagingIdentity = bytes.load(152)
        nextInode = InodeNumber(bytes.load(160))
        highestSequence = RecordSequence(bytes.load(168))
        checkpoint = CheckpointNumber(bytes.load(176))
        position = LogPosition(decoding: bytes, at: 184)
        formattedSeconds = bytes.load(208)
        inodeCount = bytes.load(216)
        checkpointEpoch = MountEpoch(bytes.load(224))
        reservedByteCount = bytes.load(232)
        written = WrittenByteCounts(asked: bytes.load(240), moved: bytes.load(248))
        if checkpoint != .zero, bytes.load(328) == checkpoint.rawValue { sharedByteCount = bytes.load(320) }
        staging = StagingHistory(
            void: MountEpoch(bytes.load(352)), passed: MountEpoch(bytes.load(360)),
            next: RecordSequence(bytes.load(368)), passedCount: bytes.load(376),
            taking: MountEpoch(bytes.load(384)))
        do {
            indexRoot = try IndexRoot.decode(from: bytes, at: 256)
        } catch {
            throw .damaged(error.description)
        }
        try checkGeometry()
    }

    private func checkGeometry() throws(Refusal) {
        let size = segmentByteCount
        guard size >= 1 << 20, size <= 64 << 20, size & (size - 1) == 0 else {
            throw .damaged("its segment size is \(size)")
        }
        guard capacityByteCount >= UInt64(size) * 8, capacityByteCount / UInt64(size) <= 1 << 24 else {
            throw .damaged("its capacity is \(capacityByteCount)")
        }
        guard position.offsetInSegment % UInt32(blockByteCount) == 0, position.offsetInSegment <= size,
            UInt64(position.segment.rawValue) < capacityByteCount / UInt64(size)
        else { throw .damaged("its log position is impossible") }
        let counters = [
            generation, epoch.rawValue, nextInode.rawValue, highestSequence.rawValue, checkpoint.rawValue,
            position.lastBatch.rawValue, UInt64(position.incarnation) << 32, inodeCount, reservedByteCount,
            written.asked, written.moved, sharedByteCount ?? 0, staging.void.rawValue, staging.passed.rawValue,
            staging.next.rawValue, staging.passedCount, staging.taking.rawValue,
        ]
        guard indexRoot.checkpoint == checkpoint else { throw .damaged("its index is of another checkpoint") }
        guard counters.allSatisfy({ $0 <= counterLimit }) else { throw .damaged("its counters are impossible") }
    }
}

/// What was written to the log, in bytes.
struct WrittenByteCounts: Equatable {
    /// Records and data of operations.
    var asked: UInt64 = 0
    /// What the cleaner wrote: records of moves, and copied blocks.
    var moved: UInt64 = 0

    static func + (_ left: Self, _ right: Self) -> Self {
        Self(asked: left.asked &+ right.asked, moved: left.moved &+ right.moved)
    }

    /// Bytes written, for 100 that operations brought.
    var amplificationPercent: UInt64 {
        guard asked > 0 else { return 100 }
        return UInt64((Double(asked) + Double(moved)) / Double(asked) * 100)
    }
}

/// A place between two batches of the log: what was written so far, and where the next batch goes.
///
///     offset size field
///          0    8 sequence of the batch before
///          8    4 checksum of that batch's header
///         12    4 segment
///         16    4 incarnation of the segment
///         20    4 offset in the segment
struct LogPosition: Hashable, Sendable {
    var lastBatch: BatchSequence
    var lastChecksum: UInt32
    var segment: SegmentNumber
    var incarnation: UInt32
    var offsetInSegment: UInt32

    init(
        lastBatch: BatchSequence, lastChecksum: UInt32, segment: SegmentNumber, incarnation: UInt32,
        offsetInSegment: UInt32
    ) {
        self.lastBatch = lastBatch
        self.lastChecksum = lastChecksum
        self.segment = segment
        self.incarnation = incarnation
        self.offsetInSegment = offsetInSegment
    }

    /// The segment in which the log goes on.
    var life: SegmentLife {
        get { SegmentLife(segment, incarnation) }
        set { (segment, incarnation) = (newValue.number, newValue.incarnation) }
    }

    func encode(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
        bytes.store(lastBatch.rawValue, at: offset)
        bytes.store(lastChecksum, at: offset + 8)
        bytes.store(segment.rawValue, at: offset + 12)
        bytes.store(incarnation, at: offset + 16)
        bytes.store(offsetInSegment, at: offset + 20)
    }

    init(decoding bytes: UnsafeRawBufferPointer, at offset: Int) {
        lastBatch = BatchSequence(bytes.load(offset))
        lastChecksum = bytes.load(offset + 8)
        segment = SegmentNumber(bytes.load(offset + 12))
        incarnation = bytes.load(offset + 16)
        offsetInSegment = bytes.load(offset + 20)
    }
}

extension StoreUUID {
    func encode(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
        bytes.store(high.bigEndian, at: offset)
        bytes.store(low.bigEndian, at: offset + 8)
    }

    init(decoding bytes: UnsafeRawBufferPointer, at offset: Int) {
        let high: UInt64 = bytes.load(offset)
        let low: UInt64 = bytes.load(offset + 8)
        self.init(high: UInt64(bigEndian: high), low: UInt64(bigEndian: low))
    }
}
