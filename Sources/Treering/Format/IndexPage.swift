// The layout of a page of the index, in memory and on disk alike. Used by Index/ only; validation of what comes from disk
// is in IndexPage+Validation. Accessors trust the page: it was validated when installed, or was built here.

/// What a parent knows of a child page: where it lies, and the checkpoint that was being built when it was written there.
struct PagePointer: Hashable, Sendable {
    var address: PageAddress
    var birth: CheckpointNumber
}

/// A view of a page of the index: 8 KiB, aligned to 4 KiB, owned by someone else.
///
/// | offset | size | field | meaning |
/// |---|---|---|---|
/// | 0 | 4 | checksum | CRC-32C of the page with this field as zero |
/// | 4 | 4 | magic | "TRix" |
/// | 8 | 16 | uuid | the store's, two words |
/// | 24 | 8 | birth | the checkpoint being built when the page was written here |
/// | 32 | 4 | address | the page's own, in pages from the start of the index file |
/// | 36 | 1 | level | 0: leaf; 1…11: inner page; 255: page of the bitmap (`IndexBitmapPage`) |
/// | 37 | 1 | – | zero |
/// | 38 | 2 | count | entries |
/// | 40 | 2 | heap start | leaf: offset of the lowest value; inner page: 8192 |
/// | 42 | 2 | dead | bytes at or after heap start that belong to no value |
/// | 44 | 2 | last insertion | hint: position of the last entry put in |
/// | 46 | 2 | run | hint: how many went in ascending (positive) or descending (negative) order before it |
/// | 48 | 16 | – | zero |
/// | 64 | | entries | ascending by key |
///
/// An entry of a leaf is 28 bytes: key (24), offset of its value in the page (2), length of its value (2). Values fill the
/// page from its end downwards, in any order; a value of length 0 has offset 0.
///
/// An entry of an inner page is 36 bytes: key (24), child's address (4), child's birth (8). Child `i` holds the keys at or
/// above key `i` and below key `i + 1`. Key 0 is all zeros and bounds nothing: child 0 starts where the page itself starts,
/// which moves left when the page's left neighbour goes, without the page being touched.
///
/// Keys stand in the entry, before the values, so that a binary search walks one dense array.
struct IndexPage {
    static let byteCount = 8192
    static let headerByteCount = 64
    static let keyByteCount = IndexKey.byteCount
    static let leafEntryByteCount = 28
    static let innerEntryByteCount = 36
    static let magic: UInt32 = 0x7869_5254
    static let bitmapLevel: UInt8 = 255
    /// The highest level a page may have on disk: far more than 2^32 pages can need.
    static let maxLevel: UInt8 = 11
    /// The longest value: three of them fit in a page, so that a split always finds room.
    static let maxValueByteCount = 2680
    static let capacityByteCount = byteCount - headerByteCount
    static let maxChildCount = capacityByteCount / innerEntryByteCount

    let base: UnsafeMutableRawPointer

    @inline(__always)
    init(_ base: UnsafeMutableRawPointer) { self.base = base }

    var bytes: UnsafeMutableRawBufferPointer { .init(start: base, count: Self.byteCount) }

    // MARK: Header

    var checksum: UInt32 {
        get { base.get(0) }
        nonmutating set { base.set(newValue, at: 0) }
    }
    var uuid: StoreUUID { StoreUUID(high: base.get(8), low: base.get(16)) }
    var birth: CheckpointNumber {
        @inline(__always) get { CheckpointNumber(base.get(24)) }
        nonmutating set { base.set(newValue.rawValue, at: 24) }
    }
    var address: PageAddress {
        @inline(__always) get { PageAddress(base.get(32)) }
        nonmutating set { base.set(newValue.rawValue, at: 32) }
    }
    var level: UInt8 { @inline(__always) get { base.get(36) } }
    var count: Int {
        @inline(__always) get { Int(base.get(38, as: UInt16.self)) }
        nonmutating set { base.set(UInt16(newValue), at: 38) }
    }
    var heapStart: Int {
        get { Int(base.get(40, as: UInt16.self)) }
        nonmutating set { base.set(UInt16(newValue), at: 40) }
    }
    var deadByteCount: Int {
        get { Int(base.get(42, as: UInt16.self)) }
        nonmutating set { base.set(UInt16(newValue), at: 42) }
    }
    var lastInsertion: Int {
        get { Int(base.get(44, as: UInt16.self)) }
        nonmutating set { base.set(UInt16(truncatingIfNeeded: newValue), at: 44) }
    }
    var run: Int {
        get { Int(base.get(46, as: Int16.self)) }
        nonmutating set { base.set(Int16(clamping: newValue), at: 46) }
    }
    var pointer: PagePointer { PagePointer(address: address, birth: birth) }
    var isLeaf: Bool { level == 0 }

    /// Makes the page an empty one. Nothing of what the memory held before stays.
    func format(uuid: StoreUUID, pointer: PagePointer, level: UInt8) {
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        base.set(Self.magic, at: 4)
        base.set(uuid.high, at: 8)
        base.set(uuid.low, at: 16)
        birth = pointer.birth
        address = pointer.address
        base.set(level, at: 36)
        heapStart = Self.byteCount
    }

    /// Computes and stores the checksum; the page may be written after that.
    func seal() { checksum = Checksum.crc32c(UnsafeRawBufferPointer(bytes), withHoleAt: 0) }

    // MARK: Keys

    @inline(__always)
    static func loadKey(_ place: UnsafeMutableRawPointer) -> IndexKey {
        IndexKey(word0: place.get(0), word1: place.get(8), word2: place.get(16))
    }

    @inline(__always)
    static func storeKey(_ key: IndexKey, _ place: UnsafeMutableRawPointer) {
        place.set(key.word0, at: 0)
        place.set(key.word1, at: 8)
        place.set(key.word2, at: 16)
    }

    @inline(__always)
    func entry(_ position: Int, stride: Int) -> UnsafeMutableRawPointer {
        base + (Self.headerByteCount &+ position &* stride)
    }

    /// How many of the entries from `first` on have a key below `key`, plus `first`.
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

    /// The first position whose key is at or above `key`; `count` if there is none.
    @inline(__always)
    func leafPosition(of key: IndexKey) -> Int { lowerBound(key, stride: Self.leafEntryByteCount) }

    @inline(__always)
    func value(_ position: Int) -> UnsafeMutableRawBufferPointer {
        let place = leafEntry(position)
        return UnsafeMutableRawBufferPointer(
            start: base + Int(place.get(24, as: UInt16.self)), count: Int(place.get(26, as: UInt16.self)))
    }

    func valueByteCount(_ position: Int) -> Int { Int(leafEntry(position).get(26, as: UInt16.self)) }

    /// Bytes that entries and values take.
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
        return PagePointer(address: PageAddress(place.get(24)), birth: CheckpointNumber(place.get(28)))
    }
}
