// The index entry of an extended attribute.

/// An extended attribute. Key: (tree, inode, xattr, cookie).
struct XattrEntry {
    struct Layout: DiskLayout {
        let origin = Field<Origin>(0, "origin")
        let nameByteCount = Field<UInt8>(13, "name length")
        let since = Field<BatchSequence>(16, "since")
        let payload = Field<PayloadID>(24, "payload", "that is the value; 0: the value follows the name")
        let valueByteCount = Field<UInt32>(32, "value length")
        let name = Tail<UInt8>(36, "name", "then an inline value")
        static let byteCount = 36
    }

    static let layout = Layout()
    static let headerByteCount = Layout.byteCount
    static let inlineByteCountLimit = 1024
    static let byteCountLimit = headerByteCount + 255 + inlineByteCountLimit

    var origin: Origin
    var since: BatchSequence
    var name: UnsafeRawBufferPointer
    var value: XattrStorage

    static func key(_ inode: InodeNumber, _ cookie: UInt64) -> IndexKey {
        IndexKey(space: .tree, object: inode.rawValue, kind: .xattr, subkey: cookie)
    }

    private var inlineCount: Int {
        if case .inline(let bytes) = value { return bytes.count }
        return 0
    }
    var charge: Int { XattrChange.byteCount + Change.moveOverheadByteCount + name.count + inlineCount }
    var byteCount: Int { Self.headerByteCount + name.count + inlineCount }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        let field = Self.layout
        bytes.zero(0, Self.headerByteCount)
        bytes[field.origin] = origin
        bytes[field.nameByteCount] = UInt8(name.count)
        bytes[field.since] = since
        bytes.copy(name, to: field.name.offset)
        switch value {
        case .inline(let value):
            precondition(value.count <= Self.inlineByteCountLimit)
            bytes[field.valueByteCount] = UInt32(value.count)
            bytes.copy(value, to: field.name.offset + name.count)
        case .payload(let id, let count):
            bytes[field.payload] = id
            bytes[field.valueByteCount] = count
        }
    }

    init(origin: Origin, since: BatchSequence, name: UnsafeRawBufferPointer, value: XattrStorage) {
        self.origin = origin
        self.since = since
        self.name = name
        self.value = value
    }

    /// Borrows name and value from `bytes`.
    init?(decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count > Self.headerByteCount else { return nil }
        let field = Self.layout
        let nameByteCount = Int(bytes[field.nameByteCount])
        let payload = bytes[field.payload]
        let valueByteCount = bytes[field.valueByteCount]
        let valueOffset = field.name.offset + nameByteCount
        let inlineByteCount = payload.rawValue == 0 ? Int(valueByteCount) : 0
        guard bytes.count == valueOffset + inlineByteCount else { return nil }
        origin = bytes[field.origin]
        since = bytes[field.since]
        name = bytes.part(field.name.offset, nameByteCount)
        value =
            payload.rawValue == 0
            ? .inline(bytes.part(valueOffset, inlineByteCount)) : .payload(payload, byteCount: valueByteCount)
        guard since.isPossible, nameByteCount > 0, Self.isPossible(payload, valueByteCount) else { return nil }
    }

    /// The longest value of an attribute. Source: XATTR_SIZE_MAX.
    static let valueByteCountLimit = 65_536

    /// Whether a value of this length can lie in this payload, or inline where its id is 0.
    static func isPossible(_ payload: PayloadID, _ byteCount: UInt32) -> Bool {
        payload.rawValue == 0
            ? byteCount <= inlineByteCountLimit
            : payload.rawValue <= counterLimit && byteCount > 0 && byteCount <= valueByteCountLimit
    }
}
