// Builds a record, change by change, in memory that is allocated once. FileSystem writes the changes; SegmentLog fills
// in what is known only when the record is appended.

/// Writes changes one after another behind room for the record's header.
///
/// Its memory is as large as the largest record. Writing more is a defect and traps.
struct RecordWriter: ~Copyable {
    private let memory: UnsafeMutableRawBufferPointer
    private(set) var byteCount = Record.headerByteCount
    private(set) var changeCount = 0
    /// Where the id of the record's payload is filled in when the sequence of the record is known: in the payload's
    /// change, and in the change that names the payload. 0: nowhere.
    private(set) var payloadIDOffsets: (Int, Int) = (0, 0)
    /// The payload for the payload area of the batch. It is borrowed: its owner keeps it until the record is appended.
    private(set) var payloadBlocks: UnsafeRawBufferPointer?
    /// Where the position of the payload is filled in.
    private(set) var payloadPositionOffset = 0

    /// Whether something was written that a decoder would refuse. Such a record must not be appended.
    private(set) var isImpossible = false

    init(capacity: Int) { memory = .allocate(byteCount: capacity, alignment: 16) }
    deinit { memory.deallocate() }

    /// A copy of a record, to be appended again. `payload` has the bytes of its payload if that is in blocks.
    init(copying record: Record, payload: UnsafeRawBufferPointer?) {
        self.init(capacity: record.bytes.count)
        memory.copy(record.bytes, to: 0)
        byteCount = record.bytes.count
        changeCount = record.changeCount
        payloadBlocks = payload
        var position = 0
        record.forEachChange { change, offset, _ in
            if case .payload(let found) = change, !found.isInline {
                position = offset + PayloadChange.layout.position.offset
            }
        }
        payloadPositionOffset = position
        precondition((position > 0) == (payload != nil))
    }

    var isEmpty: Bool { changeCount == 0 }

    mutating func reset() {
        byteCount = Record.headerByteCount
        changeCount = 0
        payloadIDOffsets = (0, 0)
        payloadBlocks = nil
        isImpossible = false
        namesOlderPayloads = false
    }

    /// The record names payloads of older records, which must stay as they were found until it is appended.
    private(set) var namesOlderPayloads = false

    /// The record so far, its header not yet filled in.
    var bytes: UnsafeMutableRawBufferPointer { memory.part(0, byteCount) }

    /// The record as it will be if it gets this sequence. The index reads it to touch the pages that it will change.
    mutating func preview(sequence: RecordSequence) -> Record {
        complete(sequence: sequence, payloadPosition: 0)
        return Record(bytes: UnsafeRawBufferPointer(bytes), sequence: sequence, changeCount: changeCount)
    }

    /// Begins a change of this type and length. Returns its offset and its bytes.
    private mutating func begin(
        _ type: ChangeType, _ length: Int
    ) -> (start: Int, change: UnsafeMutableRawBufferPointer) {
        let start = byteCount
        byteCount += length
        let change = memory.part(start, length)
        change[ChangeHeader.field] = ChangeHeader(type, length: length)
        changeCount += 1
        return (start, change)
    }

    mutating func inode(_ record: InodeRecord) {
        let (_, change) = begin(.inode, InodeChange.byteCount)
        change[InodeChange.layout.inode] = record.inode
        record.encode(into: change.part(InodeChange.layout.record))
        isImpossible = isImpossible || !record.isPossible
    }

    mutating func dirent(
        directory: InodeNumber, cookie: UInt64, since: BatchSequence, inode: InodeNumber, mode: UInt32,
        name: UnsafeRawBufferPointer
    ) {
        let field = DirentChange.layout
        let (_, change) = begin(.dirent, DirentChange.byteCount + name.count)
        change[field.directory] = directory
        change[field.cookie] = cookie
        change[field.since] = since
        change[field.inode] = inode
        change[field.type] = UInt8(truncatingIfNeeded: mode >> 12 & 15)
        change[field.nameByteCount] = UInt8(name.count)
        change.copy(name, to: field.name.offset)
        isImpossible = isImpossible || !inode.isPossible || !InodeRecord.isType(mode >> 12) || !NameCheck.isName(name)
    }

