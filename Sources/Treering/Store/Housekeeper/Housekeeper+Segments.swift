// Segments for the log: prepared ahead of time, and recycled when they are dead and no checkpoint needs them.

extension Housekeeper {
    /// Keeps the files open that are written to now and next.
    func keepHeadsOpen() {
        let (next, adoptCount) = state.withLock { state -> ([DeviceFile], Int) in
            let table = state.core.table
            let files = ([state.core.log.head] + table.pool.suffix(SpaceAccounting.cleanerSegmentCount + 1).reversed())
                .compactMap { $0 }.compactMap { table[$0].file }
            return (files, state.core.adoptCount)
        }
        device.keepOpen(next.prefix(2) + [cleaner.headFile(adoptCount)].compactMap { $0 } + next.dropFirst(2))
    }

    /// Writes a new segment with zeros, so that the head of the log never waits for the host to allocate blocks.
    func prepareSegment() {
        guard let number = state.withLock({ $0.core.table.absentNumber() }) else { return }
        // Opening the new file may close others; the heads must stay open.
        keepHeadsOpen()
        let table = state.withLock { $0.core.table }
        let incarnation = state.withLock { $0.core.table[number].incarnation } + 1
        let uuid = state.withLock { $0.superblock.blockUUID }
        func make() throws(Errno) {
            let file = try device.makeSegment(number, uuid, incarnation, table.segmentByteCount)
            state.withLock { $0.core.table.addPrepared(number, incarnation: incarnation, file: file) }
        }
        do throws(Errno) {
            do throws(Errno) { try make() } catch {
                // A shortage counts at once. Another error may pass, so the segment is made once more before the host
                // counts as full.
                if error.isShortage { throw error } else { try make() }
            }
            preparationFailure = nil
        } catch {
            try? device.unlink(.preparing(number))
            state.withLock { $0.core.log.space.isHostFull = true }
            // Each round tries again; the log says it only once.
            if preparationFailure != error { log("no new segment can be made: \(error)") }
            preparationFailure = error
        }
    }

    /// Recycles dead segments that no checkpoint needs any more. They go into the pool, or their files go back to the
    /// host.
    func recycleSegments() {
        let candidates = state.withLock { state -> [SegmentNumber] in
            let older = state.slots.map(\.checkpoint).min()!
            return state.core.table.recyclable(through: older)
        }
        for number in candidates {
            do { try recycle(number) } catch {
                log("segment \(number.rawValue) could not be recycled: \(error)")
                return
            }
        }
    }

    /// Gives a dead segment its next incarnation. Nobody can begin to read the segment while its header is written.
    func recycle(_ number: SegmentNumber) throws(Errno) {
        let isFree = state.withLock { state in
            // A scrub may have begun to read it since it was chosen.
            guard state.core.table[number].readerCount == 0 else { return false }
            state.core.table[number].isBeingReset = true
            return true
        }
        guard isFree else { return }
        do throws(Errno) { try reset(number) } catch {
            state.withLock { $0.core.table[number].isBeingReset = false }
            throw error
        }
    }

    private func reset(_ number: SegmentNumber) throws(Errno) {
        var isReset = true
        var (header, file, isKept) = state.withLock { state in
            let segment = state.core.table[number]
            let header = SegmentHeader(
                state: .free, uuid: state.superblock.blockUUID, number: number, incarnation: segment.incarnation + 1,
                epoch: segment.epoch, firstBatch: .zero, segmentByteCount: UInt32(state.core.table.segmentByteCount))
            let table = state.core.table
            let isKept = table.pool.count < options.poolLimit && Int(number.rawValue) < table.countLimit
            return (header, segment.file!, isKept)
        }
        // The head of the log must not wait for the host to allocate blocks, nor fail for want of them. Such a file
        // goes back to the host.
        if device.hole(in: file, from: 0) != nil || device.isCopiedOnWrite(file) { isKept = false }
        do throws(Errno) {
            try device.write(header, to: file)
            try device.wait(Submission(.sync, file, tag: 0))
        } catch {
            // The host copies on write and has no room for the header. The file goes back to it.
            guard error.isShortage else { throw error }
            isKept = false
            isReset = false
        }
        if !isKept { try device.unlink(.segment(number)) }
        if !isReset {
            // The header still says "in use". The removal must be durable, or a later mount finds the segment again.
            do throws(Errno) { try device.syncDirectories() } catch {
                closeLog(error)
                throw error
            }
        }
        state.withLock { state in
            state.core.table.recycle(number, incarnation: header.incarnation)
            if !isKept { state.core.table.remove(number) }
            state.sweepCursor = RecordIndex.firstTombstone
        }
        if isKept { return }
        device.close(file)
        // A power cut may bring the file back. Its header says "free", so that does no harm.
        try device.syncDirectories()
    }
}
