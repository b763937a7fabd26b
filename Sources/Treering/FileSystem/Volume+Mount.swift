// The life of a store: format, mount, unmount. What recovery found is made durable before the first operation is accepted.

import Glibc

/// What a new store is to be.
struct FormatOptions: Sendable {
    /// In bytes; at least 8 segments. Nil: what the host has free.
    var capacityByteCount: UInt64?
    /// A power of two from 1 MiB to 64 MiB; nil: near a 64th of the capacity.
    var segmentByteCount: Int?
    var uuid = StoreUUID(high: HostStaging.randomWord(), low: HostStaging.randomWord())
    var hashKey = StoreUUID(high: HostStaging.randomWord(), low: HostStaging.randomWord())
    /// Owner of the root directory: who formats.
    var uid = geteuid()
    var gid = getegid()
    var now: @Sendable () -> Timestamp = Timestamp.now

    static let capacityMinimum: UInt64 = 16 << 20
    static let segmentByteCountLimit = 64 << 20

    /// The segment size for a capacity: the power of two near a 64th of it, from 1 MiB to 64 MiB.
    static func segmentByteCount(forCapacity capacity: UInt64) -> Int {
        var size = 1 << 20
        while size < 64 << 20, UInt64(size) * 2 * 64 <= capacity { size *= 2 }
        return size
    }
}

extension Timestamp {
    /// The time of day.
    @Sendable static func now() -> Timestamp {
        let time = timeOfDay()
        return Timestamp(seconds: time.seconds, nanoseconds: time.nanoseconds)
    }
}

extension Volume {
    /// Makes a store in an empty directory of the device.
    static func format(_ device: D, _ options: FormatOptions) throws(MountError) {
        var capacity = options.capacityByteCount ?? 0
        if options.capacityByteCount == nil {
            do throws(Errno) { capacity = try device.hostSpace().availableByteCount } catch {
                throw MountError("the free space of the host cannot be had", error)
            }
            guard capacity >= FormatOptions.capacityMinimum else {
                throw MountError(
                    .host, "there is no room for a store: \(capacity) bytes are free, it needs 16M at least")
            }
        }
        let segmentByteCount = options.segmentByteCount ?? FormatOptions.segmentByteCount(forCapacity: capacity)
        guard segmentByteCount >= 1 << 20, segmentByteCount <= 64 << 20, segmentByteCount & (segmentByteCount - 1) == 0
        else {
            throw MountError(.host, "the segment size must be a power of two from 1M to 64M")
        }
        guard capacity >= max(FormatOptions.capacityMinimum, UInt64(segmentByteCount) * 8),
            capacity / UInt64(segmentByteCount) <= 1 << 24
        else {
            throw MountError(.host, "the capacity must be at least 16M and 8 segments, and at most 16777216 segments")
        }
        do throws(Errno) {
            let superblockFile = try device.open(.superblock, create: true)
            try device.resize(superblockFile, to: Superblock.fileByteCount)
            let volume = try makeEmpty(device, options, segmentByteCount, capacity, superblockFile)
            let root = InodeRecord(
                inode: .root, mode: 0o040755, linkCount: 2, uid: options.uid, gid: options.gid, deviceNumber: 0,
                size: 0,
                since: .zero, now: options.now())
            try volume.runWaiting { (core) throws(Stop) in
                core.writer.reset()
                core.writer.inode(root)
                try core.commit()
            }
            try volume.checkpoint(isClean: true)
            // The second slot gets one as well, so that both are whole from the start.
            try volume.checkpoint(isClean: true)
            volume.closeFiles()
            try device.syncDirectories()
        } catch {
            throw MountError("the store cannot be made", error)
        }
    }

