// The block in front of each run of payload blocks that the cleaner writes: it names the payloads, for the next cleaning.

/// What lies in a run of a cold segment: this block, then the blocks of the payloads that it names, in their order.
///
/// It is no part of the chain of batches; moves in the log say where each payload lies. Who reads it believes nothing: it tells the
/// cleaner which payloads to ask the index for.
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

    /// The payloads of the run that begins with `bytes`, and the number of blocks in it; nil where there is none of this incarnation of the segment.
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