    mutating func removeDirent(directory: InodeNumber, cookie: UInt64, since: BatchSequence) {
        removeKey(.removeDirent, directory, cookie, since)
    }

    mutating func removeXattr(inode: InodeNumber, cookie: UInt64, since: BatchSequence) {
        removeKey(.removeXattr, inode, cookie, since)
    }

    private mutating func removeKey(_ type: ChangeType, _ inode: InodeNumber, _ cookie: UInt64, _ since: BatchSequence)
    {
        let (_, change) = begin(type, RemoveKeyChange.byteCount)
        change[RemoveKeyChange.layout.inode] = inode
        change[RemoveKeyChange.layout.cookie] = cookie
        change[RemoveKeyChange.layout.since] = since
    }

    /// Sets an attribute. The value is inline, or, if `inPayload`, it is the payload of this record.
    mutating func xattr(
        inode: InodeNumber, cookie: UInt64, since: BatchSequence, name: UnsafeRawBufferPointer,
        value: UnsafeRawBufferPointer, inPayload: Bool
    ) {
        let start = xattr(
            inode, cookie, since, name, PayloadID(0), UInt32(value.count),
            inline: inPayload ? UnsafeRawBufferPointer(start: nil, count: 0) : value)
        if inPayload { payloadIDOffsets.1 = start + XattrChange.layout.payload.offset }
    }

    private mutating func xattr(
        _ inode: InodeNumber, _ cookie: UInt64, _ since: BatchSequence, _ name: UnsafeRawBufferPointer,
        _ payload: PayloadID, _ valueByteCount: UInt32, inline value: UnsafeRawBufferPointer
    ) -> Int {
        let field = XattrChange.layout
        let (start, change) = begin(.xattr, XattrChange.byteCount + name.count + value.count)
        change[field.inode] = inode
        change[field.cookie] = cookie
        change[field.since] = since
        change[field.payload] = payload
        change[field.valueByteCount] = valueByteCount
        change[field.nameByteCount] = UInt8(name.count)
        change.copy(name, to: field.name.offset)
        change.copy(value, to: field.name.offset + name.count)
        return start
    }

    /// Brings a payload: inline if it is short, else in blocks. Computes its checksums.
    mutating func payload(_ bytes: UnsafeRawBufferPointer) {
        if bytes.count <= PayloadRecord.inlineByteCountLimit {
            let (_, change) = beginPayload(.inline, PayloadID(0), UInt32(bytes.count), 1, bytes.count)
            change[PayloadChange.layout.checksums[0]] = Checksum.crc32c(bytes)
            change.copy(bytes, to: PayloadChange.layout.checksums[1].offset)
        } else {
            let change = blocks(bytes)
            for block in 0..<PayloadRecord.blockCount(UInt32(bytes.count)) {
                let start = block * blockByteCount
                let part = bytes.part(start, min(blockByteCount, bytes.count - start))
                change[PayloadChange.layout.checksums[block]] = Checksum.crc32cOfPaddedBlock(part)
            }
        }
    }

    /// Brings a payload whose bytes are lost: blocks of zeros with a wrong checksum, so that reading them fails.
    mutating func lostPayload(byteCount: Int) {
        precondition(byteCount <= PayloadRecord.byteCountLimit)
        let change = blocks(Checksum.zeroPayload.part(0, byteCount))
        for block in 0..<PayloadRecord.blockCount(UInt32(byteCount)) {
            change[PayloadChange.layout.checksums[block]] = Checksum.ofLostBlock
        }
    }

    /// Begins a payload in blocks. Returns the change; the caller fills in the checksums.
    private mutating func blocks(_ bytes: UnsafeRawBufferPointer) -> UnsafeMutableRawBufferPointer {
        let length = UInt32(bytes.count)
        let (start, change) = beginPayload(.blocks, PayloadID(0), length, PayloadRecord.blockCount(length), 0)
        payloadBlocks = bytes
        payloadPositionOffset = start + PayloadChange.layout.position.offset
        return change
    }

