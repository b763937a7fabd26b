// Unchecked little-endian loads and stores for the hot path of the index. Only for memory whose layout was validated
// before (a page that was installed, or that this process built); everything else goes through ByteAccess.

extension UnsafeMutableRawPointer {
    /// The little-endian integer at `offset`, which need not be aligned.
    @inline(__always)
    func get<T: FixedWidthInteger>(_ offset: Int, as type: T.Type = T.self) -> T {
        T(littleEndian: loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    /// Stores `value` little-endian at `offset`, which need not be aligned.
    @inline(__always)
    func set<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
    }

    /// Moves bytes within one block of memory; the ranges may overlap.
    @inline(__always)
    func move(from source: Int, to destination: Int, byteCount: Int) {
        (self + destination).copyMemory(from: self + source, byteCount: byteCount)
    }
}
