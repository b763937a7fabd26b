// A random run: the same operations on a volume and on the model, with everything that can happen to a store in between.

@testable import Treering

/// What a simulation found to be wrong.
struct SimulationFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

final class RandomSimulation {
    struct Options {
        var store = StoreSettings()
        var operationCount = 1000
        /// Out of 10,000 per operation.
        var syncs = 100
        var housekeepings = 120
        var remounts = 6
        var kills = 15
        var powerCuts = 20
        var comparisons = 20
        var oracles = 8
        /// Calls of the device that fail.
        var faults = 0
        var scrubs = 0
        var keepsStaging = true
    }

    let options: Options
    let seed: UInt64
    let store: SimulatedStore
    var model: ModelFileSystem
    var generator: OperationGenerator
    let caller = Caller(uid: 1000, gid: 100, umask: 0o022, identity: Identity(groups: [100, 7]))
    private let watchdog: Watchdog
    /// What the tree was when the log had come so far, since the last sync.
    private var snapshots: [(nextSequence: UInt64, model: ModelFileSystem)] = []
    private(set) var recent: [String] = []
    /// What happened to the store, and what it logged.
    private var events: [String] = []
    private(set) var operationCount = 0
    private(set) var counts: [String: Int] = [:]
    private var readsInParts: [ReadInParts] = []
    var failure: String?
    /// Recycle what can be recycled, when no completion is being handled.
    private var wantsRoom = false

    init(_ options: Options, seed: UInt64) throws {
        self.options = options
        self.seed = seed
        store = try SimulatedStore(options.store, seed: seed)
        model = ModelFileSystem(time: store.clock.time)
        generator = OperationGenerator(seed: seed, writeLimit: store.volume.maxWriteByteCount)
        watchdog = try Watchdog()
        noteSynced()
    }

    func count(_ what: String) { counts[what, default: 0] += 1 }

    func note(_ text: String) {
        recent.append("\(operationCount): \(text)")
        if recent.count > 400 { recent.removeFirst(200) }
    }

    /// A note that is kept for longer.
    func noteEvent(_ text: String) {
        note(text)
        events.append(contentsOf: store.log.take() + ["\(operationCount): \(text)"])
        if events.count > 200 { events.removeFirst(100) }
    }

    /// The last of both, for a person.
    var history: String {
        (["what happened to the store:"] + events.suffix(30) + store.log.take() + ["operations:"] + recent.suffix(40))
            .joined(separator: "\n")
    }

    func fail(_ text: String) { failure = failure ?? text }

    private func checkFailure() throws {
        if let failure { throw SimulationFailure(failure) }
    }

    // MARK: Running

    func run() throws {
        defer { watchdog.stop() }
        while operationCount < options.operationCount {
            watchdog.alive("seed \(seed), operation \(operationCount), \(recent.last ?? "")")
            store.clock.tick()
            model.time = store.clock.time
            try event()
            if generator.chance(12) { try runTogether() } else { try runOne() }
            if generator.chance(40) { for _ in 0..<generator.below(4) where !store.device.step() { break } }
            makeRoom()
            try checkFailure()
        }
        try compare()
        try remount()
        try compareWithLog()
    }

    /// What each segment holds, for a person.
    func describeSegments() {
        let device = store.device
        let state = store.volume.state.heldState
        let table = state.core.table
        let reader = BatchReader(device: device, uuid: state.core.log.uuid, segmentByteCount: table.segmentByteCount)
        for (number, segment) in table.segments.enumerated() {
            guard let file = segment.file else { continue }
            let header = try? reader.segmentHeader(SegmentNumber(UInt32(number)), file)
            let onDisk =
                header.map { "\($0.state) \($0.incarnation), batch \($0.firstBatch.rawValue), end \($0.end)" } ?? "none"
            Environment.note(
                "segment \(number): \(segment.state) \(segment.incarnation), batches \(segment.firstBatch.rawValue)–\(segment.lastBatch.rawValue), end \(segment.end), epoch \(segment.epoch.rawValue), \(segment.live) live; on disk \(onDisk)"
            )
        }
        Environment.note(
            "slots \(state.slots), position \(state.core.log.position), \(state.core.index.removals.count) removals, \(model.inodes.count) inodes"
        )
        if let number = Environment.number("TREERING_INODE") {
            try? Dump<SimulatedDevice>.inode(device, number) { Environment.note($0) }
        }
    }

