// Checkpoints: the index of one moment becomes durable, in an order that keeps both superblock slots mountable at every instant.

extension Housekeeper {
    /// Writes a checkpoint and handles its failure. A shortage on the host only delays the checkpoint. Another failure
    /// is logged and makes the mount read-only.
    func checkpointReporting() {
        do { try checkpointTwice() } catch {
            // A replacement must be finished before the freeze, and the page that it needs may be unreadable. The
            // checkpoint is then only delayed: the log has everything that it would hold.
            let isReplacing =
                error == .ioError && state.withLock { $0.core.index.replacementCount > 0 && !$0.core.log.isClosed }
            if error.isShortage || isReplacing {
                let isNews = state.withLock { state in
                    defer { state.core.log.space.isCheckpointStuck = true }
                    return !state.core.log.space.isCheckpointStuck
                }
                if isNews { log("no checkpoint can be written now, it is tried again: \(error)") }
                return
            }
            log("writing a checkpoint failed (\(error)): the mount is read-only now")
            closeLog(error)
        }
    }

    /// Makes the mount read-only. Whoever waits for the log gets an error.
    func closeLog(_ error: Errno) {
        volume.change { state, telling in state.core.close(error, telling) }
    }

    /// Writes a checkpoint. If that fails, and not for want of room, writes all of it once more, with the pages at new
    /// addresses. The flush alone is not repeated: the host may have dropped the pages whose flush failed.
    func checkpointTwice(isClean: Bool = false) throws(Errno) {
        do throws(Errno) { try checkpoint(isClean: isClean) } catch {
            guard error != .noSpace, !state.withLock({ $0.core.log.isClosed }) else { throw error }
            log("writing a checkpoint failed (\(error)): it is written again")
            try checkpoint(isClean: isClean)
        }
    }

    /// What is frozen in one go, without letting go of the lock.
    private struct Frozen {
        var root: IndexRoot
        var superblock: Superblock
        var pageCount: Int
        var relocationCount: Int
    }

    /// Freezes the index and makes it durable, in this order: the log up to here, pages, flush, superblock slot, flush.
    /// Operations go on meanwhile.
    ///
    /// `beforeSuperblock` runs when the pages are durable and before the superblock names them.
    func checkpoint(
        isClean: Bool = false, beforeSuperblock: () throws(Errno) -> Void = { () throws(Errno) in }
    ) throws(Errno) {
        while try !attemptCheckpoint(isClean: isClean, beforeSuperblock) {}
    }

    /// False where the log was relocated meanwhile: the frozen index names places that are void, so another must be
    /// frozen.
    private func attemptCheckpoint(
        isClean: Bool, _ beforeSuperblock: () throws(Errno) -> Void
    ) throws(Errno) -> Bool {
        precondition(isOwnThread, "one checkpoint at a time")
        let frozen = try freeze(isClean: isClean)
        var (isWritten, mayBeNamed) = (false, false)
        do throws(Errno) {
            try growIndex(toPageCount: frozen.pageCount)
            isWritten = true
            try writePages()
            let batch = frozen.superblock.position.lastBatch
            volume.sync(mayWait: true) { _ in }
            try volume.waitForLog { $0.tracker.durable >= batch }
            if state.withLock({ $0.relocationCount != frozen.relocationCount }) { return false }
            let file = state.withLock { $0.indexFile }
            try device.wait(Submission(.sync, file, tag: 0))
            try beforeSuperblock()
            mayBeNamed = true
            try writeSuperblock(frozen.superblock)
        } catch {
            state.withLock { state in
                // The index that was frozen may be gone by now.
                guard state.relocationCount == frozen.relocationCount else { return }
                if mayBeNamed || isWritten && error != .noSpace {
                    state.core.index.tree.checkpointFailed()
                } else {
                    state.core.index.tree.checkpointAbandoned()
                }
            }
            throw error
        }
        state.withLock { state in
            state.core.index.tree.checkpointDurable()
            state.core.index.tree.release(through: state.slots.map(\.checkpoint).min()!)
            state.checkpointCount += 1
            state.core.log.space.isCheckpointStuck = false
        }
        return true
    }

