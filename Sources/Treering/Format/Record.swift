// A record: the changes of one operation, which happen all or not at all. FileSystem writes it (RecordWriter),
// SegmentLog appends it, Index applies it.

/// The header of a record, and bounds-checked reading of its changes.
struct Record {
    struct Layout: DiskLayout {
        let length = Field<UInt32>(0, "length in bytes", "header included")
        let checksum = Field<UInt32>(4, "checksum", "CRC-32C of the record with this field zero", as: .hexadecimal)
        let type = Field<UInt16>(
            8, "type", "1: an operation; 2: void, in the place of records that were lost, always to be skipped")
        let version = Field<UInt8>(10, "version", "1")
        let flags = Field<UInt8>(11, "flags", "bit 0: a reader that does not know the type may skip the record")
        let changeCount = Field<UInt16>(12, "number of changes")
        let sequence = Field<RecordSequence>(16, "sequence")
        let request = Room(24, 16, "identity of the request that it answers", "0; room for takeover by a successor")
        let changes = Tail<UInt8>(40, "changes", "one after another")
        static let byteCount = 40
    }

    static let layout = Layout()
    static let headerByteCount = Layout.byteCount
    static let operationType: UInt16 = 1
    static let voidType: UInt16 = 2
    static let version: UInt8 = 1
    static let skippableFlag: UInt8 = 1 << 0

    let bytes: UnsafeRawBufferPointer
    let sequence: RecordSequence
    let changeCount: Int

    /// The record at the start of `bytes`; nil unless it is whole. Its changes are not checked: see `validate`.
    static func decode(_ bytes: UnsafeRawBufferPointer) -> Record? {
        guard bytes.count >= headerByteCount else { return nil }
        let length = Int(bytes[layout.length])
        guard length >= headerByteCount, length <= bytes.count else { return nil }
        let whole = bytes.part(0, length)
        guard whole.isSealed(by: layout.checksum) else { return nil }
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
        sequence = bytes[Self.layout.sequence]
        changeCount = Int(bytes[Self.layout.changeCount])
    }

    /// Writes the header of a record whose changes are in place.
    static func seal(_ bytes: UnsafeMutableRawBufferPointer, changeCount: Int, sequence: RecordSequence) {
        seal(bytes, operationType, flags: 0, changeCount: changeCount, sequence: sequence)
    }

    /// Writes the header of a void record over the start of damaged bytes. The bytes after the header stay.
    static func sealVoid(_ bytes: UnsafeMutableRawBufferPointer) {
        seal(bytes, voidType, flags: skippableFlag, changeCount: 0, sequence: .zero)
    }

    private static func seal(
        _ bytes: UnsafeMutableRawBufferPointer, _ type: UInt16, flags: UInt8, changeCount: Int, sequence: RecordSequence
    ) {
        bytes.zero(0, headerByteCount)
        bytes[layout.length] = UInt32(bytes.count)
        bytes[layout.type] = type
        bytes[layout.version] = version
        bytes[layout.flags] = flags
        bytes[layout.changeCount] = UInt16(changeCount)
        bytes[layout.sequence] = sequence
        bytes.seal(layout.checksum)
    }

    /// Calls `body` with each change, and its offset and length in the record. The record must be valid.
    func forEachChange<Failure: Error>(
        _ body: (Change, _ offset: Int, _ byteCount: Int) throws(Failure) -> Void
    ) throws(Failure) {
        var offset = Self.headerByteCount
        for _ in 0..<changeCount {
            let length = Int(Self.changeHeader(bytes, offset).length)
            try body(Self.decodeChange(bytes.part(offset, length))!, offset, length)
            offset += length
        }
    }

    /// Calls `body` with each payload that is inline here, and where its bytes begin in the record.
    func forEachInlinePayload(_ body: (PayloadID, Int) -> Void) {
        forEachChange { change, offset, _ in
            switch change {
            case .payload(let payload) where payload.isInline: body(payload.id, offset + payload.inlineOffset)
            case .move(let move):
                if case .payload(let payload) = move.change, payload.isInline {
                    body(payload.id, offset + Change.moveOverheadByteCount + payload.inlineOffset)
                }
            default: break
            }
        }
    }

    /// Whether the cleaner wrote the record: its first change is a move then.
    var movesAnything: Bool {
        changeCount > 0 && Self.changeHeader(bytes, Self.headerByteCount).type == ChangeType.move.rawValue
    }

    /// The bytes that count as written for this record and its payload.
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

