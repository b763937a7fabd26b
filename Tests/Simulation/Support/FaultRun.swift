// A workload on a device that does something wrong once, or for ever: what the mount answered is compared with the model at once, and
// after a crash. An operation may fail honestly; it may never do half of what it said, and nothing synced may be lost.

@testable import Treering

/// What became of one run.
struct FaultOutcome {
    var wasHit = false
    var wasRelocated = false
    var isReadOnly = false
    /// Reads and removals that failed honestly.
    var errorCount = 0
}

final class FaultRun {
    let store: SimulatedStore
    private let seed: UInt64
    private var model: ModelFileSystem
    /// What the tree was when the log had come so far.
    private var states: [(nextSequence: UInt64, model: ModelFileSystem)] = []
    private var floor: UInt64 = 0
    private(set) var outcome = FaultOutcome()
    /// How many calls the workload made.
    private(set) var callCount = 0
    /// How many of them were reads.
    private(set) var readCount = 0
    private static let caller = Caller(uid: 5, gid: 6, umask: 0)
    private static let honest: Set<Int32> = [Errno.ioError.rawValue, Errno.readOnly.rawValue, Errno.noSpace.rawValue]

    /// Prepares a small tree, then runs the workload with `faults` in its way.
    init(
        _ settings: StoreSettings, seed: UInt64, faults: [SimulatedFault], _ make: (CrashTree) -> CrashWorkload
    ) throws {
        self.seed = seed
        let run = try CrashRun(settings, seed: seed) { _ in CrashWorkload(name: "", steps: []) }
        store = run.store
        model = run.model
        noteState()
        floor = store.nextSequence
        let workload = make(run.tree)
        let start = store.device.trace.count
        for fault in faults { store.device.inject(fault) }
        for step in workload.steps { try self.run(step) }
        callCount = store.device.trace.count - start
        readCount = store.device.trace[start...].count { $0.kind == .read }
        try end(faults)
    }

    private func noteState() { states.append((store.nextSequence, model)) }

    private func run(_ step: CrashStep) throws {
        switch step {
        case .operation(let operation): try run(operation)
        case .sync: sync()
        case .checkpoint: store.volume.housekeeper.housekeep(commits: true, checkpoints: true)
        case .housekeep: store.volume.housekeeper.housekeep(commits: true)
        case .full: preconditionFailure("for crashes")
        case .complete(let count): for _ in 0..<count where !store.device.step() { break }
        }
        // Housekeeping may have removed what has no name.
        if states.last!.nextSequence < store.nextSequence { noteState() }
    }

    private func run(_ operation: Operation) throws {
        store.clock.tick()
        model.time = store.clock.time
        if case .forget(let inode, let count) = operation {
            store.volume.forget(InodeNumber(inode), count)
            model.forget(inode, count)
            return
        }
        var made: UInt64 = 0
        var found = Outcome.done
        do throws(Errno) {
            let reply = try store.volume.perform(operation.body(Self.caller))
            made = reply.made
            switch reply.value {
            case .outcome(let value): found = value
            case .plan(let plan): found = store.volume.outcome(of: plan, mayWait: true)
            }
        } catch { found = .failed(error.rawValue) }
        var after = model
        let expected = after.run(operation, number: made, caller: Self.caller, valueLimit: store.valueLimit)
        if case .failed(let error) = found, found != expected, Self.honest.contains(error) {
            outcome.errorCount += 1
            return
        }
        guard found == expected else {
            throw SimulationFailure("\(operation) gives \(found.difference(from: expected))")
        }
        model = after
        noteState()
    }

    private func sync() {
        let reached = store.nextSequence
        do throws(Errno) {
            try store.volume.syncAndWait()
            floor = reached
        } catch { outcome.errorCount += 1 }
    }

    // MARK: What must hold at the end

    private func end(_ faults: [SimulatedFault]) throws {
        outcome.isReadOnly = store.volume.isReadOnly
        outcome.wasHit = store.device.trace.contains { $0.error != nil } || store.device.faultCount < faults.count
        outcome.wasRelocated = store.volume.state.withLock { $0.relocationCount > 0 }
        store.device.clearFaults()
        // The mount shows everything that it acknowledged, whatever happened.
        if let difference = TreeComparison.firstDifference(store.volume, model) {
            throw SimulationFailure("after the fault: \(difference)")
        }
        let count = outcome.errorCount
        sync()
        let hasFailed = outcome.errorCount > count
        if outcome.isReadOnly != hasFailed {
            throw SimulationFailure(
                "read-only is \(outcome.isReadOnly), but an fsync \(hasFailed ? "fails" : "succeeds")")
        }
        for cut in 0..<2 as Range<UInt64> { try cutPower(cut) }
        try kill()
        if !outcome.isReadOnly {
            let problems = try RebuildOracle.differences(store.volume) + RebuildOracle.problems(store.device)
            if let problem = problems.first { throw SimulationFailure("the log and the index differ: \(problem)") }
            try store.volume.unmount()
        }
    }

    /// After a power cut everything synced is there, and a prefix of the rest.
    private func cutPower(_ cut: UInt64) throws {
        let device = store.device.crash(seed: seed &* 31 &+ cut).device(seed: cut)
        let found = try SimulatedStore(store.settings, on: device, clock: store.clock)
        try compare(found, atLeast: floor, "after a power cut")
    }

    /// After a kill everything acknowledged is there.
    private func kill() throws {
        let device = store.device.snapshotAfterKill(seed: seed)
        let found = try SimulatedStore(
            store.settings, on: device, clock: store.clock, allStaged: store.stagedRecords.map { [$0] } ?? [])
        try compare(found, atLeast: states.last!.nextSequence, "after a kill")
    }

    private func compare(_ found: SimulatedStore, atLeast floor: UInt64, _ what: String) throws {
        let reached = found.recoveredSequence
        guard reached >= floor, var model = states.last(where: { $0.nextSequence <= reached })?.model else {
            throw SimulationFailure("\(what) the log ends before record \(reached); \(floor) was acknowledged as safe")
        }
        model.remount()
        if let difference = TreeComparison.firstDifference(found.volume, model) {
            throw SimulationFailure("\(what), with the log up to \(reached): \(difference)")
        }
        guard seed % 4 == 0 else { return }
        let problems = try RebuildOracle.differences(found.volume)
        if let problem = problems.first { throw SimulationFailure("\(what) the log and the index differ: \(problem)") }
    }
}
