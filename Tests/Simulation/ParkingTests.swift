// An operation is stopped at each point where it can wait, and everything that the housekeeper does, and every end of a mount, comes upon
// it there. It must be answered once, and what is left must be a whole store.

import Testing

@testable import Treering

/// A request as a transport makes it: parked where it is blocked, answered once.
private final class ParkedRequest: @unchecked Sendable {
    private let volume: Volume<SimulatedDevice>
    private let body: (Core) throws(Stop) -> Void
    /// What it waited for, so far.
    private(set) var stops: [Blocker] = []
    private(set) var answers: [Errno?] = []
    var roomStopCount: Int { stops.reduce(0) { if case .room = $1 { $0 + 1 } else { $0 } } }

    init(_ volume: Volume<SimulatedDevice>, _ body: @escaping (Core) throws(Stop) -> Void) {
        self.volume = volume
        self.body = body
        run(nil)
    }

    private func run(_ attempt: Attempt?) {
        do throws(Stop) {
            try volume.run(body)
            answers.append(nil)
        } catch {
            switch error {
            case .failed(let errno): answers.append(errno)
            case .blocked(let blocker):
                stops.append(blocker)
                volume.park(blocker, attempt, mayWait: false) { [self] attempt, _ in run(attempt) }
            }
        }
    }
}

@Suite(.serialized) struct ParkingTests {
    private static let context = RequestContext.by(Caller(uid: 1, gid: 1, umask: 0, identity: .privileged))

    // MARK: What comes upon a request

    private enum Step: String, CaseIterable {
        case round, commitAndCheckpoint, checkpoint, recycle, reclaim, cleanOne, trim, grow, shrink, replaceStaging,
            keepStaging, relocate
        case unmount, discard, flush, fail

        var isEnd: Bool { [.unmount, .discard, .flush, .fail].contains(self) }

