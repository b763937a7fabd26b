// Every call of a workload goes wrong once: an honest error or a transparent recovery, never wrong bytes, never a hang, never a lost
// acknowledgement. TREERING_CRASH_STATES says how many runs; TREERING_SEED picks others.

import Testing

@testable import Treering

@Suite(.serialized) struct FaultTests {
    private static let total = Environment.count("TREERING_CRASH_STATES", debug: 1200, release: 4000) / 60
    private static let seed = Environment.number("TREERING_SEED") ?? 1

    private static func settings() -> StoreSettings {
        var settings = StoreSettings()
        settings.capacityByteCount = 16 << 20
        return settings
    }

    /// Reads, writes, syncs, checkpoints and a roll-over: every kind of call.
    private static func workload(_ tree: CrashTree) -> CrashWorkload {
        var steps: [CrashStep] = CrashWorkload.mixed(tree, seed: seed).steps
        // Never overwritten, and soon no longer in staging: reading it is reading the device.
        steps.append(.operation(.write(tree.open, offset: 400_000, byteCount: 100_000, seed: 99)))
        for round in 0..<13 as Range<UInt64> {
            steps.append(.operation(.write(tree.open, offset: round % 3 * 90_000, byteCount: 100_000, seed: round)))
            if round % 5 == 1 { steps.append(.sync) }
            if round % 4 == 3 { steps.append(.operation(.read(tree.open, offset: 5000, byteCount: 60_000))) }
            if round > 6 {
                steps.append(.operation(.read(tree.open, offset: 400_000 + round * 5000, byteCount: 30_000)))
            }
            if round % 6 == 5 { steps += [.checkpoint, .housekeep] }
            if round % 3 == 0 { steps.append(.complete(2)) }
        }
        return CrashWorkload(name: "everything", steps: steps)
    }

    private static let effects: [SimulatedFault.Effect] = [
        .fail(.ioError), .failTorn(.ioError), .failAndLose(.ioError), .fail(.noSpace), .shorten(4096),
    ]

    private static func run(_ faults: [SimulatedFault], order: SimulatedDevice.Order, seed: UInt64) throws
        -> FaultRun
    {
        var settings = settings()
        settings.order = order
        return try FaultRun(settings, seed: seed, faults: faults, workload)
    }

    @Test func everyCallFailsInTurn() throws {
        let watchdog = try Watchdog()
        defer { watchdog.stop() }
        let calls = try Self.run([], order: .fifo, seed: 1).callCount
        var random = SimulatedRandom(seed: Self.seed)
        var cases: [(Int, Int)] = []
        for call in 1...calls { for effect in Self.effects.indices { cases.append((call, effect)) } }
        cases.shuffle(using: &random)
        var counts = (runs: 0, relocated: 0, readOnly: 0, errors: 0)
        for (call, effect) in cases.prefix(Self.total) {
            let order: SimulatedDevice.Order = call % 2 == 0 ? .random : .fifo
            let text = "call \(call), \(Self.effects[effect]), \(order), seed \(Self.seed)"
            watchdog.alive(text)
            do {
                let run = try Self.run(
                    [SimulatedFault(Self.effects[effect], nth: call)], order: order, seed: UInt64(call))
                counts.runs += 1
                counts.relocated += run.outcome.wasRelocated ? 1 : 0
                counts.readOnly += run.outcome.isReadOnly ? 1 : 0
                counts.errors += run.outcome.errorCount > 0 ? 1 : 0
            } catch { Issue.record("\(text): \(error)") }
        }
        Environment.note("faults at \(calls) calls: \(counts)")
        #expect(counts.readOnly < counts.runs / 10)
    }

    /// A bit that is wrong in any one read, and right when it is read again: nobody gets it, and nothing is built on it.
    @Test func everyReadHasAWrongBitInTurn() throws {
        let watchdog = try Watchdog()
        defer { watchdog.stop() }
        let reads = try Self.run([], order: .fifo, seed: 1).readCount
        try #require(reads > 10)
        var random = SimulatedRandom(seed: Self.seed)
        var errors = 0
        for read in (1...reads).shuffled(using: &random).prefix(Self.total) {
            let fault = SimulatedFault(.flip(Int(random.next() % 8192)), kinds: [.read], nth: read)
            watchdog.alive("read \(read)")
            do { errors += try Self.run([fault], order: .random, seed: UInt64(read)).outcome.errorCount } catch {
                Issue.record("read \(read), \(fault.effect), seed \(Self.seed): \(error)")
            }
        }
        Environment.note("wrong bits in \(reads) reads: \(errors) errors")
        #expect(errors > 0)
    }

    /// One fault of the log alone is always made good.
    @Test(arguments: [SimulatedDevice.Order.fifo, .random])
    func aSingleFaultOfTheLogIsMadeGood(order: SimulatedDevice.Order) throws {
        let kinds: [(Set<TraceEntry.Kind>, SimulatedFault.Effect)] = [
            ([.write, .writeDurable], .fail(.ioError)), ([.write, .writeDurable], .failTorn(.ioError)),
            ([.write, .writeDurable], .fail(.noSpace)), ([.write, .writeDurable], .shorten(512)),
            ([.sync], .fail(.ioError)), ([.sync], .failAndLose(.ioError)),
        ]
        var relocated = 0
        for segment in 0..<2 as Range<UInt32> {
            for (index, (kind, effect)) in kinds.enumerated() {
                for nth in 1...max(1, min(6, Self.total / 40)) where (nth + index) % 2 == (order == .fifo ? 0 : 1) {
                    let fault = SimulatedFault(effect, kinds: kind, file: .segment(SegmentNumber(segment)), nth: nth)
                    let run = try Self.run([fault], order: order, seed: Self.seed)
                    #expect(!run.outcome.isReadOnly, "\(fault)")
                    relocated += run.outcome.wasRelocated ? 1 : 0
                }
            }
        }
        #expect(relocated > 2)
    }

    /// Random operations on a device that fails again and again, at any call.
    @Test(arguments: 1...4 as ClosedRange<UInt64>) func randomOperationsWhileCallsFail(seed: UInt64) throws {
        let count = Environment.count("TREERING_OPERATIONS", debug: 800, release: 6000)
        var options = RandomOperationsTests.options(seed, count)
        options.faults = 80
        let simulation = try RandomSimulation(options, seed: seed)
        do { try simulation.run() } catch {
            Issue.record(
                "seed \(seed), after \(simulation.operationCount) operations: \(error)\n\(simulation.history)")
        }
        #expect(simulation.counts["relocated"] ?? 0 > 0)
    }

    /// A segment that cannot be written for ever: the log goes on in others, or the mount says that it cannot.
    @Test func whatFailsForEver() throws {
        let kinds: Set<TraceEntry.Kind> = [.write, .writeDurable, .sync]
        for segment in 0..<3 as Range<UInt32> {
            let fault = SimulatedFault(
                .failAndLose(.ioError), kinds: kinds, file: .segment(SegmentNumber(segment)), nth: 2, isLasting: true)
            let run = try Self.run([fault], order: .random, seed: Self.seed)
            Environment.note("segment \(segment) fails for ever: \(run.outcome)")
        }
        let everything = SimulatedFault(.fail(.ioError), kinds: kinds, nth: 10, isLasting: true)
        let run = try Self.run([everything], order: .fifo, seed: Self.seed)
        #expect(run.outcome.isReadOnly)
        #expect(run.store.volume.complaints().contains { $0.contains("the log failed") })
    }
}
