// The superblock: two slots in the file `superblock`, written in turn, each whole and with its own checksum.

/// The identity and settings of a store, and where its last checkpoint is.
///
/// There are two slots of 4,096 bytes, at 0 and at 65,536. The valid slot with the higher generation counts. Page 0 of
/// the file `index`, which no index uses, has a copy of each slot, at 0 and at 4,096. The copy is written before the
/// slot, and read only if neither slot is whole.
struct Superblock: Equatable {
    static let layout = Layout()
    static let slotByteCount = Layout.byteCount
    static let slotOffsets: [UInt64] = [0, 65536]
    static let copyOffsets: [UInt64] = [0, 4096]
    static let fileByteCount = slotOffsets.last! + UInt64(slotByteCount)
    static let magic: UInt64 = 0x474E_4952_4545_5254  // "TREERING"
    static let version: UInt16 = 2
    static let formatUUID = StoreUUID(high: 0x7472_6565_7269_6e67, low: 0x9b1d_52c8_6f30_4ea7)
    static let indexPageByteCount = UInt32(IndexPage.byteCount)
    /// Incompatible feature: the uuid of the blocks is not the uuid of the store.
    static let hasBlockUUID: UInt64 = 1 << 0
    static let knownIncompatibleFeatures = hasBlockUUID
    /// Flag: the last mount was unmounted cleanly.
    static let cleanFlag: UInt64 = 1 << 0

    /// The layout of a slot.
    struct Layout: DiskLayout {
        let magic = Field<UInt64>(0, "magic", "\"TREERING\"", as: .text)
        let checksum = Field<UInt32>(8, "checksum", "CRC-32C of the slot with this field zero", as: .hexadecimal)
        let version = Field<UInt16>(12, "format version", "2")
        let checksumType = Field<UInt8>(14, "checksum type", "1: CRC-32C")
        let compatible = Field<UInt64>(16, "compatible features", as: .hexadecimal)
        let readOnlyCompatible = Field<UInt64>(24, "read-only-compatible features", as: .hexadecimal)
        let incompatible = Field<UInt64>(
            32, "incompatible features", "bit 0: the uuid of the blocks is not the store uuid", as: .hexadecimal)
        let formatUUID = Field<StoreUUID>(40, "format uuid", "constant for this format")
        let uuid = Field<StoreUUID>(56, "store uuid")
        let generation = Field<UInt64>(72, "generation", "of this slot: the higher one counts")
        let epoch = Field<MountEpoch>(80, "mount epoch")
        let flags = Field<UInt64>(88, "flags (1: cleanly unmounted)", as: .hexadecimal)
        let capacity = Field<UInt64>(96, "capacity in bytes")
        let segmentByteCount = Field<UInt32>(104, "segment size in bytes")
        let indexPageByteCount = Field<UInt32>(108, "index page size in bytes", "8,192")
        let diskAlignment = Field<UInt32>(112, "alignment of offsets and lengths", "4,096")
        let memoryAlignment = Field<UInt32>(116, "alignment of memory", "4,096")
        let hashKey = Field<StoreUUID>(120, "key of the name hash")
        let bootID = Field<StoreUUID>(136, "boot id of the last mount")
        let stagingIdentity = Field<UInt64>(152, "staging of the last mount", as: .hexadecimal)
        let nextInode = Field<InodeNumber>(160, "next inode number")
        let highestSequence = Field<RecordSequence>(168, "highest record sequence")
        let checkpoint = Field<CheckpointNumber>(176, "checkpoint")
        let position = Field<LogPosition>(184, "position", "where the log goes on behind what the checkpoint includes")
        let formattedSeconds = Field<Int64>(208, "formatted at, seconds since 1970")
        let inodeCount = Field<UInt64>(216, "number of inodes")
        let checkpointEpoch = Field<MountEpoch>(
            224, "mount epoch of the checkpoint", "that froze it: no batch after its position is of an earlier one")
        let reservedByteCount = Field<UInt64>(232, "bytes reserved and not written", "of files")
        let askedByteCount = Field<UInt64>(
            240, "bytes that operations brought", "records and data since formatting; zero with the next: not counted")
        let movedByteCount = Field<UInt64>(248, "bytes that the cleaner wrote", "since formatting")
        let indexRoot = Field<IndexRoot>(256, "index root", "of the checkpoint")
        let sharedByteCount = Field<UInt64>(320, "bytes that files share")
        let sharedCheckpoint = Field<CheckpointNumber>(
            328, "checkpoint that counted them", "where it is another one, nobody has")
        let blockUUID = Field<StoreUUID>(
            336, "uuid of the blocks, if another", "what segments, batches and index pages carry; else zero")
        let stagingVoid = Field<MountEpoch>(
            352, "staging is void through mount epoch", "zero: written by a version that did not note it")
        let stagingPassed = Field<MountEpoch>(360, "and was passed over through")
        let stagingNext = Field<RecordSequence>(
            368, "where the next record had sequence", "what the next record would have got then")
        let stagingPassedCount = Field<UInt64>(376, "killed mounts passed over", "since formatting")
        let stagingTaking = Field<MountEpoch>(
            384, "staging being taken in is of mount epoch", "it had been passed over; zero: none")
        let snapshots = Room(512, 512, "room for snapshot roots", "zero")
        static let byteCount = 4096
    }