    private func makeRoom() {
        guard wantsRoom else { return }
        wantsRoom = false
        store.volume.housekeeper.housekeep(commits: true, checkpoints: true)
        count("housekeeping for room")
    }

    private func event() throws {
        if store.volume.isReadOnly { try leaveReadOnly() }
        if generator.chance(2), !generator.isPurging { purgeBeforeFull() }
        var drawn = generator.below(10_000)
        func isDrawn(_ share: Int) -> Bool {
            defer { drawn -= share }
            return drawn >= 0 && drawn < share
        }
        if isDrawn(options.syncs) { try sync() }
        if isDrawn(options.housekeepings) { try housekeep() }
        if isDrawn(options.remounts) { try remount() }
        if isDrawn(options.kills) { try kill() }
        // The power often fails again soon after.
        if isDrawn(options.powerCuts) { repeat { try cutPower() } while generator.chance(35) }
        if isDrawn(options.comparisons) { try compare() }
        if isDrawn(options.oracles) { try compareWithLog() }
        if isDrawn(options.faults) { injectFault() }
        if isDrawn(options.scrubs) { try scrub() }
    }

    /// One of the next writes or flushes fails, sometimes two; sometimes what makes and names files.
    private func injectFault() {
        let effects: [SimulatedFault.Effect] = [
            .fail(.ioError), .failTorn(.ioError), .failAndLose(.ioError), .fail(.noSpace), .shorten(4096),
        ]
        guard store.device.faultCount == 0 else { return }
        repeat {
            let effect = effects[generator.below(effects.count)]
            let kinds: Set<TraceEntry.Kind> =
                generator.chance(20)
                ? [.create, .resize, .rename, .unlink, .syncDirectories] : [.write, .writeDurable, .sync]
            let fault = SimulatedFault(effect, kinds: kinds, nth: 1 + generator.below(6))
            noteEvent("\(fault)")
            count("fault")
            store.device.inject(fault)
        } while generator.chance(15)
    }

    /// What could not be written at a second place either has made the mount read-only: it shows what it acknowledged, and is left.
    private func leaveReadOnly() throws {
        count("read-only")
        store.device.clearFaults()
        try compareQuickly("while read-only")
        do {
            try store.volume.syncAndWait()
            fail("an fsync succeeds on a mount whose log has failed")
        } catch {}
        if generator.chance(50) { try kill() } else { try cutPower() }
    }

    /// Mostly the store does not get quite full.
    private func purgeBeforeFull() {
        let isShort = store.volume.state.withLock { $0.core.table.freeCount * 4 < $0.core.table.countLimit }
        guard isShort, generator.chance(60) else { return }
        count("purge")
        noteEvent("purge")
        generator.isPurging = true
    }

    /// Everything so far is durable.
    private func noteSynced() { snapshots = [(store.nextSequence, model)] }

    func noteChange(_ nextSequence: UInt64) {
        if nextSequence > snapshots.last!.nextSequence { snapshots.append((nextSequence, model)) }
    }

    private func sync() throws {
        noteEvent("sync")
        count("sync")
        do { try store.volume.syncAndWait() } catch {
            guard store.volume.isReadOnly else { throw error }
            return
        }
        noteSynced()
    }

    func housekeep() throws {
        let commits = generator.chance(50)
        let checkpoints = generator.chance(50)
        noteEvent("housekeep commits \(commits) checkpoints \(checkpoints)")
        count("housekeep")
        let before = store.volume.state.withLock { $0.checkpointCount }
        let cleaned = store.volume.housekeeper.cleaner.cleanedSegmentCount
        if generator.chance(3) { resize() }
        if generator.chance(4) { trim() }
        let punched = store.volume.state.withLock { $0.punchedByteCount }
        let segmentCount = store.volume.state.withLock { $0.core.table.segments.count }
        store.volume.housekeeper.housekeep(commits: commits, checkpoints: checkpoints)
        if store.volume.state.withLock({ $0.core.table.segments.count }) != segmentCount { count("resized") }
        if store.volume.state.withLock({ $0.punchedByteCount }) > punched { count("punching") }
        let device = store.device
        let isUnfit = store.volume.state.withLock { state in
            let table = state.core.table
            return table.pool.contains { table[$0].file.map { device.hole(in: $0, from: 0) != nil } ?? true }
        }
        if isUnfit { throw SimulationFailure("a segment with a hole counts as prepared") }
        if store.volume.state.withLock({ $0.checkpointCount }) > before { count("checkpoint") }
        if store.volume.housekeeper.cleaner.cleanedSegmentCount > cleaned { count("cleaning") }
    }

