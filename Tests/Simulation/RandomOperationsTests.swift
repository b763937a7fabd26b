// Random operations against the model. TREERING_SEED replays one seed, or begins a run of TREERING_SEEDS; TREERING_OPERATIONS says
// how many operations: of each of these seeds, or in all. TREERING_FAULTS: out of 10,000 operations, so many see the device fail.

import Testing

@testable import Treering

@Suite(.serialized) struct RandomOperationsTests {
    /// How each run differs: the order of completions, the page cache, the size of the store, the sector, staging: as many batches as
    /// a segment takes, or so many that it still has those of a segment's earlier incarnation.
    static func options(_ seed: UInt64, _ operationCount: Int) -> RandomSimulation.Options {
        var options = RandomSimulation.Options()
        options.operationCount = operationCount
        options.store = StoreSettings(cacheByteCount: seed % 3 == 0 ? 1 << 20 : 64 << 10)
        options.store.order = seed % 2 == 0 ? .random : .fifo
        options.store.capacityByteCount = [16, 32, 64][Int(seed % 3)] << 20
        options.store.sectorByteCount = seed % 5 == 0 ? 4096 : 512
        options.store.options.cleaning = seed % 2 == 0 ? .eager : .auto
        options.store.options.defragmenting = seed % 3 == 1 ? .auto : .eager
        if seed % 4 < 2 {
            options.store.options.stagingByteCount = 16 << 20
            options.store.capacityByteCount = 64 << 20
        }
        return options
    }

    /// Runs one seed to its end, and tells what it counted and how it failed.
    static func told(_ name: String, _ options: RandomSimulation.Options, _ seed: UInt64) throws -> RandomSimulation {
        let simulation = try RandomSimulation(options, seed: seed)
        do { try simulation.run() } catch {
            let history = simulation.history
            Issue.record("TREERING_SEED=\(seed), after \(simulation.operationCount) operations: \(error)\n\(history)")
        }
        let counts = simulation.counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
        Environment.note(
            "\(name), seed \(seed): \(simulation.operationCount) operations; \(counts.joined(separator: ", "))")
        return simulation
    }

    /// Runs one seed; gives how many operations it came to.
    @discardableResult
    private static func run(_ seed: UInt64, _ operationCount: Int) throws -> Int {
        Environment.note("random operations: TREERING_SEED=\(seed) TREERING_OPERATIONS=\(operationCount)")
        var options = options(seed, operationCount)
        if let faults = Environment.number("TREERING_FAULTS") { options.faults = Int(faults) }
        return try told("random operations", options, seed).operationCount
    }

    @Test func volumeDoesWhatTheModelDoes() throws {
        let total = Environment.count("TREERING_OPERATIONS", debug: 4000, release: 20_000)
        if let seed = Environment.number("TREERING_SEED") {
            for number in 0..<(Environment.number("TREERING_SEEDS") ?? 1) { try Self.run(seed + number, total) }
            return
        }
        let share = min(50_000, total / 6)
        var done = 0
        var seed: UInt64 = 1
        while done < total {
            done += try Self.run(seed, min(share, max(100, total - done)))
            seed += 1
        }
    }

    /// Scrubs with operations, removals, cleaning, checkpoints, punching and resizing between their steps, also while the device fails.
    /// TREERING_SCRUB_OPERATIONS: how many operations of each seed; TREERING_SEED, TREERING_SEEDS as above.
    @Test func scrubsTakeNothingForDamage() throws {
        let total = Environment.count("TREERING_SCRUB_OPERATIONS", debug: 1000, release: 6000)
        let first = Environment.number("TREERING_SEED") ?? 1
        for seed in first..<first + (Environment.number("TREERING_SEEDS") ?? 4) {
            var options = Self.options(seed, total)
            options.scrubs = 60
            options.housekeepings = 400
            options.faults = seed % 4 == 3 ? 20 : 0
            let simulation = try Self.told("scrubs", options, seed)
            #expect(simulation.counts["scrub", default: 0] > 3)
            #expect(simulation.counts["packed", default: 0] > 10)
            #expect(simulation.counts["joined", default: 0] > 10)
        }
    }
}
