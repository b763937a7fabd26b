// A payload as a change describes it.

/// A payload as a record brings it.
struct PayloadRecord {
    static let inlineByteCountLimit = 3072
    static let byteCountLimit = 1 << 20

    var id: PayloadID
    var isInline: Bool
    var length: UInt32
    var position: UInt32
    /// The checksums, four bytes each, as they lie on disk.
    var checksums: UnsafeRawBufferPointer
    /// The bytes of an inline payload.
    var inlineBytes: UnsafeRawBufferPointer
    /// Which blocks are stored; empty where all are.
    var bitmap = UnsafeRawBufferPointer(start: nil, count: 0)
    /// Where the inline bytes begin, from the start of the change.
    var inlineOffset: Int { PayloadChange.byteCount + checksums.count }

    /// The checksum of a stored block, or of the inline bytes.
    func checksum(_ index: Int) -> UInt32 { checksums.load(index * UInt32.storedByteCount) }
    var checksumCount: Int { checksums.count / UInt32.storedByteCount }

    static func blockCount(_ length: UInt32) -> Int { (Int(length) + blockByteCount - 1) / blockByteCount }
    static func bitmapByteCount(_ length: UInt32) -> Int { (blockCount(length) + 63) / 64 * 8 }
    /// The blocks that are stored.
    var blockCount: Int { isInline ? 0 : checksumCount }
}