    /// Why a change of the record is not well formed; nil if all are. Every record from disk is checked once with this,
    /// and `forEachChange` relies on it.
    func validate() -> String? {
        guard !isSkipped else {
            return bytes[Self.layout.flags] & Self.skippableFlag != 0
                ? nil : "unknown record type \(bytes[Self.layout.type])"
        }
        var offset = Self.headerByteCount
        for index in 0..<changeCount {
            guard offset + ChangeHeader.storedByteCount <= bytes.count else {
                return "change \(index) lies outside the record"
            }
            let header = Self.changeHeader(bytes, offset)
            let length = Int(header.length)
            guard length >= ChangeHeader.storedByteCount, offset + length <= bytes.count else {
                return "change \(index) has length \(length)"
            }
            guard Self.decodeChange(bytes.part(offset, length)) != nil else {
                return "change \(index) of type \(header.type) is malformed or unknown"
            }
            offset += length
        }
        return offset == bytes.count ? nil : "\(bytes.count - offset) bytes too many"
    }

    /// Whether the record is void, or of an unknown type or version. A valid record of this kind says that it may be
    /// skipped.
    var isSkipped: Bool {
        bytes[Self.layout.type] != Self.operationType || bytes[Self.layout.version] != Self.version
    }

    @inline(__always)
    private static func changeHeader(_ record: UnsafeRawBufferPointer, _ offset: Int) -> ChangeHeader {
        record[Field<ChangeHeader>(offset, "header")]
    }

    /// Decodes a change; nil if it is not well formed.
    static func decodeChange(_ change: UnsafeRawBufferPointer, isMoved: Bool = false) -> Change? {
        let header = changeHeader(change, 0)
        guard header.version == ChangeHeader.version, let type = ChangeType(rawValue: header.type) else {
            return header.isSkippable ? .skipped : nil
        }
        var object = InodeNumber(0)
        if type.hasObject {
            guard change.count >= OrphanChange.byteCount else { return nil }
            object = change[OrphanChange.layout.inode]
            guard object.isPossible else { return nil }
        }
        if type != .inode, let since = type.since {
            guard change.count >= since.end, change[since].isPossible else { return nil }
        }
        switch type {
        case .inode:
            guard change.count == InodeChange.byteCount else { return nil }
            let inode = InodeRecord(inode: object, decoding: change.part(InodeChange.layout.record))
            return inode.isPossible ? .inode(inode) : nil
        case .dirent: return decodeDirent(change)
        case .removeDirent, .removeXattr:
            let field = RemoveKeyChange.layout
            guard change.count == RemoveKeyChange.byteCount else { return nil }
            let (cookie, since) = (change[field.cookie], change[field.since])
            return type == .removeDirent
                ? .removeDirent(directory: object, cookie: cookie, since: since)
                : .removeXattr(inode: object, cookie: cookie, since: since)
        case .xattr: return decodeXattr(change)
        case .payload: return decodePayload(change, isMoved: isMoved)
        case .extent: return decodeExtent(change)
        case .removeRange:
            let field = RemoveRangeChange.layout
            guard change.count == RemoveRangeChange.byteCount, change[field.from] < change[field.to],
                change[field.from] < UInt64(Int64.max)
            else { return nil }
            return .removeRange(
                inode: object, from: change[field.from], to: change[field.to], since: change[field.since])
        case .removeInode:
            guard change.count == RemoveInodeChange.byteCount else { return nil }
            return .removeInode(inode: object, since: change[RemoveInodeChange.layout.since])
        case .orphan:
            guard change.count == OrphanChange.byteCount else { return nil }
            return .orphan(inode: object)
        case .reserve:
            guard change.count == ReserveChange.byteCount else { return nil }
            let (from, to) = (change[ReserveChange.layout.from], change[ReserveChange.layout.to])
            guard from < to, to <= UInt64(Int64.max), to - from <= Change.reservedByteCountLimit else { return nil }
            return .reserve(inode: object, from: from, to: to)
        case .move: return isMoved ? nil : decodeMove(change)
        }
    }

    private static func decodeExtent(_ change: UnsafeRawBufferPointer) -> Change? {
        let field = ExtentChange.layout
        guard change.count == ExtentChange.byteCount else { return nil }
        let (offset, length) = (change[field.fileOffset], change[field.length])
        let (payload, payloadOffset) = (change[field.payload], change[field.payloadOffset])
        guard length > 0, offset <= UInt64(Int64.max) - UInt64(length), payload.rawValue != 0,
            UInt64(payloadOffset) + UInt64(length) <= PayloadRecord.byteCountLimit
        else { return nil }
        return .extent(
            inode: change[field.inode], offset: offset, payload: payload, payloadOffset: payloadOffset,
            byteCount: length)
    }

