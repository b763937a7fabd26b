// Changes of one page of the index. Index/ calls them on dirty pages only: no checkpoint needs their bytes. The caller
// names the position of each entry and is responsible for the order of keys.

extension IndexPage {
    // MARK: Leaf

    /// Whether there is room for a new entry with a value of this length, perhaps after compaction.
    func fits(valueByteCount: Int) -> Bool { freeByteCount >= Self.leafEntryByteCount + valueByteCount }

    /// Puts an entry in. The value must not lie in this page.
    func insertValue(_ position: Int, _ key: IndexKey, _ value: UnsafeRawBufferPointer) {
        precondition(fits(valueByteCount: value.count) && position <= count)
        let entriesEnd = Self.headerByteCount + count * Self.leafEntryByteCount
        if heapStart - entriesEnd < Self.leafEntryByteCount + value.count { compact() }
        let from = Self.headerByteCount + position * Self.leafEntryByteCount
        base.move(from: from, to: from + Self.leafEntryByteCount, byteCount: entriesEnd - from)
        count += 1
        Self.storeKey(key, leafEntry(position))
        placeValue(position, value)
    }

    /// Replaces the value of an entry by one of any length. It must fit, and must not lie in this page.
    func replaceValue(_ position: Int, _ value: UnsafeRawBufferPointer) {
        precondition(freeByteCount + valueByteCount(position) >= value.count)
        dropValue(position)
        if heapStart - Self.headerByteCount - count * Self.leafEntryByteCount < value.count { compact() }
        placeValue(position, value)
    }

    /// Takes an entry of a leaf out.
    func removeValue(_ position: Int) {
        dropValue(position)
        removeEntry(position, stride: Self.leafEntryByteCount)
    }

    /// Appends entries of another leaf, which must fit.
    func appendValues(from other: IndexPage, _ range: Range<Int>) {
        for position in range {
            insertValue(count, other.leafKey(position), UnsafeRawBufferPointer(other.value(position)))
        }
    }

    /// Drops all entries of a leaf from `newCount` on.
    func truncateValues(to newCount: Int) {
        for position in newCount..<max(count, newCount) { dropValue(position) }
        count = newCount
        if deadByteCount > 0 { compact() }
    }

    /// Remembers where an entry was inserted, so that a split can tell ascending insertions from random ones.
    func noteInsertion(_ position: Int) {
        if count > 1 && position == lastInsertion + 1 {
            run = max(run, 0) + 1
        } else if count > 1 && position == lastInsertion {
            run = min(run, 0) - 1
        } else {
            run = 0
        }
        lastInsertion = position
    }

    private func placeValue(_ position: Int, _ value: UnsafeRawBufferPointer) {
        let place = leafEntry(position)
        place[Self.leaf.valueByteCount] = UInt16(value.count)
        guard let source = value.baseAddress, value.count > 0 else {
            place[Self.leaf.valueOffset] = 0
            return
        }
        heapStart -= value.count
        place[Self.leaf.valueOffset] = UInt16(heapStart)
        (base + heapStart).copyMemory(from: source, byteCount: value.count)
    }

    private func dropValue(_ position: Int) {
        let place = leafEntry(position)
        let offset = Int(place[Self.leaf.valueOffset])
        let byteCount = Int(place[Self.leaf.valueByteCount])
        guard byteCount > 0 else { return }
        place[Self.leaf.valueOffset] = 0
        place[Self.leaf.valueByteCount] = 0
        if offset == heapStart { heapStart += byteCount } else { deadByteCount += byteCount }
        if heapStart == Self.byteCount { deadByteCount = 0 }
    }

