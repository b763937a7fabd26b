// The layout of a page of the index; it is the same in memory and on disk. Index/ builds and changes pages. Accessors
// trust the page: it was built in memory, or was validated (IndexPage+Validation.swift) when it was read from disk.

/// The pointer to a page: its address, and its birth, the checkpoint that was being built when it was written there.
struct PagePointer: Hashable, Sendable {
    var address: PageAddress
    var birth: CheckpointNumber
}

/// A view of a page of the index: 8 KiB, aligned to 4 KiB. It does not own the memory.
///
/// The entries stand at the front and hold the keys, so a binary search walks one dense array. Values fill the page
/// from its end downwards, in any order. A value of length 0 has offset 0.
///
/// In an inner page, child `i` holds the keys from key `i` up to, but without, key `i + 1`. Key 0 is all zeros and is
/// no bound: child 0 begins where the page's own range begins. That range grows to the left when the left neighbour of
/// the page is removed, and the page itself stays as it is.
struct IndexPage {
    struct Header: DiskLayout {
        let checksum = Field<UInt32>(0, "checksum", "CRC-32C of the page with this field zero", as: .hexadecimal)
        let magic = Field<UInt32>(4, "magic", "\"TRix\"", as: .hexadecimal)
        let uuidHigh = Field<UInt64>(8, "store uuid", "of the blocks, as numbers: the first half", as: .hexadecimal)
        let uuidLow = Field<UInt64>(16, "store uuid", "the second half", as: .hexadecimal)
        let birth = Field<CheckpointNumber>(24, "birth", "the checkpoint being built when the page was written here")
        let address = Field<PageAddress>(32, "address", "the page's own, in pages from the start of the index file")
        let level = Field<UInt8>(36, "level", "0: leaf; 1 to 11: inner page; 255: page of the bitmap")
        let count = Field<UInt16>(38, "entries", "how many")
        let heapStart = Field<UInt16>(40, "heap start", "leaf: offset of the lowest value; inner page: 8,192")
        let deadByteCount = Field<UInt16>(42, "dead", "bytes at or after heap start that belong to no value")
        let lastInsertion = Field<UInt16>(44, "last insertion", "hint: position of the last entry put in")
        let run = Field<Int16>(
            46, "run", "hint: how many went in ascending (positive) or descending (negative) order before it")
        let entries = Tail<UInt8>(64, "entries", "ascending by key")
        static let byteCount = 64
    }

    struct LeafEntry: DiskLayout {
        let key = Field<IndexKey>(0, "key")
        let valueOffset = Field<UInt16>(24, "offset of its value", "in the page")
        let valueByteCount = Field<UInt16>(26, "length of its value")
        static let byteCount = 28
    }

    struct InnerEntry: DiskLayout {
        let key = Field<IndexKey>(0, "key")
        let address = Field<PageAddress>(24, "address of the child")
        let birth = Field<CheckpointNumber>(28, "birth of the child")
        static let byteCount = 36
    }

    static let header = Header()
    static let leaf = LeafEntry()
    static let inner = InnerEntry()
    static let byteCount = 8192
    static let headerByteCount = Header.byteCount
    static let leafEntryByteCount = LeafEntry.byteCount
    static let innerEntryByteCount = InnerEntry.byteCount
    static let magic: UInt32 = 0x7869_5254
    static let bitmapLevel: UInt8 = 255
    /// The highest level that a page may have on disk. A tree of 2^32 pages needs far fewer.
    static let maxLevel: UInt8 = 11
    /// The longest value. Three such entries fit in a page, so a split always finds a cut.
    static let maxValueByteCount = 2680
    static let capacityByteCount = byteCount - headerByteCount
    static let maxChildCount = capacityByteCount / innerEntryByteCount

    let base: UnsafeMutableRawPointer

    @inline(__always)
    init(_ base: UnsafeMutableRawPointer) { self.base = base }

    var bytes: UnsafeMutableRawBufferPointer { .init(start: base, count: Self.byteCount) }

    // MARK: Header

