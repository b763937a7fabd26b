// The root of a checkpoint's index, as a superblock slot stores it.

/// The index of one checkpoint. 64 bytes inside a superblock slot, under the slot's checksum.
struct IndexRoot: Hashable, Sendable, LaidOut {
    struct Layout: DiskLayout {
        let checkpoint = Field<CheckpointNumber>(0, "index: checkpoint")
        let birth = Field<CheckpointNumber>(8, "index: birth of the root page")
        let address = Field<PageAddress>(16, "index: address of the root page")
        let level = Field<UInt8>(20, "index: level of the root page", "0 to 11")
        let entryCount = Field<UInt64>(24, "index: entries")
        let pageCount = Field<UInt64>(32, "index: pages of the file", "page 0 and free pages included")
        let usedPageCount = Field<UInt64>(40, "index: pages in use", "marked in the bitmap")
        let bitmap = Field<PageAddress>(48, "index: first page of the bitmap")
        static let byteCount = 64
    }

    static let layout = Layout()

    var checkpoint: CheckpointNumber
    var page: PagePointer
    var level: UInt8
    var entryCount: UInt64
    /// The length of the index file in pages, as this checkpoint knows it. The file is never shorter.
    var pageCount: UInt64
    var usedPageCount: UInt64
    var bitmap: PageAddress

    /// How many pages the bitmap has.
    var bitmapPageCount: Int { (Int(pageCount) + IndexBitmapPage.bitCount - 1) / IndexBitmapPage.bitCount }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        let field = Self.layout
        bytes.zero(0, Layout.byteCount)
        bytes[field.checkpoint] = checkpoint
        bytes[field.birth] = page.birth
        bytes[field.address] = page.address
        bytes[field.level] = level
        bytes[field.entryCount] = entryCount
        bytes[field.pageCount] = pageCount
        bytes[field.usedPageCount] = usedPageCount
        bytes[field.bitmap] = bitmap
    }

    /// Reads a root and checks that its numbers are possible. The caller has verified the checksum of the slot.
    static func decode(from bytes: UnsafeRawBufferPointer) throws(CorruptionReport) -> IndexRoot {
        let field = layout
        let root = IndexRoot(
            checkpoint: bytes[field.checkpoint],
            page: PagePointer(address: bytes[field.address], birth: bytes[field.birth]), level: bytes[field.level],
            entryCount: bytes[field.entryCount], pageCount: bytes[field.pageCount],
            usedPageCount: bytes[field.usedPageCount], bitmap: bytes[field.bitmap])
        guard root.checkpoint.rawValue < UInt64.max / 2, root.page.birth <= root.checkpoint,
            root.level <= IndexPage.maxLevel, root.pageCount <= 1 << 31, root.usedPageCount <= root.pageCount,
            (1..<max(1, root.pageCount)).contains(UInt64(root.page.address.rawValue)),
            (1..<max(1, root.pageCount)).contains(UInt64(root.bitmap.rawValue))
        else { throw CorruptionReport(place: "index root", reason: "its numbers contradict each other") }
        return root
    }
}
