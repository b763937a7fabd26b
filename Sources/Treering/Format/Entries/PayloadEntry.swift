// The index entry of a payload, and the bitmap that says which blocks of a payload are stored.

/// Which blocks of a payload are stored: the cleaner leaves dead blocks out when it moves a payload. One bit for each
/// block, in words of eight bytes.
struct BlockBitmap {
    private let bytes: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    /// The word that has the bit of a block, and that bit.
    @inline(__always)
    private static func place(_ block: Int) -> (word: Field<UInt64>, bit: UInt64) {
        (Tail<UInt64>(0, "bitmap")[block / 64], 1 << UInt64(block % 64))
    }

    func contains(_ block: Int) -> Bool { bytes[Self.place(block).word] & Self.place(block).bit != 0 }

    /// Adds a block to a bitmap that is being written.
    static func insert(_ block: Int, into bytes: UnsafeMutableRawBufferPointer) {
        bytes[place(block).word] |= place(block).bit
    }

    /// How many blocks below `block` are stored.
    func rank(_ block: Int) -> Int {
        var count = 0
        for word in 0..<block / 64 { count += bytes[Self.place(word * 64).word].nonzeroBitCount }
        if block % 64 != 0 { count += (bytes[Self.place(block).word] & (Self.place(block).bit - 1)).nonzeroBitCount }
        return count
    }

    /// Whether the bitmap is possible for a payload of this length with `storedCount` stored blocks.
    func isValid(_ length: UInt32, storedCount: Int) -> Bool {
        let count = PayloadRecord.blockCount(length)
        guard bytes.count == PayloadRecord.bitmapByteCount(length) else { return false }
        let isWithin = count % 64 == 0 || bytes[Self.place(count).word] >> UInt64(count % 64) == 0
        return isWithin && rank(bytes.count * 8) == storedCount
    }
}

/// Where a payload lies, and how many bytes of each block are named by extents or attributes. Key: (payloads, payload
/// id, payload, 0).
///
/// A byte that is named twice counts twice. An inline payload counts as one block. A block is live while its count is
/// not 0.
struct PayloadEntry {
    struct Layout: DiskLayout {
        let origin = Field<Origin>(0, "origin")
        let position = Field<UInt32>(12, "position", "offset in the segment at which the stored bytes begin")
        let length = Field<UInt32>(16, "length in bytes")
        let storage = Field<UInt8>(
            20, "storage", "0 inline, 1 blocks, 2 some of the blocks: those in the bitmap, one after another")
        let encoding = Field<UInt8>(21, "encoding", "0")
        let keyID = Field<UInt16>(22, "key id", "0")
        let nonce = Room(24, 12, "nonce", "zero")
        let countWidth = Field<UInt8>(
            36, "width of the counts", "0: every stored byte is named exactly once and there are none; else 4")
        let storedCount = Field<UInt32>(40, "number of checksums")
        let blocksSegment = Field<SegmentNumber>(44, "segment", "that holds the stored bytes")
        let checksums = Tail<UInt32>(
            48, "checksums",
            "then the bitmap, if any; then the counts, if any: 4 for each stored block, how many of its bytes are named"
        )
        static let byteCount = 48
    }

    static let layout = Layout()
    static let headerByteCount = Layout.byteCount
    /// The length of one count, where the entry has counts.
    private static let countByteCount = UInt32.storedByteCount
    static let byteCountLimit = headerByteCount + 8 * (PayloadRecord.byteCountLimit / blockByteCount) + 32

    /// Beyond the end of every segment, and so low that adding the length of a payload does not overflow.
    static let positionLimit = UInt32(4 * SegmentHeader.byteCountLimit)

    /// The whole value. Changes of an entry touch its header and counts only, unless it is moved.
    let bytes: UnsafeRawBufferPointer

    static func key(_ payload: PayloadID) -> IndexKey {
        IndexKey(space: .payloads, object: payload.rawValue, kind: .payload, subkey: 0)
    }

    init?(decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Self.layout.checksums[1].offset,
            let storage = PayloadStorage(rawValue: bytes[Self.layout.storage])
        else { return nil }
        self.bytes = bytes
        guard length > 0, length <= PayloadRecord.byteCountLimit, width == 0 || width == Self.countByteCount,
            storedCount > 0, storedCount <= (isInline ? 1 : PayloadRecord.blockCount(length)),
            storage != .blocks || storedCount == PayloadRecord.blockCount(length),
            bytes.count == counts.offset + storedCount * width, position <= Self.positionLimit
        else { return nil }
        if isPartial, !bitmap.isValid(length, storedCount: storedCount) { return nil }
    }

