// Format, mount and unmount of a store. A mount makes what was recovered durable before it accepts the first operation.

import Glibc

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
            try volume.perform { (core) throws(Stop) in
                try core.commit(.write, .nobody) { $0.inode(root) }
            }
            try volume.housekeeper.checkpoint(isClean: true)
            // A second checkpoint fills the second slot, so that both slots are whole from the start.
            try volume.housekeeper.checkpoint(isClean: true)
            volume.closeFiles()
            try device.syncDirectories()
        } catch {
            throw MountError("the store cannot be made", error)
        }
    }

    /// Makes an empty volume in memory, with a new index file and one segment.
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
        let file = try device.makeSegment(SegmentNumber(0), options.uuid, 1, segmentByteCount)
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
        staging: Staging? = nil, allStaged: [StagedRecords] = [],
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
        let choice = try chooseStaging(allStaged, hostStaging, recovery, isReadOnly: options.isReadOnly)
        let epoch = MountEpoch(max(recovery.epoch, choice.highestEpoch).rawValue + 1)
        let geometry = StagingGeometry(
            // After a crash there must be room in the store for all that staging holds, so a small store has small
            // staging.
            stagingByteCount: min(options.stagingByteCount, Int(clamping: superblock.capacityByteCount / 32)),
            segmentByteCount: recovery.table.segmentByteCount, holding: choice.taken.map(\.header))
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
        if options.defragmenting == .eager { core.fragmented.leastCount = 4 }
        let superblockFile: DeviceFile
        do throws(Errno) { superblockFile = try device.open(.superblock, create: false) } catch {
            throw MountError("the superblock cannot be opened", error)
        }
        let volume = assemble(
            device, options, core, recovery.indexFile, superblockFile, superblock, recovery.pair.summary, log)
        volume.state.withLock {
            $0.writtenBefore = recovery.written
            $0.isBehindStaging = options.isReadOnly && choice.misses(superblock, bootID: HostStaging.bootID())
        }
        if !options.isReadOnly {
            try volume.startWriting(epoch, hostStaging, choice, recovery)
        } else {
            // Lookups count also here, for the time when the mount becomes writable.
            try takeOver(options.connection, [], core)
        }
        return volume
    }

    /// Begins this mount on the disk, and takes in what killed ones left behind.
    private func startWriting(
        _ epoch: MountEpoch, _ hostStaging: HostStaging?, _ choice: StagingChoice, _ recovery: Recovery<D>
    ) throws(MountError) {
        let core = state.withLock { $0.core }
        do throws(Errno) {
            try begin(epoch, hostStaging, choice, recovery)
            try replay(
                choice, RevisedLog(settled: recovery.settled, first: recovery.position.lastBatch.next), hostStaging)
        } catch {
            throw MountError("the mount cannot be begun", error)
        }
        housekeeper.hostStaging = hostStaging
        state.withLock { $0.recoveredSequence = $0.core.log.nextSequence }
        var orphans: [InodeNumber] = []
        // The core has another index than the recovery if the log was relocated meanwhile.
        let loader = PageLoader(device, recovery.indexFile, core.index.tree)
        try loader.forEach(.orphans) { key, _ in orphans.append(InodeNumber(key.object)) }
        try Self.takeOver(options.connection, orphans, core)
        state.withLock { $0.sweepCursor = RecordIndex.firstTombstone }
        // Repeated kills of a full store may have used up the reserve that the cleaner works with.
        housekeeper.reclaimIfShort(.removal)
    }

    private static func takeOver(
        _ connection: ConnectionState?, _ orphans: [InodeNumber], _ core: Core
    ) throws(MountError) {
        do throws(Errno) { try core.takeOver(connection, orphans) } catch {
            throw MountError("what the last process knew of the connection cannot be had", error)
        }
    }

    /// Ends the requests, makes everything durable, writes a last checkpoint and the clean flag. The volume cannot be
    /// used afterwards.
    func unmount() throws(Errno) {
        finishRequests()
        stopScrub()
        housekeeper.stop()
        defer { device.shutDown() }
        guard !isOver else {
            // I/O in flight needs its memory until it ends.
            wait { $0.core.log.tracker.inFlightCount == 0 }
            closeFiles()
            if state.withLock({ $0.core.log.isClosed && !$0.core.isShutDown }) { throw .ioError }
            return
        }
        // Waits here, so that what follows does not depend on timing.
        try syncAndWait()
        // The kernel knows no inode any more, so every inode without a name is removed now.
        state.withLock { state in
            // Sorted, so that the order does not depend on the layout of a set.
            state.core.reapable.append(contentsOf: state.core.orphanCandidates.sorted())
            state.core.orphanCandidates.removeAll()
            state.core.lookups.removeAll()
        }
        housekeeper.housekeep()
        housekeeper.sealCleanersSegment()
        try housekeeper.checkpointTwice(isClean: true)
        housekeeper.hostStaging?.unlink()
        closeFiles()
    }

    func closeFiles() {
        let files = state.withLock { state in
            state.core.table.segments.compactMap(\.file) + [state.indexFile, state.superblockFile]
        }
        for file in files { device.close(file) }
    }
}
