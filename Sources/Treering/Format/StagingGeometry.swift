// The sizes of staging and of its slots.

/// Sizes of staging, derived from options and segment size.
struct StagingGeometry: Equatable, Sendable {
    /// How many batches can be open or in flight.
    let slotCount: Int
    /// Room for a batch's header and records, a multiple of 4 KiB.
    let recordAreaByteCount: Int
    /// Room for a batch's payload blocks, a multiple of 4 KiB.
    let payloadAreaByteCount: Int

    /// The most bytes that one operation can write. They fit in the payload area of a slot.
    let writeByteCountLimit: Int

    /// Chooses sizes. A slot is at most a quarter of a segment and an eighth of staging, but at least 256 KiB.
    init(stagingByteCount: Int, segmentByteCount: Int) {
        var slot = 256 << 10
        while slot * 2 <= segmentByteCount / 4 && slot * 2 * 8 <= stagingByteCount { slot *= 2 }
        slotCount = max(4, min(StagingLayout.slotCountLimit, stagingByteCount / slot))
        recordAreaByteCount = slot / 4 - blockByteCount
        payloadAreaByteCount = slot * 3 / 4
        var limit = blockByteCount
        while limit * 2 <= payloadAreaByteCount && limit * 2 <= PayloadRecord.byteCountLimit { limit *= 2 }
        writeByteCountLimit = limit
    }

    /// The same, with slots large enough for each record in the staging of killed mounts, which may have had larger
    /// staging.
    init(stagingByteCount: Int, segmentByteCount: Int, holding allStaged: [StagingHeader]) {
        var byteCount = stagingByteCount
        self.init(stagingByteCount: byteCount, segmentByteCount: segmentByteCount)
        while byteCount < segmentByteCount * 8,
            allStaged.contains(where: {
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