    var origin: Origin { bytes[Self.layout.origin] }
    /// The segment that holds the stored bytes. The segment of `origin` holds the record that describes them.
    var blocksSegment: SegmentNumber { bytes[Self.layout.blocksSegment] }
    var position: UInt32 { bytes[Self.layout.position] }
    var length: UInt32 { bytes[Self.layout.length] }
    var isInline: Bool { bytes[Self.layout.storage] == PayloadStorage.inline.rawValue }
    private var isPartial: Bool { bytes[Self.layout.storage] == PayloadStorage.someBlocks.rawValue }
    /// How many blocks are stored.
    var storedCount: Int { Int(bytes[Self.layout.storedCount]) }
    private var width: Int { Int(bytes[Self.layout.countWidth]) }
    private var bitmapByteCount: Int { isPartial ? PayloadRecord.bitmapByteCount(length) : 0 }
    private var bitmapOffset: Int { Self.layout.checksums[storedCount].offset }
    private var bitmap: BlockBitmap { BlockBitmap(bytes.part(bitmapOffset, bitmapByteCount)) }
    private var counts: Tail<UInt32> { Tail(bitmapOffset + bitmapByteCount, "counts") }

    /// The index of a block of the payload among the stored blocks; nil if it is not stored.
    func storedIndex(ofBlock block: Int) -> Int? {
        guard isPartial else { return block < storedCount ? block : nil }
        guard block < PayloadRecord.blockCount(length), bitmap.contains(block) else { return nil }
        return bitmap.rank(block)
    }

    /// The numbers (in the payload) of the stored blocks, in order.
    var storedBlocks: [Int] {
        isPartial ? (0..<PayloadRecord.blockCount(length)).filter { bitmap.contains($0) } : Array(0..<storedCount)
    }

    func checksum(ofStored index: Int) -> UInt32 {
        precondition(index < storedCount)
        return bytes[Self.layout.checksums[index]]
    }

    /// Where a stored block lies in its segment.
    func position(ofStored index: Int) -> UInt32 { position + UInt32(index * blockByteCount) }

    /// Where a byte of the payload lies in its segment. Nil unless all bytes from `offset` through `last` are stored
    /// there one after another.
    func position(ofByte offset: UInt32, through last: UInt32) -> UInt32? {
        guard isPartial else { return position + offset }
        let block = UInt32(blockByteCount)
        guard let first = storedIndex(ofBlock: Int(offset / block)),
            let end = storedIndex(ofBlock: Int(last / block)), end - first == Int(last / block - offset / block)
        else { return nil }
        return position(ofStored: first) + offset % block
    }

    /// How many bytes of a block hold data. All blocks but the last are full.
    private func fullCount(ofBlock block: Int) -> UInt32 {
        if isInline { return length }
        return min(UInt32(blockByteCount), length - UInt32(block * blockByteCount))
    }

    /// How many bytes of a stored block (`block` of the payload) are named.
    func referenceCount(ofStored index: Int, block: Int) -> UInt32 {
        if width == 0 { return fullCount(ofBlock: block) }
        return bytes[counts[index]]
    }

    /// Calls `body` for each stored block with its index among the stored blocks, its number in the payload, and its
    /// count of named bytes.
    func forEachStored(_ body: (_ index: Int, _ block: Int, _ named: UInt32) -> Void) {
        if !isPartial {
            for index in 0..<storedCount { body(index, index, referenceCount(ofStored: index, block: index)) }
            return
        }
        for (index, block) in storedBlocks.enumerated() {
            body(index, block, referenceCount(ofStored: index, block: block))
        }
    }

    /// Whether this range of the payload may be named once more. No count can overflow within one record then.
    func canBeShared(_ offset: UInt32, _ byteCount: UInt32) -> Bool {
        let first = isInline ? 0 : Int(offset) / blockByteCount
        let last = isInline ? 0 : Int(offset + byteCount - 1) / blockByteCount
        return (first...last).allSatisfy { block in
            storedIndex(ofBlock: block).map { referenceCount(ofStored: $0, block: block) < Self.referenceCountLimit }
                ?? false
        }
    }

    /// Half of the highest count: about half a million names for each whole block.
    private static let referenceCountLimit: UInt32 = 1 << 31

    /// The sum of the counts of all blocks.
    var referencedByteCount: UInt64 {
        var sum: UInt64 = 0
        forEachStored { _, _, named in sum += UInt64(named) }
        return sum
    }

    /// Named bytes beyond the stored ones: what sharing saves.
    var sharedByteCount: UInt64 {
        if width == 0 { return 0 }
        var sum: UInt64 = 0
        forEachStored { _, block, named in
            let full = fullCount(ofBlock: block)
            if named > full { sum += UInt64(named - full) }
        }
        return sum
    }