    /// An empty volume in memory over a new index file and one segment.
    private static func makeEmpty(
        _ device: D, _ options: FormatOptions, _ segmentByteCount: Int, _ capacity: UInt64, _ superblockFile: DeviceFile
    ) throws(Errno) -> Volume<D> {
        let superblock = Superblock(
            uuid: options.uuid, generation: 0, epoch: MountEpoch(1), isClean: true,
            capacityByteCount: capacity / UInt64(segmentByteCount) * UInt64(segmentByteCount),
            segmentByteCount: UInt32(segmentByteCount),
            hashKey: options.hashKey,
            staging: StagingHistory(void: MountEpoch(1), passed: MountEpoch(1), next: RecordSequence(1)),
            nextInode: InodeNumber(2), highestSequence: .zero, checkpoint: .zero,
            position: LogPosition(
                lastBatch: .zero, lastChecksum: 0, segment: SegmentNumber(0), incarnation: 0, offsetInSegment: 4096),
            formattedSeconds: options.now().seconds, inodeCount: 0, sharedByteCount: 0,
            checkpointEpoch: MountEpoch(1),
            indexRoot: IndexRoot(
                checkpoint: .zero, page: PagePointer(address: PageAddress(1), birth: .zero), level: 0, entryCount: 0,
                pageCount: 0, usedPageCount: 0, bitmap: PageAddress(1)))
        let indexFile = try device.open(.index, create: true)
        let table = SegmentTable(segmentByteCount: segmentByteCount, countLimit: superblock.segmentCountLimit)
        let file = try makeSegment(device, SegmentNumber(0), options.uuid, 1, segmentByteCount)
        table.addPrepared(SegmentNumber(0), incarnation: 1, file: file)
        let tree = Index(uuid: options.uuid, cacheLimitByteCount: 1 << 20)
        let geometry = StagingGeometry(stagingByteCount: 1 << 20, segmentByteCount: segmentByteCount)
        let log = SegmentLog(
            uuid: options.uuid, hashKey: options.hashKey, epoch: superblock.epoch, table: table,
            staging: Staging(geometry: geometry),
            position: superblock.position, nextSequence: RecordSequence(1), nextInode: InodeNumber(2),
            continuesSegment: false)
        let core = Core(
            index: RecordIndex(tree: tree, table: table), log: log, nameHash: NameHash(key: options.hashKey),
            isReadOnly: false, now: options.now)
        return assemble(
            device, VolumeOptions(), core, indexFile, superblockFile, superblock, [(0, .zero), (0, .zero)], { _ in })
    }

    private static func assemble(
        _ device: D, _ options: VolumeOptions, _ core: Core, _ indexFile: DeviceFile, _ superblockFile: DeviceFile,
        _ superblock: Superblock,
        _ slots: [(generation: UInt64, checkpoint: CheckpointNumber)], _ log: @escaping @Sendable (String) -> Void
    ) -> Volume<D> {
        core.adopt(core.index)
        let state = VolumeState(
            core: core, indexFile: indexFile, superblockFile: superblockFile, superblock: superblock, slots: slots,
            lateTryLimit: options.lateTryLimit)
        let volume = Volume(device: device, options: options, state: state, log: log)
        device.onCompletion { [weak volume] completion in volume?.complete(completion) }
        return volume
    }

