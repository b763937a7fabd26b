// `treering check --rebuild-index`: makes a new index file from the segments alone.

/// Makes a store's index anew.
struct IndexRebuild<D: Device> {
    /// Replaces the index by one that is built from the log. The old index stays until the new one is whole and
    /// durable.
    ///
    /// - Returns: how many records the log held.
    static func rebuild(
        _ device: D, indexCacheByteCount: Int = 256 << 20, log: @escaping @Sendable (String) -> Void
    ) throws(MountError) -> Int {
        try ensureIndexFile(device)
        let recovery = try Recovery(device, indexCacheByteCount: 1 << 20, withIndex: false, log: log)
        let sources = recovery.headers.compactMap { number, segment -> RebuiltIndex<D>.Source? in
            guard segment.header.state == .inUse, segment.header.end != UInt32(SegmentHeader.byteCount) else {
                return nil
            }
            return RebuiltIndex<D>.Source(number: number, header: segment.header, file: segment.file, lastBatch: .zero)
        }
        let (position, written) = try endOfLog(recovery)
        let live = sources.filter { $0.header.role == .cold || $0.header.firstBatch <= position.lastBatch }
        let rebuild = try RebuiltIndex(
            device, recovery.reader, live, uuid: recovery.superblock.blockUUID,
            segmentCountLimit: recovery.table.countLimit, through: position,
            .init(
                cacheByteCount: indexCacheByteCount,
                building: recovery.pair.summary.map(\.checkpoint).max()!.next, file: .newIndex))
        if let problem = rebuild.problems.first { throw MountError(.damaged, "the log is damaged: \(problem)") }
        try store(rebuild, recovery, position, written)
        return rebuild.recordCount
    }

    /// `Recovery` needs an index file to open. If there is none, makes an empty one, which the new index replaces.
    private static func ensureIndexFile(_ device: D) throws(MountError) {
        do throws(Errno) {
            let files = try device.list()
            if !files.contains(.index) { device.close(try device.open(.index, create: true)) }
            if files.contains(.newIndex) { try device.unlink(.newIndex) }
        } catch { throw MountError("the index file cannot be made", error) }
    }

    /// Finds the end of the log as a recovery would, but without an index. Also gives the bytes written to it since
    /// formatting.
    private static func endOfLog(_ recovery: Recovery<D>) throws(MountError) -> (LogPosition, WrittenByteCounts) {
        var walk = LogWalk(
            reader: recovery.reader, segments: recovery.headers, from: recovery.superblock.position,
            epoch: recovery.superblock.checkpointEpoch)
        var written = recovery.superblock.written
        while let batch = try Recovery<D>.reading({ () throws(Errno) in try walk.next() }) {
            batch.forEachRecord { record, _ in written = written + record.written }
        }
        let torn = recovery.tornSegments.compactMap { number in
            recovery.table[number].file.map { (number: number, file: $0) }
        }
        if let damage = try Recovery<D>.reading({ () throws(Errno) in try walk.evidenceOfDamage(torn: torn) }) {
            throw MountError(.damaged, "the log is damaged: \(damage)")
        }
        return (walk.position, written)
    }

    private static func store(
        _ rebuild: RebuiltIndex<D>, _ recovery: Recovery<D>, _ position: LogPosition, _ written: WrittenByteCounts
    ) throws(MountError) {
        let device = recovery.device
        do throws(Errno) {
            for segment in recovery.headers.values { try device.wait(Submission(.sync, segment.file, tag: 0)) }
            let file = try rebuild.builder.file()
            let head = rebuild.table[position.segment]
            if head.state == .inUse, Int(position.offsetInSegment) < recovery.table.segmentByteCount,
                !rebuild.endedSegments.contains(position.segment)
            {
                rebuild.table[position.segment].lastBatch = .zero
            }
            let segmentLog = SegmentLog(
                uuid: recovery.superblock.blockUUID, hashKey: recovery.superblock.hashKey,
                epoch: recovery.superblock.epoch, table: rebuild.table,
                staging: Staging(
                    geometry: StagingGeometry(
                        stagingByteCount: 1 << 20, segmentByteCount: rebuild.table.segmentByteCount)),
                position: position, nextSequence: max(rebuild.nextSequence, recovery.superblock.highestSequence.next),
                nextInode: max(rebuild.nextInode, recovery.superblock.nextInode), continuesSegment: false)
            let core = Core(
                index: rebuild.index, log: segmentLog, nameHash: NameHash(key: recovery.superblock.hashKey),
                isReadOnly: false,
                now: Timestamp.now)
            for segment in rebuild.table.segments.indices where rebuild.table.segments[segment].state == .inUse {
                rebuild.table[SegmentNumber(UInt32(segment))].isChanged = true
            }
            let superblockFile = try device.open(.superblock, create: false)
            defer { device.close(superblockFile) }
            var superblock = recovery.superblock
            superblock.staging.settle(last: recovery.lastBatchEpoch, next: segmentLog.nextSequence)
            let state = VolumeState(
                core: core, indexFile: file, superblockFile: superblockFile, superblock: superblock,
                slots: recovery.pair.summary, lateTryLimit: VolumeOptions().lateTryLimit)
            state.writtenBefore = written
            let volume = Volume(device: device, options: VolumeOptions(), state: state, log: recovery.log)
            device.onCompletion { [weak volume] completion in volume?.complete(completion) }
            // The new index must have its final name before any superblock names it.
            try volume.housekeeper.checkpoint(isClean: recovery.superblock.isClean) { () throws(Errno) in
                try device.rename(.newIndex, to: .index)
                try device.syncDirectories()
            }
            try volume.housekeeper.checkpoint(isClean: recovery.superblock.isClean)
            device.close(file)
        } catch { throw MountError("the new index cannot be written", error) }
    }
}
