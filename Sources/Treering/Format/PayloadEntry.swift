// The index entry of a payload, and the bitmap of those of its blocks that are stored.

/// Which blocks of a payload are stored, where the cleaner left out those that nothing names. One bit each, in words of eight bytes.
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

    /// Whether it fits a payload of this length of which so many blocks are stored.
    func isValid(_ length: UInt32, storedCount: Int) -> Bool {
        let count = PayloadRecord.blockCount(length)
        guard bytes.count == PayloadRecord.bitmapByteCount(length) else { return false }
        let isWithin = count % 64 == 0 || bytes[Self.place(count).word] >> UInt64(count % 64) == 0
        return isWithin && rank(bytes.count * 8) == storedCount
    }
}

/// Where a payload lies and which of its bytes are named. Key: (payloads, payload id, payload, 0).
///
/// An inline payload counts as one block. A block is live while its count is not 0.
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
    /// Of each count, where there are any.
    private static let countByteCount = UInt32.storedByteCount
    static let byteCountLimit = headerByteCount + 8 * (PayloadRecord.byteCountLimit / blockByteCount) + 32

    /// Beyond the end of every segment, and few enough that a block further can be counted.
    static let positionLimit = UInt32(4 * SegmentHeader.byteCountLimit)

    /// The whole value; only its header and counts are ever changed.
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
    /// The segment that holds the stored bytes; the origin's is the one that holds the description.
    var blocksSegment: SegmentNumber { bytes[Self.layout.blocksSegment] }
    var position: UInt32 { bytes[Self.layout.position] }
    var length: UInt32 { bytes[Self.layout.length] }
    var isInline: Bool { bytes[Self.layout.storage] == PayloadStorage.inline.rawValue }
    private var isPartial: Bool { bytes[Self.layout.storage] == PayloadStorage.someBlocks.rawValue }
    /// The blocks that are stored.
    var storedCount: Int { Int(bytes[Self.layout.storedCount]) }
    private var width: Int { Int(bytes[Self.layout.countWidth]) }
    private var bitmapByteCount: Int { isPartial ? PayloadRecord.bitmapByteCount(length) : 0 }
    private var bitmapOffset: Int { Self.layout.checksums[storedCount].offset }
    private var bitmap: BlockBitmap { BlockBitmap(bytes.part(bitmapOffset, bitmapByteCount)) }
    private var counts: Tail<UInt32> { Tail(bitmapOffset + bitmapByteCount, "counts") }

    /// Where a block of the payload stands among the stored ones; nil when it is not stored.
    func storedIndex(ofBlock block: Int) -> Int? {
        guard isPartial else { return block < storedCount ? block : nil }
        guard block < PayloadRecord.blockCount(length), bitmap.contains(block) else { return nil }
        return bitmap.rank(block)
    }

    /// The stored blocks as block numbers of the payload, in order.
    var storedBlocks: [Int] {
        isPartial ? (0..<PayloadRecord.blockCount(length)).filter { bitmap.contains($0) } : Array(0..<storedCount)
    }

    func checksum(ofStored index: Int) -> UInt32 {
        precondition(index < storedCount)
        return bytes[Self.layout.checksums[index]]
    }

    /// Where a stored block lies in its segment.
    func position(ofStored index: Int) -> UInt32 { position + UInt32(index * blockByteCount) }

    /// Where a byte of the payload lies in its segment; nil unless it and everything through `last` is stored there in one piece.
    func position(ofByte offset: UInt32, through last: UInt32) -> UInt32? {
        guard isPartial else { return position + offset }
        let block = UInt32(blockByteCount)
        guard let first = storedIndex(ofBlock: Int(offset / block)),
            let end = storedIndex(ofBlock: Int(last / block)), end - first == Int(last / block - offset / block)
        else { return nil }
        return position(ofStored: first) + offset % block
    }

    /// The bytes of a block that hold data, all but the last being full.
    private func fullCount(ofBlock block: Int) -> UInt32 {
        if isInline { return length }
        return min(UInt32(blockByteCount), length - UInt32(block * blockByteCount))
    }

    /// How many bytes of a stored block (`block` of the payload) are named.
    func referenceCount(ofStored index: Int, block: Int) -> UInt32 {
        if width == 0 { return fullCount(ofBlock: block) }
        return bytes[counts[index]]
    }

    /// Calls `body` for each stored block: its place among them, its number in the payload, how many of its bytes are named.
    func forEachStored(_ body: (_ index: Int, _ block: Int, _ named: UInt32) -> Void) {
        if !isPartial {
            for index in 0..<storedCount { body(index, index, referenceCount(ofStored: index, block: index)) }
            return
        }
        for (index, block) in storedBlocks.enumerated() {
            body(index, block, referenceCount(ofStored: index, block: block))
        }
    }

    /// Whether many more may name bytes of the payload: the counts do not run over within one record.
    func canBeShared(_ offset: UInt32, _ byteCount: UInt32) -> Bool {
        let first = isInline ? 0 : Int(offset) / blockByteCount
        let last = isInline ? 0 : Int(offset + byteCount - 1) / blockByteCount
        return (first...last).allSatisfy { block in
            storedIndex(ofBlock: block).map { referenceCount(ofStored: $0, block: block) < Self.referenceCountLimit }
                ?? false
        }
    }

    /// Half of what a count can say: about half a million names for each whole block.
    private static let referenceCountLimit: UInt32 = 1 << 31

    /// Named bytes of all blocks.
    var referencedByteCount: UInt64 {
        var sum: UInt64 = 0
        forEachStored { _, _, named in sum += UInt64(named) }
        return sum
    }

    /// Named bytes beyond those that are stored for them: what sharing saves.
    var sharedByteCount: UInt64 {
        if width == 0 { return 0 }
        var sum: UInt64 = 0
        forEachStored { _, block, named in
            let full = fullCount(ofBlock: block)
            if named > full { sum += UInt64(named - full) }
        }
        return sum
    }

    /// Blocks of which something is named.
    var liveBlockCount: Int {
        if isInline { return 0 }
        if width == 0 { return storedCount }
        var live = 0
        let counts = counts
        for index in 0..<storedCount where bytes[counts[index]] > 0 { live += 1 }
        return live
    }

    /// Bytes of the log that the payload's description keeps alive, where its origin says.
    var charge: Int {
        Change.moveOverheadByteCount + PayloadChange.layout.checksums[storedCount].offset + bitmapByteCount
            + (isInline ? Int(length) : 0)
    }

    /// Bytes that its blocks keep alive in `blocksSegment`.
    var blocksCharge: Int { liveBlockCount * blockByteCount }

    /// Writes a new entry with every byte named once (`named`) or none.
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

    /// Writes whether there are counts in an entry, the first byte of which would lie at `counts`; gives the length of the entry.
    private static func finish(
        _ bytes: UnsafeMutableRawBufferPointer, _ counts: Tail<UInt32>, _ storedCount: Int, isFull: Bool
    ) -> Int {
        bytes[layout.countWidth] = isFull ? 0 : UInt8(countByteCount)
        return isFull ? counts.offset : counts[storedCount].offset
    }

    /// Writes the entry with `byteCount` bytes from `offset` named once more (or once less) into `target`; gives its
    /// length, or 0 when nothing is named any more (unless `keepsDead`), or nil where the counts cannot be true. Blocks that are not
    /// stored are passed over: only an index that is being rebuilt names such.
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

    /// Writes the entry as a move leaves it into `target`: described and placed as `record` tells, named as before.
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
