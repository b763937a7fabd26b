// What a superblock slot stores of the index of its checkpoint.

/// The index of one checkpoint. 64 bytes inside a superblock slot, under the slot's checksum.
///
/// | offset | size | field | meaning |
/// |---|---|---|---|
/// | 0 | 8 | checkpoint | its number |
/// | 8 | 8 | birth | of the root page |
/// | 16 | 4 | address | of the root page |
/// | 20 | 1 | level | of the root page, 0 to 11 |
/// | 21 | 3 | – | zero |
/// | 24 | 8 | entries | in the whole index |
/// | 32 | 8 | page count | of the index file, page 0 and free pages included |
/// | 40 | 8 | used pages | marked in the bitmap |
/// | 48 | 4 | bitmap | address of its first page |
/// | 52 | 12 | – | zero; room for snapshot roots' list |
struct IndexRoot: Hashable, Sendable {
    static let byteCount = 64

    var checkpoint: CheckpointNumber
    var page: PagePointer
    var level: UInt8
    var entryCount: UInt64
    /// Pages of the index file that this checkpoint knows of; the file is at least that long.
    var pageCount: UInt64
    var usedPageCount: UInt64
    var bitmap: PageAddress

    /// How many pages the bitmap has.
    var bitmapPageCount: Int { (Int(pageCount) + IndexBitmapPage.bitCount - 1) / IndexBitmapPage.bitCount }

    func encode(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
        bytes.zero(offset, Self.byteCount)
        bytes.store(checkpoint.rawValue, at: offset)
        bytes.store(page.birth.rawValue, at: offset + 8)
        bytes.store(page.address.rawValue, at: offset + 16)
        bytes.store(level, at: offset + 20)
        bytes.store(entryCount, at: offset + 24)
        bytes.store(pageCount, at: offset + 32)
        bytes.store(usedPageCount, at: offset + 40)
        bytes.store(bitmap.rawValue, at: offset + 48)
    }

    /// Reads a root; the caller has verified the checksum around it, this checks that the numbers can be true.
    static func decode(from bytes: UnsafeRawBufferPointer, at offset: Int) throws(CorruptionReport) -> IndexRoot {
        let bytes = bytes.part(offset, byteCount)
        let root = IndexRoot(
            checkpoint: CheckpointNumber(bytes.load(0)),
            page: PagePointer(address: PageAddress(bytes.load(16)), birth: CheckpointNumber(bytes.load(8))),
            level: bytes.load(20), entryCount: bytes.load(24), pageCount: bytes.load(32),
            usedPageCount: bytes.load(40), bitmap: PageAddress(bytes.load(48)))
        guard root.checkpoint.rawValue < UInt64.max / 2, root.page.birth <= root.checkpoint,
            root.level <= IndexPage.maxLevel, root.pageCount <= 1 << 31, root.usedPageCount <= root.pageCount,
            (1..<max(1, root.pageCount)).contains(UInt64(root.page.address.rawValue)),
            (1..<max(1, root.pageCount)).contains(UInt64(root.bitmap.rawValue))
        else { throw CorruptionReport(place: "index root", reason: "its numbers contradict each other") }
        return root
    }
}
