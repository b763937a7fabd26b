// A record: one operation's changes, atomic. Written by FileSystem into scratch memory, appended by SegmentLog, applied
// by Index.

/// The header of a record, and bounds-checked reading of its changes.
///
///     offset size field
///          0    4 length in bytes, header included
///          4    4 checksum (CRC-32C of the record with this field zero)
///          8    2 type (1: an operation; 2: void, in the place of records that were lost, always to be skipped)
///         10    1 version (1)
///         11    1 flags (bit 0: a reader that does not know the type may skip the record)
///         12    2 number of changes
///         14    2 zero
///         16    8 sequence
///         24   16 identity of the request that it answers (0; room for takeover by a successor)
///         40      the changes
struct Record {
    static let headerByteCount = 40
    static let operationType: UInt16 = 1
    static let voidType: UInt16 = 2

    let bytes: UnsafeRawBufferPointer
    let sequence: RecordSequence
    let changeCount: Int

    /// The record at the start of `bytes`, checked: nil when there is none that is whole.
    static func decode(_ bytes: UnsafeRawBufferPointer) -> Record? {
        guard bytes.count >= headerByteCount else { return nil }
        let length = Int(bytes.load(0, as: UInt32.self))
        guard length >= headerByteCount, length <= bytes.count else { return nil }
        let whole = bytes.part(0, length)
        guard whole.load(4, as: UInt32.self) == Checksum.crc32c(whole, withHoleAt: 4) else { return nil }
        return Record(trusting: whole)
    }

    init(bytes: UnsafeRawBufferPointer, sequence: RecordSequence, changeCount: Int) {
        self.bytes = bytes
        self.sequence = sequence
        self.changeCount = changeCount
    }

    /// A record whose checksum is known to be right.
    init(trusting bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
        sequence = RecordSequence(bytes.load(16))
        changeCount = Int(bytes.load(12, as: UInt16.self))
    }

    /// Puts sequence, counts and checksum into the header of a record whose changes are in place.
    static func seal(_ bytes: UnsafeMutableRawBufferPointer, changeCount: Int, sequence: RecordSequence) {
        bytes.zero(0, headerByteCount)
        bytes.store(UInt32(bytes.count), at: 0)
        bytes.store(operationType, at: 8)
        bytes.store(1 as UInt8, at: 10)
        bytes.store(UInt16(changeCount), at: 12)
        bytes.store(sequence.rawValue, at: 16)
        bytes.store(Checksum.crc32c(UnsafeRawBufferPointer(bytes), withHoleAt: 4), at: 4)
    }

    /// Puts the header of a void record over the start of damaged bytes; what follows stays as it is.
    static func sealVoid(_ bytes: UnsafeMutableRawBufferPointer) {
        bytes.zero(0, headerByteCount)
        bytes.store(UInt32(bytes.count), at: 0)
        bytes.store(voidType, at: 8)
        bytes.store(1 as UInt8, at: 10)
        bytes.store(1 as UInt8, at: 11)
        bytes.store(Checksum.crc32c(UnsafeRawBufferPointer(bytes), withHoleAt: 4), at: 4)
    }

    /// Calls `body` with each change and where it begins in the record.
    func forEachChange<Failure: Error>(
        _ body: (Change, _ offset: Int, _ byteCount: Int) throws(Failure) -> Void
    ) throws(Failure) {
        var offset = Self.headerByteCount
        for _ in 0..<changeCount {
            let length = Int(bytes.load(offset + 4, as: UInt32.self))
            try body(Self.decodeChange(bytes.part(offset, length))!, offset, length)
            offset += length
        }
    }

    /// Whether the cleaner wrote it.
    var movesAnything: Bool {
        changeCount > 0 && bytes.load(Self.headerByteCount, as: UInt16.self) == Change.moveType
    }

    /// What it, and the data that came with it, counts as written.
    var written: WrittenByteCounts {
        var dataByteCount = 0
        forEachChange { change, _, _ in
            switch change {
            case .payload(let payload) where !payload.isInline: dataByteCount += Int(payload.length)
            case .move(let move):
                if case .payload(let payload) = move.change, !payload.isInline {
                    dataByteCount += payload.blockCount * blockByteCount
                }
            default: break
            }
        }
        let count = UInt64(bytes.count + dataByteCount)
        return movesAnything ? WrittenByteCounts(moved: count) : WrittenByteCounts(asked: count)
    }

