// The block in front of each run of payload blocks that the cleaner writes: it names the payloads, for the next cleaning.

/// What lies in a run of a cold segment: this block, then the blocks of the payloads that it names, in their order.
///
/// It is no part of the chain of batches; moves in the log say where each payload lies. Who reads it believes nothing: it tells the
/// cleaner which payloads to ask the index for.
///
///     offset size field
///          0    8 magic "TRMOVED1"
///          8    4 checksum (CRC-32C of the block with this field zero)
///         12    2 version (1)
///         14    2 zero
///         16   16 store uuid
///         32    4 segment
///         36    4 incarnation of the segment
///         40    4 number of payloads n, at most 504
///         44    4 number of blocks that follow
///         48   16 zero
///         64   8n payload ids
enum RunHeader {
    static let byteCount = blockByteCount
    static let magic: UInt64 = 0x3144_4556_4F4D_5254  // "TRMOVED1"
    static let payloadCountLimit = (byteCount - 64) / 8

    static func encode(
        _ payloads: [PayloadID], blockCount: Int, uuid: StoreUUID, in life: SegmentLife,
        into bytes: UnsafeMutableRawBufferPointer
    ) {
        precondition(payloads.count <= payloadCountLimit)
        bytes.zero(0, byteCount)
        bytes.store(magic, at: 0)
        bytes.store(1 as UInt16, at: 12)
        uuid.encode(into: bytes, at: 16)
        bytes.store(life.number.rawValue, at: 32)
        bytes.store(life.incarnation, at: 36)
        bytes.store(UInt32(payloads.count), at: 40)
        bytes.store(UInt32(blockCount), at: 44)
        for (index, payload) in payloads.enumerated() { bytes.store(payload.rawValue, at: 64 + index * 8) }
        bytes.store(Checksum.crc32c(UnsafeRawBufferPointer(bytes.part(0, byteCount)), withHoleAt: 8), at: 8)
    }

    /// The payloads of the run that begins with `bytes`, and the number of blocks in it; nil where there is none of this life of the segment.
    static func decode(
        _ bytes: UnsafeRawBufferPointer, uuid: StoreUUID, in life: SegmentLife
    ) -> (payloads: [PayloadID], blockCount: Int)? {
        guard bytes.count >= byteCount, bytes.load(0, as: UInt64.self) == magic else { return nil }
        let block = bytes.part(0, byteCount)
        let count = Int(block.load(40, as: UInt32.self))
        guard block.load(8, as: UInt32.self) == Checksum.crc32c(block, withHoleAt: 8),
            block.load(12, as: UInt16.self) == 1, StoreUUID(decoding: block, at: 16) == uuid,
            SegmentLife(SegmentNumber(block.load(32)), block.load(36)) == life,
            count <= payloadCountLimit
        else { return nil }
        let payloads = (0..<count).map { PayloadID(block.load(64 + $0 * 8)) }
        return (payloads, Int(block.load(44, as: UInt32.self)))
    }
}
