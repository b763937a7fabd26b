// All state of a mounted store that changes: index, log, lookup counts. One lock guards it (see `Volume`). An operation
// validates and plans a record. It then appends and applies that record in one step, or changes nothing.

/// The state behind the lock. Only the holder of the lock may use it.
final class Core {
    /// A relocation replaces it, together with the log's table.
    private(set) var index: RecordIndex
    let log: SegmentLog
    var table: SegmentTable { log.table }
    let nameHash: NameHash
    let now: @Sendable () -> Timestamp
    /// The most bytes that one write may have.
    let writeByteCountLimit: Int
    private(set) var isReadOnly: Bool
    /// Somebody has shut the mount down (see `Volume.shutDown`): every operation fails.
    private(set) var isShutDown = false
    /// The mount is ending. A request that would have to wait fails instead.
    private(set) var isEnding = false
    /// The kernel enforces access control lists, so they may be set.
    var keepsAccessLists = true
    var accessTimes = AccessTimes()
    var bounds = WorkBounds() {
        didSet { bound(index) }
    }
    /// The kernel's lookup count of each inode. Only `setLookups` may change it.
    var lookups: [InodeNumber: UInt64] = [:]
    /// Lookup counts and done requests, in memory that a successor of this process reads. Nil if there would be no
    /// successor.
    var connection: ConnectionState?
    /// Inodes without a name that the kernel still knows.
    var orphanCandidates: Set<InodeNumber> = []
    /// Inodes without a lookup that had no name when last seen. The housekeeper reaps them.
    var reapable: [InodeNumber] = []
    /// Every record is written with this writer. It is empty outside of `commit`.
    private var writer = RecordWriter(capacity: 16 << 10)
    /// For packing, which may come between the writing of a record and its append.
    var packer = RecordWriter(capacity: 16 << 10)
    var smallWrites = SmallWrites()
    var readBuffers = BufferPool()
    /// `log.appendedByteCount` when the last checkpoint was frozen.
    var appendedAtFreeze: UInt64 = 0
    var corruptions: [CorruptionReport] = []
    var corruptionCount = 0
    /// Crowded files. Writers to their reserved ranges wait until the housekeeper has joined their pieces.
    var crowded: [InodeNumber] = []
    /// What is known so far of the ranges that writers on a full store are about to write (see
    /// `reservedByteCount(of:)`).
    var knownReservations: [WrittenRange: KnownReservation] = [:]
    /// Files with many pieces, for joining in the background.
    var fragmented = FragmentedFiles()
    /// What was joined since the mount: the bytes of the log that this took, and how many pieces there were before.
    var joined: (byteCount: UInt64, pieceCount: UInt64) = (0, 0)
    /// The crowded file that was joined last, if joining it freed nothing. Its next writer gets ENOSPC.
    var joinedInVain: InodeNumber?
    /// The last attempt to go on with a removal failed.
    var isRemovalStuck = false

    init(
        index: RecordIndex, log: SegmentLog, nameHash: NameHash, isReadOnly: Bool,
        now: @escaping @Sendable () -> Timestamp
    ) {
        precondition(index.table === log.table, "an index charges the segments of its log")
        self.index = index
        self.log = log
        self.nameHash = nameHash
        self.isReadOnly = isReadOnly
        self.now = now
        writeByteCountLimit = log.staging.geometry.writeByteCountLimit
    }

    // MARK: Ends

    /// Nothing is written any more.
    var isOver: Bool { isReadOnly || isShutDown || log.isClosed }

    /// Whether a request that cannot append now must fail instead of waiting. Whatever parks requests asks this.
    var isVainToWait: Bool { isOver || isEnding }

    /// The error of a request that must not wait. `noSpace` is for a host that has had no room for long.
    var endError: Errno {
        if isOver || isEnding { return isReadOnly && !isShutDown ? .readOnly : .ioError }
        return .noSpace
    }

    /// Makes the mount read-only, because the log has failed for good.
    func close(_ error: Errno, _ telling: borrowing Telling) {
        isReadOnly = true
        log.fail(error, telling)
    }

    func shutDown(_ telling: borrowing Telling) {
        isShutDown = true
        log.fail(.ioError, telling)
    }

    func endRequests(_ telling: borrowing Telling) { isEnding = true }

    /// How often the index was replaced. Once it changes, what somebody noted about segments may be out of date.
    private(set) var adoptCount = 0