    var compatibleFeatures: UInt64 = 0
    var readOnlyCompatibleFeatures: UInt64 = 0
    var incompatibleFeatures: UInt64 = 0
    /// The uuid of the store, by which its staging is found.
    var uuid: StoreUUID
    /// The uuid in segments, batches and index pages, if it is not the uuid of the store.
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
    /// Nil if the version that wrote the checkpoint did not count them.
    var sharedByteCount: UInt64?
    var checkpointEpoch: MountEpoch
    var indexRoot: IndexRoot

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count == Self.slotByteCount)
        bytes.zero(0, bytes.count)
        let field = Self.layout
        bytes[field.magic] = Self.magic
        bytes[field.version] = Self.version
        bytes[field.checksumType] = Checksum.typeCRC32C
        bytes[field.compatible] = compatibleFeatures
        bytes[field.readOnlyCompatible] = readOnlyCompatibleFeatures
        bytes[field.incompatible] = incompatibleFeatures | (ownBlockUUID == nil ? 0 : Self.hasBlockUUID)
        bytes[field.formatUUID] = Self.formatUUID
        bytes[field.uuid] = uuid
        bytes[field.generation] = generation
        bytes[field.epoch] = epoch
        bytes[field.flags] = isClean ? Self.cleanFlag : 0
        bytes[field.capacity] = capacityByteCount
        bytes[field.segmentByteCount] = segmentByteCount
        bytes[field.indexPageByteCount] = Self.indexPageByteCount
        bytes[field.diskAlignment] = UInt32(blockByteCount)
        bytes[field.memoryAlignment] = UInt32(blockByteCount)
        bytes[field.hashKey] = hashKey
        bytes[field.bootID] = bootID
        bytes[field.stagingIdentity] = stagingIdentity
        bytes[field.nextInode] = nextInode
        bytes[field.highestSequence] = highestSequence
        bytes[field.checkpoint] = checkpoint
        bytes[field.position] = position
        bytes[field.formattedSeconds] = formattedSeconds
        bytes[field.inodeCount] = inodeCount
        bytes[field.checkpointEpoch] = checkpointEpoch
        bytes[field.reservedByteCount] = reservedByteCount
        bytes[field.askedByteCount] = written.asked
        bytes[field.movedByteCount] = written.moved
        indexRoot.encode(into: bytes.part(field.indexRoot))
        bytes[field.sharedByteCount] = sharedByteCount ?? 0
        bytes[field.sharedCheckpoint] = sharedByteCount == nil ? .zero : checkpoint
        if let ownBlockUUID { bytes[field.blockUUID] = ownBlockUUID }
        bytes[field.stagingVoid] = staging.void
        bytes[field.stagingPassed] = staging.passed
        bytes[field.stagingNext] = staging.next
        bytes[field.stagingPassedCount] = staging.passedCount
        bytes[field.stagingTaking] = staging.taking
        bytes.seal(field.checksum)
    }

    /// Why a slot cannot be used.
    enum Refusal: Error, Equatable {
        /// No superblock at all: another kind of file.
        case foreign
        /// A superblock of a version, or with features, that this program does not know. The text says which.
        case newer(String)
        /// A superblock whose bytes are damaged; the text says how.
        case damaged(String)
    }

    /// Read-only-compatible features that this program does not know: the store may be mounted read-only.
    var unknownReadOnlyFeatures: UInt64 { readOnlyCompatibleFeatures }

    /// The uuid in segments, batches and index pages.
    var blockUUID: StoreUUID { ownBlockUUID ?? uuid }

    /// How many segments the store may have by its capacity.
    var segmentCountLimit: Int { Int(capacityByteCount / UInt64(segmentByteCount)) }

    /// Sets the capacity to `count` segments. A capacity that already allows exactly that many stays as it is.
    mutating func setSegmentCount(_ count: Int) {
        if count != segmentCountLimit { capacityByteCount = UInt64(count) * UInt64(segmentByteCount) }
    }
}

