// Generations of pages. `freeze` ends one: its pages become immutable. The owner writes them and the superblock, while
// operations go on in the next generation. The owner keeps the order on disk:
//
//     freeze → grow the file → write nextFrozenPages until none is left → sync → superblock → sync
//     → checkpointDurable → release(through: the older of the two slots' numbers)

/// A page of the checkpoint in flight, sealed and ready to be written. The buffer does not change until the checkpoint
/// ends.
struct FrozenPage: @unchecked Sendable {
    let address: PageAddress
    let bytes: UnsafeMutableRawBufferPointer
}

extension Index {
    /// Whether anything was modified since the last `freeze`.
    var isDirty: Bool { cache.dirtyCount > 0 }

    var checkpointInFlight: IndexRoot? { inFlight?.root }

    /// Ends the generation: its pages and a new bitmap are the checkpoint in flight. Returns what the superblock
    /// stores.
    func freeze() -> IndexRoot {
        precondition(inFlight == nil, "one checkpoint at a time")
        precondition(canWrite)
        let bitmaps = allocateBitmap()
        var frozen: [UInt32] = []
        frozen.reserveCapacity(cache.dirtyCount + bitmaps.count)
        for address in dirtyAddresses {
            let frame = cache.find(PageAddress(address))
            // An address may stand in the list twice, or be free again.
            if frame >= 0 && cache.frames[frame].state == .dirty {
                cache.setState(frame, .frozen)
                frozen.append(address)
            }
        }
        precondition(cache.dirtyCount == 0, "a modified page is not in the list")
        dirtyAddresses.removeAll(keepingCapacity: true)
        let result = IndexRoot(
            checkpoint: building, page: root, level: UInt8(rootLevel), entryCount: entryCount,
            pageCount: UInt64(allocator.pageCount), usedPageCount: UInt64(allocator.usedCount), bitmap: bitmaps[0])
        fillBitmap(bitmaps)
        for address in bitmaps { frozen.append(address.rawValue) }
        frozen.sort()
        bitmapPages = bitmaps
        inFlight = InFlight(root: result, addresses: frozen)
        building = building.next
        return result
    }

    /// Takes addresses for the bitmap. The bitmap must also cover the pages that are added to the file for it.
    private func allocateBitmap() -> [PageAddress] {
        for address in bitmapPages { allocator.free(address, heldFor: building) }
        var pages: [PageAddress] = []
        while pages.count * IndexBitmapPage.bitCount < allocator.pageCount { pages.append(allocator.allocate()) }
        return pages
    }

    private func fillBitmap(_ addresses: [PageAddress]) {
        for (ordinal, address) in addresses.enumerated() {
            let bitmap = IndexBitmapPage(cache.takeBuffer())
            let next = ordinal + 1 < addresses.count ? addresses[ordinal + 1] : PageAddress(0)
            bitmap.format(
                uuid: uuid, pointer: PagePointer(address: address, birth: building), next: next, ordinal: ordinal)
            for position in 0..<IndexBitmapPage.wordCount {
                bitmap.setWord(position, allocator.usedWord(ordinal * IndexBitmapPage.wordCount + position))
            }
            _ = cache.insert(bitmap.page.base, at: address, .superseded)
        }
    }

    /// The next pages to write, by ascending address, each once; empty when all were handed out.
    func nextFrozenPages(max count: Int) -> [FrozenPage] {
        guard let flight = inFlight else { preconditionFailure("no checkpoint is in flight") }
        let end = min(flight.writtenCount + count, flight.addresses.count)
        var pages: [FrozenPage] = []
        pages.reserveCapacity(end - flight.writtenCount)
        for number in flight.writtenCount..<end {
            let address = PageAddress(flight.addresses[number])
            let frame = frame(ofFlight: address)
            let page = cache.page(frame)
            precondition(
                page.address == address && page.birth == flight.root.checkpoint,
                "a page is written where another one belongs")
            page.seal()
            pages.append(FrozenPage(address: address, bytes: page.bytes))
        }
        inFlight!.writtenCount = end
        return pages
    }