    private static func decodeDirent(_ change: UnsafeRawBufferPointer) -> Change? {
        let field = DirentChange.layout
        guard change.count > DirentChange.byteCount else { return nil }
        let nameByteCount = Int(change[field.nameByteCount])
        guard nameByteCount > 0, change.count == DirentChange.byteCount + nameByteCount else { return nil }
        let name = change.part(field.name.offset, nameByteCount)
        guard NameCheck.isPossible(cookie: change[field.cookie]), NameCheck.isName(name),
            change[field.inode].isPossible, InodeRecord.isType(UInt32(change[field.type]))
        else { return nil }
        return .dirent(
            directory: change[field.directory], cookie: change[field.cookie], since: change[field.since],
            inode: change[field.inode], type: change[field.type], name: name)
    }

    private static func decodeXattr(_ change: UnsafeRawBufferPointer) -> Change? {
        let field = XattrChange.layout
        guard change.count > XattrChange.byteCount else { return nil }
        let nameByteCount = Int(change[field.nameByteCount])
        let valueByteCount = change[field.valueByteCount]
        let payload = change[field.payload]
        let isInline = payload.rawValue == 0
        let inlineByteCount = isInline ? Int(valueByteCount) : 0
        guard nameByteCount > 0, change.count == XattrChange.byteCount + nameByteCount + inlineByteCount else {
            return nil
        }
        let name = change.part(field.name.offset, nameByteCount)
        guard XattrEntry.isPossible(payload, valueByteCount), NameCheck.isPossible(cookie: change[field.cookie]),
            NameCheck.isAttribute(name)
        else { return nil }
        return .xattr(
            inode: change[field.inode], cookie: change[field.cookie], since: change[field.since], name: name,
            value: isInline
                ? .inline(change.part(field.name.offset + nameByteCount, inlineByteCount))
                : .payload(payload, byteCount: valueByteCount))
    }

    private static func decodePayload(_ change: UnsafeRawBufferPointer, isMoved: Bool) -> Change? {
        let field = PayloadChange.layout
        guard change.count >= field.checksums[1].offset, let storage = PayloadStorage(rawValue: change[field.storage])
        else { return nil }
        let length = change[field.length]
        let checksumCount = Int(change[field.checksumCount])
        guard length > 0, length <= PayloadRecord.byteCountLimit, isMoved || storage != .someBlocks,
            change[field.encoding] == 0, change[field.storedLength] == length,
            storage != .inline || length <= PayloadRecord.inlineByteCountLimit && checksumCount == 1,
            storage != .blocks || checksumCount == PayloadRecord.blockCount(length),
            checksumCount > 0, checksumCount <= PayloadRecord.blockCount(length)
        else { return nil }
        let inlineByteCount = storage == .inline ? Int(length) : 0
        let bitmapByteCount = storage == .someBlocks ? PayloadRecord.bitmapByteCount(length) : 0
        let position = change[field.position]
        let checksumsEnd = field.checksums[checksumCount].offset
        guard change.count == checksumsEnd + bitmapByteCount + inlineByteCount,
            position % UInt32(blockByteCount) == 0, position <= UInt32(SegmentHeader.byteCountLimit)
        else { return nil }
        let bitmap = change.part(checksumsEnd, bitmapByteCount)
        guard storage != .someBlocks || BlockBitmap(bitmap).isValid(length, storedCount: checksumCount) else {
            return nil
        }
        return .payload(
            PayloadRecord(
                id: change[field.id], isInline: storage == .inline, length: length, position: position,
                checksums: change.part(field.checksums.offset, checksumsEnd - field.checksums.offset),
                inlineBytes: change.part(checksumsEnd + bitmapByteCount, inlineByteCount), bitmap: bitmap))
    }

    private static func decodeMove(_ move: UnsafeRawBufferPointer) -> Change? {
        let field = MoveChange.layout
        guard move.count >= MoveChange.byteCount + ChangeHeader.storedByteCount else { return nil }
        let bytes = move.part(field.change.offset, move.count - MoveChange.byteCount)
        guard changeHeader(bytes, 0).length == UInt32(bytes.count) else { return nil }
        let moved = MovedChange(sequence: move[field.sequence], word: move[field.word], bytes: bytes)
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
