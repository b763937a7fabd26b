// The index: an ordered map from keys to values in copy-on-write pages. State, construction, and how pages come into
// memory and go. The file system's core owns it under its one lock; the index does no I/O and knows no device.
//
// Index+Read looks things up, Index+Write changes them (Index+Balance splits and merges), Index+Checkpoint freezes
// generations of pages for the owner to write.

/// A page that an operation needs and that is not in memory: not a failure, but an event. The owner fetches the page
/// (`beginFetch`, read, `install`), pins it, and runs the operation again.
struct PageMiss: Error, Hashable, Sendable {
    var pointer: PagePointer
    var level: UInt8
    /// Keys of the page are at or above this.
    var lower: IndexKey
    /// Keys of the page are below this.
    var upper: IndexKey
    var isRoot: Bool

    var address: PageAddress { pointer.address }
    var birth: CheckpointNumber { pointer.birth }
}

/// A page being read by the owner. The buffer belongs to the index's pool and goes back to it through `install` or
/// `cancelFetch`, exactly once.
struct PageFetch: @unchecked Sendable {
    let miss: PageMiss
    /// 8 KiB, aligned to 4 KiB.
    let buffer: UnsafeMutableRawBufferPointer
}

/// What the page cache did, since the index was opened.
struct IndexCounters: Sendable {
    /// Pages that operations found in memory.
    var hitCount: UInt64 = 0
    var missCount: UInt64 = 0
    var evictionCount: UInt64 = 0
    var mergeCount: UInt64 = 0
}

/// The index. Not thread-safe: its owner calls it under one lock.
///
/// Borrowed memory (values) is valid until the next call that modifies, evicts, installs or ends a checkpoint.
final class Index {
    /// A page on the way from the root to a leaf, and the child taken there.
    struct PathStep {
        var page: IndexPage
        var position: Int
    }

    /// The checkpoint being written.
    struct InFlight {
        var root: IndexRoot
        /// Ascending.
        var addresses: [UInt32]
        /// How many were handed out for writing.
        var writtenCount = 0
    }

    let uuid: StoreUUID
    /// Whether a page is damage if `IndexKey.problem` objects to one of its entries.
    var checksEntries = true
    /// The cache's bound in pages.
    let limitPageCount: Int
    var cache: PageCache
    var allocator: PageAllocator
    /// False until the bitmaps are loaded: until then the index can only be read.
    var canWrite: Bool
    var root: PagePointer
    var rootLevel: Int
    var entryCount: UInt64
    /// The length of the file in pages, as the superblock says. Used until the bitmaps are loaded: children's addresses
    /// lie below it.
    var pageCountOnDisk: UInt64
    /// The number of the checkpoint that gathers modifications now.
    var building: CheckpointNumber
    var inFlight: InFlight?
    /// Addresses that pages got in this generation; some may be free again.
    var dirtyAddresses: [UInt32] = []
    /// The bitmap of the last frozen checkpoint.
    var bitmapPages: [PageAddress] = []
    /// By level; valid inside one modification.
    let path: UnsafeMutablePointer<PathStep>
    var counters = IndexCounters()
    /// Fetches a page that a modification needs and nobody touched. Returns false if it cannot. Only where waiting is
    /// allowed: in offline tools and in a recovery. A mount has none and touches every page first.
    var fetchNow: ((PageMiss) -> Bool)?

    static let pathCapacity = 24

    /// The index of the checkpoint `found`, which can be read at once, and modified after `adopt`; else an empty one.
    ///
    /// `building`, its next checkpoint, must be above the number of every one that either superblock slot may hold.
    init(
        uuid: StoreUUID, cacheLimitByteCount: Int, root found: IndexRoot? = nil,
        building: CheckpointNumber = CheckpointNumber(1)
    ) {
        if let found { precondition(building > found.checkpoint) }
        self.uuid = uuid
        limitPageCount = max(1, cacheLimitByteCount / IndexPage.byteCount)
        cache = PageCache(expectedPageCount: limitPageCount + 64)
        allocator = PageAllocator()
        canWrite = found == nil
        root = found?.page ?? PagePointer(address: PageAddress(0), birth: .zero)
        rootLevel = Int(found?.level ?? 0)
        entryCount = found?.entryCount ?? 0
        pageCountOnDisk = found?.pageCount ?? 0
        self.building = building
        path = .allocate(capacity: Self.pathCapacity)
        if found == nil { root = newPage(level: 0).pointer }
    }

    deinit { path.deallocate() }

    /// Takes over the bitmaps of the mounted checkpoint and of the one in the other superblock slot (nil if that is
    /// empty or damaged), both complete. From now on the index can be modified; pages that either names are not
    /// overwritten.
    func adopt(live: BitmapLoad, other: BitmapLoad?) throws(CorruptionReport) {
        precondition(!canWrite && live.isComplete && other?.isComplete ?? true)
        precondition(
            live.root.checkpoint < building && (other.map { $0.root.checkpoint < building } ?? true),
            "the next checkpoint has the number of one that is on disk")
        for frame in 0..<cache.frameCount where cache.frames[frame].isLive {
            let address = PageAddress(cache.frames[frame].address)
            guard live.isUsed(address), !live.pages.contains(address) else {
                throw CorruptionReport(
                    place: "index page \(address.rawValue)", reason: "the bitmap says that it is free")
            }
        }
        allocator = PageAllocator(live: live, other: other)
        bitmapPages = live.pages
        pageCountOnDisk = live.root.pageCount
        canWrite = true
    }

