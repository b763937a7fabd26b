// Aligned memory for pages of the index, recycled. Owned by PageCache.

/// Buffers of one page each, cut from slabs; a buffer that comes back is handed out again. Slabs live as long as the
/// pool.
struct PagePool: ~Copyable {
    // Huge pages gain nothing (measured with random lookups among 100 thousand and a million entries).
    private static let slabPageCount = 64

    private var slabs: [UnsafeMutableRawPointer] = []
    private var idle: [UnsafeMutableRawPointer] = []
    /// Buffers handed out and not given back.
    private(set) var takenCount = 0

    mutating func take() -> UnsafeMutableRawPointer {
        takenCount += 1
        if let page = idle.popLast() { return page }
        let slab = UnsafeMutableRawPointer.allocate(
            byteCount: Self.slabPageCount * IndexPage.byteCount, alignment: blockByteCount)
        slabs.append(slab)
        idle.reserveCapacity(slabs.count * Self.slabPageCount)
        for page in (1..<Self.slabPageCount).reversed() { idle.append(slab + page * IndexPage.byteCount) }
        return slab
    }

    mutating func giveBack(_ page: UnsafeMutableRawPointer) {
        precondition(takenCount > 0)
        takenCount -= 1
        idle.append(page)
    }

    deinit { for slab in slabs { slab.deallocate() } }
}
