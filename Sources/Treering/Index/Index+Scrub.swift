// What a scrub needs of the index in use: where a page lies and whether it is on disk, without fetching it and without
// making the page cache keep it longer.

extension Index {
    /// What is in memory at the end of a pointer.
    enum Residence {
        case absent
        /// Equal to what is on disk.
        case clean(IndexPage)
        /// Not on disk yet, or being written.
        case changed(IndexPage)
    }

    func residence(_ pointer: PagePointer, level: Int) -> Residence {
        let frame = cache.find(pointer.address)
        guard frame >= 0, cache.frames[frame].isLive else { return .absent }
        let page = cache.page(frame)
        guard page.birth == pointer.birth, Int(page.level) == level else { return .absent }
        return cache.frames[frame].state == .clean ? .clean(page) : .changed(page)
    }

    /// What the page at the end of a parent's pointer must be.
    func expectation(_ miss: PageMiss) -> PageExpectation {
        PageExpectation(
            uuid: uuid, pointer: miss.pointer, level: miss.level, lower: miss.lower, upper: miss.upper,
            pageCount: canWrite ? UInt64(allocator.pageCount) : pageCountOnDisk, isRoot: miss.isRoot)
    }
}
