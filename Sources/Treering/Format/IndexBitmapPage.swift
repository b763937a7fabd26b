// The layout of the pages that say which pages of the index file a checkpoint uses.

/// A view of a page of the bitmap: the header of `IndexPage` (level 255) and then
///
/// | offset | size | field | meaning |
/// |---|---|---|---|
/// | 48 | 4 | next | address of the next page of the bitmap, 0 for the last |
/// | 52 | 4 | ordinal | 0 for the first page of the bitmap, and so on |
/// | 56 | 8 | – | zero |
/// | 64 | 8128 | bits | bit `i % 8` of byte `i / 8` says that page `ordinal * 65024 + i` is in use |
///
/// Page 0 of the file holds copies of the superblock and is always marked; so are the pages of the bitmap itself. Every checkpoint writes
/// the whole bitmap anew (one page per 508 MiB of index), so all of its pages have the checkpoint's number as birth.
struct IndexBitmapPage {
    static let wordCount = (IndexPage.byteCount - IndexPage.headerByteCount) / 8
    static let bitCount = wordCount * 64

    let page: IndexPage

    init(_ base: UnsafeMutableRawPointer) { page = IndexPage(base) }

    var next: PageAddress { PageAddress(page.base.get(48)) }
    var ordinal: Int { Int(page.base.get(52, as: UInt32.self)) }

    @inline(__always)
    func word(_ position: Int) -> UInt64 { page.base.get(IndexPage.headerByteCount + position * 8) }

    func setWord(_ position: Int, _ value: UInt64) {
        page.base.set(value, at: IndexPage.headerByteCount + position * 8)
    }

    func format(uuid: StoreUUID, pointer: PagePointer, next: PageAddress, ordinal: Int) {
        page.format(uuid: uuid, pointer: pointer, level: IndexPage.bitmapLevel)
        page.base.set(next.rawValue, at: 48)
        page.base.set(UInt32(ordinal), at: 52)
    }
}