    /// Begins a payload. The caller fills in position, checksums and the `moreByteCount` bytes behind them.
    private mutating func beginPayload(
        _ storage: PayloadStorage, _ id: PayloadID, _ length: UInt32, _ checksumCount: Int, _ moreByteCount: Int
    ) -> (start: Int, change: UnsafeMutableRawBufferPointer) {
        let field = PayloadChange.layout
        precondition(payloadIDOffsets.0 == 0 && length > 0 && length <= PayloadRecord.byteCountLimit)
        precondition(checksumCount > 0 && checksumCount <= PayloadRecord.blockCount(length))
        let (start, change) = begin(.payload, field.checksums[checksumCount].offset + moreByteCount)
        change.zero(field.id.offset, PayloadChange.byteCount - field.id.offset)
        payloadIDOffsets.0 = start + field.id.offset
        change[field.id] = id
        change[field.storage] = storage.rawValue
        change[field.length] = length
        change[field.storedLength] = length
        change[field.checksumCount] = UInt32(checksumCount)
        return (start, change)
    }

    /// Makes a range of a file show the payload of this record.
    mutating func extent(inode: InodeNumber, offset fileOffset: UInt64, byteCount: UInt32) {
        let start = extent(inode, fileOffset, PayloadID(0), 0, byteCount)
        payloadIDOffsets.1 = start + ExtentChange.layout.payload.offset
    }

    private mutating func extent(
        _ inode: InodeNumber, _ fileOffset: UInt64, _ payload: PayloadID, _ payloadOffset: UInt32, _ length: UInt32
    ) -> Int {
        let field = ExtentChange.layout
        let (start, change) = begin(.extent, ExtentChange.byteCount)
        change[field.inode] = inode
        change[field.fileOffset] = fileOffset
        change[field.payload] = payload
        change[field.payloadOffset] = payloadOffset
        change[field.length] = length
        return start
    }

    mutating func reserve(inode: InodeNumber, from: UInt64, to: UInt64) {
        let (_, change) = begin(.reserve, ReserveChange.byteCount)
        change[ReserveChange.layout.inode] = inode
        change[ReserveChange.layout.from] = from
        change[ReserveChange.layout.to] = to
    }

    mutating func removeRange(inode: InodeNumber, from: UInt64, to: UInt64, since: BatchSequence) {
        let (_, change) = begin(.removeRange, RemoveRangeChange.byteCount)
        change[RemoveRangeChange.layout.inode] = inode
        change[RemoveRangeChange.layout.from] = from
        change[RemoveRangeChange.layout.to] = to
        change[RemoveRangeChange.layout.since] = since
    }

    mutating func removeInode(_ inode: InodeNumber, since: BatchSequence) {
        let (_, change) = begin(.removeInode, RemoveInodeChange.byteCount)
        change[RemoveInodeChange.layout.inode] = inode
        change[RemoveInodeChange.layout.since] = since
    }

    mutating func orphan(_ inode: InodeNumber) {
        let (_, change) = begin(.orphan, OrphanChange.byteCount)
        change[OrphanChange.layout.inode] = inode
    }

    // MARK: Moves

    /// Writes a move of the one change that `body` writes.
    mutating func move(_ sequence: RecordSequence, word: UInt64 = 0, _ body: (inout RecordWriter) -> Void) {
        let (start, change) = begin(.move, MoveChange.byteCount)
        change[MoveChange.layout.sequence] = sequence
        change[MoveChange.layout.word] = word
        namesOlderPayloads = true
        body(&self)
        change[ChangeHeader.layout.length] = UInt32(byteCount - start)
        changeCount -= 1
        // A moved change names the payload of an older record, never that of this one.
        payloadIDOffsets = (0, 0)
        // The moved change is made from index entries. A damaged index may hold what a decoder of records refuses.
        isImpossible =
            isImpossible || Record.decodeChange(UnsafeRawBufferPointer(memory.part(start, byteCount - start))) == nil
    }