    var uuid: StoreUUID { StoreUUID(high: base[Self.header.uuidHigh], low: base[Self.header.uuidLow]) }
    var birth: CheckpointNumber {
        @inline(__always) get { base[Self.header.birth] }
        nonmutating set { base[Self.header.birth] = newValue }
    }
    var address: PageAddress {
        @inline(__always) get { base[Self.header.address] }
        nonmutating set { base[Self.header.address] = newValue }
    }
    var level: UInt8 { @inline(__always) get { base[Self.header.level] } }
    var count: Int {
        @inline(__always) get { Int(base[Self.header.count]) }
        nonmutating set { base[Self.header.count] = UInt16(newValue) }
    }
    var heapStart: Int {
        get { Int(base[Self.header.heapStart]) }
        nonmutating set { base[Self.header.heapStart] = UInt16(newValue) }
    }
    var deadByteCount: Int {
        get { Int(base[Self.header.deadByteCount]) }
        nonmutating set { base[Self.header.deadByteCount] = UInt16(newValue) }
    }
    var lastInsertion: Int {
        get { Int(base[Self.header.lastInsertion]) }
        nonmutating set { base[Self.header.lastInsertion] = UInt16(truncatingIfNeeded: newValue) }
    }
    var run: Int {
        get { Int(base[Self.header.run]) }
        nonmutating set { base[Self.header.run] = Int16(clamping: newValue) }
    }
    var pointer: PagePointer { PagePointer(address: address, birth: birth) }
    var isLeaf: Bool { level == 0 }

    /// Makes an empty page. All other bytes become zero, so nothing that the memory held before reaches the disk.
    func format(uuid: StoreUUID, pointer: PagePointer, level: UInt8) {
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        base[Self.header.magic] = Self.magic
        base[Self.header.uuidHigh] = uuid.high
        base[Self.header.uuidLow] = uuid.low
        birth = pointer.birth
        address = pointer.address
        base[Self.header.level] = level
        heapStart = Self.byteCount
    }

    /// Stores the checksum. To be called last, before the page is written.
    func seal() { bytes.seal(Self.header.checksum) }

    // MARK: Keys

    @inline(__always)
    static func loadKey(_ place: UnsafeMutableRawPointer) -> IndexKey { place[leaf.key] }

    @inline(__always)
    static func storeKey(_ key: IndexKey, _ place: UnsafeMutableRawPointer) { place[leaf.key] = key }

    @inline(__always)
    func entry(_ position: Int, stride: Int) -> UnsafeMutableRawPointer {
        base + (Self.headerByteCount &+ position &* stride)
    }

    /// The first position at or after `first` whose key is not below `key`; `count` if there is none.
    @inline(__always)
    func lowerBound(_ key: IndexKey, from first: Int = 0, stride: Int) -> Int {
        var low = first
        var high = count
        while low < high {
            let middle = (low &+ high) &>> 1
            if Self.loadKey(entry(middle, stride: stride)) < key { low = middle &+ 1 } else { high = middle }
        }
        return low
    }

    // MARK: Leaf

    @inline(__always)
    func leafEntry(_ position: Int) -> UnsafeMutableRawPointer { entry(position, stride: Self.leafEntryByteCount) }

    @inline(__always)
    func leafKey(_ position: Int) -> IndexKey { Self.loadKey(leafEntry(position)) }

    /// The first position whose key is not below `key`; `count` if there is none.
    @inline(__always)
    func leafPosition(of key: IndexKey) -> Int { lowerBound(key, stride: Self.leafEntryByteCount) }

    @inline(__always)
    func value(_ position: Int) -> UnsafeMutableRawBufferPointer {
        let place = leafEntry(position)
        return UnsafeMutableRawBufferPointer(
            start: base + Int(place[Self.leaf.valueOffset]), count: Int(place[Self.leaf.valueByteCount]))
    }

    func valueByteCount(_ position: Int) -> Int { Int(leafEntry(position)[Self.leaf.valueByteCount]) }

    /// The bytes that entries and values take, without the header and dead bytes.
    var usedByteCount: Int {
        isLeaf
            ? count * Self.leafEntryByteCount + Self.byteCount - heapStart - deadByteCount
            : count * Self.innerEntryByteCount
    }

    var freeByteCount: Int { Self.capacityByteCount - usedByteCount }

    // MARK: Inner page

    @inline(__always)
    func innerEntry(_ position: Int) -> UnsafeMutableRawPointer { entry(position, stride: Self.innerEntryByteCount) }

    @inline(__always)
    func innerKey(_ position: Int) -> IndexKey { Self.loadKey(innerEntry(position)) }

    /// The position of the child whose range holds `key`.
    @inline(__always)
    func childPosition(of key: IndexKey) -> Int {
        var low = 1
        var high = count
        while low < high {
            let middle = (low &+ high) &>> 1
            if key < innerKey(middle) { high = middle } else { low = middle &+ 1 }
        }
        return low &- 1
    }

    /// The position of the child whose range holds the greatest key below `key`.
    @inline(__always)
    func childPosition(before key: IndexKey) -> Int {
        lowerBound(key, from: 1, stride: Self.innerEntryByteCount) &- 1
    }

    @inline(__always)
    func child(_ position: Int) -> PagePointer {
        let place = innerEntry(position)
        return PagePointer(address: place[Self.inner.address], birth: place[Self.inner.birth])
    }
}
