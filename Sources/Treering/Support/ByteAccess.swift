// Little-endian loads and stores in raw memory, and parts of it. All of them trap outside the buffer.

import Glibc

extension UnsafeRawBufferPointer {
    /// The little-endian integer at `offset`, which need not be aligned. Traps outside the buffer.
    @inline(__always)
    func load<T: FixedWidthInteger>(_ offset: Int, as type: T.Type = T.self) -> T {
        precondition(offset >= 0 && offset + MemoryLayout<T>.size <= count)
        return T(littleEndian: loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    /// A part of the buffer. Traps outside the buffer.
    @inline(__always)
    func part(_ offset: Int, _ byteCount: Int) -> UnsafeRawBufferPointer {
        precondition(offset >= 0 && byteCount >= 0 && offset + byteCount <= count)
        return UnsafeRawBufferPointer(rebasing: self[offset..<offset + byteCount])
    }
}

extension UnsafeMutableRawBufferPointer {
    /// Stores `value` little-endian at `offset`, which need not be aligned. Traps outside the buffer.
    @inline(__always)
    func store<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        precondition(offset >= 0 && offset + MemoryLayout<T>.size <= count)
        storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
    }

    /// The little-endian integer at `offset`. Traps outside the buffer.
    @inline(__always)
    func load<T: FixedWidthInteger>(_ offset: Int, as type: T.Type = T.self) -> T {
        UnsafeRawBufferPointer(self).load(offset)
    }

    /// A part of the buffer. Traps outside the buffer.
    @inline(__always)
    func part(_ offset: Int, _ byteCount: Int) -> UnsafeMutableRawBufferPointer {
        precondition(offset >= 0 && byteCount >= 0 && offset + byteCount <= count)
        return UnsafeMutableRawBufferPointer(rebasing: self[offset..<offset + byteCount])
    }

    /// Copies `source` to `offset`. Traps outside the buffer.
    @inline(__always)
    func copy(_ source: UnsafeRawBufferPointer, to offset: Int) {
        guard source.count > 0 else { return }
        part(offset, source.count).copyMemory(from: source)
    }

    /// Fills a range with zeros.
    @inline(__always)
    func zero(_ offset: Int, _ byteCount: Int) {
        guard byteCount > 0 else { return }
        memset(part(offset, byteCount).baseAddress!, 0, byteCount)
    }

    /// The same memory, now all zeros.
    func zeroed() -> UnsafeMutableRawBufferPointer {
        zero(0, count)
        return self
    }
}
