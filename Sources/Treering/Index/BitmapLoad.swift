// Reading the bitmap of one checkpoint, page by page, at mount and in a check. The caller does the reading.

/// The bitmap of used pages of one checkpoint, being read: while `next` is not nil, read that page and `add` it.
struct BitmapLoad {
    let root: IndexRoot
    let uuid: StoreUUID
    /// The page to read next; nil when the bitmap is whole.
    private(set) var next: PagePointer?
    /// The pages of the bitmap itself, in order.
    private(set) var pages: [PageAddress] = []
    /// One bit per page of the file.
    private(set) var words: [UInt64] = []

    init(root: IndexRoot, uuid: StoreUUID) {
        self.root = root
        self.uuid = uuid
        next = PagePointer(address: root.bitmap, birth: root.checkpoint)
    }

    var isComplete: Bool { next == nil }

    /// Takes the page that `next` asked for. After an error the bitmap is of no use.
    mutating func add(_ bytes: UnsafeMutableRawBufferPointer) throws(CorruptionReport) {
        guard let pointer = next, bytes.count == IndexPage.byteCount else {
            preconditionFailure("no page was asked for")
        }
        let place = "bitmap page \(pointer.address.rawValue)"
        let bitmap = IndexBitmapPage(bytes.baseAddress!)
        try IndexPage.validateHeader(bitmap.page, uuid, pointer, IndexPage.bitmapLevel)
        guard bitmap.ordinal == pages.count else {
            throw CorruptionReport(place: place, reason: "it is number \(bitmap.ordinal), not \(pages.count)")
        }
        pages.append(pointer.address)
        for position in 0..<IndexBitmapPage.wordCount where words.count * 64 < Int(root.pageCount) {
            words.append(bitmap.word(position))
        }
        if pages.count < root.bitmapPageCount {
            guard (1..<root.pageCount).contains(UInt64(bitmap.next.rawValue)) else {
                throw CorruptionReport(place: place, reason: "the bitmap ends too early")
            }
            next = PagePointer(address: bitmap.next, birth: root.checkpoint)
        } else {
            guard bitmap.next.rawValue == 0 else {
                throw CorruptionReport(place: place, reason: "the bitmap does not end")
            }
            next = nil
            try validateWhole()
        }
    }

    func isUsed(_ address: PageAddress) -> Bool {
        let page = Int(address.rawValue)
        return page < Int(root.pageCount) && words[page >> 6] >> UInt64(page & 63) & 1 != 0
    }

    private func validateWhole() throws(CorruptionReport) {
        func fail(_ reason: String) -> CorruptionReport {
            CorruptionReport(place: "bitmap of checkpoint \(root.checkpoint.rawValue)", reason: reason)
        }
        let tail = Int(root.pageCount) & 63
        if tail != 0, let last = words.last, last >> UInt64(tail) != 0 { throw fail("it marks pages beyond the file") }
        guard words.reduce(0, { $0 + UInt64($1.nonzeroBitCount) }) == root.usedPageCount else {
            throw fail("it does not mark as many pages as the superblock says")
        }
        guard words.first.map({ $0 & 1 != 0 }) == true, isUsed(root.page.address), pages.allSatisfy({ isUsed($0) }),
            !pages.contains(root.page.address), Set(pages).count == pages.count
        else { throw fail("it does not mark its own pages or the root") }
    }
}