extension Superblock {
    /// Decodes a slot. Checks its checksum and that its numbers are possible.
    init(decoding bytes: UnsafeRawBufferPointer) throws(Refusal) {
        guard bytes.count == Self.slotByteCount else { throw .damaged("it is only \(bytes.count) bytes long") }
        let field = Self.layout
        guard bytes[field.magic] == Self.magic else {
            throw .foreign
        }
        guard bytes.isSealed(by: field.checksum) else {
            throw .damaged("its checksum does not match")
        }
        let version = bytes[field.version]
        guard version == Self.version else {
            throw .newer("it has format version \(version); this treering knows version \(Self.version)")
        }
        guard bytes[field.formatUUID] == Self.formatUUID else { throw .foreign }
        let checksumType = bytes[field.checksumType]
        guard checksumType == Checksum.typeCRC32C else {
            throw .newer("it uses checksum type \(checksumType); this treering knows type 1 (CRC-32C)")
        }
        incompatibleFeatures = bytes[field.incompatible]
        let unknown = incompatibleFeatures & ~Self.knownIncompatibleFeatures
        guard unknown == 0 else {
            throw .newer("it uses features 0x\(String(unknown, radix: 16)), which this treering does not know")
        }
        guard bytes[field.indexPageByteCount] == Self.indexPageByteCount,
            bytes[field.diskAlignment] == UInt32(blockByteCount),
            bytes[field.memoryAlignment] <= UInt32(blockByteCount)
        else { throw .newer("it has page size or alignments other than 8192/4096, which this treering does not know") }
        compatibleFeatures = bytes[field.compatible]
        readOnlyCompatibleFeatures = bytes[field.readOnlyCompatible]
        uuid = bytes[field.uuid]
        if incompatibleFeatures & Self.hasBlockUUID != 0 { ownBlockUUID = bytes[field.blockUUID] }
        generation = bytes[field.generation]
        epoch = bytes[field.epoch]
        isClean = bytes[field.flags] & Self.cleanFlag != 0
        capacityByteCount = bytes[field.capacity]
        segmentByteCount = bytes[field.segmentByteCount]
        hashKey = bytes[field.hashKey]
        bootID = bytes[field.bootID]
        stagingIdentity = bytes[field.stagingIdentity]
        nextInode = bytes[field.nextInode]
        highestSequence = bytes[field.highestSequence]
        checkpoint = bytes[field.checkpoint]
        position = bytes[field.position]
        formattedSeconds = bytes[field.formattedSeconds]
        inodeCount = bytes[field.inodeCount]
        checkpointEpoch = bytes[field.checkpointEpoch]
        reservedByteCount = bytes[field.reservedByteCount]
        written = WrittenByteCounts(asked: bytes[field.askedByteCount], moved: bytes[field.movedByteCount])
        if checkpoint != .zero, bytes[field.sharedCheckpoint] == checkpoint {
            sharedByteCount = bytes[field.sharedByteCount]
        }
        staging = StagingHistory(
            void: bytes[field.stagingVoid], passed: bytes[field.stagingPassed], next: bytes[field.stagingNext],
            passedCount: bytes[field.stagingPassedCount], taking: bytes[field.stagingTaking])
        do {
            indexRoot = try IndexRoot.decode(from: bytes.part(field.indexRoot))
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

/// How many bytes were written to the log.
struct WrittenByteCounts: Equatable {
    /// Records and data of operations.
    var asked: UInt64 = 0
    /// What the cleaner wrote: records of moves, and moved blocks.
    var moved: UInt64 = 0

    static func + (_ left: Self, _ right: Self) -> Self {
        Self(asked: left.asked &+ right.asked, moved: left.moved &+ right.moved)
    }

    /// How many bytes were written for each 100 bytes that operations brought.
    var amplificationPercent: UInt64 {
        guard asked > 0 else { return 100 }
        return UInt64((Double(asked) + Double(moved)) / Double(asked) * 100)
    }
}