    /// Mounts a store: recovers it, and makes what was recovered durable before it returns. Does not start the housekeeper.
    static func mount(
        _ device: D, _ options: VolumeOptions, hostStaging: HostStaging? = nil,
        staging: Staging? = nil, tails: [StagingTail] = [],
        now: @escaping @Sendable () -> Timestamp = Timestamp.now, log: @escaping @Sendable (String) -> Void
    ) throws(MountError) -> Volume<D> {
        let recovery = try Recovery(device, indexCacheByteCount: options.indexCacheByteCount, log: log)
        try recovery.replay()
        var options = options
        if recovery.superblock.unknownReadOnlyFeatures != 0, !options.isReadOnly {
            log("the store uses read-only-compatible features that this treering does not know: mounted read-only")
            options.isReadOnly = true
        }
        if recovery.replayedRecordCount > 0 { log("recovered \(recovery.replayedRecordCount) operations from the log") }
        let superblock = recovery.superblock
        let isClean = superblock.isClean && recovery.replayedRecordCount == 0 && !recovery.endsSegment
        let continues = isClean && recovery.canContinueSegment
        if !options.isReadOnly {
            do throws(Errno) { try recovery.makeDurable(continuesSegment: continues) } catch {
                throw MountError("what was recovered cannot be made durable", error)
            }
        }
        let ownStaging = options.isReadOnly ? nil : hostStaging
        let choice = try chooseStaging(tails, hostStaging, recovery, isReadOnly: options.isReadOnly)
        let epoch = MountEpoch(max(recovery.epoch, choice.highestEpoch).rawValue + 1)
        let geometry = StagingGeometry(
            // What staging holds must find room again after a crash: in a small store it is small.
            stagingByteCount: min(options.stagingByteCount, Int(clamping: superblock.capacityByteCount / 32)),
            segmentByteCount: recovery.table.segmentByteCount,
            holding: choice.taken.map(\.header))
        let staging = try makeStaging(staging, geometry, epoch, recovery, ownStaging)
        let segmentLog = SegmentLog(
            uuid: superblock.blockUUID, hashKey: superblock.hashKey, epoch: epoch, table: recovery.table,
            staging: staging, position: recovery.position,
            nextSequence: recovery.nextSequence, nextInode: recovery.nextInode, continuesSegment: continues)
        let core = Core(
            index: recovery.index, log: segmentLog, nameHash: NameHash(key: superblock.hashKey),
            isReadOnly: options.isReadOnly, now: now)
        core.accessTimes = options.accessTimes
        core.bounds = options.bounds
        core.keepsAccessLists = options.keepsAccessLists
        let superblockFile: DeviceFile
        do throws(Errno) { superblockFile = try device.open(.superblock, create: false) } catch {
            throw MountError("the superblock cannot be opened", error)
        }
        let volume = assemble(
            device, options, core, recovery.indexFile, superblockFile, superblock, recovery.pair.summary, log)
        volume.state.withLock { $0.writtenBefore = recovery.written }
        if !options.isReadOnly {
            do throws(Errno) {
                try volume.begin(epoch, hostStaging, choice, recovery)
                try volume.replay(
                    choice, RevisedLog(settled: recovery.settled, first: recovery.position.lastBatch.next), hostStaging)
            } catch {
                throw MountError("the mount cannot be begun", error)
            }
            volume.hostStaging = hostStaging
            volume.state.withLock { $0.recoveredSequence = $0.core.log.nextSequence }
            var orphans: [InodeNumber] = []
            // The index is another where the log failed and was written again.
            try recovery.collect(.orphans, in: core.index) { key, _ in orphans.append(InodeNumber(key.object)) }
            do throws(Errno) { try core.takeOver(options.connection, orphans) } catch {
                throw MountError("what the last process knew of the connection cannot be had", error)
            }
            volume.state.withLock { $0.sweepCursor = RecordIndex.firstTombstone }
            // A full store that was killed again and again has used up what the cleaner works with.
            volume.reclaimIfShort(.removal)
        }
        return volume
    }

    /// After the last request: everything durable, a last checkpoint, the clean flag. The volume cannot be used any more.
    func unmount() throws(Errno) {
        finishRequests()
        stopScrub()
        stopHousekeeper()
        defer { device.shutDown() }
        guard !isOver else {
            // What is in flight ends, and has its memory until then.
            wait { $0.core.log.tracker.inFlightCount == 0 }
            closeFiles()
            if state.withLock({ $0.core.log.isClosed && !$0.core.isShutDown }) { throw .input }
            return
        }
        // Waited for, so that what comes after it does not depend on timing.
        try syncAndWait()
        // The kernel has forgotten everything: whatever has no name goes now.
        state.withLock { state in
            // In an order that does not depend on how a set is laid out.
            state.core.reapable.append(contentsOf: state.core.orphanCandidates.sorted())
            state.core.orphanCandidates.removeAll()
            state.core.lookups.removeAll()
        }
        housekeep()
        cleaner.seal(self)
        try checkpointTwice(isClean: true)
        hostStaging?.unlink()
        closeFiles()
    }

    func closeFiles() {
        let files = state.withLock { state in
            state.core.table.segments.compactMap(\.file) + [state.indexFile, state.superblockFile]
        }
        for file in files { device.close(file) }
    }
}

extension Recovery {
    /// Whether the log can go on in the segment it ended in: after a clean unmount, if there is room for a batch.
    var canContinueSegment: Bool {
        let segment = position.segment
        return table[segment].state == .inUse && table[segment].lastBatch == .zero && table[segment].end == 0
            && table.life(of: segment) == position.life
    }

