// Crashes a run at its events, recovers each state, and looks at what is there; then goes on and crashes again.

@testable import Treering

/// What to do with the states of a run, and how many were looked at.
struct CrashEnumeration {
    var settings: StoreSettings
    private(set) var stateCount = 0
    private(set) var secondStateCount = 0
    private(set) var killCount = 0
    private(set) var oracleCount = 0
    private(set) var runCount = 0
    private(set) var lateWriteCount = 0
    /// Whether a killed process's writes may land while its successor works.
    var hasLateWrites = false
    /// One state in so many is compared with an index made from the log, and checked.
    var oracleInterval = 12
    /// Operations that found no space in a store that was recovered.
    private(set) var noSpaceCount = 0

    /// Of so many writes in flight every subset is a state, of more some that are drawn.
    private let exhaustiveLimit: Int

    init(_ settings: StoreSettings, exhaustiveUpTo limit: Int = 4) {
        self.settings = settings
        exhaustiveLimit = limit
    }

    var summary: String {
        "\(runCount) runs: \(stateCount) crash states, \(secondStateCount) of a second crash, \(killCount) kills, \(lateWriteCount) late writes; \(oracleCount) compared with the log"
    }

    /// Looks at up to `limit` states of a run, drawn from all of its events.
    mutating func enumerate(_ run: CrashRun, limit: Int, seed: UInt64) throws {
        runCount += 1
        var random = SimulatedRandom(seed: seed)
        var states: [(event: Int, state: CrashState)] = []
        for event in run.store.device.crashPoints {
            for state in run.store.device.crashStates(
                at: event, exhaustiveUpTo: exhaustiveLimit, samples: 10, seed: random.next())
            {
                states.append((event, state))
            }
        }
        if states.count > limit {
            states.shuffle(using: &random)
            states.removeLast(states.count - limit)
        }
        for (event, state) in states {
            do { try recover(run, state, event, &random) } catch {
                throw SimulationFailure("\(run.name), crash at \(state): \(error)")
            }
        }
        for _ in 0..<max(1, limit / 8) {
            let event = Int.random(in: run.store.device.crashPoints, using: &random)
            let seed = random.next()
            do { try kill(run, event, seed, &random) } catch {
                throw SimulationFailure("\(run.name), kill at event \(event) with seed \(seed): \(error)")
            }
        }
    }

    // MARK: One crash

    private mutating func recover(_ run: CrashRun, _ state: CrashState, _ event: Int, _ random: inout SimulatedRandom)
        throws
    {
        stateCount += 1
        let device = state.device(seed: random.next())
        let goesDeeper = stateCount % 5 == 0
        if goesDeeper { device.keepHistory() }
        let store = try mounted(run, device)
        let reached = store.recoveredSequence
        let last = store.nextSequence
        let points = Array(device.crashPoints)
        try compare(run, store, reached, floor: run.floor(at: event))
        if stateCount % oracleInterval == 0 { try compareWithLog(store) }
        if goesDeeper {
            try crashTheRecovery(run, device, points, reached...last, &random)
            try workOn(run, store, reached, &random)
        }
    }

    private func mounted(_ run: CrashRun, _ device: SimulatedDevice) throws -> SimulatedStore {
        try SimulatedStore(settings, on: device, clock: run.store.clock)
    }

    private func compare(_ run: CrashRun, _ store: SimulatedStore, _ reached: UInt64, floor: UInt64) throws {
        guard reached >= floor else {
            throw SimulationFailure("records from \(reached) on are lost, though everything below \(floor) was synced")
        }
        guard let model = run.model(at: reached) else {
            throw SimulationFailure("the log ends before it began, at \(reached)")
        }
        if let difference = TreeComparison.firstDifference(store.volume, model) {
            throw SimulationFailure("with the log up to \(reached): \(difference)")
        }
    }

    private mutating func compareWithLog(_ store: SimulatedStore) throws {
        oracleCount += 1
        store.volume.housekeeper.housekeep()
        var problems = try RebuildOracle.differences(store.volume)
        if problems.isEmpty { problems = try RebuildOracle.problems(store.device) }
        if let problem = problems.first { throw SimulationFailure("the log and the index differ: \(problem)") }
    }

    // MARK: The crash after it

