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
                volume.park(blocker, attempt, mayWait: false) { [self] attempt in run(attempt) }
            }
        }
    }
}

@Suite(.serialized) struct ParkingTests {
    private static let caller = Caller(uid: 1, gid: 1, umask: 0, identity: .privileged)

    // MARK: What comes upon a request

    private enum Step: String, CaseIterable {
        case round, commitAndCheckpoint, checkpoint, recycle, reclaim, cleanOne, trim, grow, shrink, replaceStaging, keepStaging, relocate
        case unmount, discard, flush, fail

        var isEnd: Bool { [.unmount, .discard, .flush, .fail].contains(self) }

        func take(_ store: SimulatedStore) throws {
            let volume = store.volume
            switch self {
            case .round: volume.housekeep()
            case .commitAndCheckpoint: volume.housekeep(commits: true, checkpoints: true)
            case .checkpoint: volume.checkpointReporting()
            case .recycle:
                volume.freeDeadSegments(punches: true)
                volume.sweepTombstones()
            case .reclaim: _ = volume.reclaim()
            case .cleanOne: _ = volume.cleanOne()
            case .trim:
                volume.trim { _ in }
                volume.housekeep()
            case .grow:
                volume.resize(to: 48 << 20) { _ in }
                volume.housekeep()
            case .shrink:
                volume.resize(to: 24 << 20) { _ in }
                for _ in 0..<4 { volume.housekeep() }
            case .replaceStaging:
                try volume.replaceStaging { geometry, _, _ in Staging(geometry: geometry) }
            case .keepStaging:
                #expect(throws: Errno.noSpace) {
                    try volume.replaceStaging { (_, _, _) throws(Errno) in throw .noSpace }
                }
            case .relocate:
                store.device.inject(SimulatedFault(.fail(.input), kinds: [.write, .writeDurable, .sync]))
                volume.sync(mayWait: false) { _ in }
                volume.housekeep()
            case .unmount: try volume.unmount()
            case .discard: volume.shutDown(.discard, mayWait: true) { _ in }
            case .flush: volume.shutDown(.flush, mayWait: true) { _ in }
            case .fail: volume.closeLog(.input)
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
        return { (core) throws(Stop) in
            switch kind {
            case .overwrite, .append:
                try Operation.withBytes([UInt8](repeating: 9, count: 5000)) { (bytes) throws(Stop) in
                    _ = try core.write(first, at: kind == .append ? 1 << 20 : 1000, bytes, [], caller)
                }
            case .make:
                try withName("new") { (name) throws(Stop) in
                    _ = try core.make(.root, name, NewInode(mode: 0o100644), caller)
                }
            case .unlink: try withName("file 7") { (name) throws(Stop) in try core.unlink(.root, name) }
            case .rename:
                try withName("file 3") { (old) throws(Stop) in
                    try withName("file 290") { (new) throws(Stop) in
                        try core.rename(.root, old, .root, new, [], caller)
                    }
                }
            case .truncate: _ = try core.setAttributes(first, AttributeChanges(byteCount: 100), caller)
            case .punch: _ = try core.allocate(first, [.punchesHole, .keepsSize], at: 4096, 60_000, caller)
            case .zero: _ = try core.allocate(first, .zeroes, at: 100, 60_000, caller)
            case .reserve: _ = try core.allocate(first, [], at: 0, 400_000, caller)
            case .setXattr:
                try withName("user.name") { (name) throws(Stop) in
                    try Operation.withBytes([1, 2, 3]) { (bytes) throws(Stop) in
                        try core.setXattr(last, name, bytes, [], caller)
                    }
                }
            case .copy: _ = try core.copyRange(first, at: 0, last, at: 0, 100_000, caller)
            case .list: try core.readDirectory(.root, after: 0) { (_) throws(Stop) in true }
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
                    try core.make(.root, name, NewInode(mode: 0o100644), caller)
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
                _ = try core.write(inode, at: offset, bytes, [], caller)
            }
        }
    }

    /// Mounts a copy of the template, with something acknowledged that is not durable.
    private static func mounted(_ device: SimulatedDevice) throws -> SimulatedStore {
        let copy = device.snapshotAfterKill(order: .pagesLast)
        let store = try SimulatedStore(settings, on: copy, clock: SimulationClock())
        try store.volume.perform { (core) throws(Stop) in
            try withName("warm") { (name) throws(Stop) in
                _ = try core.make(.root, name, NewInode(mode: 0o100644), caller)
            }
        }
        return store
    }

    // MARK: The course of one

    /// Lets the device and the housekeeper work until a request has an answer, or has waited so often.
    private static func goOn(_ store: SimulatedStore, _ request: ParkedRequest, untilStop count: Int = .max) {
        var roundsLeft = 60
        while request.answers.isEmpty, request.stops.count < count, roundsLeft > 0 {
            if store.device.step() { continue }
            store.volume.housekeep()
            roundsLeft -= 1
        }
    }

    /// Stops a request where it waits for the `stop`th time, takes a step there, and sees to the end of both; false where it does not wait
    /// as often.
    private static func run(
        _ device: SimulatedDevice, _ step: Step, _ watchdog: Watchdog, stop: Int, _ what: String,
        prepare: (SimulatedStore) throws -> Void = { _ in }, _ body: @escaping (Core) throws(Stop) -> Void
    ) throws -> Bool {
        watchdog.alive("\(what), stop \(stop), \(step)")
        let store = try mounted(device)
        try prepare(store)
        let request = ParkedRequest(store.volume, body)
        goOn(store, request, untilStop: stop)
        guard request.stops.count >= stop else { return false }
        try step.take(store)
        goOn(store, request)
        #expect(request.answers.count == 1, "\(what), stop \(stop), \(step): \(request.stops)")
        if !step.isEnd { #expect(request.answers.first == .some(nil), "\(what), stop \(stop), \(step)") }
        store.device.clearFaults()
        let isReadOnly = store.volume.isReadOnly
        if step != .unmount {
            do { try store.volume.unmount() } catch { #expect(isReadOnly, "\(what), stop \(stop), \(step): \(error)") }
        }
        #expect(request.answers.count == 1)
        #expect(!store.volume.state.withLock { $0.hasWaiters })
        let after = store.device.snapshotAfterKill()
        let again = try SimulatedStore(settings, on: after, clock: SimulationClock())
        try again.volume.unmount()
        let problems = try Checker.check(again.device.snapshotAfterKill(), readsData: false).problems
        #expect(problems == [], "\(what), stop \(stop), \(step)")
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
}