    /// The checkpoint's superblock slot is durable: its pages are clean.
    func checkpointDurable() {
        guard let flight = inFlight else { preconditionFailure("no checkpoint is in flight") }
        precondition(flight.writtenCount == flight.addresses.count, "a checkpoint without some of its pages")
        inFlight = nil
        for address in flight.addresses {
            let frame = frame(ofFlight: PageAddress(address))
            if cache.frames[frame].state == .frozen { cache.setState(frame, .clean) } else { cache.drop(frame) }
        }
    }

    /// Makes reusable what was freed while the checkpoints up to this one were built. True only when *both* superblock
    /// slots durably hold checkpoints at or above `checkpoint`: the owner passes the older of the two numbers.
    func release(through checkpoint: CheckpointNumber) {
        precondition(
            checkpoint < inFlight?.root.checkpoint ?? building,
            "pages come free before a checkpoint without them is durable")
        allocator.release(through: checkpoint)
    }

    /// The checkpoint was given up for want of room. Its superblock slot was not written, and no write is in flight any
    /// more. So nothing on disk names its pages: they keep their addresses and belong to the next checkpoint.
    func checkpointAbandoned() {
        endFailedCheckpoint()
        root = reviveFrozen(root, level: rootLevel, inPlace: true)
        // The checkpoint is tried again and again. The bitmap's pages are free at once, so that the file does not grow
        // each time.
        for address in bitmapPages { allocator.free(address) }
        bitmapPages = []
        precondition(cache.frozenCount == 0, "a frozen page is not in the tree")
    }

    /// A write or flush of the checkpoint failed, and no write is in flight any more. Nobody knows what is on disk at
    /// its pages, and whether its superblock slot counts. So every page of it gets a new address, and the old addresses
    /// are not reused before both slots hold later checkpoints. Nothing is lost: the next checkpoint has its own
    /// number.
    func checkpointFailed() {
        endFailedCheckpoint()
        root = reviveFrozen(root, level: rootLevel, inPlace: false)
        precondition(cache.frozenCount == 0, "a frozen page is not in the tree")
    }

    /// Forgets the checkpoint in flight and its pages that the tree has replaced.
    private func endFailedCheckpoint() {
        guard let flight = inFlight else { preconditionFailure("no checkpoint is in flight") }
        inFlight = nil
        for address in flight.addresses {
            let frame = frame(ofFlight: PageAddress(address))
            if cache.frames[frame].state == .superseded { cache.drop(frame) }
        }
    }

    /// The frame of a page of the checkpoint in flight.
    private func frame(ofFlight address: PageAddress) -> Int {
        let frame = cache.find(address)
        precondition(
            frame >= 0 && (cache.frames[frame].state == .frozen || cache.frames[frame].state == .superseded),
            "a page of the checkpoint in flight has left memory, or was modified")
        return frame
    }

    /// Makes the frozen pages below a pointer dirty, at their addresses or at new ones. Returns the pointer's new
    /// value. Frozen pages lie only below dirty or frozen ones.
    private func reviveFrozen(_ pointer: PagePointer, level: Int, inPlace: Bool) -> PagePointer {
        let frame = resident(pointer, level: level)
        if frame < 0 || cache.frames[frame].state == .clean { return pointer }
        var result = pointer
        let page = cache.page(frame)
        if cache.frames[frame].state == .frozen {
            if inPlace {
                cache.setState(frame, .dirty)
                dirtyAddresses.append(pointer.address.rawValue)
                page.birth = building
                result.birth = building
            } else {
                result = makeDirty(frame)
            }
        }
        for position in 0..<(level > 0 ? page.count : 0) {
            let child = page.child(position)
            let revived = reviveFrozen(child, level: level - 1, inPlace: inPlace)
            if revived != child { page.setChild(position, revived) }
        }
        return result
    }
}