    /// Closes the gaps between values.
    private func compact() {
        withUnsafeTemporaryAllocation(byteCount: Self.byteCount, alignment: 16) { copy in
            let old = heapStart
            (copy.baseAddress! + old).copyMemory(from: base + old, byteCount: Self.byteCount - old)
            var end = Self.byteCount
            for position in 0..<count {
                let place = leafEntry(position)
                let byteCount = Int(place[Self.leaf.valueByteCount])
                guard byteCount > 0 else { continue }
                end -= byteCount
                (base + end).copyMemory(
                    from: copy.baseAddress! + Int(place[Self.leaf.valueOffset]), byteCount: byteCount)
                place[Self.leaf.valueOffset] = UInt16(end)
            }
            heapStart = end
            deadByteCount = 0
        }
    }

    /// How many entries of a full leaf stay in it when it is split to insert one more. The new entry counts too.
    ///
    /// Within a run of ascending or descending insertions the cut is at the insertion, so the page left behind stays
    /// full. Else the leaf is cut in half by bytes. Both parts fit in a page and are not empty.
    func splitPosition(inserting position: Int, valueByteCount: Int, atRightEdge: Bool) -> Int {
        let newByteCount = Self.leafEntryByteCount + valueByteCount
        let total = usedByteCount + newByteCount
        var candidate = 0
        if position == count && (atRightEdge || run >= 3) {
            return count
        } else if run >= 3 && position == lastInsertion + 1 {
            candidate = position + 1
        } else if run <= -3 && position == lastInsertion {
            candidate = max(position, 1)
        }
        var best = 1
        var bestDistance = Int.max
        var left = 0
        for item in 0..<count {
            if item == position {
                left += newByteCount
            } else {
                left += Self.leafEntryByteCount + self.valueByteCount(item < position ? item : item - 1)
            }
            let fits = left <= Self.capacityByteCount && total - left <= Self.capacityByteCount
            if fits && item + 1 == candidate { return candidate }
            let distance = abs(2 * left - total)
            if fits && distance < bestDistance {
                best = item + 1
                bestDistance = distance
            }
        }
        precondition(bestDistance != .max, "a full leaf cannot be cut")
        return best
    }

    // MARK: Inner page

    var hasRoomForChild: Bool { count < Self.maxChildCount }

    @inline(__always)
    func setChild(_ position: Int, _ pointer: PagePointer) {
        let place = innerEntry(position)
        place[Self.inner.address] = pointer.address
        place[Self.inner.birth] = pointer.birth
    }

    func setInnerKey(_ position: Int, _ key: IndexKey) { Self.storeKey(key, innerEntry(position)) }

    func insertChild(_ position: Int, _ key: IndexKey, _ pointer: PagePointer) {
        precondition(hasRoomForChild && position <= count)
        let from = Self.headerByteCount + position * Self.innerEntryByteCount
        let end = Self.headerByteCount + count * Self.innerEntryByteCount
        base.move(from: from, to: from + Self.innerEntryByteCount, byteCount: end - from)
        count += 1
        setInnerKey(position, key)
        setChild(position, pointer)
    }

    func removeChild(_ position: Int) {
        removeEntry(position, stride: Self.innerEntryByteCount)
        if position == 0 && count > 0 { setInnerKey(0, .min) }
    }

    func appendChildren(from other: IndexPage, _ range: Range<Int>) {
        precondition(count + range.count <= Self.maxChildCount)
        innerEntry(count).copyMemory(
            from: other.innerEntry(range.lowerBound), byteCount: range.count * Self.innerEntryByteCount)
        count += range.count
    }

    func truncateChildren(to newCount: Int) { count = newCount }

    private func removeEntry(_ position: Int, stride: Int) {
        precondition(position < count)
        let from = Self.headerByteCount + (position + 1) * stride
        let end = Self.headerByteCount + count * stride
        base.move(from: from, to: from - stride, byteCount: end - from)
        count -= 1
    }
}

extension UnsafeMutableRawPointer {
    /// Moves bytes within one block of memory; the ranges may overlap.
    @inline(__always)
    fileprivate func move(from source: Int, to destination: Int, byteCount: Int) {
        (self + destination).copyMemory(from: self + source, byteCount: byteCount)
    }
}
