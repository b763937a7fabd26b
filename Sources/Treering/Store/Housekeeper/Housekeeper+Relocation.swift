// The log failed under a mount: what staging holds is written again. That is a recovery without a death: the index of the last
// checkpoint, the log as far as it is durable, the end of the old segments declared, then the batches that still lie in staging,
// applied and written at new places. Only when all of it is flushed does the mount go on, with the new index and segment table.

/// What a mount has open that recovers its own store because the log failed under it.
struct MountedFiles {
    var indexFile: DeviceFile
    var superblockFile: DeviceFile
    var segments: [SegmentNumber: DeviceFile]
    /// The last one that was written whole. The other slot may hold what a failed write has left, and must not be gone by.
    var superblock: Superblock
    /// No checkpoint before this one may have left pages in the index file.
    var building: CheckpointNumber
}

extension Housekeeper {
    /// Writes the log again where it has failed; false where there was nothing to do. Where that fails too, the mount is read-only, unless
    /// the host is only short of something: then it is tried again. Between two tries, what needs no room goes on; the rest waits, and after
    /// some tries is told that the disk is full.
    @discardableResult
    func relocateWhereSuspended() -> Bool {
        let error = state.withLock { state -> Errno? in
            guard !state.isRelocating, let error = state.core.log.suspension else { return nil }
            state.beginRelocation()
            return error
        }
        guard let error else { return false }
        let start = monotonicNanoseconds()
        while true {
            let seen = volume.completionsSeen
            // Memory in flight must not change, and no page may arrive for an index that is gone.
            let isQuiet = state.withLock { state in
                state.core.log.tracker.inFlightCount == 0 && !state.hasFetches && state.scrubReadCount == 0
            }
            if isQuiet { break }
            volume.waitForCompletion(since: seen)
        }
        do throws(MountError) {
            let count = try relocate()
            log("writing the log failed (\(error)): \(count) batches were written again elsewhere, nothing is lost")
        } catch let second {
            if second.isShortage, !state.withLock({ $0.core.isVainToWait }) {
                tryLater(error, second, since: start)
                return true
            }
            log(
                "writing the log failed (\(error)), and was not made good (\(second)): the mount is read-only now and every fsync reports EIO"
            )
            closeLog(error)
        }
        volume.change { state, telling in state.endRelocation(isLate: false, telling) }
        return true
    }

    /// The host has no room for the log now.
    private func tryLater(_ error: Errno, _ second: MountError, since start: UInt64) {
        let elapsed = monotonicNanoseconds() - start
        let count = volume.change { state, telling in
            state.endRelocation(isLate: true, telling)
            return state.lateTryCount
        }
        if count == 1 {
            log("writing the log failed (\(error)), and writers wait until it can be written again: \(second)")
        }
        if count == options.lateTryLimit {
            log(
                "there is still no room on the host: writers get an error until there is. Nothing is lost, but what was not synced before is not durable"
            )
        }
        if state.withLock({ $0.isStranded }) {
            endTrim()
            endResize(.failed(.noSpace))
        }
        // Others have the time between two tries, and four times as much as a try takes.
        rest(nanoseconds: min(max(200_000_000, 4 * elapsed), 2_000_000_000))
    }

    private func relocate() throws(MountError) -> Int {
        let (log, batches, open) = state.withLock { state in
            let core = state.core
            var segments: [SegmentNumber: DeviceFile] = [:]
            for (index, segment) in core.table.segments.enumerated() {
                segments[SegmentNumber(UInt32(index))] = segment.file
            }
            let open = MountedFiles(
                indexFile: state.indexFile, superblockFile: state.superblockFile, segments: segments,
                superblock: state.superblock,
                building: core.index.tree.building.next)
            return (core.log, core.log.undurableBatches, open)
        }
        let recovery = try Recovery(device, indexCacheByteCount: options.indexCacheByteCount, open: open, log: self.log)
        let durable = log.tracker.durable
        try recovery.replay(through: durable)
        var relocation = Relocation(
            device: device, log: log, recovery: recovery, batches: batches, old: log.table, durable: durable)
        do throws(MountError) {
            try relocation.enterBlocks()
            // What is read is durable and stays live, unless the disk does not give back what tells so.
            for segmentID in state.withLock({ $0.core.table.heldSegments }) where !recovery.table.isInUse(segmentID) {
                throw MountError(
                    .damaged, "segment \(segmentID.number.rawValue), which is being read, is not found again")
            }
            do throws(Errno) { try relocation.declareEnd() } catch {
                throw MountError("the end of the old place cannot be declared", error)
            }
            try relocation.moveBatches()
            recovery.sealBlocks(through: relocation.position.lastBatch)
            do throws(Errno) { try relocation.flush() } catch {
                throw MountError("the new place cannot be flushed", error)
            }
        } catch {
            // The mount keeps its table, in which these have no file any more.
            state.withLock { state in for number in recovery.forgotten { state.core.table.dropFile(number) } }
            throw error
        }
        volume.change { state, telling in
            // Shut down meanwhile: what was written is found by the next mount.
            guard !log.isClosed else { return }
            let table = recovery.table
            // Nobody has begun to read meanwhile: nothing runs while the log is suspended.
            for segmentID in state.core.table.heldSegments {
                precondition(table.isInUse(segmentID), "a segment that is read was given away")
                table[segmentID.number].readerCount = state.core.table[segmentID.number].readerCount
            }
            log.resume(
                relocation.batches, table, at: relocation.position, continuesSegment: relocation.continuesSegment,
                telling)
            state.core.adopt(recovery.index)
            recovery.ownFiles.removeAll()
            state.sweepCursor = RecordIndex.firstTombstone
            state.relocationCount += 1
        }
        return batches.count
    }
}