        func take(_ store: SimulatedStore) throws {
            let volume = store.volume
            switch self {
            case .round: volume.housekeeper.housekeep()
            case .commitAndCheckpoint: volume.housekeeper.housekeep(commits: true, checkpoints: true)
            case .checkpoint: volume.housekeeper.checkpointReporting()
            case .recycle:
                volume.housekeeper.freeDeadSegments(punches: true)
                volume.housekeeper.sweepTombstones()
            case .reclaim: _ = volume.housekeeper.reclaim()
            case .cleanOne: _ = volume.housekeeper.cleanOne()
            case .trim:
                volume.housekeeper.trim { _ in }
                volume.housekeeper.housekeep()
            case .grow:
                volume.housekeeper.resize(to: 48 << 20) { _ in }
                volume.housekeeper.housekeep()
            case .shrink:
                volume.housekeeper.resize(to: 24 << 20) { _ in }
                for _ in 0..<4 { volume.housekeeper.housekeep() }
            case .replaceStaging:
                try volume.housekeeper.replaceStaging { geometry, _, _ in Staging(geometry: geometry) }
            case .keepStaging:
                #expect(throws: Errno.noSpace) {
                    try volume.housekeeper.replaceStaging { (_, _, _) throws(Errno) in throw .noSpace }
                }
            case .relocate:
                store.device.inject(SimulatedFault(.fail(.ioError), kinds: [.write, .writeDurable, .sync]))
                volume.sync(mayWait: false) { _ in }
                volume.housekeeper.housekeep()
            case .unmount: try volume.unmount()
            case .discard: volume.shutDown(.discard, mayWait: true) { _ in }
            case .flush: volume.shutDown(.flush, mayWait: true) { _ in }
            case .fail: volume.housekeeper.closeLog(.ioError)
            }
        }
    }

    // MARK: What is stopped

    private enum Kind: String, CaseIterable {
        case overwrite, append, make, unlink, rename, truncate, punch, zero, reserve, setXattr, copy, list
    }

    private static func withName(_ name: String, _ body: (UnsafeRawBufferPointer) throws(Stop) -> Void) throws(Stop) {
        try Operation.withName(name, body)
    }

    /// The operation of a kind, on the files that `template` has made.
    private static func body(_ kind: Kind, _ files: [InodeNumber]) -> (Core) throws(Stop) -> Void {
        let (first, last) = (files[0], files[files.count - 1])
        let walk = AllocationWalk()
        return { (core) throws(Stop) in
            switch kind {
            case .overwrite, .append:
                try Operation.withBytes([UInt8](repeating: 9, count: 5000)) { (bytes) throws(Stop) in
                    _ = try core.write(first, at: kind == .append ? 1 << 20 : 1000, bytes, [], context)
                }
            case .make:
                try withName("new") { (name) throws(Stop) in
                    _ = try core.make(.root, name, NewInode(mode: 0o100644), context)
                }
            case .unlink: try withName("file 7") { (name) throws(Stop) in try core.unlink(.root, name, .nobody) }
            case .rename:
                try withName("file 3") { (old) throws(Stop) in
                    try withName("file 290") { (new) throws(Stop) in
                        try core.rename(.root, old, .root, new, [], context)
                    }
                }
            case .truncate: _ = try core.setAttributes(first, AttributeChanges(byteCount: 100), context)
            case .punch: _ = try core.allocate(first, [.punchesHole, .keepsSize], at: 4096, 60_000, context, walk)
            case .zero: _ = try core.allocate(first, .zeroes, at: 100, 60_000, context, walk)
            case .reserve: _ = try core.allocate(first, [], at: 0, 400_000, context, walk)
            case .setXattr:
                try withName("user.name") { (name) throws(Stop) in
                    try Operation.withBytes([1, 2, 3]) { (bytes) throws(Stop) in
                        try core.setXattr(last, name, bytes, [], context)
                    }
                }
            case .copy: _ = try core.copyRange(first, at: 0, last, at: 0, 100_000, context)
            case .list: try core.readDirectory(.root, after: 0, isAccess: false) { (_) throws(Stop) in true }
            }
        }
    }

    private static var settings: StoreSettings {
        var settings = StoreSettings()
        settings.order = .pagesLast
        return settings
    }

    /// A store with far more index than its cache holds, and something dead in its segments.
    private static func template() throws -> (device: SimulatedDevice, files: [InodeNumber]) {
        let store = try SimulatedStore(settings)
        var files: [InodeNumber] = []
        for number in 0..<300 {
            let inode = try store.volume.perform { (core) throws(Stop) in
                try Operation.withName("file \(number)") { (name) throws(Stop) in
                    try core.make(.root, name, NewInode(mode: 0o100644), context)
                }
            }.inode
            files.append(inode)
        }
        for piece in 0..<120 as Range<UInt64> { try write(store, files[0], piece * 1000, 700) }
        for round in 0..<3 as Range<UInt64> {
            for piece in 0..<30 as Range<UInt64> { try write(store, files[1], piece * 60_000 + round, 60_000) }
        }
        try store.volume.unmount()
        return (store.device, files)
    }

    private static func write(_ store: SimulatedStore, _ inode: InodeNumber, _ offset: UInt64, _ count: Int) throws {
        try store.volume.perform { (core) throws(Stop) in
            try Operation.withBytes([UInt8](repeating: 1, count: count)) { (bytes) throws(Stop) in
                _ = try core.write(inode, at: offset, bytes, [], context)
            }
        }
    }

    /// Mounts a copy of the template, with something acknowledged that is not durable.
    private static func mounted(_ device: SimulatedDevice) throws -> SimulatedStore {
        let copy = device.snapshotAfterKill(order: .pagesLast)
        let store = try SimulatedStore(settings, on: copy, clock: SimulationClock())
        try store.volume.perform { (core) throws(Stop) in
            try withName("warm \(core.log.nextSequence.rawValue)") { (name) throws(Stop) in
                _ = try core.make(.root, name, NewInode(mode: 0o100644), context)
            }
        }
        return store
    }

    // MARK: The course of one

    /// Lets the device and the housekeeper work until a request has an answer, or has come to a point.
    private static func goOn(
        _ store: SimulatedStore, _ request: ParkedRequest, until isThere: (ParkedRequest) -> Bool = { _ in false }
    ) {
        var roundsLeft = 60
        while request.answers.isEmpty, !isThere(request), roundsLeft > 0 {
            if store.device.step() { continue }
            store.volume.housekeeper.housekeep()
            roundsLeft -= 1
        }
    }

    /// Requests that fill all slots of staging, none of which the device gets to write.
    private static func fillSlots(_ store: SimulatedStore, _ inode: InodeNumber) throws -> [ParkedRequest] {
        try write(store, inode, 0, 1000)
        var requests: [ParkedRequest] = []
        for piece in 0..<64 as Range<UInt64> where requests.last?.stops.isEmpty ?? true {
            requests.append(
                ParkedRequest(store.volume) { (core) throws(Stop) in
                    try Operation.withBytes([UInt8](repeating: 2, count: 50_000)) { (bytes) throws(Stop) in
                        _ = try core.write(inode, at: piece * 50_000, bytes, [], context)
                    }
                })
        }
        return requests
    }

    /// A write of the log fails, and nobody has made that good yet.
    private static func suspend(_ store: SimulatedStore) {
        store.device.inject(SimulatedFault(.fail(.ioError), kinds: [.write, .writeDurable]))
        store.volume.sync(mayWait: false) { _ in }
        while store.volume.state.withLock({ $0.core.log.suspension == nil }), store.device.step() {}
    }

    /// Stops a request where it waits for the `stop`th time, or, without a number, first waits for room; takes a step there, and sees to
    /// the end of both. False where it does not come to that.
    private static func run(
        _ device: SimulatedDevice, _ step: Step, _ watchdog: Watchdog, stop: Int?, _ what: String,
        prepare: (SimulatedStore) throws -> [ParkedRequest] = { _ in [] }, _ body: @escaping (Core) throws(Stop) -> Void
    ) throws -> Bool {
        let what = "\(what), stop \(stop ?? 0), \(step)"
        watchdog.alive(what)
        let store = try mounted(device)
        let others = try prepare(store)
        let request = ParkedRequest(store.volume, body)
        let isThere = { (request: ParkedRequest) in
            if let stop { request.stops.count >= stop } else { request.roomStopCount > 0 }
        }
        goOn(store, request, until: isThere)
        guard request.answers.isEmpty, isThere(request) else { return false }
        try step.take(store)
        for request in [request] + others { goOn(store, request) }
        #expect(
            ([request] + others).allSatisfy { $0.answers.count == 1 },
            "\(what): \(request.stops)")
        if !step.isEnd { #expect(request.answers.first == .some(nil), "\(what)") }
        store.device.clearFaults()
        let isReadOnly = store.volume.isReadOnly
        if step != .unmount {
            do { try store.volume.unmount() } catch { #expect(isReadOnly, "\(what): \(error)") }
        }
        #expect(request.answers.count == 1)
        #expect(!store.volume.state.withLock { $0.hasWaiters })
        let after = store.device.snapshotAfterKill()
        let again = try SimulatedStore(settings, on: after, clock: SimulationClock())
        try again.volume.unmount()
        let problems = try Checker.check(again.device.snapshotAfterKill(), readsData: false).problems
        #expect(problems == [], "\(what)")
        return true
    }

    // MARK: Tests

    @Test func everyStepAndEveryEndAtEachPageThatIsWaitedFor() throws {
        let watchdog = try Watchdog(secondCount: 30)
        defer { watchdog.stop() }
        let (device, files) = try Self.template()
        var count = 0
        for kind in Kind.allCases {
            let body = Self.body(kind, files)
            for step in Step.allCases {
                var stop = 1
                while try Self.run(device, step, watchdog, stop: stop, kind.rawValue, body) {
                    count += 1
                    stop += 1
                }
            }
        }
        Environment.note("parking: \(count) times stopped")
        #expect(count > 200)
    }

    @Test func everyStepAndEveryEndWhileAllSlotsAreInUse() throws {
        let watchdog = try Watchdog(secondCount: 30)
        defer { watchdog.stop() }
        let (device, files) = try Self.template()
        for step in Step.allCases {
            let isStopped = try Self.run(
                device, step, watchdog, stop: nil, "no slot", prepare: { try Self.fillSlots($0, files[2]) },
                Self.body(.make, files))
            #expect(isStopped)
        }
    }

    @Test func everyStepAndEveryEndWhileTheLogHasFailed() throws {
        let watchdog = try Watchdog(secondCount: 30)
        defer { watchdog.stop() }
        let (device, files) = try Self.template()
        for step in Step.allCases where step != .relocate {
            let isStopped = try Self.run(
                device, step, watchdog, stop: nil, "failed log",
                prepare: {
                    Self.suspend($0)
                    return []
                }, Self.body(.make, files))
            #expect(isStopped)
        }
    }

    /// Writers that waited for a removal to make room were never answered after a shutdown.
    @Test func everyStepAndEveryEndWhileRoomIsComing() throws {
        let watchdog = try Watchdog(secondCount: 30)
        defer { watchdog.stop() }
        let (device, files) = try Self.template()
        let full = try Self.mounted(device)
        let data = try #require(files.last)
        #expect(throws: Errno.noSpace) {
            for piece in 0..<10_000 as Range<UInt64> { try Self.write(full, data, piece * 50_000, 50_000) }
        }
        try full.volume.unmount()
        for step in Step.allCases where step != .shrink {
            let isStopped = try Self.run(
                full.device, step, watchdog, stop: nil, "full",
                prepare: { store in
                    try store.volume.perform { (core) throws(Stop) in
                        _ = try core.setAttributes(files[0], AttributeChanges(byteCount: 0), Self.context)
                    }
                    let isWaiting = store.volume.state.withLock { $0.core.isRoomComing }
                    #expect(isWaiting)
                    return []
                },
                { (core) throws(Stop) in
                    try Operation.withBytes([UInt8](repeating: 9, count: 50_000)) { (bytes) throws(Stop) in
                        _ = try core.write(data, at: 1 << 40, bytes, [], Self.context)
                    }
                })
            #expect(isStopped)
        }
    }

    /// Staging that lost its name while an operation had opened a batch and waited for a page could not be replaced: the mount hung.
    @Test func stagingIsReplacedUnderABatchWithoutARecord() throws {
        let watchdog = try Watchdog(secondCount: 30)
        defer { watchdog.stop() }
        let (device, files) = try Self.template()
        var stopped: (store: SimulatedStore, request: ParkedRequest, kind: Kind)?
        for kind in Kind.allCases where stopped == nil {
            let store = try Self.mounted(device)
            try store.volume.syncAndWait()
            let request = ParkedRequest(store.volume, Self.body(kind, files))
            repeat {
                let isOpen = store.volume.state.withLock { state in
                    state.core.log.headSegment != nil && !state.core.log.hasOpenRecords
                }
                if isOpen, request.answers.isEmpty { stopped = (store, request, kind) }
            } while stopped == nil && request.answers.isEmpty && store.device.step()
        }
        let (store, request, kind) = try #require(stopped)
        Environment.note("parking: a batch without a record by \(kind)")
        var other: AlignedBuffer?
        try store.volume.housekeeper.replaceStaging { geometry, epoch, generation in
            let memory = AlignedBuffer(byteCount: geometry.byteCount)
            memory.bytes.zero(0, memory.bytes.count)
            StagingHeader(
                uuid: SimulatedStore.uuid, epoch: epoch, generation: generation, device: 0, directory: 0,
                bootID: StoreUUID(high: 0, low: 0), owner: 0, identity: 2, geometry: geometry
            ).encode(into: memory.bytes)
            other = memory
            return Staging(geometry: geometry, memory: memory.bytes, owner: memory)
        }
        Self.goOn(store, request)
        #expect(request.answers == [nil])
        // What comes after that is found in the new staging by a successor.
        let next = store.nextSequence
        let tail = try #require(StagedRecords(copying: UnsafeRawBufferPointer(other!.bytes)))
        let again = try SimulatedStore(
            Self.settings, on: store.device.snapshotAfterKill(), clock: SimulationClock(), allStaged: [tail])
        #expect(again.recoveredSequence == next)
    }

    /// A batch without a record began a segment, whose header was never written, when the store was unmounted.
    @Test func anUnmountUnderABatchWithoutARecordThatBeginsASegment() throws {
        let watchdog = try Watchdog(secondCount: 30)
        defer { watchdog.stop() }
        let (device, files) = try Self.template()
        let store = try Self.mounted(device)
        try store.volume.syncAndWait()
        while store.volume.state.withLock({ $0.core.log.head != nil }) {
            try Self.write(store, files[0], 0, 30_000)
            store.volume.state.withLock { $0.core.log.closeBatch(durable: false) }
        }
        store.volume.housekeeper.housekeep()
        let room = store.volume.state.withLock {
            $0.core.log.makeRoom(recordByteCount: 1000, payloadByteCount: 0, .write)
        }
        #expect(room == .ready)
        try store.volume.unmount()
        let again = try SimulatedStore(Self.settings, on: store.device.snapshotAfterKill(), clock: SimulationClock())
        try Self.write(again, files[0], 0, 5000)
        try again.volume.unmount()
        #expect(try Checker.check(again.device.snapshotAfterKill(), readsData: true).problems == [])
    }
}