    /// The host is to get back what the store does not need.
    private func trim() {
        noteEvent("trim")
        count("trim")
        store.volume.housekeeper.trim { _ in }
    }

    /// Asks for another capacity, which the next rounds of the housekeeper bring about, or refuse.
    private func resize() {
        let segmentCount = generator.below(2 * Int(options.store.capacityByteCount >> 20)) + 16
        note("resize to \(segmentCount) MiB")
        count("resize")
        store.volume.housekeeper.resize(to: UInt64(segmentCount) << 20) { _ in }
    }

    // MARK: Endings

    private func countRelocated() {
        counts["relocated", default: 0] += store.volume.state.withLock { $0.relocationCount }
        counts["joined", default: 0] += Int(store.volume.state.withLock { $0.core.joined.pieceCount })
        counts["packed", default: 0] += Int(store.volume.state.withLock { $0.core.log.leftOutCount })
    }

    private func remount() throws {
        store.device.clearFaults()
        if store.volume.isReadOnly { try leaveReadOnly() }
        countRelocated()
        noteEvent("remount")
        count("remount")
        try store.remount(seed: generator.seed())
        model.remount()
        noteSynced()
        try compareQuickly("after a remount")
    }

    private func kill() throws {
        countRelocated()
        noteEvent("kill")
        count("kill")
        let acknowledged = store.nextSequence
        try store.kill(seed: generator.seed(), keepsStaging: options.keepsStaging)
        try adoptRecovered(atLeast: options.keepsStaging ? acknowledged : nil, "after a kill")
    }

    private func cutPower() throws {
        countRelocated()
        noteEvent("power cut")
        count("power cut")
        try store.cutPower(seed: generator.seed())
        try adoptRecovered(atLeast: nil, "after a power cut")
    }

    /// The store shows the state after some operation, not before the last sync.
    private func adoptRecovered(atLeast floor: UInt64?, _ what: String) throws {
        let reached = store.recoveredSequence
        let floor = max(floor ?? 0, snapshots[0].nextSequence)
        guard reached >= floor else {
            throw SimulationFailure(
                "\(what) the log ends before record \(reached), but record \(floor - 1) was acknowledged as safe")
        }
        guard let found = snapshots.last(where: { $0.nextSequence <= reached }) else { preconditionFailure() }
        let time = model.time
        model = found.model
        model.time = time
        model.remount()
        noteSynced()
        try compareQuickly(what)
    }

    // MARK: Oracles

    private func compareQuickly(_ what: String) throws {
        if let difference = TreeComparison.firstDifference(store.volume, model) {
            throw SimulationFailure("\(what): \(difference)")
        }
    }

    private func compare() throws {
        note("compare")
        count("comparison")
        try compareQuickly("comparing")
    }

    private func compareWithLog() throws {
        store.device.clearFaults()
        if store.volume.isReadOnly { return }
        noteEvent("compare with the log")
        count("oracle")
        store.volume.housekeeper.housekeep()
        // What found no room for its removal, since a checkpoint had found none, goes in the next round.
        if store.volume.state.withLock({ !$0.core.reapable.isEmpty }) { store.volume.housekeeper.housekeep() }
        var problems = try RebuildOracle.differences(store.volume)
        noteSynced()
        if problems.isEmpty { problems = try RebuildOracle.problems(store.device, seed: seed) }
        guard problems.isEmpty else {
            describeSegments()
            throw SimulationFailure("the log and the index differ:\n" + problems.prefix(10).joined(separator: "\n"))
        }
        let inodes = store.volume.state.withLock { $0.core.index.inodeCount }
        if inodes != UInt64(model.inodes.count) {
            throw SimulationFailure("\(inodes) inodes in the index, \(model.inodes.count) in the model")
        }
    }

