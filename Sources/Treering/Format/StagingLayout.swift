// The layout of a staging file: the end of the log in shared memory. The next mount reads it if the process was killed.

/// Where things lie in a staging file: its header, the descriptors of its slots, the slots.
enum StagingLayout {
    struct Header: DiskLayout {
        let magic = Field<UInt64>(0, "magic", "\"TRSTAGE1\"", as: .text)
        let checksum = Field<UInt32>(
            8, "checksum", "CRC-32C of the first 4,096 bytes with this field zero", as: .hexadecimal)
        let version = Field<UInt32>(12, "version", "1")
        let uuid = Field<StoreUUID>(16, "store uuid")
        let epoch = Field<MountEpoch>(32, "mount epoch")
        let generation = Field<UInt64>(40, "superblock generation", "of that mount")
        let device = Field<UInt64>(48, "device of the store's directory")
        let directory = Field<UInt64>(56, "inode of the store's directory")
        let bootID = Field<StoreUUID>(64, "boot id")
        let owner = Field<UInt64>(80, "owner", "uid")
        let identity = Field<UInt64>(88, "staging identity", "as in the superblock", as: .hexadecimal)
        let slotCount = Field<UInt32>(96, "number of slots")
        let recordAreaByteCount = Field<UInt32>(100, "record area in bytes")
        let payloadAreaByteCount = Field<UInt32>(104, "payload area in bytes")
        let pathByteCount = Field<UInt16>(108, "length of the path", "zero where that is not said")
        let path = Room(110, 3986, "path of the store's directory")
        let descriptors = Tail<Descriptor>(4096, "descriptors", "one for each slot; the slots begin at 8,192")
        static let byteCount = 4096
    }

    /// The descriptor of a slot. Only the mount that owns the file writes it.
    struct Descriptor: DiskLayout, Stored {
        let batch = Field<UInt64>(0, "batch sequence", "0: never used")
        let published = Field<UInt64>(
            8, "bytes of the record area that are published", "store-released after the records are whole")
        let segment = Field<SegmentNumber>(16, "segment")
        let payloadBlockCount = Field<UInt32>(20, "number of payload blocks")
        static let byteCount = 64
        static var storedByteCount: Int { byteCount }
    }

    static let header = Header()
    static let descriptor = Descriptor()
    static let magic: UInt64 = 0x3145_4741_5453_5254
    static let version: UInt32 = 1
    static let headerByteCount = Header.byteCount
    static let slotCountLimit = 64
    /// Where the slots begin: right behind the descriptors.
    static let slotsOffset = header.descriptors[slotCountLimit].offset
}
