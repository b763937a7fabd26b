// The values of index entries about files: inodes, dirents, attributes, extents. Payload and bookkeeping entries are in
// Entries+Bookkeeping.swift. Every value begins with its origin.

/// The record that established an entry.
///
///     offset size field
///          0    8 record sequence
///          8    4 segment that holds the record
struct Origin: Hashable, Sendable {
    static let byteCount = 12
    var sequence: RecordSequence
    var segment: SegmentNumber

    @inline(__always)
    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        bytes.store(sequence.rawValue, at: 0)
        bytes.store(segment.rawValue, at: 8)
    }

    @inline(__always)
    init(decoding bytes: UnsafeRawBufferPointer) {
        sequence = RecordSequence(bytes.load(0))
        segment = SegmentNumber(bytes.load(8))
    }

    init(sequence: RecordSequence, segment: SegmentNumber) {
        self.sequence = sequence
        self.segment = segment
    }
}

/// An inode. Key: (tree, inode, inode, 0).
///
///     offset size field
///          0   12 origin
///         12    4 zero
///         16   96 `InodeRecord`
///        112    8 derived: bytes that extents name (files), number of entries (directories)
///
/// While an index is rebuilt, an entry with mode 0 holds the derived number of an inode whose record comes later.
struct InodeEntry: Hashable {
    static let byteCount = 120
    static let charge = 16 + InodeRecord.byteCount + Change.moveOverheadByteCount

    var origin: Origin
    var record: InodeRecord
    var derived: UInt64

    static func key(_ inode: InodeNumber) -> IndexKey {
        IndexKey(space: .tree, object: inode.rawValue, kind: .inode, subkey: 0)
    }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        origin.encode(into: bytes)
        bytes.store(0 as UInt32, at: 12)
        record.encode(into: bytes, at: 16)
        bytes.store(derived, at: 112)
    }

    init(origin: Origin, record: InodeRecord, derived: UInt64) {
        self.origin = origin
        self.record = record
        self.derived = derived
    }

    init?(inode: InodeNumber, decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount else { return nil }
        origin = Origin(decoding: bytes)
        record = InodeRecord(inode: inode, decoding: bytes, at: 16)
        derived = bytes.load(112)
        guard record.isPossible || record.mode == 0 else { return nil }
    }

    /// What extents of a file can name at most, and the entries that a directory can have: each counts 32 bytes in its size.
    static func derivedLimit(_ mode: UInt32) -> UInt64 {
        mode & 0o170000 == 0o040000 ? UInt64(Int64.max) / 32 : UInt64(Int64.max)
    }

}

/// A directory entry. Key: (tree, directory, dirent, cookie).
///
///     offset size field
///          0   12 origin
///         12    1 type (S_IFMT >> 12)
///         13    1 name length
///         14    2 zero
///         16    8 since
///         24    8 inode
///         32      name
struct DirentEntry {
    static let headerByteCount = 32
    static let byteCountLimit = headerByteCount + 255

    var origin: Origin
    var type: UInt8
    var since: BatchSequence
    var inode: InodeNumber
    var name: UnsafeRawBufferPointer

    static func key(_ directory: InodeNumber, _ cookie: UInt64) -> IndexKey {
        IndexKey(space: .tree, object: directory.rawValue, kind: .dirent, subkey: cookie)
    }

    var charge: Int { 42 + Change.moveOverheadByteCount + name.count }
    var byteCount: Int { Self.headerByteCount + name.count }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        origin.encode(into: bytes)
        bytes.store(type, at: 12)
        bytes.store(UInt8(name.count), at: 13)
        bytes.store(0 as UInt16, at: 14)
        bytes.store(since.rawValue, at: 16)
        bytes.store(inode.rawValue, at: 24)
        bytes.copy(name, to: 32)
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
        guard bytes.count > Self.headerByteCount,
            bytes.count == Self.headerByteCount + Int(bytes.load(13, as: UInt8.self))
        else { return nil }
        origin = Origin(decoding: bytes)
        type = bytes.load(12)
        since = BatchSequence(bytes.load(16))
        inode = InodeNumber(bytes.load(24))
        name = bytes.part(32, bytes.count - 32)
        guard InodeRecord.isType(UInt32(type)), since.isPossible, inode.isPossible else { return nil }
    }
}