    private func freeze(isClean: Bool) throws(Errno) -> Frozen {
        try runWaitingWithState { (state) throws(Stop) -> Frozen in
            let core = state.core
            let tree = core.index.tree
            if let inode = core.index.replacedInode {
                _ = try core.find { () throws(PageMiss) in try core.index.continueRemovals(of: inode) }
                throw .blocked(.turn)
            }
            // The usage entries are put below, when no page may be missing. Closing the batch may change the entry of
            // the head.
            for number in core.table.changedNumbers(and: core.log.headSegment) {
                try core.find { () throws(PageMiss) in try tree.touch(UsageEntry.key(number)) }
            }
            core.packOpenBatch()
            core.log.closeBatch(durable: true)
            core.table.noteEmpty(at: tree.building)
            self.storeUsage(core)
            core.appendedAtFreeze = core.log.appendedByteCount
            var superblock = state.superblock
            superblock.setSegmentCount(core.table.segments.count)
            superblock.indexRoot = tree.freeze()
            superblock.checkpoint = superblock.indexRoot.checkpoint
            superblock.checkpointEpoch = core.log.epoch
            superblock.position = core.log.position
            superblock.nextInode = core.log.nextInode
            superblock.highestSequence = RecordSequence(core.log.nextSequence.rawValue - 1)
            superblock.inodeCount = core.index.inodeCount
            superblock.reservedByteCount = core.index.reservedByteCount
            superblock.written = state.writtenBefore + volume.writtenSinceMount(core)
            superblock.sharedByteCount = core.index.sharedByteCount
            superblock.isClean = isClean
            return Frozen(
                root: superblock.indexRoot, superblock: superblock, pageCount: tree.filePageCount,
                relocationCount: state.relocationCount)
        }
    }

    /// Brings the usage entries in the tree up to date.
    private func storeUsage(_ core: Core) {
        withUnsafeTemporaryAllocation(byteCount: UsageEntry.byteCount, alignment: 8) { bytes in
            for number in core.table.changedNumbers() {
                core.table[number].isChanged = false
                core.table[number].usage.encode(into: bytes)
                core.index.tree.put(UsageEntry.key(number), UnsafeRawBufferPointer(bytes))
            }
        }
    }

    /// As `runWaiting`, with all of the state.
    private func runWaitingWithState<Result>(_ operation: (VolumeState) throws(Stop) -> Result) throws(Errno) -> Result
    {
        let guarded = state
        // `run` holds the lock already; the state is reached through a second name inside it.
        return try runWaiting { (_) throws(Stop) -> Result in
            try operation(guarded.heldState)
        }
    }

    private func growIndex(toPageCount count: Int) throws(Errno) {
        let file = state.withLock { $0.indexFile }
        let needed = UInt64(count * IndexPage.byteCount)
        let present = try device.byteCount(of: file)
        let step = UInt64(1 << 20)
        // The file grows by more than is needed: with the spare pages removals can go on when the host is full.
        let ahead = max(step, needed / 4)
        if present >= needed + ahead / 2 { return }
        do throws(Errno) { try device.resize(file, to: (needed + ahead + step - 1) / step * step) } catch {
            if present < needed { try device.resize(file, to: needed) }
        }
    }

    /// Writes the frozen pages, neighbours in one write.
    private func writePages() throws(Errno) {
        let file = state.withLock { $0.indexFile }
        let limit = 64
        let bounce = AlignedBuffer(byteCount: limit * IndexPage.byteCount)
        while true {
            let pages = state.withLock { $0.core.index.tree.nextFrozenPages(max: limit) }
            if pages.isEmpty { return }
            var start = 0
            while start < pages.count {
                var end = start + 1
                while end < pages.count, pages[end].address.rawValue == pages[end - 1].address.rawValue + 1 { end += 1 }
                for index in start..<end {
                    bounce.bytes.copy(
                        UnsafeRawBufferPointer(pages[index].bytes), to: (index - start) * IndexPage.byteCount)
                }
                let bytes = bounce.bytes.part(0, (end - start) * IndexPage.byteCount)
                try device.wait(Submission(.write, file, offset: pages[start].address.offsetInFile, bytes, tag: 0))
                start = end
            }
        }
    }

    /// Writes a superblock into the older slot and waits until it is durable.
    func writeSuperblock(_ superblock: Superblock) throws(Errno) {
        var superblock = superblock
        let (slot, copyFile, file) = state.withLock { state in
            superblock.generation = state.slots.map(\.generation).max()! + 1
            let slot = state.slots[0].generation <= state.slots[1].generation ? 0 : 1
            return (slot, state.indexFile, state.superblockFile)
        }
        try SuperblockPair.write(superblock, slot: slot, device, copyFile: copyFile, file)
        state.withLock { $0.wrote(superblock, slot: slot) }
    }
}
