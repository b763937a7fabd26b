// Relocation: a write to the log has failed, so what staging holds is written again at other places. This is a recovery
// within a running mount. It takes the index of the last checkpoint, replays the durable part of the log, declares the
// end of the old segments, and applies and writes the batches that still lie in staging. When all is flushed, the mount
// goes on with the new index and segment table.

/// The open files of a mount that relocates its log, and what else its recovery must know.
struct MountedFiles {
    var indexFile: DeviceFile
    var superblockFile: DeviceFile
    var segments: [SegmentNumber: DeviceFile]
    /// The superblock that was last written whole. The other slot must not be used: a failed write may have left
    /// anything in it.
    var superblock: Superblock
    /// A checkpoint number that no page in the index file bears: higher than any that the mount has begun.
    var building: CheckpointNumber
}

extension Housekeeper {
    /// Relocates the log if it is suspended; false where it is not. If that fails for a shortage on the host, it is
    /// tried again; between two tries operations that need no room go on, the others wait, and after some tries get
    /// ENOSPC. If it fails for another reason, the mount becomes read-only.
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
            // Memory of writes in flight must not change, and no page may arrive for an index that is gone.
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

    /// The host has no room for the log now. Ends this try and rests before the next.
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
        // Until the next try operations run that need no room: for four times as long as this try took, within bounds.
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
            // A segment that somebody reads is durable, so the replay finds it in use. Otherwise the disk has lost
            // data.
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
            // The mount keeps its old table. The segments whose files were given back have no file there any more.
            state.withLock { state in for number in recovery.forgotten { state.core.table.dropFile(number) } }
            throw error
        }
        volume.change { state, telling in
            // The mount was shut down meanwhile. The next mount finds what was written.
            guard !log.isClosed else { return }
            let table = recovery.table
            // Nobody began to read meanwhile: no operation runs during a relocation.
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

/// Moves the undurable batches of a log from staging to new places.
private struct Relocation<D: Device> {
    let device: D
    let log: SegmentLog
    let recovery: Recovery<D>
    var batches: [SegmentLog.Batch]
    /// The table of the mount that failed.
    let old: SegmentTable
    let durable: BatchSequence
    /// The place behind the last batch that has its new place.
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

    /// Puts cold segments in use that only the undurable batches name: the cleaner has moved blocks there.
    func enterBlocks() throws(MountError) {
        for batch in batches {
            try log.found(batch).forEachRecord { (record, _) throws(MountError) in
                try recovery.enterBlocks(of: record)
            }
        }
    }

    /// Declares that the log ends at the last durable batch. That is durable before anything is written elsewhere:
    /// nothing beyond it may ever be taken for the log again.
    func declareEnd() throws(Errno) {
        // A header whose write failed is missing or torn. The old table knows the segment's incarnation.
        for number in recovery.tornSegments where recovery.table[number].state != .inUse && old.contains(number) {
            recovery.voidTorn(number, incarnation: old[number].incarnation)
        }
        try recovery.makeDurable(continuesSegment: false)
        // Only the mount knows the incarnations of segments that were given back to the host.
        for index in old.segments.indices where recovery.table.segments[index].state == .absent {
            recovery.table.note(
                SegmentNumber(UInt32(index)), file: nil, incarnation: old.segments[index].incarnation)
        }
        // The segments in which writing failed are used last.
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