    /// Goes on with another index. Its accounting must be that of the log's present table.
    func adopt(_ index: RecordIndex) {
        precondition(index.table === table && index.pass == .live, "an index charges the segments of its log")
        self.index = index
        bound(index)
        adoptCount += 1
        // Nothing waits for a page under the lock: an operation that misses one is parked.
        index.tree.fetchNow = nil
        log.placePayload = { [unowned index] payload, segment, provisional, position in
            index.place(payload, segment, from: provisional, position)
        }
    }

    private func bound(_ index: RecordIndex) {
        index.replacedExtentLimit = bounds.replacedExtentCount
        index.tombstoneWalkLimit = bounds.extentCount
    }

    /// Takes the lookup counts of an inherited connection. Marks orphans for removal, except those that the kernel
    /// still knows by these counts.
    func takeOver(_ connection: ConnectionState?, _ orphans: [InodeNumber]) throws(Errno) {
        self.connection = connection
        if let connection, connection.isInherited {
            lookups = try connection.takeOver(nextSequence: log.nextSequence)
        }
        for orphan in orphans {
            if lookups[orphan] == nil { reapable.append(orphan) } else { orphanCandidates.insert(orphan) }
        }
    }

    // MARK: Committing

    /// Has `body` write a record, then appends and applies it. When it throws, nothing was changed. A record is never
    /// begun inside another, so no operation sees what another one has left half written.
    @inline(__always)
    @discardableResult
    func commit<Result>(
        _ tier: SpaceTier, claiming claim: RoomClaim = .none, _ context: RequestContext,
        _ body: (inout RecordWriter) throws(Stop) -> Result
    ) throws(Stop) -> Result {
        try writing { (writer) throws(Stop) in
            let result = try body(&writer)
            try append(&writer, tier, claim, context.onceNumber)
            return result
        }
    }

    /// Like `commit`, but does not append a record without a change.
    @discardableResult
    func commitUnlessEmpty<Result>(
        _ tier: SpaceTier, _ context: RequestContext, _ body: (inout RecordWriter) throws(Stop) -> Result
    ) throws(Stop) -> Result {
        try writing { (writer) throws(Stop) in
            let result = try body(&writer)
            if writer.changeCount > 0 { try append(&writer, tier, .none, context.onceNumber) }
            return result
        }
    }

    /// Commits a change of data. A full store still takes it if every byte of the range is allocated: room was set
    /// aside for the reserved bytes, and the bytes that are overwritten become dead.
    @inline(__always)
    func commitData(
        _ number: InodeNumber, _ from: UInt64, _ to: UInt64, _ context: RequestContext,
        _ body: (inout RecordWriter) throws(Stop) -> Void
    ) throws(Stop) {
        try writing { (writer) throws(Stop) in
            try body(&writer)
            do throws(Stop) { try append(&writer, .write, .none, context.onceNumber) } catch {
                let range = WrittenRange(inode: number, from: from, to: to)
                guard case .failed(let errno) = error, errno == .noSpace,
                    let released = try reservedByteCount(of: range)
                else { throw error }
                let claim = RoomClaim.allocated(number, releasedByteCount: released)
                do throws(Stop) { try append(&writer, .write, claim, context.onceNumber) } catch {
                    if case .failed = error { knownReservations[range] = nil }
                    throw error
                }
            }
        }
    }

    /// Commits a record that makes an inode. The inode's number is used up only on success.
    func commit(
        making inode: InodeRecord, _ tier: SpaceTier, _ context: RequestContext,
        _ body: (inout RecordWriter) throws(Stop) -> Void
    ) throws(Stop) {
        precondition(inode.inode == log.nextInode, "an inode number is used twice")
        guard inode.inode.isPossible else { throw .failed(.noSpace) }
        log.nextInode = InodeNumber(inode.inode.rawValue + 1)
        do throws(Stop) { try commit(tier, context, body) } catch {
            log.nextInode = inode.inode
            throw error
        }
    }

    /// Lends the writer, which is empty before and afterwards.
    @inline(__always)
    private func writing<Result>(_ body: (inout RecordWriter) throws(Stop) -> Result) throws(Stop) -> Result {
        precondition(writer.isEmpty, "a record is begun inside another")
        defer { writer.reset() }
        return try body(&writer)
    }

