// Which pages of the index file are in use, free, or wait until no mountable checkpoint names them. Owned by Index.

/// Bitmaps of the index file, one bit per page, and the queue of pages that were freed but may not be reused yet.
///
/// A page is *used* (the tree or the bitmap of the checkpoint being built needs it), *held* (only older checkpoints
/// need it), or free. Pages are handed out in runs, so that a checkpoint's writes are long.
struct PageAllocator {
    private static let wantedRunPageCount = 8
    private static let minGrowthPageCount = 128

    private var used: [UInt64] = []
    private var held: [UInt64] = []
    private var pending: [(checkpoint: CheckpointNumber, pages: [UInt32])] = []
    /// The run that pages are being handed out from.
    private var run = 0..<0
    private var cursor = 0
    /// No run of the wanted length was found, and nothing was released since.
    private var isFragmented = false
    private(set) var usedCount = 0
    private(set) var heldCount = 0
    /// Pages of the file, free ones included. The owner makes the file this long before it writes to it.
    private(set) var pageCount: Int

    /// For a new index: only page 0, which holds copies of the superblock.
    init() {
        pageCount = Self.minGrowthPageCount
        resizeBitmaps()
        mark(0)
    }

    /// For an index on disk: what the mounted checkpoint uses is used; what only the other mountable one uses is held
    /// until both slots hold checkpoints after it.
    init(live: BitmapLoad, other: BitmapLoad?) {
        pageCount = max(Int(live.root.pageCount), Int(other?.root.pageCount ?? 0))
        used = live.words
        resizeBitmaps()
        usedCount = used.reduce(0) { $0 + $1.nonzeroBitCount }
        guard let other else { return }
        var pages: [UInt32] = []
        for (position, word) in other.words.enumerated() {
            var bits = word & ~used[position]
            held[position] = bits
            while bits != 0 {
                pages.append(UInt32(position * 64 + bits.trailingZeroBitCount))
                bits &= bits - 1
            }
        }
        heldCount = pages.count
        pending.append((other.root.checkpoint.next, pages))
    }

    var freeCount: Int { pageCount - usedCount - heldCount }

    func isUsed(_ address: PageAddress) -> Bool {
        let page = Int(address.rawValue)
        return page < pageCount && used[page >> 6] >> UInt64(page & 63) & 1 != 0
    }

    /// 64 pages' bits, for the bitmap on disk.
    func usedWord(_ position: Int) -> UInt64 { position < used.count ? used[position] : 0 }

    /// A free page, now used.
    mutating func allocate() -> PageAddress {
        if run.isEmpty { run = nextRun() }
        let page = run.lowerBound
        precondition(page > 0 && page < pageCount, "a page outside the tree's part of the file was handed out")
        run = page + 1..<run.upperBound
        cursor = page + 1
        mark(page)
        return PageAddress(UInt32(page))
    }

    /// A page that belongs to no checkpoint that a superblock may name: free at once.
    mutating func free(_ address: PageAddress) {
        unmark(Int(address.rawValue))
        isFragmented = false
    }

    /// A page that checkpoints before `checkpoint` name, freed while that one is being built.
    mutating func free(_ address: PageAddress, heldFor checkpoint: CheckpointNumber) {
        let page = Int(address.rawValue)
        unmark(page)
        let bit: UInt64 = 1 << UInt64(page & 63)
        precondition(held[page >> 6] & bit == 0, "a page is held twice, and would be reused after the first release")
        held[page >> 6] |= bit
        heldCount += 1
        if pending.last?.checkpoint != checkpoint { pending.append((checkpoint, [])) }
        pending[pending.count - 1].pages.append(address.rawValue)
    }

    /// Makes reusable what was freed while `checkpoint` and older ones were built.
    mutating func release(through checkpoint: CheckpointNumber) {
        pending.removeAll { batch in
            guard batch.checkpoint <= checkpoint else { return false }
            for page in batch.pages { held[Int(page >> 6)] &= ~(1 << UInt64(page & 63)) }
            heldCount -= batch.pages.count
            isFragmented = false
            return true
        }
    }

    private mutating func mark(_ page: Int) {
        let bit: UInt64 = 1 << UInt64(page & 63)
        precondition((used[page >> 6] | held[page >> 6]) & bit == 0, "a page was handed out twice")
        used[page >> 6] |= bit
        usedCount += 1
    }

    private mutating func unmark(_ page: Int) {
        let bit: UInt64 = 1 << UInt64(page & 63)
        precondition(page > 0 && page < pageCount && used[page >> 6] & bit != 0, "a page was freed twice")
        used[page >> 6] &= ~bit
        usedCount -= 1
    }

    // MARK: Runs

    /// The next run of free pages: a long one after the cursor, else any if much is free, else new ones at the end.
    private mutating func nextRun() -> Range<Int> {
        if !isFragmented {
            if let run = findRun(atLeast: Self.wantedRunPageCount) { return run }
            isFragmented = true
        }
        if freeCount > pageCount / 16 + 64, let run = findRun(atLeast: 1) { return run }
        let start = pageCount
        let growth = max(Self.minGrowthPageCount, start / 16)
        precondition(start + growth < 1 << 32, "the index has outgrown its address space")
        pageCount = (start + growth + 63) & ~63
        resizeBitmaps()
        return start..<pageCount
    }

    private func findRun(atLeast wanted: Int) -> Range<Int>? {
        let start = min(cursor, pageCount)
        return findRun(atLeast: wanted, in: start..<pageCount) ?? findRun(atLeast: wanted, in: 0..<start)
    }

    private func findRun(atLeast wanted: Int, in range: Range<Int>) -> Range<Int>? {
        var page = range.lowerBound
        while page < range.upperBound {
            let start = firstPage(from: page, below: range.upperBound, isFree: true)
            if start >= range.upperBound { return nil }
            let end = firstPage(from: start, below: range.upperBound, isFree: false)
            if end - start >= wanted { return start..<end }
            page = end
        }
        return nil
    }

    private func firstPage(from start: Int, below end: Int, isFree: Bool) -> Int {
        var page = start
        while page < end {
            let taken = used[page >> 6] | held[page >> 6]
            let bits = (isFree ? ~taken : taken) >> UInt64(page & 63)
            if bits != 0 { return min(page + bits.trailingZeroBitCount, end) }
            page = (page | 63) + 1
        }
        return end
    }

    private mutating func resizeBitmaps() {
        let wordCount = (pageCount + 63) / 64
        used.append(contentsOf: repeatElement(0, count: max(0, wordCount - used.count)))
        held.append(contentsOf: repeatElement(0, count: max(0, wordCount - held.count)))
    }
}