    /// Whether every change is well formed. To be asked once of what comes from disk; `forEachChange` relies on it.
    func validate() -> String? {
        guard !isSkipped else {
            return bytes.load(11, as: UInt8.self) & 1 != 0
                ? nil : "unknown record type \(bytes.load(8, as: UInt16.self))"
        }
        var offset = Self.headerByteCount
        for index in 0..<changeCount {
            guard offset + Change.headerByteCount <= bytes.count else {
                return "change \(index) lies outside the record"
            }
            let length = Int(bytes.load(offset + 4, as: UInt32.self))
            guard length >= Change.headerByteCount, offset + length <= bytes.count else {
                return "change \(index) has length \(length)"
            }
            guard Self.decodeChange(bytes.part(offset, length)) != nil else {
                return "change \(index) of type \(bytes.load(offset, as: UInt16.self)) is malformed or unknown"
            }
            offset += length
        }
        return offset == bytes.count ? nil : "\(bytes.count - offset) bytes too many"
    }

    /// Whether the record, found valid, is of a type or version that only says that it may be skipped.
    var isSkipped: Bool { bytes.load(8, as: UInt16.self) != Self.operationType || bytes.load(10, as: UInt8.self) != 1 }

    /// A change from its bytes, checked; nil when it is malformed.
    static func decodeChange(_ change: UnsafeRawBufferPointer, isMoved: Bool = false) -> Change? {
        let count = change.count
        guard change.load(2, as: UInt8.self) == Change.version || change.load(3, as: UInt8.self) & 1 != 0 else {
            return nil
        }
        let type: UInt16 = change.load(0)
        guard !hasObject(type) || count >= 16 && InodeNumber(change.load(8)).isPossible else { return nil }
        if type != 1, let offset = sinceOffset(type) {
            guard count >= offset + 8, BatchSequence(change.load(offset)).isPossible else { return nil }
        }
        switch type {
        case 1:
            guard count == 16 + InodeRecord.byteCount else { return nil }
            let inode = InodeRecord(inode: InodeNumber(change.load(8)), decoding: change, at: 16)
            return inode.isPossible ? .inode(inode) : nil
        case 2: return decodeDirent(change)
        case 3, 5:
            guard count == 32 else { return nil }
            let inode = InodeNumber(change.load(8))
            let since = BatchSequence(change.load(24))
            return change.load(0, as: UInt16.self) == 3
                ? .removeDirent(directory: inode, cookie: change.load(16), since: since)
                : .removeXattr(inode: inode, cookie: change.load(16), since: since)
        case 4: return decodeXattr(change)
        case 6: return decodePayload(change, isMoved: isMoved)
        case 7:
            guard count == 40 else { return nil }
            let offset: UInt64 = change.load(16)
            let length: UInt32 = change.load(36)
            guard length > 0, offset <= UInt64(Int64.max) - UInt64(length), change.load(24, as: UInt64.self) != 0 else {
                return nil
            }
            guard UInt64(change.load(32, as: UInt32.self)) + UInt64(length) <= PayloadRecord.byteCountLimit else {
                return nil
            }
            return .extent(
                inode: InodeNumber(change.load(8)), offset: offset, payload: PayloadID(change.load(24)),
                payloadOffset: change.load(32), byteCount: length)
        case 8:
            let from: UInt64 = change.load(16)
            guard count == 40, from < change.load(24, as: UInt64.self), from < UInt64(Int64.max) else { return nil }
            return .removeRange(
                inode: InodeNumber(change.load(8)), from: from, to: change.load(24),
                since: BatchSequence(change.load(32)))
        case 9:
            guard count == 24 else { return nil }
            return .removeInode(inode: InodeNumber(change.load(8)), since: BatchSequence(change.load(16)))
        case 10:
            guard count == 16 else { return nil }
            return .orphan(inode: InodeNumber(change.load(8)))
        case 14:
            guard count == 32, change.load(16, as: UInt64.self) < change.load(24, as: UInt64.self) else { return nil }
            let to: UInt64 = change.load(24)
            let from: UInt64 = change.load(16)
            guard to <= UInt64(Int64.max), to - from <= Change.reservedByteCountLimit else { return nil }
            return .reserve(inode: InodeNumber(change.load(8)), from: from, to: to)
        case Change.moveType: return isMoved ? nil : decodeMove(change)
        default:
            return change.load(3, as: UInt8.self) & 1 != 0 ? .skipped : nil
        }
    }

    /// Whether the body of such a change begins with the number of what it is about.
    private static func hasObject(_ type: UInt16) -> Bool { (1...10).contains(type) || type == 14 }

