// The index entry of a payload, and the bitmap of those of its blocks that are stored.

/// Which blocks of a payload are stored, where the cleaner left out those that nothing names. One bit each, in words of eight bytes.
struct BlockBitmap {
    private let bytes: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    func contains(_ block: Int) -> Bool { bytes.load(block / 64 * 8, as: UInt64.self) >> (block % 64) & 1 != 0 }

    /// How many blocks below `block` are stored.
    func rank(_ block: Int) -> Int {
        var count = 0
        for word in 0..<block / 64 { count += bytes.load(word * 8, as: UInt64.self).nonzeroBitCount }
        if block % 64 != 0 {
            count += (bytes.load(block / 64 * 8, as: UInt64.self) & (1 << UInt64(block % 64) - 1)).nonzeroBitCount
        }
        return count
    }

    /// Whether it fits a payload of this length of which so many blocks are stored.
    func isValid(_ length: UInt32, storedCount: Int) -> Bool {
        let count = PayloadRecord.blockCount(length)
        guard bytes.count == PayloadRecord.bitmapByteCount(length) else { return false }
        let last: UInt64 = bytes.load(bytes.count - 8)
        let isWithin = count % 64 == 0 || last >> UInt64(count % 64) == 0
        var total = 0
        for word in 0..<bytes.count / 8 { total += bytes.load(word * 8, as: UInt64.self).nonzeroBitCount }
        return isWithin && total == storedCount
    }
}

/// Where a payload lies and which of its bytes are named. Key: (payloads, payload id, payload, 0).
///
///     offset size field
///          0   12 origin
///         12    4 position: offset in the segment at which the stored bytes begin
///         16    4 length in bytes
///         20    1 storage (0 inline, 1 blocks, 2 some of the blocks: those in the bitmap, one after another)
///         21    1 encoding (0)
///         22    2 key id (0)
///         24   12 nonce (0)
///         36    1 width of the counts (0: every stored byte is named exactly once and there are none; 4)
///         37    3 zero
///         40    4 number of checksums n
///         44    4 segment that holds the stored bytes
///         48   4n checksums
///              bitmap, if any
///              4n counts, if any: how many of each stored block's bytes are named, summed over all that name them
///
/// An inline payload counts as one block. A block lives while its count is not 0.
struct PayloadEntry {
    static let headerByteCount = 48
    static let byteCountLimit = headerByteCount + 8 * (PayloadRecord.byteCountLimit / blockByteCount) + 32

    /// Beyond the end of every segment, and few enough that a block further can be counted.
    static let positionLimit = UInt32(4 * SegmentHeader.byteCountLimit)

    /// The whole value; only its header and counts are ever changed.
    let bytes: UnsafeRawBufferPointer

    static func key(_ payload: PayloadID) -> IndexKey {
        IndexKey(space: .payloads, object: payload.rawValue, kind: .payload, subkey: 0)
    }

    init?(decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Self.headerByteCount + 4 else { return nil }
        self.bytes = bytes
        let storage: UInt8 = bytes.load(20)
        guard length > 0, length <= PayloadRecord.byteCountLimit, width == 0 || width == 4, storage <= 2,
            storedCount > 0, storedCount <= (isInline ? 1 : PayloadRecord.blockCount(length)),
            storage != 1 || storedCount == PayloadRecord.blockCount(length),
            bytes.count == countsOffset + storedCount * width, position <= Self.positionLimit
        else { return nil }
        if isPartial, !bitmap.isValid(length, storedCount: storedCount) { return nil }
    }

    var origin: Origin { Origin(decoding: bytes) }
    /// The segment that holds the stored bytes; the origin's is the one that holds the description.
    var blocksSegment: SegmentNumber { SegmentNumber(bytes.load(44)) }
    var position: UInt32 { bytes.load(12) }
    var length: UInt32 { bytes.load(16) }
    var isInline: Bool { bytes.load(20, as: UInt8.self) == 0 }
    private var isPartial: Bool { bytes.load(20, as: UInt8.self) == 2 }
    /// The blocks that are stored.
    var storedCount: Int { Int(bytes.load(40, as: UInt32.self)) }
    private var width: Int { Int(bytes.load(36, as: UInt8.self)) }
    private var bitmapByteCount: Int { isPartial ? PayloadRecord.bitmapByteCount(length) : 0 }
    private var countsOffset: Int { Self.headerByteCount + storedCount * 4 + bitmapByteCount }
    private var bitmap: BlockBitmap {
        BlockBitmap(bytes.part(Self.headerByteCount + storedCount * 4, bitmapByteCount))
    }

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
        return bytes.load(Self.headerByteCount + index * 4)
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
    func namedCount(ofStored index: Int, block: Int) -> UInt32 {
        if width == 0 { return fullCount(ofBlock: block) }
        return bytes.load(countsOffset + index * 4)
    }

