// All state of a mounted store that changes: index, log, lookup counts. One lock guards it (see Volume). Every operation
// validates, plans a record, and appends and applies it in one step, or changes nothing.

/// What operations come to need and give away under the lock.
final class Core {
    /// Replaced, with the log's table, when the log was written again after a failure.
    private(set) var index: RecordIndex
    let log: SegmentLog
    var table: SegmentTable { log.table }
    let nameHash: NameHash
    let now: @Sendable () -> Timestamp
    /// Bytes that one write may bring.
    let writeByteCountLimit: Int
    private(set) var isReadOnly: Bool
    /// Somebody has shut the mount down (see `Volume.shutDown`): every operation fails.
    private(set) var isShutDown = false
    /// The mount ends: requests do not wait any more.
    private(set) var isEnding = false
    /// Access control lists are taken, and heeded by the kernel.
    var keepsAccessLists = true
    var accessTimes = AccessTimes()
    var bounds = WorkBounds() {
        didSet { bound(index) }
    }
    /// How often the kernel knows each inode. Changed by `setLookups`.
    var lookups: [InodeNumber: UInt64] = [:]
    /// Where a successor of this process would find the same; nil where there would be none.
    var connection: ConnectionState?
    /// Inodes that lost their last name while the kernel knew them.
    var orphanCandidates: Set<InodeNumber> = []
    /// Inodes without a name and without a lookup, to be removed by the housekeeper.
    var reapable: [InodeNumber] = []
    /// What each record is written with. Empty but while `commit` has one written.
    private var writer = RecordWriter(capacity: 16 << 10)
    var readBuffers = BufferPool()
    /// The records' bytes appended since the last checkpoint was frozen.
    var appendedAtFreeze: UInt64 = 0
    var corruptions: [CorruptionReport] = []
    var corruptionCount = 0
    /// Files whose pieces are joined before more is written to what they were reserved.
    var crowded: [InodeNumber] = []
    /// What writers on a full store know of the parts that they write, while they look at many pieces.
    var reserved: [WrittenRange: KnownReservation] = [:]
    /// One of which no more can be gained by that.
    var joinedInVain: InodeNumber?
    /// A removal could not go on when it was tried last.
    var isRemovalStuck = false

    init(
        index: RecordIndex, log: SegmentLog, nameHash: NameHash, isReadOnly: Bool,
        now: @escaping @Sendable () -> Timestamp
    ) {
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

    /// Whether a request that would have to wait until it can append must fail instead. Asked by whatever lets requests wait.
    var isVainToWait: Bool { isOver || isEnding }

    /// What a request is told that must not wait: besides at an end, on a host that has had no room for long.
    var endError: Errno {
        if isOver || isEnding { return isReadOnly && !isShutDown ? .readOnly : .ioError }
        return .noSpace
    }

    /// The log has failed for good.
    func close(_ error: Errno, _ telling: borrowing Telling) {
        isReadOnly = true
        log.fail(error, telling)
    }

    func shutDown(_ telling: borrowing Telling) {
        isShutDown = true
        log.fail(.ioError, telling)
    }

    func endRequests(_ telling: borrowing Telling) { isEnding = true }

    /// How often the index was replaced: what somebody knows of segments may be out of date.
    private(set) var adoptCount = 0

    /// Goes on with another index, which takes over the accounting of the log's present table.
    func adopt(_ index: RecordIndex) {
        self.index = index
        bound(index)
        adoptCount += 1
        // From here on nothing waits for a page: operations that miss one are parked.
        index.tree.fetchNow = nil
        log.placePayload = { [unowned index] payload, segment, position in index.place(payload, segment, position) }
    }

    private func bound(_ index: RecordIndex) {
        index.replacedExtentLimit = bounds.replacedExtentCount
        index.tombstoneWalkLimit = bounds.extentCount
    }

    /// Inodes without a name go, but for those that the kernel knows of a process that served it before.
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

    /// Has `body` write a record, and appends and applies that; or throws and changes nothing. One record is written at a time, from its
    /// beginning to its end: what an operation leaves half written no other one sees.
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

    /// The same for what may come to nothing: a record without a change is not appended.
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

    /// Commits a change of data. Where the store is full for others, a range that is allocated throughout still takes it: what was reserved
    /// there was reserved, and what is overwritten comes free.
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
                    if case .failed = error { reserved[range] = nil }
                    throw error
                }
            }
        }
    }

    /// Commits a record that makes an inode; its number is used up only if it did.
    func commit(
        making inode: InodeRecord, _ tier: SpaceTier, _ context: RequestContext,
        _ body: (inout RecordWriter) throws(Stop) -> Void
    ) throws(Stop) {
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
        index.apply(record, at: place)
        if !reserved.isEmpty { forgetReservations(changedBy: record) }
        if let impossible = table.impossible {
            table.impossible = nil
            report(impossible)
        }
    }

    /// Appends and applies a record of a dead mount's tail, under its old sequence; it must be the next.
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
        // What the cleaner moved stays where it was: that is as good, and the segment it went to may not be in use any more.
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

    /// Where a write over many extents is still being carried out in a part of a file that a record changes too, or where a file has too
    /// many removals under way, does a part of the rest of it: the record's turn comes when that is done.
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

    /// Changed pages fill so much of the page cache that a checkpoint must come first.
    var isDirtyLimitReached: Bool { index.tree.dirtyByteCount * 4 >= index.tree.cacheLimitByteCount * 3 }

    /// Whether it is worth while to run operations again that found no room.
    var mayHaveRoom: Bool {
        log.mayHaveRoom && crowded.isEmpty && (!isDirtyLimitReached || log.space.isCheckpointStuck)
            && !(isRoomComing && isNearlyFull)
    }

    /// Whether removals that are under way will make room: what was removed is taken out of the index step by step.
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

    /// An inode loses a link. `least`: what it must have at least for what is taken from it; only damage has less.
    func takeLink(from inode: inout InodeRecord, least: UInt32) throws(Stop) {
        guard inode.linkCount >= least else {
            throw damage("inode \(inode.inode.rawValue)", "it has \(inode.linkCount) links, but more names than that")
        }
        inode.linkCount -= 1
    }

    /// A directory that is to be removed has nothing in it, by its count and in the index.
    func requireEmpty(_ directory: InodeEntry) throws(Stop) {
        guard directory.derived == 0 else { throw .failed(.notEmpty) }
        let number = directory.record.inode
        let first = try find { () throws(PageMiss) in
            try index.tree.next(atOrAfter: DirentEntry.key(number, 0)).map { $0.key }
        }
        guard let first, first.space == .tree, first.object == number.rawValue, first.kind == .dirent else { return }
        throw damage("directory \(number.rawValue)", "it has names, and counts none")
    }

    /// Reports damage; gives what an operation throws that has met it.
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

    /// Clears the set-user-ID bit, and the set-group-ID bit unless the file is not executable by its group and the caller is in
    /// it; true if that changed anything. Source: POSIX write(2), chown(2); the kernel's setattr_should_drop_suidgid.
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
