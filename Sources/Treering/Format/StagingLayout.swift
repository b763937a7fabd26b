// The staging file: the tail of the log in shared memory, read by a successor after the process died.

/// Sizes of staging, derived from options and segment size.
struct StagingGeometry: Equatable, Sendable {
    /// How many batches can be open or in flight.
    let slotCount: Int
    /// Room for a batch's header and records, a multiple of 4 KiB.
    let recordAreaByteCount: Int
    /// Room for a batch's payload blocks, a multiple of 4 KiB.
    let payloadAreaByteCount: Int

    /// The largest write in one operation: fits any slot's payload area.
    let writeByteCountLimit: Int

    /// Chooses sizes: a batch is at most a quarter of a segment and an eighth of staging.
    init(stagingByteCount: Int, segmentByteCount: Int) {
        var slot = 256 << 10
        while slot * 2 <= segmentByteCount / 4 && slot * 2 * 8 <= stagingByteCount { slot *= 2 }
        slotCount = max(4, min(64, stagingByteCount / slot))
        recordAreaByteCount = slot / 4 - blockByteCount
        payloadAreaByteCount = slot * 3 / 4
        var limit = blockByteCount
        while limit * 2 <= payloadAreaByteCount && limit * 2 <= PayloadRecord.byteCountLimit { limit *= 2 }
        writeByteCountLimit = limit
    }

    /// The same, with slots large enough for every record of dead mounts' tails: those mounts may have had more staging.
    init(stagingByteCount: Int, segmentByteCount: Int, holding tails: [StagingHeader]) {
        var byteCount = stagingByteCount
        self.init(stagingByteCount: byteCount, segmentByteCount: segmentByteCount)
        while byteCount < segmentByteCount * 8,
            tails.contains(where: {
                Int($0.recordAreaByteCount) > recordAreaByteCount || Int($0.payloadAreaByteCount) > payloadAreaByteCount
            })
        {
            byteCount *= 2
            self.init(stagingByteCount: byteCount, segmentByteCount: segmentByteCount)
        }
    }

    /// One slot: room for a segment header, the record area, the payload area.
    var slotByteCount: Int { blockByteCount + recordAreaByteCount + payloadAreaByteCount }
    /// The largest batch on disk.
    var batchByteCountLimit: Int { recordAreaByteCount + payloadAreaByteCount }
    var byteCount: Int { StagingLayout.slotsOffset + slotCount * slotByteCount }
}

/// Where things lie in a staging file.
///
///     offset size field
///          0    8 magic "TRSTAGE1"
///          8    4 checksum of the first 4,096 bytes (this field zero)
///         12    4 version (1)
///         16   16 store uuid
///         32    8 mount epoch
///         40    8 superblock generation of that mount
///         48    8 device of the store's directory
///         56    8 inode of the store's directory
///         64   16 boot id
///         80    8 owner (uid)
///         88    8 staging identity (as in the superblock)
///         96    4 number of slots     100 4 record area in bytes     104 4 payload area in bytes
///        108    2 length of the path of the store's directory, zero where that is not said
///        110      that path, at most 3,986 bytes
///       4096   64 per slot: descriptor
///       8192      slots
///
/// A descriptor, written only by the mount that owns the file:
///
///     offset size field
///          0    8 batch sequence (0: never used)
///          8    8 bytes of the record area that are published (store-released after the records are whole)
///         16    4 segment
///         20    4 number of payload blocks
enum StagingLayout {
    static let magic: UInt64 = 0x3145_4741_5453_5254
    static let headerByteCount = 4096
    static let pathOffset = 110
    static let pathByteCountLimit = headerByteCount - pathOffset
    static let descriptorsOffset = 4096
    static let descriptorByteCount = 64
    static let slotsOffset = 8192
}
