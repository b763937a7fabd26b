// CRC-32C, the only checksum of format version 1. Every layout in Format/ uses it.

import CIsal

/// CRC-32C (Castagnoli) as in iSCSI, computed by ISA-L.
enum Checksum {
    /// The checksum type number that the superblock carries.
    static let typeCRC32C: UInt8 = 1

    /// The checksum of `bytes`; "123456789" gives 0xE3069283.
    @inline(__always)
    static func crc32c(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        guard let base = bytes.baseAddress else { return 0 }
        let memory = UnsafeMutablePointer(mutating: base.assumingMemoryBound(to: UInt8.self))
        return ~crc32_iscsi(memory, Int32(bytes.count), 0xFFFF_FFFF)
    }

    /// The checksum of `bytes` with the four bytes at `hole` taken as zero: for structures that carry their own
    /// checksum.
    static func crc32c(_ bytes: UnsafeRawBufferPointer, withHoleAt hole: Int) -> UInt32 {
        precondition(hole + 4 <= bytes.count)
        let base = UnsafeMutablePointer(mutating: bytes.baseAddress!.assumingMemoryBound(to: UInt8.self))
        var state = crc32_iscsi(base, Int32(hole), 0xFFFF_FFFF)
        withUnsafeTemporaryAllocation(byteCount: 4, alignment: 4) { zeros in
            zeros.storeBytes(of: 0, as: UInt32.self)
            state = crc32_iscsi(zeros.baseAddress!.assumingMemoryBound(to: UInt8.self), 4, state)
        }
        return ~crc32_iscsi(base + hole + 4, Int32(bytes.count - hole - 4), state)
    }

    /// The checksum of two pieces as if they lay one after the other.
    static func crc32c(_ bytes: UnsafeRawBufferPointer, followedBy more: UnsafeRawBufferPointer) -> UInt32 {
        let state = ~crc32c(bytes)
        let base = UnsafeMutablePointer(mutating: more.baseAddress!.assumingMemoryBound(to: UInt8.self))
        return ~crc32_iscsi(base, Int32(more.count), bytes.isEmpty ? 0xFFFF_FFFF : state)
    }
}