    /// How many blocks are live.
    var liveBlockCount: Int {
        if isInline { return 0 }
        if width == 0 { return storedCount }
        var live = 0
        let counts = counts
        for index in 0..<storedCount where bytes[counts[index]] > 0 { live += 1 }
        return live
    }

    /// The bytes that the description of the payload keeps live in the segment of `origin`.
    var charge: Int {
        Change.moveOverheadByteCount + PayloadChange.layout.checksums[storedCount].offset + bitmapByteCount
            + (isInline ? Int(length) : 0)
    }

    /// The bytes that its blocks keep live in `blocksSegment`.
    var blocksCharge: Int { liveBlockCount * blockByteCount }

    /// Writes a new entry, with every byte named once if `named`, else with none. Returns the length of the entry.
    static func encode(
        _ record: PayloadRecord, origin: Origin, blocksSegment: SegmentNumber, position: UInt32, named: Bool,
        into bytes: UnsafeMutableRawBufferPointer
    ) -> Int {
        let field = layout
        let count = record.checksumCount
        let width = named ? 0 : countByteCount
        precondition(count > 0 && count <= PayloadRecord.blockCount(record.length))
        bytes.zero(0, headerByteCount)
        bytes[field.origin] = origin
        bytes[field.position] = position
        bytes[field.length] = record.length
        let storage: PayloadStorage = record.isInline ? .inline : record.bitmap.isEmpty ? .blocks : .someBlocks
        bytes[field.storage] = storage.rawValue
        bytes[field.countWidth] = UInt8(width)
        bytes[field.storedCount] = UInt32(count)
        bytes[field.blocksSegment] = blocksSegment
        bytes.copy(record.checksums, to: field.checksums.offset)
        bytes.copy(record.bitmap, to: field.checksums[count].offset)
        let countsOffset = field.checksums[count].offset + record.bitmap.count
        bytes.zero(countsOffset, count * width)
        return countsOffset + count * width
    }

    /// Leaves the counts out of an entry if every stored byte is named once (`isFull`). Returns the length of the
    /// entry. `counts` is where the counts lie.
    private static func finish(
        _ bytes: UnsafeMutableRawBufferPointer, _ counts: Tail<UInt32>, _ storedCount: Int, isFull: Bool
    ) -> Int {
        bytes[layout.countWidth] = isFull ? 0 : UInt8(countByteCount)
        return isFull ? counts.offset : counts[storedCount].offset
    }

    /// Writes the entry with `byteCount` bytes from `offset` named once more (or once less) into `target`.
    ///
    /// Returns the length of the entry; 0 if nothing is named any more (unless `keepsDead`); nil if a count would go
    /// beyond its range, which only damage can cause. Blocks that are not stored are passed over: they are named only
    /// while an index is being rebuilt.
    func encodeNaming(
        _ offset: UInt32, _ byteCount: UInt32, more: Bool, keepsDead: Bool, into target: UnsafeMutableRawBufferPointer
    ) -> Int? {
        let counts = counts
        target.copy(bytes.part(0, counts.offset), to: 0)
        var isFull = true
        var isDead = true
        var isPossible = true
        forEachStored { index, block, now in
            let start = isInline ? 0 : UInt32(block * blockByteCount)
            let end = start + fullCount(ofBlock: block)
            let low = max(start, offset)
            let high = min(end, offset + byteCount)
            let part = high > low ? high - low : 0
            let (value, isImpossible) =
                more ? now.addingReportingOverflow(part) : now.subtractingReportingOverflow(part)
            if isImpossible { isPossible = false }
            target[counts[index]] = value
            isFull = isFull && value == end - start
            isDead = isDead && value == 0
        }
        guard isPossible else { return nil }
        if isDead && !keepsDead { return 0 }
        return Self.finish(target, counts, storedCount, isFull: isFull)
    }

    /// Writes the entry into `target` as it is after a move: described and placed as `record` says, with the counts
    /// that it has now.
    func encodeMoved(
        _ record: PayloadRecord, origin: Origin, blocksSegment: SegmentNumber, position: UInt32,
        into target: UnsafeMutableRawBufferPointer
    ) -> Int {
        let length = Self.encode(
            record, origin: origin, blocksSegment: blocksSegment, position: position, named: false, into: target)
        let moved = PayloadEntry(decoding: UnsafeRawBufferPointer(target.part(0, length)))!
        let counts = moved.counts
        var isFull = true
        moved.forEachStored { index, block, _ in
            let named = storedIndex(ofBlock: block).map { referenceCount(ofStored: $0, block: block) } ?? 0
            target[counts[index]] = named
            isFull = isFull && named == fullCount(ofBlock: block)
        }
        return Self.finish(target, counts, moved.storedCount, isFull: isFull)
    }
}
