// The values of index entries about files: inodes, dirents, attributes, extents. Each begins with its origin. Other
// entries are in PayloadEntry.swift and Entries+Accounting.swift.

/// The record that established an entry.
struct Origin: Hashable, Sendable, StoredValue, LaidOut {
    struct Layout: DiskLayout {
        let sequence = Field<RecordSequence>(0, "record sequence")
        let segment = Field<SegmentNumber>(8, "segment", "that holds the record")
        static let byteCount = 12
    }

    static let layout = Layout()
    /// Where the origin lies in the value of each entry that has one.
    static let field = Field<Origin>(0, "origin")
    static let byteCount = Layout.byteCount

    var sequence: RecordSequence
    var segment: SegmentNumber

    @inline(__always)
    func store(at place: UnsafeMutableRawPointer) {
        place[Self.layout.sequence] = sequence
        place[Self.layout.segment] = segment
    }

    @inline(__always)
    init(at place: UnsafeRawPointer) {
        sequence = place[Self.layout.sequence]
        segment = place[Self.layout.segment]
    }

    /// The origin of the entry with this value.
    @inline(__always)
    init(decoding bytes: UnsafeRawBufferPointer) { self = bytes[Self.field] }

    init(sequence: RecordSequence, segment: SegmentNumber) {
        self.sequence = sequence
        self.segment = segment
    }
}

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

/// A directory entry. Key: (tree, directory, dirent, cookie).
struct DirentEntry {
    struct Layout: DiskLayout {
        let origin = Field<Origin>(0, "origin")
        let type = Field<UInt8>(12, "type", "S_IFMT >> 12")
        let nameByteCount = Field<UInt8>(13, "name length")
        let since = Field<BatchSequence>(16, "since")
        let inode = Field<InodeNumber>(24, "inode")
        let name = Tail<UInt8>(32, "name")
        static let byteCount = 32
    }

    static let layout = Layout()
    static let headerByteCount = Layout.byteCount
    static let byteCountLimit = headerByteCount + 255

    var origin: Origin
    var type: UInt8
    var since: BatchSequence
    var inode: InodeNumber
    var name: UnsafeRawBufferPointer

    static func key(_ directory: InodeNumber, _ cookie: UInt64) -> IndexKey {
        IndexKey(space: .tree, object: directory.rawValue, kind: .dirent, subkey: cookie)
    }

    var charge: Int { DirentChange.byteCount + Change.moveOverheadByteCount + name.count }
    var byteCount: Int { Self.headerByteCount + name.count }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        let field = Self.layout
        bytes.zero(0, Self.headerByteCount)
        bytes[field.origin] = origin
        bytes[field.type] = type
        bytes[field.nameByteCount] = UInt8(name.count)
        bytes[field.since] = since
        bytes[field.inode] = inode
        bytes.copy(name, to: field.name.offset)
    }

    init(origin: Origin, type: UInt8, since: BatchSequence, inode: InodeNumber, name: UnsafeRawBufferPointer) {
        self.origin = origin
        self.type = type
        self.since = since
        self.inode = inode
        self.name = name
    }

    /// Borrows the name from `bytes`.
    init?(decoding bytes: UnsafeRawBufferPointer) {
        let field = Self.layout
        guard bytes.count > Self.headerByteCount,
            bytes.count == Self.headerByteCount + Int(bytes[field.nameByteCount])
        else { return nil }
        origin = bytes[field.origin]
        type = bytes[field.type]
        since = bytes[field.since]
        inode = bytes[field.inode]
        name = bytes.part(field.name.offset, bytes.count - field.name.offset)
        guard InodeRecord.isType(UInt32(type)), since.isPossible, inode.isPossible else { return nil }
    }
}

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