    /// Makes a range of a file show a part of an older payload.
    mutating func extent(
        inode: InodeNumber, offset fileOffset: UInt64, payload: PayloadID, payloadOffset: UInt32, byteCount: UInt32
    ) {
        _ = extent(inode, fileOffset, payload, payloadOffset, byteCount)
        payloadIDOffsets.1 = 0
        namesOlderPayloads = true
    }

    /// Sets an attribute whose value is an older payload.
    mutating func xattr(
        inode: InodeNumber, cookie: UInt64, since: BatchSequence, name: UnsafeRawBufferPointer, payload: PayloadID,
        byteCount: UInt32
    ) {
        _ = xattr(inode, cookie, since, name, payload, byteCount, inline: UnsafeRawBufferPointer(start: nil, count: 0))
    }

    /// Describes an older payload as its index entry does: inline with its bytes, or in blocks that lie at `position`.
    ///
    /// `blocks` are the blocks to keep: the index of each among those stored now, and its number in the payload. Nil
    /// keeps all.
    mutating func payload(
        _ id: PayloadID, _ entry: PayloadEntry, blocks: [(index: Int, block: Int)]?, position: UInt32,
        inline bytes: UnsafeRawBufferPointer
    ) {
        let kept = blocks ?? entry.storedBlocks.enumerated().map { (index: $0.offset, block: $0.element) }
        let isPartial = !entry.isInline && kept.count < PayloadRecord.blockCount(entry.length)
        let bitmapByteCount = isPartial ? PayloadRecord.bitmapByteCount(entry.length) : 0
        let field = PayloadChange.layout
        let (_, change) = beginPayload(
            entry.isInline ? .inline : isPartial ? .someBlocks : .blocks, id, entry.length, kept.count,
            bitmapByteCount + (entry.isInline ? bytes.count : 0))
        payloadIDOffsets.0 = 0
        change[field.position] = entry.isInline ? 0 : position
        for (place, block) in kept.enumerated() {
            change[field.checksums[place]] = entry.checksum(ofStored: block.index)
        }
        let bitmap = change.part(field.checksums[kept.count].offset, bitmapByteCount)
        bitmap.zero(0, bitmapByteCount)
        if isPartial {
            for (_, block) in kept { BlockBitmap.insert(block, into: bitmap) }
        }
        if entry.isInline { change.copy(bytes, to: field.checksums[1].offset) }
    }

    /// Fills in the id of the payload and its position in the payload area, which are known only when the record is
    /// appended.
    mutating func complete(sequence: RecordSequence, payloadPosition: UInt32) {
        if payloadIDOffsets.0 > 0 { memory.store(sequence.rawValue, at: payloadIDOffsets.0) }
        if payloadIDOffsets.1 > 0 { memory.store(sequence.rawValue, at: payloadIDOffsets.1) }
        if payloadBlocks != nil { memory.store(payloadPosition, at: payloadPositionOffset) }
    }
}

extension Checksum {
    /// As many zeros as the longest payload has bytes. Never changed, never freed.
    nonisolated(unsafe) fileprivate static let zeroPayload = UnsafeRawBufferPointer(
        UnsafeMutableRawBufferPointer.allocate(byteCount: PayloadRecord.byteCountLimit, alignment: 16).zeroed())

    /// 4 KiB of zeros. Never changed, never freed.
    nonisolated(unsafe) private static let zeros = UnsafeRawBufferPointer(
        UnsafeMutableRawBufferPointer.allocate(byteCount: blockByteCount, alignment: 16).zeroed())

    /// The checksum that a repair stores for a lost block. The block is zeros and this is not their checksum, so
    /// reading the block always fails.
    static let ofLostBlock = ~crc32c(zeros)

    /// The checksum of a block that begins with `bytes` and is zero after them.
    static func crc32cOfPaddedBlock(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        if bytes.count == blockByteCount { return crc32c(bytes) }
        return crc32c(bytes, followedBy: zeros.part(0, blockByteCount - bytes.count))
    }
}