/// The way of a log's batches from staging to new places.
private struct Relocation<D: Device> {
    let device: D
    let log: SegmentLog
    let recovery: Recovery<D>
    var batches: [SegmentLog.Batch]
    /// The table of the mount that failed.
    let old: SegmentTable
    let durable: BatchSequence
    /// Behind the last batch that has its place.
    var position: LogPosition
    var continuesSegment = false
    private var used: [DeviceFile] = []

    init(
        device: D, log: SegmentLog, recovery: Recovery<D>, batches: [SegmentLog.Batch], old: SegmentTable,
        durable: BatchSequence
    ) {
        self.device = device
        self.log = log
        self.recovery = recovery
        self.batches = batches
        self.old = old
        self.durable = durable
        position = recovery.position
    }

    /// What the cleaner had moved, and only the batches to be written again tell of, stays in use.
    func enterBlocks() throws(MountError) {
        for batch in batches {
            try log.found(batch).forEachRecord { (record, _) throws(MountError) in
                try recovery.enterBlocks(of: record)
            }
        }
    }

    /// Nothing beyond the durable end may ever count again: before anything is written elsewhere, that is durable.
    func declareEnd() throws(Errno) {
        // A header whose write failed is none, or a torn one; the segment's life is known here.
        for number in recovery.tornSegments where recovery.table[number].state != .inUse && old.contains(number) {
            recovery.voidTorn(number, incarnation: old[number].incarnation)
        }
        try recovery.makeDurable(continuesSegment: false)
        // Incarnations of segments that were given back to the host are known to the mount alone.
        for index in old.segments.indices where recovery.table.segments[index].state == .absent {
            recovery.table.note(
                SegmentNumber(UInt32(index)), file: nil, incarnation: old.segments[index].incarnation)
        }
        // Segments that failed come last.
        let failed = Set(batches.map(\.segment))
        recovery.table.preferOthers(than: failed)
    }

    /// Applies and writes one batch after the other.
    mutating func moveBatches() throws(MountError) {
        let front = AlignedBuffer(byteCount: SegmentHeader.byteCount + log.staging.geometry.recordAreaByteCount)
        let revised = RevisedLog(settled: durable, first: durable.next)
        for index in batches.indices {
            let beginsSegment = !continuesSegment
            do throws(Errno) { if beginsSegment { try openSegment() } } catch {
                throw MountError("there is no segment to go on in", error)
            }
            let found = log.move(
                &batches[index], behind: position, beginsSegment: beginsSegment, durable: durable, to: front.bytes)
            try recovery.apply(found) { record, place throws(MountError) in
                let offset = SegmentHeader.byteCount + Int(place.recordPosition) - found.offset
                try recovery.revise(front.bytes.part(offset, record.bytes.count), revised)
            }
            log.seal(batches[index], found, behind: &position, at: front.bytes)
            continuesSegment = !found.header.endsSegment
            do throws(Errno) {
                try device.wait(log.submission(batches[index], recovery.table, durable: false, front: front.bytes))
            } catch { throw MountError("batch \(found.header.sequence.rawValue) cannot be written", error) }
        }
    }

    private mutating func openSegment() throws(Errno) {
        let table = recovery.table
        if table.pool.isEmpty {
            guard let number = table.absentNumber() else { throw .noSpace }
            let incarnation = table[number].incarnation + 1
            let file = try device.makeSegment(number, log.uuid, incarnation, table.segmentByteCount)
            recovery.ownFiles[number] = file
            table.addPrepared(number, incarnation: incarnation, file: file)
        }
        guard let number = table.openHead(firstBatch: position.lastBatch.next, epoch: log.epoch) else { throw .noSpace }
        used.append(table[number].file!)
        position.segmentID = table.id(of: number)
        position.offsetInSegment = UInt32(SegmentHeader.byteCount)
    }

    func flush() throws(Errno) {
        for file in used { try device.wait(Submission(.sync, file, tag: 0)) }
    }
}