    // MARK: Pages in memory

    /// The frame of a page, if it is in memory and what its parent says; −1 if not.
    @inline(__always)
    func resident(_ pointer: PagePointer, level: Int) -> Int {
        let frame = cache.find(pointer.address)
        if frame < 0 { return -1 }
        let page = cache.page(frame)
        // In a damaged index two pointers may lead to one page. `install` reports that when the page is fetched for the
        // wrong one.
        if page.birth != pointer.birth || Int(page.level) != level || !cache.frames[frame].isLive { return -1 }
        cache.touch(frame, level: UInt8(truncatingIfNeeded: level))
        return frame
    }

    /// Starts fetching a page: the owner reads it into the buffer. Call it under the hold of the lock under which the
    /// miss was thrown (later the page may lie elsewhere), and only once per address at a time.
    func beginFetch(_ miss: PageMiss) -> PageFetch {
        PageFetch(miss: miss, buffer: .init(start: cache.takeBuffer(), count: IndexPage.byteCount))
    }

    /// The page could not be read, or is not wanted any more.
    func cancelFetch(_ fetch: PageFetch) { cache.giveBackBuffer(fetch.buffer.baseAddress!) }

    /// Takes a page that was read into memory, if it is what its parent says and whole in itself.
    func install(_ fetch: PageFetch) throws(CorruptionReport) {
        do throws(CorruptionReport) {
            if try !accept(fetch) { cancelFetch(fetch) }
        } catch {
            cancelFetch(fetch)
            throw error
        }
    }

    /// False if the page is in memory already.
    private func accept(_ fetch: PageFetch) throws(CorruptionReport) -> Bool {
        let miss = fetch.miss
        func fail(_ reason: String) -> CorruptionReport {
            CorruptionReport(place: "index page \(miss.address.rawValue)", reason: reason)
        }
        if resident(miss.pointer, level: Int(miss.level)) >= 0 { return false }
        guard cache.find(miss.address) < 0 else { throw fail("two places of the index name it") }
        let pageCount = canWrite ? UInt64(allocator.pageCount) : pageCountOnDisk
        try IndexPage.validate(
            fetch.buffer,
            PageExpectation(
                uuid: uuid, pointer: miss.pointer, level: miss.level, lower: miss.lower, upper: miss.upper,
                pageCount: pageCount, isRoot: miss.isRoot, checksEntries: checksEntries))
        if canWrite {
            guard allocator.isUsed(miss.address) else { throw fail("the bitmap says that it is free") }
            guard !bitmapPages.contains(miss.address) else { throw fail("it belongs to the bitmap") }
        }
        _ = cache.insert(fetch.buffer.baseAddress!, at: miss.address, .clean)
        return true
    }

    func isPresent(_ address: PageAddress) -> Bool {
        let frame = cache.find(address)
        return frame >= 0 && cache.frames[frame].isLive
    }

    /// Holds a page in memory; nil if it is not there. The hold follows the page when modifications move it.
    func pin(_ address: PageAddress) -> PagePin? {
        let frame = cache.find(address)
        return frame >= 0 && cache.frames[frame].isLive ? cache.pin(frame) : nil
    }

    func unpin(_ pin: PagePin) { cache.unpin(pin) }

    /// Drops clean pages that nobody holds until the cache is within its bound. Only here do pages of the tree leave
    /// memory, so it is called between operations. Does a bounded amount of work. Returns how many pages it dropped.
    @discardableResult
    func evict() -> Int {
        if cache.residentCount <= limitPageCount { return 0 }
        let count = cache.evict(limit: limitPageCount)
        counters.evictionCount += UInt64(count)
        return count
    }

    // MARK: Sizes

    /// Memory of the pages of the checkpoint being built.
    var dirtyByteCount: Int { cache.dirtyCount * IndexPage.byteCount }
    /// Memory that the checkpoint in flight holds.
    var frozenByteCount: Int { cache.frozenCount * IndexPage.byteCount }
    /// Memory of all pages, those being fetched included.
    var residentByteCount: Int { cache.residentCount * IndexPage.byteCount }
    var cacheLimitByteCount: Int { limitPageCount * IndexPage.byteCount }
    /// Dirty pages fill more than half of the cache, and only a checkpoint makes them clean.
    var needsCheckpoint: Bool { cache.dirtyCount * 2 > limitPageCount }
    /// Pages of the index file, free ones included: what the file must have room for before frozen pages are written.
    var filePageCount: Int { allocator.pageCount }
    var usedPageCount: Int { allocator.usedCount }
    /// Pages that only older checkpoints use.
    var heldPageCount: Int { allocator.heldCount }
}
