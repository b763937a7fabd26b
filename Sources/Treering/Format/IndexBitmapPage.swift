// The layout of the bitmap: pages that say which pages of the index file a checkpoint uses.

/// A view of a page of the bitmap: the header of `IndexPage` (level 255) with two more fields, then the bits.
///
/// The bits of page 0 (copies of the superblock) and of the pages of the bitmap itself are always set. Every checkpoint
/// writes the whole bitmap anew (one page per 508 MiB of index). So the birth of all its pages is the number of that
/// checkpoint.
struct IndexBitmapPage {
    /// What follows the header's first 48 bytes.
    struct Layout: DiskLayout {
        let page = Room(0, 48, "page", "as in the header of every page of the index")
        let next = Field<PageAddress>(48, "next", "address of the next page of the bitmap, 0 for the last")
        let ordinal = Field<UInt32>(52, "ordinal", "0 for the first page of the bitmap, and so on")
        let words = Tail<UInt64>(
            64, "bits", "bit i % 64 of word i / 64 says that page ordinal * 65,024 + i is in use; 1,016 words")
        static let byteCount = 64
    }

    static let layout = Layout()
    static let wordCount = (IndexPage.byteCount - Layout.byteCount) / UInt64.storedByteCount
    static let bitCount = wordCount * 64

    let page: IndexPage

    init(_ base: UnsafeMutableRawPointer) { page = IndexPage(base) }

    var next: PageAddress { page.base[Self.layout.next] }
    var ordinal: Int { Int(page.base[Self.layout.ordinal]) }

    @inline(__always)
    func word(_ position: Int) -> UInt64 { page.base[Self.layout.words[position]] }

    func setWord(_ position: Int, _ value: UInt64) {
        page.base[Self.layout.words[position]] = value
    }

    func format(uuid: StoreUUID, pointer: PagePointer, next: PageAddress, ordinal: Int) {
        page.format(uuid: uuid, pointer: pointer, level: IndexPage.bitmapLevel)
        page.base[Self.layout.next] = next
        page.base[Self.layout.ordinal] = UInt32(ordinal)
    }
}