    // MARK: Operations

    func runOne() throws {
        let operation = generator.next(model)
        note("\(operation)")
        let isParked = generator.chance(50)
        if isParked {
            let runner = ParkedRunner(self)
            runner.start(operation)
            try runner.finish()
        } else {
            runWaiting(operation)
        }
    }

    /// Several at once, all parked as they need.
    private func runTogether() throws {
        let runner = ParkedRunner(self)
        for _ in 0..<2 + generator.below(6) {
            let operation = generator.next(model)
            guard operation.mayOverlap else { continue }
            note("together: \(operation)")
            runner.start(operation)
        }
        try runner.finish()
    }

    private func runWaiting(_ operation: Operation) {
        if case .forget(let inode, let count) = operation {
            store.volume.forget(InodeNumber(inode), count)
            model.forget(inode, count)
            operationCount += 1
            return
        }
        do throws(Errno) {
            let reply = try store.volume.perform(operation.body(caller))
            switch reply.value {
            case .outcome(let outcome): finished(operation, outcome, reply)
            case .plan(let plan):
                let expected = expect(operation, reply)
                check(operation, store.volume.outcome(of: plan, mayWait: generator.chance(50)), expected)
            }
        } catch { finished(operation, .failed(error.rawValue), nil) }
    }

    /// What the model says, at the moment when the volume did it.
    func expect(_ operation: Operation, _ reply: VolumeReply?) -> Outcome {
        operationCount += 1
        let made = reply?.made ?? 0
        if made != 0, made < model.nextInode { fail("\(operation) gave inode \(made) again") }
        let outcome = model.run(operation, number: made, caller: caller, valueLimit: store.valueLimit)
        for read in readsInParts { read.states.append(peek(read.operation)) }
        if let reply { noteChange(reply.nextSequence) }
        return outcome
    }

    /// What the model says of a read, without a trace.
    private func peek(_ operation: Operation) -> Outcome {
        var copy = model
        return copy.run(operation, number: 0, caller: caller, valueLimit: store.valueLimit)
    }

    func beginInParts(_ operation: Operation, _ expected: Outcome) -> ReadInParts {
        let read = ReadInParts(operation, expected)
        readsInParts.append(read)
        return read
    }

    func end(_ read: ReadInParts, _ outcome: Outcome) {
        readsInParts.removeAll { $0 === read }
        check(read.operation, outcome, read.expected(for: outcome))
    }

    func check(_ operation: Operation, _ outcome: Outcome, _ expected: Outcome) {
        if outcome != expected { fail("\(operation) gives \(outcome.difference(from: expected))") }
    }

    func finished(_ operation: Operation, _ outcome: Outcome, _ reply: VolumeReply?) {
        if outcome == .failed(Errno.readOnly.rawValue) || outcome == .failed(Errno.ioError.rawValue),
            store.volume.isReadOnly
        {
            operationCount += 1
            return
        }
        if outcome == .failed(Errno.noSpace.rawValue) {
            ranOut(operation)
            return
        }
        if case .access = operation, store.volume.isReadOnly {
            // Done, without a trace.
            operationCount += 1
            return
        }
        check(operation, outcome, expect(operation, reply))
        if generator.isPurging, model.inodes.count <= 3 {
            generator.isPurging = false
            wantsRoom = true
        }
    }

    /// The store is full: nothing may have changed, and removing goes on until there is room.
    private func ranOut(_ operation: Operation) {
        operationCount += 1
        count("out of space")
        var copy = model
        let expected = copy.run(operation, number: model.nextInode, caller: caller, valueLimit: store.valueLimit)
        if case .failed = expected { fail("\(operation) gives ENOSPC, not \(expected)") }
        if operation.freesSpace {
            // A device that fails may not let a checkpoint through, and without one nothing can be freed.
            if counts["fault"] == nil { fail("\(operation) finds no space, though it frees some") }
            wantsRoom = true
        }
        if !generator.isPurging {
            count("purge")
            note("out of space")
        }
        generator.isPurging = true
    }
}