    private func append(
        _ writer: inout RecordWriter, _ tier: SpaceTier, _ claim: RoomClaim, _ onceNumber: UInt64?
    ) throws(Stop) {
        guard !isReadOnly else { throw .failed(.readOnly) }
        guard !writer.isImpossible else {
            throw damage("an operation", "it would log an inode or a name that cannot be")
        }
        guard !isDirtyLimitReached else { throw log.space.isCheckpointStuck ? .failed(.noSpace) : .blocked(.room) }
        try settleConflict(of: writer.preview(sequence: log.nextSequence))
        let payloadByteCount = writer.payloadBlocks?.count ?? 0
        try requireRoom(for: writer.byteCount + payloadByteCount, tier, claim)
        // What the record names may not be packed under its hands.
        if log.openBatch != nil, !writer.namesOlderPayloads,
            !log.hasRoom(recordByteCount: writer.byteCount, payloadByteCount: payloadByteCount)
        {
            packOpenBatch()
        }
        let room = log.makeRoom(recordByteCount: writer.byteCount, payloadByteCount: payloadByteCount, tier)
        switch room {
        case .ready: break
        case .wait: throw .blocked(.room)
        case .full: throw tier == .write && isRoomComing ? .blocked(.room) : .failed(.noSpace)
        case .failed: throw .failed(.readOnly)
        }
        let preview = writer.preview(sequence: log.nextSequence)
        try find { () throws(PageMiss) in try index.touch(preview) }
        if let onceNumber { connection?.note(log.nextSequence, onceNumber) }
        let (record, place) = log.append(&writer)
        precondition(
            record.sequence == preview.sequence && record.changeCount == preview.changeCount,
            "pages were touched for another record")
        index.apply(record, at: place)
        if !knownReservations.isEmpty { forgetReservations(changedBy: record) }
        if let impossible = table.impossible {
            table.impossible = nil
            report(impossible)
        }
    }

    /// Appends and applies a staged record of a killed mount. It keeps its old sequence, which must be the next.
    func append(again record: Record, _ payload: UnsafeRawBufferPointer?, in revised: RevisedLog) throws(Stop) {
        precondition(record.sequence == log.nextSequence)
        guard !isDirtyLimitReached else { throw .blocked(.room) }
        try settleConflict(of: record)
        switch log.makeRoom(recordByteCount: record.bytes.count, payloadByteCount: payload?.count ?? 0, .recovery) {
        case .ready: break
        case .wait: throw .blocked(.room)
        case .full: throw .failed(.noSpace)
        case .failed: throw .failed(.ioError)
        }
        // The cleaner's moves are not carried out again: an empty record takes their place. The entries are as good
        // where they were, and the segment that they moved to may not be in use any more.
        var writer =
            record.movesAnything
            ? RecordWriter(capacity: Record.headerByteCount) : RecordWriter(copying: record, payload: payload)
        if !record.movesAnything {
            try find { () throws(PageMiss) in
                try index.touch(record)
                try Record.revise(writer.bytes) { change, since throws(PageMiss) in
                    try index.since(of: change, since, in: revised)
                }
            }
        }
        record.forEachChange { change, _, _ in
            if case .inode(let inode) = change {
                log.nextInode = max(log.nextInode, InodeNumber(inode.inode.rawValue + 1))
            }
        }
        let (record, place) = log.append(&writer)
        index.apply(record, at: place)
    }

    /// Throws `blocked(.turn)` if removals or replacements under way must come before the record (see
    /// `RecordIndex.conflict`). Does a part of that work first.
    private func settleConflict(of record: @autoclosure () -> Record) throws(Stop) {
        guard !index.removals.isEmpty, let inode = index.conflict(of: record()) else { return }
        _ = try find { () throws(PageMiss) in try index.continueRemovals(of: inode) }
        throw .blocked(.turn)
    }

    /// Runs a query of the index; a missing page blocks the operation.
    @inline(__always)
    @discardableResult
    func find<Result>(_ query: () throws(PageMiss) -> Result) throws(Stop) -> Result {
        do { return try query() } catch { throw .blocked(.page(error)) }
    }

    /// Dirty pages fill so much of the page cache that a checkpoint must come before the next record.
    var isDirtyLimitReached: Bool { index.tree.dirtyByteCount * 4 >= index.tree.cacheLimitByteCount * 3 }

    /// Whether operations that found no room are worth running again.
    var mayHaveRoom: Bool {
        log.mayHaveRoom && crowded.isEmpty && (!isDirtyLimitReached || log.space.isCheckpointStuck)
            && !(isRoomComing && isNearlyFull)
    }

    /// Whether removals under way will make room. Removed entries leave the index step by step, so their room comes
    /// later.
    var isRoomComing: Bool { !isRemovalStuck && (!index.removals.isEmpty || !reapable.isEmpty) }

    private var isNearlyFull: Bool {
        log.space.isNearlyFull(reserved: index.reservedByteCount, writeByteCountLimit: writeByteCountLimit)
    }

    // MARK: What operations share

    func inode(_ number: InodeNumber) throws(Stop) -> InodeEntry {
        guard let entry = try find({ () throws(PageMiss) in try index.inode(number) }) else { throw .failed(.stale) }
        return entry
    }