    /// Calls `body` for each stored block: its place among them, its number in the payload, how many of its bytes are named.
    func forEachStored(_ body: (_ index: Int, _ block: Int, _ named: UInt32) -> Void) {
        if !isPartial {
            for index in 0..<storedCount { body(index, index, namedCount(ofStored: index, block: index)) }
            return
        }
        for (index, block) in storedBlocks.enumerated() {
            body(index, block, namedCount(ofStored: index, block: block))
        }
    }

    /// Whether many more may name bytes of the payload: the counts do not run over within one record.
    func canBeShared(_ offset: UInt32, _ byteCount: UInt32) -> Bool {
        let first = isInline ? 0 : Int(offset) / blockByteCount
        let last = isInline ? 0 : Int(offset + byteCount - 1) / blockByteCount
        return (first...last).allSatisfy { block in
            storedIndex(ofBlock: block).map { namedCount(ofStored: $0, block: block) < Self.namedCountLimit } ?? false
        }
    }

    /// Half of what a count can say: about half a million names for each whole block.
    private static let namedCountLimit: UInt32 = 1 << 31

    /// Named bytes of all blocks.
    var namedByteCount: UInt64 {
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
    var livingBlockCount: Int {
        if isInline { return 0 }
        if width == 0 { return storedCount }
        var living = 0
        for index in 0..<storedCount where bytes.load(countsOffset + index * 4, as: UInt32.self) > 0 { living += 1 }
        return living
    }

    /// Bytes of the log that the payload's description keeps alive, where its origin says.
    var charge: Int {
        Change.moveOverheadByteCount + Change.headerByteCount + PayloadRecord.byteCount + storedCount * 4
            + bitmapByteCount + (isInline ? Int(length) : 0)
    }

    /// Bytes that its blocks keep alive in `blocksSegment`.
    var blocksCharge: Int { livingBlockCount * blockByteCount }

    /// Writes a new entry with every byte named once (`named`) or none.
    static func encode(
        _ record: PayloadRecord, origin: Origin, blocksSegment: SegmentNumber, position: UInt32, named: Bool,
        into bytes: UnsafeMutableRawBufferPointer
    ) -> Int {
        let count = record.checksums.count / 4
        let width = named ? 0 : 4
        bytes.zero(0, headerByteCount)
        origin.encode(into: bytes)
        bytes.store(position, at: 12)
        bytes.store(record.length, at: 16)
        bytes.store(record.isInline ? 0 : record.bitmap.isEmpty ? 1 : 2 as UInt8, at: 20)
        bytes.store(UInt8(width), at: 36)
        bytes.store(UInt32(count), at: 40)
        bytes.store(blocksSegment.rawValue, at: 44)
        bytes.copy(record.checksums, to: headerByteCount)
        bytes.copy(record.bitmap, to: headerByteCount + count * 4)
        let countsOffset = headerByteCount + count * 4 + record.bitmap.count
        bytes.zero(countsOffset, count * width)
        return countsOffset + count * width
    }

    /// Writes the entry with `byteCount` bytes from `offset` named once more (or once less) into `target`; gives its
    /// length, or 0 when nothing is named any more (unless `keepsDead`), or nil where the counts cannot be true. Blocks that are not
    /// stored are passed over: only an index that is being rebuilt names such.
    func encodeNaming(
        _ offset: UInt32, _ byteCount: UInt32, more: Bool, keepsDead: Bool, into target: UnsafeMutableRawBufferPointer
    ) -> Int? {
        let countsOffset = countsOffset
        target.copy(bytes.part(0, countsOffset), to: 0)
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
            target.store(value, at: countsOffset + index * 4)
            isFull = isFull && value == end - start
            isDead = isDead && value == 0
        }
        guard isPossible else { return nil }
        if isDead && !keepsDead { return 0 }
        target.store(isFull ? 0 : 4 as UInt8, at: 36)
        return isFull ? countsOffset : countsOffset + storedCount * 4
    }

    /// Writes the entry as a move leaves it into `target`: described and placed as `record` tells, named as before.
    func encodeMoved(
        _ record: PayloadRecord, origin: Origin, blocksSegment: SegmentNumber, position: UInt32,
        into target: UnsafeMutableRawBufferPointer
    ) -> Int {
        let length = Self.encode(
            record, origin: origin, blocksSegment: blocksSegment, position: position, named: false, into: target)
        let moved = PayloadEntry(decoding: UnsafeRawBufferPointer(target.part(0, length)))!
        let countsOffset = moved.countsOffset
        var isFull = true
        moved.forEachStored { index, block, _ in
            let named = storedIndex(ofBlock: block).map { namedCount(ofStored: $0, block: block) } ?? 0
            target.store(named, at: countsOffset + index * 4)
            isFull = isFull && named == fullCount(ofBlock: block)
        }
        target.store(isFull ? 0 : 4 as UInt8, at: 36)
        return isFull ? countsOffset : length
    }
}