/// An extended attribute. Key: (tree, inode, xattr, cookie).
///
///     offset size field
///          0   12 origin
///         12    1 zero
///         13    1 name length
///         14    2 zero
///         16    8 since
///         24    8 payload (0: the value follows the name)
///         32    4 value length
///         36      name, then an inline value
struct XattrEntry {
    static let headerByteCount = 36
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
    var charge: Int { 45 + Change.moveOverheadByteCount + name.count + inlineCount }
    var byteCount: Int { Self.headerByteCount + name.count + inlineCount }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        bytes.zero(0, Self.headerByteCount)
        origin.encode(into: bytes)
        bytes.store(UInt8(name.count), at: 13)
        bytes.store(since.rawValue, at: 16)
        bytes.copy(name, to: 36)
        switch value {
        case .inline(let value):
            bytes.store(UInt32(value.count), at: 32)
            bytes.copy(value, to: 36 + name.count)
        case .payload(let id, let count):
            bytes.store(id.rawValue, at: 24)
            bytes.store(count, at: 32)
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
        let nameCount = Int(bytes.load(13, as: UInt8.self))
        let payload: UInt64 = bytes.load(24)
        let valueCount: UInt32 = bytes.load(32)
        guard bytes.count == 36 + nameCount + (payload == 0 ? Int(valueCount) : 0) else { return nil }
        origin = Origin(decoding: bytes)
        since = BatchSequence(bytes.load(16))
        name = bytes.part(36, nameCount)
        value =
            payload == 0
            ? .inline(bytes.part(36 + nameCount, Int(valueCount))) : .payload(PayloadID(payload), byteCount: valueCount)
        guard since.isPossible, nameCount > 0, Self.isPossible(payload, valueCount) else { return nil }
    }

    /// The longest value, which lies in a payload. Source: XATTR_SIZE_MAX.
    static let valueByteCountLimit = 65_536

    /// Whether a value can lie there and be so long.
    static func isPossible(_ payload: UInt64, _ byteCount: UInt32) -> Bool {
        payload == 0
            ? byteCount <= inlineByteCountLimit
            : payload <= counterLimit && byteCount > 0 && byteCount <= valueByteCountLimit
    }
}

/// A range of a file that shows a part of a payload, or that is reserved. Key: (tree, inode, extent, file offset).
///
///     offset size field
///          0   12 origin
///         12    4 length in bytes
///         16    8 payload (0: reserved, allocated but never written; reads as zeros)
///         24    4 offset in the payload
///         28    4 zero
struct ExtentEntry: Hashable {
    static let byteCount = 32
    static let charge = 40 + Change.moveOverheadByteCount

    var origin: Origin
    var length: UInt32
    var payload: PayloadID
    var payloadOffset: UInt32

    /// The longest reserved extent: the largest whole number of blocks that `length` can say.
    static let reservedByteCountLimit = UInt64(UInt32.max) / UInt64(blockByteCount) * UInt64(blockByteCount)
    var isReserved: Bool { payload.rawValue == 0 }

    static func key(_ inode: InodeNumber, _ offset: UInt64) -> IndexKey {
        IndexKey(space: .tree, object: inode.rawValue, kind: .extent, subkey: offset)
    }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        origin.encode(into: bytes)
        bytes.store(length, at: 12)
        bytes.store(payload.rawValue, at: 16)
        bytes.store(payloadOffset, at: 24)
        bytes.store(0 as UInt32, at: 28)
    }

    init(origin: Origin, length: UInt32, payload: PayloadID, payloadOffset: UInt32) {
        self.origin = origin
        self.length = length
        self.payload = payload
        self.payloadOffset = payloadOffset
    }

    init?(decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount else { return nil }
        origin = Origin(decoding: bytes)
        length = bytes.load(12)
        payload = PayloadID(bytes.load(16))
        payloadOffset = bytes.load(24)
        let end = UInt64(payloadOffset) + UInt64(length)
        guard length > 0, payload.rawValue <= counterLimit,
            isReserved ? payloadOffset == 0 : end <= PayloadRecord.byteCountLimit
        else { return nil }
    }
}