    /// A directory in which a name can be looked up.
    func directory(_ number: InodeNumber) throws(Stop) -> InodeEntry {
        let entry = try inode(number)
        guard entry.record.isDirectory else { throw .failed(.notDirectory) }
        return entry
    }

    /// A directory in which a name can be made: one that has not been removed and is not immutable.
    func liveDirectory(_ number: InodeNumber) throws(Stop) -> InodeEntry {
        let entry = try directory(number)
        guard entry.record.linkCount > 0 else { throw .failed(.noEntry) }
        try entry.record.requireNewNames()
        return entry
    }

    func check(name: UnsafeRawBufferPointer) throws(Stop) {
        guard name.count <= Int(FileSystemStatus.nameByteCountLimit) else { throw .failed(.nameTooLong) }
        guard NameCheck.isName(name) else {
            throw .failed(NameCheck.isDots(name) && name.count > 0 ? .exists : .invalid)
        }
    }

    /// An inode gets one link more.
    func addLink(to inode: inout InodeRecord) throws(Stop) {
        guard inode.linkCount < InodeRecord.linkCountLimit else { throw .failed(.tooManyLinks) }
        inode.linkCount += 1
    }

    /// An inode loses a link. `least`: the fewest links that it can have before. Fewer are damage.
    func takeLink(from inode: inout InodeRecord, least: UInt32) throws(Stop) {
        guard inode.linkCount >= least else {
            throw damage("inode \(inode.inode.rawValue)", "it has \(inode.linkCount) links, but more names than that")
        }
        inode.linkCount -= 1
    }

    /// Throws unless a directory is empty, by its count and in the index. A count of zero beside names is damage.
    func requireEmpty(_ directory: InodeEntry) throws(Stop) {
        guard directory.derived == 0 else { throw .failed(.notEmpty) }
        let number = directory.record.inode
        let first = try find { () throws(PageMiss) in
            try index.tree.next(atOrAfter: DirentEntry.key(number, 0)).map { $0.key }
        }
        guard let first, first.space == .tree, first.object == number.rawValue, first.kind == .dirent else { return }
        throw damage("directory \(number.rawValue)", "it has names, and counts none")
    }

    /// Reports damage. Returns what the operation that met it throws.
    func damage(_ place: String, _ reason: String) -> Stop {
        report(CorruptionReport(place: place, reason: reason))
        return .failed(.ioError)
    }

    func slot(_ directory: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) -> RecordIndex.NameSlot {
        try find { () throws(PageMiss) in try index.dirent(directory, name, nameHash) }
    }

    func raiseLookups(_ inode: InodeNumber) { setLookups(inode, (lookups[inode] ?? 0) + 1) }

    func setLookups(_ inode: InodeNumber, _ count: UInt64) {
        lookups[inode] = count == 0 ? nil : count
        connection?.setCount(inode, count, all: lookups)
    }

    func report(_ corruption: CorruptionReport) {
        corruptionCount += 1
        if corruptions.count < 64 { corruptions.append(corruption) }
    }
}

extension InodeRecord {
    var type: UInt32 { mode & 0o170000 }
    var isDirectory: Bool { type == 0o040000 }
    var isRegular: Bool { type == 0o100000 }
    var isSymbolicLink: Bool { type == 0o120000 }

    /// Clears the set-user-ID bit. Clears the set-group-ID bit too, unless the file is not executable by its group and
    /// the caller is in that group or has CAP_FSETID. Returns whether the mode changed. Source: POSIX write(2),
    /// chown(2); the kernel's setattr_should_drop_suidgid.
    @discardableResult
    mutating func killPrivileges(_ caller: Caller) throws(Stop) -> Bool {
        guard !isDirectory, mode & 0o6000 != 0 else { return false }
        let before = mode
        if mode & 0o2000 != 0 {
            let isExecutable = mode & 0o010 != 0
            if isExecutable { mode &= ~0o2000 } else if !(try caller.keepsSetGroupID(of: self)) { mode &= ~0o2000 }
        }
        mode &= ~0o4000
        return mode != before
    }

    /// The same for requests that do not say whether the caller may keep the bits (FALLOCATE, COPY_FILE_RANGE).
    @discardableResult
    mutating func killPrivilegesUnlessEntitled(_ caller: Caller) throws(Stop) -> Bool {
        guard !isDirectory, mode & 0o6000 != 0 else { return false }
        guard let identity = caller.identity else { throw .blocked(.identity) }
        return identity.keepsSetGroupID ? false : try killPrivileges(caller)
    }
}
