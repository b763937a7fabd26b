// The index entry of an inode.

/// An inode. Key: (tree, inode, inode, 0).
///
/// While an index is rebuilt, an entry with mode 0 holds `derived` for an inode whose own record comes later.
struct InodeEntry: Hashable {
    struct Layout: DiskLayout {
        let origin = Field<Origin>(0, "origin")
        let record = Field<InodeRecord>(16, "inode record")
        let derived = Field<UInt64>(112, "derived", "bytes that extents name (files), number of entries (directories)")
        static let byteCount = 120
    }

    static let layout = Layout()
    static let byteCount = Layout.byteCount
    static let charge = InodeChange.byteCount + Change.moveOverheadByteCount

    var origin: Origin
    var record: InodeRecord
    var derived: UInt64

    static func key(_ inode: InodeNumber) -> IndexKey {
        IndexKey(space: .tree, object: inode.rawValue, kind: .inode, subkey: 0)
    }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        let field = Self.layout
        bytes.zero(0, Self.byteCount)
        bytes[field.origin] = origin
        record.encode(into: bytes.part(field.record))
        bytes[field.derived] = derived
    }

    init(origin: Origin, record: InodeRecord, derived: UInt64) {
        self.origin = origin
        self.record = record
        self.derived = derived
    }

    init?(inode: InodeNumber, decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount else { return nil }
        origin = bytes[Self.layout.origin]
        record = InodeRecord(inode: inode, decoding: bytes.part(Self.layout.record))
        derived = bytes[Self.layout.derived]
        guard record.isPossible || record.mode == 0 else { return nil }
    }

    /// The highest possible `derived`: bytes that extents of a file can name, or entries of a directory. Each entry
    /// counts 32 bytes in the size of a directory, and that must not overflow.
    static func derivedLimit(_ mode: UInt32) -> UInt64 {
        mode & 0o170000 == 0o040000 ? UInt64(Int64.max) / 32 : UInt64(Int64.max)
    }

}
