// The header of a run: the block before each run of payload blocks that the cleaner writes. It names the payloads, for
// the next cleaning of that segment.

/// Says which payloads have blocks in a run of a cold segment. Their blocks follow this header, in the same order.
///
/// A run is not part of the chain of batches: moves in the log say where each payload lies. The header is a hint. It
/// tells the cleaner which payloads to look up in the index, and the index decides.
enum RunHeader {
    struct Layout: DiskLayout {
        let magic = Field<UInt64>(0, "magic", "\"TRMOVED1\"", as: .text)
        let checksum = Field<UInt32>(8, "checksum", "CRC-32C of the block with this field zero", as: .hexadecimal)
        let version = Field<UInt16>(12, "version", "1")
        let uuid = Field<StoreUUID>(16, "store uuid", "that of the blocks")
        let segment = Field<SegmentNumber>(32, "segment")
        let incarnation = Field<UInt32>(36, "incarnation", "of the segment")
        let payloadCount = Field<UInt32>(40, "number of payloads", "at most 504")
        let blockCount = Field<UInt32>(44, "number of blocks that follow")
        let payloads = Tail<PayloadID>(64, "payload ids", "as many as `payloadCount` says; zeros up to 4,096")
        static let byteCount = 64
    }

    static let layout = Layout()
    static let byteCount = blockByteCount
    static let magic: UInt64 = 0x3144_4556_4F4D_5254  // "TRMOVED1"
    static let version: UInt16 = 1
    static let payloadCountLimit = (byteCount - Layout.byteCount) / PayloadID.storedByteCount

    static func encode(
        _ payloads: [PayloadID], blockCount: Int, uuid: StoreUUID, in segmentID: SegmentID,
        into bytes: UnsafeMutableRawBufferPointer
    ) {
        precondition(payloads.count <= payloadCountLimit && bytes.count >= byteCount)
        bytes.zero(0, byteCount)
        bytes[layout.magic] = magic
        bytes[layout.version] = version
        bytes[layout.uuid] = uuid
        bytes[layout.segment] = segmentID.number
        bytes[layout.incarnation] = segmentID.incarnation
        bytes[layout.payloadCount] = UInt32(payloads.count)
        bytes[layout.blockCount] = UInt32(blockCount)
        for (index, payload) in payloads.enumerated() { bytes[layout.payloads[index]] = payload }
        bytes.part(0, byteCount).seal(layout.checksum)
    }

    /// The payloads and the number of blocks of the run that begins with `bytes`. Nil unless it is whole and of this
    /// incarnation of the segment.
    static func decode(
        _ bytes: UnsafeRawBufferPointer, uuid: StoreUUID, in segmentID: SegmentID
    ) -> (payloads: [PayloadID], blockCount: Int)? {
        guard bytes.count >= byteCount, bytes[layout.magic] == magic else { return nil }
        let block = bytes.part(0, byteCount)
        let count = Int(block[layout.payloadCount])
        guard block.isSealed(by: layout.checksum),
            block[layout.version] == version, block[layout.uuid] == uuid,
            SegmentID(block[layout.segment], block[layout.incarnation]) == segmentID, count <= payloadCountLimit
        else { return nil }
        return ((0..<count).map { block[layout.payloads[$0]] }, Int(block[layout.blockCount]))
    }
}
