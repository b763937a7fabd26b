// Page-aligned memory that a device may read and write directly. Whoever holds the object owns the memory.

import Glibc

/// A block of memory aligned to 4 KiB, freed with the object. Contents start undefined.
final class AlignedBuffer: @unchecked Sendable {
    /// The memory.
    let bytes: UnsafeMutableRawBufferPointer

    /// Allocates `byteCount` bytes, rounded up to whole blocks of 4 KiB.
    init(byteCount: Int) {
        let rounded = max(4096, (byteCount + 4095) & ~4095)
        bytes = .allocate(byteCount: rounded, alignment: 4096)
    }

    deinit { bytes.deallocate() }
}