    /// A crash during or right after the recovery changes nothing of what was recovered; behind that the mount may have cleaned.
    private mutating func crashTheRecovery(
        _ run: CrashRun, _ device: SimulatedDevice, _ points: [Int], _ reached: ClosedRange<UInt64>,
        _ random: inout SimulatedRandom
    ) throws {
        for event in points.shuffled(using: &random).prefix(4) {
            let states = device.crashStates(at: event, exhaustiveUpTo: 3, samples: 4, seed: random.next())
            for state in states.shuffled(using: &random).prefix(2) {
                secondStateCount += 1
                let again = try mounted(run, state.device())
                guard reached.contains(again.recoveredSequence) else {
                    throw SimulationFailure(
                        "a second crash at \(state) makes the log end at \(again.recoveredSequence), not \(reached)")
                }
                try compare(run, again, reached.lowerBound, floor: reached.lowerBound)
            }
        }
    }

    /// The recovered store works on; then it crashes, and what was synced since is there.
    private mutating func workOn(
        _ run: CrashRun, _ store: SimulatedStore, _ reached: UInt64, _ random: inout SimulatedRandom
    ) throws {
        if run.isFull { return try workOnFull(run, store, reached, &random) }
        // What had no name is gone for good by now, perhaps under a record of its own.
        var states: [(UInt64, ModelFileSystem)] = [(reached, run.model(at: reached)!)]
        var floor = reached
        for round in 0..<6 {
            if random.next() % 3 == 0 { lateWriteCount += store.device.landLateWrites() }
            var model = states.last!.1
            run.store.clock.tick()
            model.time = run.store.clock.time
            let operation = Operation.make(1, "after \(round)", mode: 0o100644, deviceNumber: 0, target: nil)
            let reply = try store.volume.perform(operation.body(CrashRun.caller))
            _ = model.run(operation, number: reply.made, caller: CrashRun.caller, valueLimit: 0)
            states.append((store.nextSequence, model))
            let write = Operation.write(reply.made, offset: 0, byteCount: 3000 + round * 3000, seed: UInt64(round))
            _ = try store.volume.perform(write.body(CrashRun.caller))
            _ = model.run(write, number: 0, caller: CrashRun.caller, valueLimit: 0)
            states.append((store.nextSequence, model))
            if random.next() % 4 == 0 {
                try store.volume.syncAndWait()
                floor = store.nextSequence
            }
            if random.next() % 4 == 0 {
                store.volume.housekeeper.housekeep(commits: false, checkpoints: random.next() % 2 == 0)
            }
        }
        secondStateCount += 1
        let again = try mounted(run, store.device.crash(seed: random.next()).device())
        let reachedAgain = again.recoveredSequence
        guard reachedAgain >= floor, var model = states.last(where: { $0.0 <= reachedAgain })?.1 else {
            throw SimulationFailure(
                "after working on, records from \(reachedAgain) on are lost, though \(floor) was synced")
        }
        model.remount()
        if let difference = TreeComparison.firstDifference(again.volume, model) {
            throw SimulationFailure(
                "after working on and a second crash, with the log up to \(reachedAgain): \(difference)")
        }
        if secondStateCount % 9 == 0 { try compareWithLog(again) }
    }

    /// The same on a store that is nearly full: its last byte is written, something is removed, and there is room again.
    private mutating func workOnFull(
        _ run: CrashRun, _ store: SimulatedStore, _ reached: UInt64, _ random: inout SimulatedRandom
    ) throws {
        let next = CrashRun(on: store, run.model(at: reached)!, isFull: true)
        for step in CrashWorkload.afterFull(seed: random.next()) { try next.run(step) }
        noSpaceCount += next.noSpaceCount
        secondStateCount += 1
        let again = try mounted(run, store.device.crash(seed: random.next()).device())
        try compare(next, again, again.recoveredSequence, floor: next.floor(at: store.device.eventCount))
        if secondStateCount % 3 == 0 { try compareWithLog(again) }
    }

    // MARK: Kills

    /// The process dies; its successor mounts, and then the power fails.
    private mutating func kill(_ run: CrashRun, _ event: Int, _ seed: UInt64, _ random: inout SimulatedRandom) throws {
        killCount += 1
        let device = run.store.device.snapshotAfterKill(at: event, seed: seed, lateWrites: hasLateWrites)
        let store = try mounted(run, device)
        let reached = store.recoveredSequence
        let last = store.nextSequence
        try compare(run, store, reached, floor: run.floor(at: event))
        if killCount % 2 == 0 || hasLateWrites {
            try workOn(run, store, reached, &random)
            return
        }
        let again = try mounted(run, device.crash(seed: seed).device())
        guard (reached...last).contains(again.recoveredSequence) else {
            throw SimulationFailure(
                "a power cut after the kill makes the log end at \(again.recoveredSequence), not \(reached)")
        }
        try compare(run, again, reached, floor: reached)
    }
}
