// The index entry of a tombstone.

/// Remembers a removal, so that a rebuild does not bring back what older records in segments still in use had set.
///
/// Key: (tombstones, inode, kind of what is hidden, subkey of what is hidden); for a range of extents
/// (tombstones, inode, rangeTombstone, record sequence); for a whole inode (tombstones, inode, inode, 0).
///
/// It is needed as long as another segment in use has a stamp from `since` through `until`.
struct TombstoneEntry: Hashable {
    struct Layout: DiskLayout {
        let origin = Field<Origin>(0, "origin")
        let charge = Field<UInt32>(12, "bytes charged for it")
        let since = Field<BatchSequence>(16, "since")
        let until = Field<BatchSequence>(24, "until", "the stamp of the segment in which it was first appended")
        let from = Field<UInt64>(32, "from", "ranges; else 0")
        let to = Field<UInt64>(40, "to", "ranges; else 0")
        static let byteCount = 48
    }

    static let layout = Layout()
    static let byteCount = Layout.byteCount

    var origin: Origin
    var charge: UInt32
    var since: BatchSequence
    var until: BatchSequence
    var from: UInt64 = 0
    var to: UInt64 = 0

    static func key(_ inode: InodeNumber, _ kind: EntryKind, _ subkey: UInt64) -> IndexKey {
        IndexKey(space: .tombstones, object: inode.rawValue, kind: kind, subkey: subkey)
    }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        let field = Self.layout
        bytes[field.origin] = origin
        bytes[field.charge] = charge
        bytes[field.since] = since
        bytes[field.until] = until
        bytes[field.from] = from
        bytes[field.to] = to
    }

    init(origin: Origin, charge: Int, since: BatchSequence, until: BatchSequence, from: UInt64 = 0, to: UInt64 = 0) {
        self.origin = origin
        self.charge = UInt32(charge)
        self.since = since
        self.until = until
        self.from = from
        self.to = to
    }

    init?(decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount else { return nil }
        let field = Self.layout
        origin = bytes[field.origin]
        charge = bytes[field.charge]
        since = bytes[field.since]
        until = bytes[field.until]
        from = bytes[field.from]
        to = bytes[field.to]
        guard charge <= Self.chargeLimit, since.isPossible, until.isPossible else { return nil }
    }

    private static let chargeLimit: UInt32 = 4096
}
