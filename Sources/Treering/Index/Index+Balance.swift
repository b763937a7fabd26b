// Splits and merges. Called by Index+Write on the path that it has just made dirty; siblings are used only when they
// happen to be in memory.

extension Index {
    /// Puts a new entry into the leaf of the current path, cutting it in two if it is full.
    func insert(_ page: IndexPage, _ position: Int, _ key: IndexKey, _ value: UnsafeRawBufferPointer) {
        if page.fits(valueByteCount: value.count) { return page.insertValue(position, key, value) }
        let split = page.splitPosition(
            inserting: position, valueByteCount: value.count, atRightEdge: isPathAtRightEdge)
        let right = newPage(level: 0)
        // The new entry is one of the first `split` if it goes to the left.
        let cut = position < split ? split - 1 : split
        right.appendValues(from: page, cut..<page.count)
        page.truncateValues(to: cut)
        if position < split {
            page.insertValue(position, key, value)
        } else {
            right.insertValue(position - cut, key, value)
            right.lastInsertion = position - cut
            right.run = page.run
        }
        precondition(
            page.count > 0 && right.count > 0 && page.leafKey(page.count - 1) < right.leafKey(0),
            "the halves of a leaf have keys in order")
        insertChild(level: 1, separator: right.leafKey(0), right.pointer)
    }

    private var isPathAtRightEdge: Bool {
        for level in stride(from: rootLevel, to: 0, by: -1) where path[level].position + 1 < path[level].page.count {
            return false
        }
        return true
    }

    /// Puts a pointer to a new page behind the child that the current path takes at `level`.
    private func insertChild(level: Int, separator: IndexKey, _ pointer: PagePointer) {
        if level > rootLevel {
            precondition(level < Self.pathCapacity)
            let page = newPage(level: level)
            page.insertChild(0, .min, root)
            page.insertChild(1, separator, pointer)
            root = page.pointer
            rootLevel = level
            return
        }
        let page = path[level].page
        let position = path[level].position + 1
        if page.hasRoomForChild { return page.insertChild(position, separator, pointer) }
        let count = page.count
        let split = position == count ? count : (count + 1) / 2
        let right = newPage(level: level)
        let cut = position < split ? split - 1 : split
        right.appendChildren(from: page, cut..<count)
        page.truncateChildren(to: cut)
        if position < split {
            page.insertChild(position, separator, pointer)
        } else {
            right.insertChild(position - cut, separator, pointer)
        }
        precondition(page.count > 0 && right.count > 0, "an inner page without children")
        let rightSeparator = right.innerKey(0)
        right.setInnerKey(0, .min)
        insertChild(level: level + 1, separator: rightSeparator, right.pointer)
    }

    /// Deals with a page of the current path that has lost entries: drops it if it is empty, merges it with a neighbour
    /// if that is in memory and small enough, and lowers the root.
    ///
    /// An empty leaf stays if the leaf that would take over its keys is not in memory. The next change of the same
    /// record may put an entry there, and it has touched only this leaf.
    func shrink(level: Int) {
        let page = path[level].page
        guard level < rootLevel else { return lowerRoot() }
        let parent = path[level + 1].page
        let position = path[level + 1].position
        if page.count == 0 {
            if level == 0, !isHeirResident { return }
            freePage(cache.find(page.address))
            parent.removeChild(position)
        } else if !merge(page, level: level, parent, position) {
            return
        }
        if parent.usedByteCount < IndexPage.capacityByteCount / 4 { shrink(level: level + 1) }
    }

    /// Whether the leaf that would take over the keys of the current path's leaf is in memory.
    private var isHeirResident: Bool {
        var level = 1
        while level <= rootLevel, path[level].page.count == 1 { level += 1 }
        guard level <= rootLevel else { return true }
        let isLeft = path[level].position > 0
        var pointer = path[level].page.child(isLeft ? path[level].position - 1 : 1)
        while true {
            level -= 1
            let frame = resident(pointer, level: level)
            if frame < 0 { return false }
            if level == 0 { return true }
            let page = cache.page(frame)
            pointer = page.child(isLeft ? page.count - 1 : 0)
        }
    }

    /// Takes over the entries of a neighbour under the same parent.
    private func merge(_ page: IndexPage, level: Int, _ parent: IndexPage, _ position: Int) -> Bool {
        // Three quarters, so that the next insertions do not split the page again.
        let room = IndexPage.capacityByteCount * 3 / 4 - page.usedByteCount
        if position + 1 < parent.count {
            let frame = resident(parent.child(position + 1), level: level)
            if frame >= 0, cache.page(frame).usedByteCount <= room {
                precondition(cache.page(frame).base != page.base, "a page is merged with itself")
                append(cache.page(frame), to: page, separator: parent.innerKey(position + 1))
                freePage(frame)
                parent.removeChild(position + 1)
                counters.mergeCount &+= 1
                return true
            }
        }
        if position > 0 {
            let frame = resident(parent.child(position - 1), level: level)
            if frame >= 0, cache.page(frame).usedByteCount <= room {
                precondition(cache.page(frame).base != page.base, "a page is merged with itself")
                prepend(cache.page(frame), to: page, separator: parent.innerKey(position))
                freePage(frame)
                parent.setChild(position - 1, page.pointer)
                parent.removeChild(position)
                counters.mergeCount &+= 1
                return true
            }
        }
        return false
    }

    private func append(_ right: IndexPage, to page: IndexPage, separator: IndexKey) {
        if page.isLeaf { return page.appendValues(from: right, 0..<right.count) }
        let position = page.count
        page.appendChildren(from: right, 0..<right.count)
        page.setInnerKey(position, separator)
    }

    private func prepend(_ left: IndexPage, to page: IndexPage, separator: IndexKey) {
        if page.isLeaf {
            for position in 0..<left.count {
                page.insertValue(position, left.leafKey(position), UnsafeRawBufferPointer(left.value(position)))
            }
            return
        }
        page.setInnerKey(0, separator)
        for position in 0..<left.count {
            page.insertChild(position, left.innerKey(position), left.child(position))
        }
    }

    /// As long as the root has a single child, that child becomes the root. An index without entries becomes an empty
    /// leaf.
    private func lowerRoot() {
        while rootLevel > 0 {
            let frame = resident(root, level: rootLevel)
            guard frame >= 0 else { return }
            let page = cache.page(frame)
            if page.count > 1 { return }
            if page.count == 1 {
                let child = page.child(0)
                freePage(frame)
                root = child
                rootLevel -= 1
            } else {
                freePage(frame)
                rootLevel = 0
                root = newPage(level: 0).pointer
            }
        }
    }
}
