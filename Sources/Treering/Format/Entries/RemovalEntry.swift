// The index entry of a pending removal.

/// A pending removal of a range of a file, or of a whole inode: some of its entries are still in the index. Those are
/// older than the record, and nobody sees them. Key: (removals, inode, removal, record sequence).
struct RemovalEntry: Hashable {
    struct Layout: DiskLayout {
        let from = Field<UInt64>(0, "from")
        let to = Field<UInt64>(8, "to", "UInt64.max with from 0: the whole inode")
        static let byteCount = 16
    }

    static let layout = Layout()
    static let byteCount = Layout.byteCount

    var from: UInt64
    var to: UInt64

    static func key(_ inode: InodeNumber, _ sequence: RecordSequence) -> IndexKey {
        IndexKey(space: .removals, object: inode.rawValue, kind: .removal, subkey: sequence.rawValue)
    }

    var isWholeInode: Bool { from == 0 && to == .max }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        bytes[Self.layout.from] = from
        bytes[Self.layout.to] = to
    }

    init(from: UInt64, to: UInt64) {
        self.from = from
        self.to = to
    }

    init?(decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount else { return nil }
        from = bytes[Self.layout.from]
        to = bytes[Self.layout.to]
        guard from < to else { return nil }
    }
}
