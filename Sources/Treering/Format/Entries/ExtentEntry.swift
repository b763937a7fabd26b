// The index entry of a range of a file.

/// A range of a file that shows a part of a payload or is reserved. Key: (tree, inode, extent, file offset).
struct ExtentEntry: Hashable {
    struct Layout: DiskLayout {
        let origin = Field<Origin>(0, "origin")
        let length = Field<UInt32>(12, "length in bytes")
        let payload = Field<PayloadID>(16, "payload", "0: reserved, allocated but never written; reads as zeros")
        let payloadOffset = Field<UInt32>(24, "offset in the payload")
        static let byteCount = 32
    }

    static let layout = Layout()
    static let byteCount = Layout.byteCount
    static let charge = ExtentChange.byteCount + Change.moveOverheadByteCount

    var origin: Origin
    var length: UInt32
    var payload: PayloadID
    var payloadOffset: UInt32

    /// The longest reserved extent: the most whole blocks that `length` can express.
    static let reservedByteCountLimit = UInt64(UInt32.max) / UInt64(blockByteCount) * UInt64(blockByteCount)
    var isReserved: Bool { payload.rawValue == 0 }

    static func key(_ inode: InodeNumber, _ offset: UInt64) -> IndexKey {
        IndexKey(space: .tree, object: inode.rawValue, kind: .extent, subkey: offset)
    }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        let field = Self.layout
        bytes.zero(0, Self.byteCount)
        bytes[field.origin] = origin
        bytes[field.length] = length
        bytes[field.payload] = payload
        bytes[field.payloadOffset] = payloadOffset
    }

    init(origin: Origin, length: UInt32, payload: PayloadID, payloadOffset: UInt32) {
        self.origin = origin
        self.length = length
        self.payload = payload
        self.payloadOffset = payloadOffset
    }

    init?(decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount else { return nil }
        let field = Self.layout
        origin = bytes[field.origin]
        length = bytes[field.length]
        payload = bytes[field.payload]
        payloadOffset = bytes[field.payloadOffset]
        let end = UInt64(payloadOffset) + UInt64(length)
        guard length > 0, payload.rawValue <= counterLimit,
            isReserved ? payloadOffset == 0 : end <= PayloadRecord.byteCountLimit
        else { return nil }
    }
}
