// Modifications. All of them trap when a page is missing: the caller touches every key first, under the same hold of
// its lock. No page leaves memory in here.

extension Index {
    /// Sets the value of an entry. Returns whether it is a new one.
    ///
    /// `value` has at most `IndexPage.maxValueByteCount` bytes and must not be borrowed from this index.
    @discardableResult
    func put(_ key: IndexKey, _ value: UnsafeRawBufferPointer) -> Bool {
        precondition(value.count <= IndexPage.maxValueByteCount, "a value is too long for the index")
        precondition(key < .max, "the greatest key is reserved")
        let page = dirtyPath(to: key)
        let position = page.leafPosition(of: key)
        if position < page.count && page.leafKey(position) == key {
            let old = page.value(position)
            if old.count == value.count {
                old.copyMemory(from: value)
            } else if page.freeByteCount + old.count >= value.count {
                page.replaceValue(position, value)
            } else {
                page.removeValue(position)
                insert(page, position, key, value)
            }
            return false
        }
        insert(page, position, key, value)
        page.noteInsertion(position)
        entryCount &+= 1
        return true
    }

    /// Modifies a value in place, its length unchanged. Nil if there is no such entry.
    @discardableResult
    func update<Result>(_ key: IndexKey, _ body: (UnsafeMutableRawBufferPointer) -> Result) -> Result? {
        guard let (page, position) = find(key) else { return nil }
        // All pages above a leaf of this generation are of this generation too.
        if page.birth == building { return body(page.value(position)) }
        return body(dirtyPath(to: key).value(position))
    }

    /// Takes an entry out. Returns whether there was one.
    @discardableResult
    func remove(_ key: IndexKey) -> Bool {
        guard let (_, position) = find(key) else { return false }
        let page = dirtyPath(to: key)
        page.removeValue(position)
        entryCount &-= 1
        if page.usedByteCount < IndexPage.capacityByteCount / 4 { shrink(level: 0) }
        return true
    }

    /// Where an entry stands, nil if there is none.
    private func find(_ key: IndexKey) -> (page: IndexPage, position: Int)? {
        bring(key)
        do throws(PageMiss) {
            let page = try leaf(for: key).page
            let position = page.leafPosition(of: key)
            return position < page.count && page.leafKey(position) == key ? (page, position) : nil
        } catch {
            preconditionFailure("index page \(error.address.rawValue) was not touched before a modification")
        }
    }

    /// Fetches the missing pages on the path to a key, if the owner can wait for them.
    private func bring(_ key: IndexKey) {
        guard let fetchNow else { return }
        while true {
            do throws(PageMiss) {
                _ = try leaf(for: key)
                return
            } catch {
                guard fetchNow(error) else { return }
            }
        }
    }

    // MARK: Copy on write

    /// Makes every page from the root to the leaf of `key` one of this generation. Fills in `path`; returns the leaf.
    func dirtyPath(to key: IndexKey) -> IndexPage {
        precondition(canWrite, "the index is read-only until its bitmaps are loaded")
        bring(key)
        var pointer = root
        var level = rootLevel
        while true {
            let frame = resident(pointer, level: level)
            precondition(frame >= 0, "an index page was not touched before a modification")
            if cache.frames[frame].state != .dirty {
                let moved = makeDirty(frame)
                if level == rootLevel {
                    root = moved
                } else {
                    path[level + 1].page.setChild(path[level + 1].position, moved)
                }
            }
            let page = cache.page(frame)
            path[level] = PathStep(page: page, position: 0)
            if level == 0 { return page }
            let position = page.childPosition(of: key)
            precondition(position < page.count, "an inner page without children")
            path[level].position = position
            pointer = page.child(position)
            level -= 1
        }
    }

    /// Gives a clean or frozen page an address of this generation. The caller updates the pointer to it.
    func makeDirty(_ frame: Int) -> PagePointer {
        precondition(
            cache.frames[frame].state == .clean || cache.frames[frame].state == .frozen,
            "only a page of an older generation gets a new address")
        let old = PageAddress(cache.frames[frame].address)
        let address = newAddress()
        if cache.frames[frame].state == .frozen && inFlight != nil {
            cache.copy(frame, to: address)
        } else {
            cache.move(frame, to: address)
        }
        cache.setState(frame, .dirty)
        allocator.free(old, heldFor: building)
        let page = cache.page(frame)
        page.address = address
        page.birth = building
        return page.pointer
    }

    /// An empty page of this generation, in memory.
    func newPage(level: Int) -> IndexPage {
        let address = newAddress()
        let page = IndexPage(cache.takeBuffer())
        page.format(
            uuid: uuid, pointer: PagePointer(address: address, birth: building), level: UInt8(level))
        _ = cache.insert(page.base, at: address, .dirty)
        return page
    }

    /// An address for a page of this generation.
    private func newAddress() -> PageAddress {
        let address = allocator.allocate()
        // A fetch may have brought an old page of this address after that page had moved on.
        let stale = cache.find(address)
        if stale >= 0 {
            precondition(cache.frames[stale].state == .clean, "a page in use was handed out")
            cache.drop(stale)
        }
        dirtyAddresses.append(address.rawValue)
        return address
    }

    /// Takes a page out of the tree. The caller removes the pointer to it.
    func freePage(_ frame: Int) {
        precondition(frame >= 0, "a page that is not in memory was freed")
        let address = PageAddress(cache.frames[frame].address)
        switch cache.frames[frame].state {
        case .dirty:
            // It is free at once.
            precondition(cache.page(frame).birth == building, "a page that a checkpoint names was freed at once")
            cache.drop(frame)
            allocator.free(address)
        case .clean:
            cache.drop(frame)
            allocator.free(address, heldFor: building)
        case .frozen:
            cache.supersede(frame)
            allocator.free(address, heldFor: building)
        case .free, .superseded, .dropped:
            preconditionFailure("a page that is not in the tree was freed")
        }
    }
}