    /// Makes what was recovered durable, declares where the dead mount's log ends, and voids what lies beyond.
    func makeDurable(continuesSegment: Bool) throws(Errno) {
        // A killed mount's last names and headers may be seen and not be durable yet.
        try device.syncDirectories()
        try removeUnfinishedFiles()
        try makingRoom { () throws(Errno) in try writeUnsettledBatches() }
        for number in walkedSegments { try device.wait(Submission(.sync, table[number].file!, tag: 0)) }
        for number in tornSegments where table[number].state != .inUse {
            try giveBack(number, table[number].file!, table[number].incarnation + 8)
        }
        for (number, segment) in headers.sorted(by: { $0.key < $1.key }) {
            // One may have been given back meanwhile.
            if table[number].state == .inUse || headers[number] == nil { continue }
            var header = segment.header
            if header.state == .inUse {
                // Opened by the dead mount beyond the end of its log, or empty of anything that is still named.
                header.state = .free
                header.incarnation += 1
                header.firstBatch = .zero
                header.end = 0
                try makingRoom(besides: number) { () throws(Errno) in try rewrite(header, segment.file) }
            } else if header.incarnation > table[number].incarnation {
                // Recycled after the checkpoint: no tombstone may rely on that before it is durable. Written again and not only flushed:
                // a flush that failed before may have taken it for clean.
                try makingRoom(besides: number) { () throws(Errno) in try rewrite(header, segment.file) }
            }
            if device.hole(in: segment.file, from: 0) != nil || device.isCopiedOnWrite(segment.file) {
                // Punched, or copied by something that leaves zeros out, or of a host that needs room to overwrite: not fit for the head.
                try giveBack(number, segment.file, header.incarnation)
            } else {
                table.addPrepared(number, incarnation: header.incarnation, file: segment.file)
            }
        }
        let last = position.segment
        guard !continuesSegment, table[last].state == .inUse, table[last].lastBatch == .zero,
            var header = headers[last]?.header
        else { return }
        if header.end == 0 { header.end = position.offsetInSegment }
        try makingRoom { () throws(Errno) in try rewrite(header, table[last].file!) }
        table[last].end = header.end
        table[last].lastBatch = position.lastBatch
        table[last].isChanged = true
    }

    /// Files that were not finished, and so are no part of the store.
    private func removeUnfinishedFiles() throws(Errno) {
        for file in try device.list() {
            switch file {
            case .preparing, .newIndex: try device.unlink(file)
            default: break
            }
        }
    }

    /// Gives the file of a segment that holds nothing back to the host; its life is remembered.
    private func giveBack(_ number: SegmentNumber, _ file: DeviceFile, _ incarnation: UInt32) throws(Errno) {
        forget(number)
        device.close(file)
        table.note(number, file: nil, incarnation: incarnation)
        table[number].isChanged = true
        try device.unlink(.segment(number))
    }

    /// Does what finds no room on a full host again, as long as there are free segments to give back for it.
    private func makingRoom(
        besides own: SegmentNumber? = nil, _ body: () throws(Errno) -> Void
    ) throws(Errno) {
        while true {
            do throws(Errno) { return try body() } catch {
                let free = headers.filter { number, segment in
                    number != own && segment.header.state == .free && table[number].state == .absent
                }
                guard error == .noSpace, let (number, segment) = free.max(by: { $0.key < $1.key }) else { throw error }
                try giveBack(number, segment.file, segment.header.incarnation)
                try device.syncDirectories()
            }
        }
    }

    /// Writes what was read once more. A flush may have failed under a mount that was killed then; the host may take what it lost for
    /// clean since, and no other flush would write it. Only what was verified and applied is written: what the host shows may
    /// have become what lies on the disk in the meantime.
    private func writeUnsettledBatches() throws(Errno) {
        for batch in unsettledBatches {
            let file = table[batch.segment].file!
            if batch.offset == SegmentHeader.byteCount, let header = headers[batch.segment]?.header {
                // A segment's header came with its first batch.
                try write(header, file)
            }
            let outcome = try reader.batch(
                in: table.life(of: batch.segment), file, at: batch.offset, verifyPayload: true)
            guard case .batch(let found) = outcome, found.checksum == batch.checksum else {
                log(
                    "batch \(batch.batch.rawValue) was whole a moment ago, and is not any more: the disk loses what was written"
                )
                throw .input
            }
            let bytes = UnsafeMutableRawBufferPointer(
                mutating: found.bytes.part(0, min(found.bytes.count, found.header.byteCount)))
            try device.wait(Submission(.write, file, offset: UInt64(batch.offset), bytes, tag: 0))
        }
    }

    private func write(_ header: SegmentHeader, _ file: DeviceFile) throws(Errno) {
        let block = AlignedBuffer(byteCount: SegmentHeader.byteCount)
        header.encode(into: block.bytes)
        try device.wait(Submission(.write, file, offset: 0, block.bytes, tag: 0))
    }

    private func rewrite(_ header: SegmentHeader, _ file: DeviceFile) throws(Errno) {
        try write(header, file)
        try device.wait(Submission(.sync, file, tag: 0))
    }
}
