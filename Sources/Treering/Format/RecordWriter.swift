// Builds a record's changes in memory that its owner allocated once. FileSystem plans with it; SegmentLog seals the result.

/// Writes changes one after another behind room for the record's header.
///
/// Owns its memory, which is as large as the largest record; overrunning it is a broken promise and traps.
struct RecordWriter: ~Copyable {
    private let memory: UnsafeMutableRawBufferPointer
    private(set) var byteCount = Record.headerByteCount
    private(set) var changeCount = 0
    /// Where the id of the payload brought by this record must be filled in when its sequence is known.
    private(set) var payloadIDOffsets: (Int, Int) = (0, 0)
    /// The payload to be put into the batch's payload area, and where its position is to be filled in.
    private(set) var payloadBlocks: UnsafeRawBufferPointer?
    private(set) var payloadPositionOffset = 0

    /// Something was written that no decoder would take: the record may not be appended.
    private(set) var isImpossible = false

    init(capacity: Int) { memory = .allocate(byteCount: capacity, alignment: 16) }
    deinit { memory.deallocate() }

    /// A record that was written before, to be appended again. Its payload's bytes, if in blocks, are `payload`.
    init(copying record: Record, payload: UnsafeRawBufferPointer?) {
        self.init(capacity: record.bytes.count)
        memory.copy(record.bytes, to: 0)
        byteCount = record.bytes.count
        changeCount = record.changeCount
        payloadBlocks = payload
        var position = 0
        record.forEachChange { change, offset, _ in
            if case .payload(let found) = change, !found.isInline { position = offset + 40 }
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
    }

    /// The record so far, its header not yet filled in.
    var bytes: UnsafeMutableRawBufferPointer { memory.part(0, byteCount) }

    /// The record as it will be when it gets this sequence, for the index to touch what it will change.
    mutating func preview(sequence: RecordSequence) -> Record {
        complete(sequence: sequence, payloadPosition: 0)
        return Record(bytes: UnsafeRawBufferPointer(bytes), sequence: sequence, changeCount: changeCount)
    }

    /// Begins a change of this type and length; gives where.
    mutating func begin(_ type: UInt16, _ length: Int) -> Int {
        let offset = byteCount
        byteCount += length
        precondition(byteCount <= memory.count)
        memory.store(type, at: offset)
        memory.store(Change.version, at: offset + 2)
        memory.store(0 as UInt8, at: offset + 3)
        memory.store(UInt32(length), at: offset + 4)
        changeCount += 1
        return offset
    }

    mutating func inode(_ record: InodeRecord) {
        let offset = begin(1, 16 + InodeRecord.byteCount)
        memory.store(record.inode.rawValue, at: offset + 8)
        record.encode(into: memory, at: offset + 16)
        isImpossible = isImpossible || !record.isPossible
    }

    mutating func dirent(
        directory: InodeNumber, cookie: UInt64, since: BatchSequence, inode: InodeNumber, mode: UInt32,
        name: UnsafeRawBufferPointer
    ) {
        let offset = begin(2, 42 + name.count)
        memory.store(directory.rawValue, at: offset + 8)
        memory.store(cookie, at: offset + 16)
        memory.store(since.rawValue, at: offset + 24)
        memory.store(inode.rawValue, at: offset + 32)
        memory.store(UInt8(truncatingIfNeeded: mode >> 12 & 15), at: offset + 40)
        memory.store(UInt8(name.count), at: offset + 41)
        memory.copy(name, to: offset + 42)
        isImpossible = isImpossible || !inode.isPossible || !InodeRecord.isType(mode >> 12) || !NameCheck.isName(name)
    }

    mutating func removeDirent(directory: InodeNumber, cookie: UInt64, since: BatchSequence) {
        removeKey(3, directory, cookie, since)
    }

    mutating func removeXattr(inode: InodeNumber, cookie: UInt64, since: BatchSequence) {
        removeKey(5, inode, cookie, since)
    }

    private mutating func removeKey(_ type: UInt16, _ inode: InodeNumber, _ cookie: UInt64, _ since: BatchSequence) {
        let offset = begin(type, 32)
        memory.store(inode.rawValue, at: offset + 8)
        memory.store(cookie, at: offset + 16)
        memory.store(since.rawValue, at: offset + 24)
    }

    /// An attribute with its value inline, or, where `payloadByteCount` is given, in the payload of this record.
    mutating func xattr(
        inode: InodeNumber, cookie: UInt64, since: BatchSequence, name: UnsafeRawBufferPointer,
        value: UnsafeRawBufferPointer, inPayload: Bool
    ) {
        let offset = begin(4, 45 + name.count + (inPayload ? 0 : value.count))
        memory.store(inode.rawValue, at: offset + 8)
        memory.store(cookie, at: offset + 16)
        memory.store(since.rawValue, at: offset + 24)
        memory.store(0 as UInt64, at: offset + 32)
        if inPayload { payloadIDOffsets.1 = offset + 32 }
        memory.store(UInt32(value.count), at: offset + 40)
        memory.store(UInt8(name.count), at: offset + 44)
        memory.copy(name, to: offset + 45)
        if !inPayload { memory.copy(value, to: offset + 45 + name.count) }
    }

    /// The payload of this record: inline when short, else in blocks. Checksums are computed here.
    mutating func payload(_ bytes: UnsafeRawBufferPointer) {
        precondition(payloadIDOffsets.0 == 0 && bytes.count > 0 && bytes.count <= PayloadRecord.byteCountLimit)
        let isInline = bytes.count <= PayloadRecord.inlineByteCountLimit
        let checksumCount = isInline ? 1 : PayloadRecord.blockCount(UInt32(bytes.count))
        let fixed = Change.headerByteCount + PayloadRecord.byteCount
        let offset = begin(6, fixed + checksumCount * 4 + (isInline ? bytes.count : 0))
        memory.zero(offset + 8, PayloadRecord.byteCount)
        payloadIDOffsets.0 = offset + 8
        memory.store(isInline ? 0 : 1 as UInt8, at: offset + 16)
        memory.store(UInt32(bytes.count), at: offset + 32)
        memory.store(UInt32(bytes.count), at: offset + 36)
        memory.store(UInt32(checksumCount), at: offset + 44)
        if isInline {
            memory.store(Checksum.crc32c(bytes), at: offset + fixed)
            memory.copy(bytes, to: offset + fixed + 4)
        } else {
            payloadBlocks = bytes
            payloadPositionOffset = offset + 40
            for block in 0..<checksumCount {
                let start = block * blockByteCount
                let part = bytes.part(start, min(blockByteCount, bytes.count - start))
                memory.store(Checksum.crc32cOfPaddedBlock(part), at: offset + fixed + block * 4)
            }
        }
    }

    /// A payload whose bytes are lost: blocks of zeros under a checksum that they do not have.
    mutating func lostPayload(byteCount: Int) {
        precondition(payloadIDOffsets.0 == 0 && byteCount > 0 && byteCount <= PayloadRecord.byteCountLimit)
        let blockCount = PayloadRecord.blockCount(UInt32(byteCount))
        let fixed = Change.headerByteCount + PayloadRecord.byteCount
        let offset = begin(6, fixed + blockCount * 4)
        memory.zero(offset + 8, PayloadRecord.byteCount)
        payloadIDOffsets.0 = offset + 8
        memory.store(1 as UInt8, at: offset + 16)
        memory.store(UInt32(byteCount), at: offset + 32)
        memory.store(UInt32(byteCount), at: offset + 36)
        memory.store(UInt32(blockCount), at: offset + 44)
        payloadBlocks = Checksum.zeroPayload.part(0, byteCount)
        payloadPositionOffset = offset + 40
        for block in 0..<blockCount { memory.store(Checksum.ofLostBlock, at: offset + fixed + block * 4) }
    }

    /// Lets the payload of this record show in a file.
    mutating func extent(inode: InodeNumber, offset fileOffset: UInt64, byteCount: UInt32) {
        let offset = begin(7, 40)
        memory.store(inode.rawValue, at: offset + 8)
        memory.store(fileOffset, at: offset + 16)
        memory.store(0 as UInt64, at: offset + 24)
        payloadIDOffsets.1 = offset + 24
        memory.store(0 as UInt32, at: offset + 32)
        memory.store(byteCount, at: offset + 36)
    }

    mutating func reserve(inode: InodeNumber, from: UInt64, to: UInt64) {
        let offset = begin(14, 32)
        memory.store(inode.rawValue, at: offset + 8)
        memory.store(from, at: offset + 16)
        memory.store(to, at: offset + 24)
    }

    mutating func removeRange(inode: InodeNumber, from: UInt64, to: UInt64, since: BatchSequence) {
        let offset = begin(8, 40)
        memory.store(inode.rawValue, at: offset + 8)
        memory.store(from, at: offset + 16)
        memory.store(to, at: offset + 24)
        memory.store(since.rawValue, at: offset + 32)
    }

    mutating func removeInode(_ inode: InodeNumber, since: BatchSequence) {
        let offset = begin(9, 24)
        memory.store(inode.rawValue, at: offset + 8)
        memory.store(since.rawValue, at: offset + 16)
    }

    mutating func orphan(_ inode: InodeNumber) {
        let offset = begin(10, 16)
        memory.store(inode.rawValue, at: offset + 8)
    }

    // MARK: Moves

    /// Writes what `body` writes as the change of a move.
    mutating func move(_ sequence: RecordSequence, word: UInt64 = 0, _ body: (inout RecordWriter) -> Void) {
        let offset = begin(Change.moveType, Change.moveOverheadByteCount)
        memory.store(sequence.rawValue, at: offset + 8)
        memory.store(word, at: offset + 16)
        body(&self)
        memory.store(UInt32(byteCount - offset), at: offset + 4)
        changeCount -= 1
        // What moves names payloads of older records.
        payloadIDOffsets = (0, 0)
    }

    /// Lets a part of an older payload show in a file.
    mutating func extent(
        inode: InodeNumber, offset fileOffset: UInt64, payload: PayloadID, payloadOffset: UInt32, byteCount: UInt32
    ) {
        let offset = self.byteCount
        extent(inode: inode, offset: fileOffset, byteCount: byteCount)
        payloadIDOffsets.1 = 0
        memory.store(payload.rawValue, at: offset + 24)
        memory.store(payloadOffset, at: offset + 32)
    }

    /// An attribute whose value is an older payload.
    mutating func xattr(
        inode: InodeNumber, cookie: UInt64, since: BatchSequence, name: UnsafeRawBufferPointer, payload: PayloadID,
        byteCount: UInt32
    ) {
        let offset = begin(4, 45 + name.count)
        memory.store(inode.rawValue, at: offset + 8)
        memory.store(cookie, at: offset + 16)
        memory.store(since.rawValue, at: offset + 24)
        memory.store(payload.rawValue, at: offset + 32)
        memory.store(byteCount, at: offset + 40)
        memory.store(UInt8(name.count), at: offset + 44)
        memory.copy(name, to: offset + 45)
    }

    /// An older payload, described as its entry does: inline with its bytes, or in blocks that lie at `position`.
    ///
    /// `blocks` are those that are kept, as (place among those stored now, block number); all where it is nil.
    mutating func payload(
        _ id: PayloadID, _ entry: PayloadEntry, blocks: [(index: Int, block: Int)]?, position: UInt32,
        inline bytes: UnsafeRawBufferPointer
    ) {
        let kept = blocks ?? entry.storedBlocks.enumerated().map { (index: $0.offset, block: $0.element) }
        let isPartial = !entry.isInline && kept.count < PayloadRecord.blockCount(entry.length)
        let fixed = Change.headerByteCount + PayloadRecord.byteCount
        let bitmapCount = isPartial ? PayloadRecord.bitmapByteCount(entry.length) : 0
        let offset = begin(6, fixed + kept.count * 4 + bitmapCount + (entry.isInline ? bytes.count : 0))
        memory.zero(offset + 8, PayloadRecord.byteCount)
        memory.store(id.rawValue, at: offset + 8)
        memory.store(entry.isInline ? 0 : isPartial ? 2 : 1 as UInt8, at: offset + 16)
        memory.store(entry.length, at: offset + 32)
        memory.store(entry.length, at: offset + 36)
        memory.store(entry.isInline ? 0 : position, at: offset + 40)
        memory.store(UInt32(kept.count), at: offset + 44)
        for (place, block) in kept.enumerated() {
            memory.store(entry.checksum(ofStored: block.index), at: offset + fixed + place * 4)
        }
        let bitmap = memory.part(offset + fixed + kept.count * 4, bitmapCount)
        bitmap.zero(0, bitmapCount)
        if isPartial {
            for (_, block) in kept {
                let word: UInt64 = UnsafeRawBufferPointer(bitmap).load(block / 64 * 8)
                bitmap.store(word | 1 << UInt64(block % 64), at: block / 64 * 8)
            }
        }
        if entry.isInline { memory.copy(bytes, to: offset + fixed + 4) }
    }

    /// Fills in what is known only when the record is appended: the payload's id and its position in the payload area.
    mutating func complete(sequence: RecordSequence, payloadPosition: UInt32) {
        if payloadIDOffsets.0 > 0 { memory.store(sequence.rawValue, at: payloadIDOffsets.0) }
        if payloadIDOffsets.1 > 0 { memory.store(sequence.rawValue, at: payloadIDOffsets.1) }
        if payloadBlocks != nil { memory.store(payloadPosition, at: payloadPositionOffset) }
    }
}

extension Checksum {
    /// As many zeros as a payload can have, never written nor freed.
    nonisolated(unsafe) fileprivate static let zeroPayload = UnsafeRawBufferPointer(
        UnsafeMutableRawBufferPointer.allocate(byteCount: PayloadRecord.byteCountLimit, alignment: 16).zeroed())

    /// 4 KiB of zeros, never written nor freed.
    nonisolated(unsafe) private static let zeros = UnsafeRawBufferPointer(
        UnsafeMutableRawBufferPointer.allocate(byteCount: blockByteCount, alignment: 16).zeroed())

    /// What is stored as the checksum of a block that a repair had to give up: the block is zeros, and this is not their checksum,
    /// so that reading it fails for ever.
    static let ofLostBlock = ~crc32c(zeros)

    /// The checksum of a block that begins with `bytes` and is zero after them.
    static func crc32cOfPaddedBlock(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        if bytes.count == blockByteCount { return crc32c(bytes) }
        return crc32c(bytes, followedBy: zeros.part(0, blockByteCount - bytes.count))
    }
}