    private static func decodeDirent(_ change: UnsafeRawBufferPointer) -> Change? {
        guard change.count > 42 else { return nil }
        let nameLength = Int(change.load(41, as: UInt8.self))
        guard nameLength > 0, change.count == 42 + nameLength,
            NameCheck.isPossible(cookie: change.load(16)), NameCheck.isName(change.part(42, nameLength)),
            InodeNumber(change.load(32)).isPossible, InodeRecord.isType(UInt32(change.load(40, as: UInt8.self)))
        else { return nil }
        return .dirent(
            directory: InodeNumber(change.load(8)), cookie: change.load(16), since: BatchSequence(change.load(24)),
            inode: InodeNumber(change.load(32)), type: change.load(40), name: change.part(42, nameLength))
    }

    private static func decodeXattr(_ change: UnsafeRawBufferPointer) -> Change? {
        guard change.count > 45 else { return nil }
        let nameLength = Int(change.load(44, as: UInt8.self))
        let valueLength: UInt32 = change.load(40)
        let payload: UInt64 = change.load(32)
        let inlineLength = payload == 0 ? Int(valueLength) : 0
        guard nameLength > 0, change.count == 45 + nameLength + inlineLength,
            XattrEntry.isPossible(payload, valueLength), NameCheck.isPossible(cookie: change.load(16)),
            NameCheck.isAttribute(change.part(45, nameLength))
        else { return nil }
        return .xattr(
            inode: InodeNumber(change.load(8)), cookie: change.load(16), since: BatchSequence(change.load(24)),
            name: change.part(45, nameLength),
            value: payload == 0
                ? .inline(change.part(45 + nameLength, inlineLength))
                : .payload(PayloadID(payload), byteCount: valueLength))
    }

    private static func decodePayload(_ change: UnsafeRawBufferPointer, isMoved: Bool) -> Change? {
        let fixed = Change.headerByteCount + PayloadRecord.byteCount
        guard change.count >= fixed + 4 else { return nil }
        let length: UInt32 = change.load(8 + 24)
        let storage: UInt8 = change.load(8 + 8)
        let checksumCount = Int(change.load(8 + 36, as: UInt32.self))
        guard length > 0, length <= PayloadRecord.byteCountLimit, storage <= (isMoved ? 2 : 1),
            change.load(8 + 9, as: UInt8.self) == 0, change.load(8 + 28, as: UInt32.self) == length,
            storage != 0 || length <= PayloadRecord.inlineByteCountLimit && checksumCount == 1,
            storage != 1 || checksumCount == PayloadRecord.blockCount(length),
            checksumCount > 0, checksumCount <= PayloadRecord.blockCount(length)
        else { return nil }
        let inlineCount = storage == 0 ? Int(length) : 0
        let bitmapCount = storage == 2 ? PayloadRecord.bitmapByteCount(length) : 0
        let position: UInt32 = change.load(8 + 32)
        guard change.count == fixed + checksumCount * 4 + bitmapCount + inlineCount,
            position % UInt32(blockByteCount) == 0, position <= UInt32(SegmentHeader.byteCountLimit)
        else { return nil }
        let bitmap = change.part(fixed + checksumCount * 4, bitmapCount)
        guard storage != 2 || BlockBitmap(bitmap).isValid(length, storedCount: checksumCount) else { return nil }
        return .payload(
            PayloadRecord(
                id: PayloadID(change.load(8)), isInline: storage == 0, length: length, position: position,
                checksums: change.part(fixed, checksumCount * 4),
                inlineBytes: change.part(fixed + checksumCount * 4 + bitmapCount, inlineCount), bitmap: bitmap))
    }

    private static func decodeMove(_ move: UnsafeRawBufferPointer) -> Change? {
        guard move.count >= Change.moveOverheadByteCount + Change.headerByteCount else { return nil }
        let bytes = move.part(Change.moveOverheadByteCount, move.count - Change.moveOverheadByteCount)
        guard bytes.load(4, as: UInt32.self) == UInt32(bytes.count) else { return nil }
        let moved = MovedChange(sequence: RecordSequence(move.load(8)), word: move.load(16), bytes: bytes)
        guard moved.sequence.rawValue > 0, moved.sequence.rawValue < counterLimit else { return nil }
        switch decodeChange(bytes, isMoved: true) {
        case nil, .move, .skipped: return nil
        case .removeDirent, .removeXattr, .removeRange, .removeInode:
            return moved.until.isPossible ? .move(moved) : nil
        case .payload(let payload) where payload.id.rawValue != moved.sequence.rawValue: return nil
        default: return .move(moved)
        }
    }
}
