// Crash states: every kind of operation, cut off at every event. TREERING_CRASH_STATES says how many states to look at;
// TREERING_SEED picks others.

import Testing

@testable import Treering

@Suite(.serialized) struct CrashEnumerationTests {
    private static let total = Environment.count("TREERING_CRASH_STATES", debug: 1200, release: 4000)
    private static let seed = Environment.number("TREERING_SEED") ?? 1

    private static func settings(sector: UInt64 = 512) -> StoreSettings {
        var settings = StoreSettings()
        settings.capacityByteCount = 16 << 20
        settings.sectorByteCount = sector
        return settings
    }

    private static func report(_ name: String, _ enumeration: CrashEnumeration) {
        Environment.note("\(name): \(enumeration.summary)")
    }

    @Test func everyKindOfOperationWithEveryKindOfSync() throws {
        let settings = Self.settings()
        var enumeration = CrashEnumeration(settings)
        let kindCount = CrashWorkload.operations(CrashTree()).count
        let share = max(4, Self.total / 2 / (kindCount * CrashWorkload.endings.count))
        for kind in 0..<kindCount {
            for (text, ending) in CrashWorkload.endings {
                let run = try CrashRun(settings, seed: Self.seed) { tree in
                    let (name, operations) = CrashWorkload.operations(tree)[kind]
                    return CrashWorkload(
                        name: name + text, steps: operations.map { .operation($0) } + ending + [.complete(4)])
                }
                try enumeration.enumerate(run, limit: share, seed: Self.seed)
            }
        }
        Self.report("single operations", enumeration)
    }

    /// Every two kinds of operations with every kind of sync behind each. One seed looks at a part of them, the next at those that follow; in
    /// the long tier every subset of up to ten writes in flight.
    @Test func twoOperationsWithEveryKindOfSync() throws {
        let settings = Self.settings()
        let kindCount = CrashWorkload.operations(CrashTree()).count
        let pairCount = CrashWorkload.pairCount
        let isLong = Self.total >= 20_000
        let share = isLong ? 60 : 6
        let runCount = max(10, Self.total / 4 / share)
        var enumeration = CrashEnumeration(settings, exhaustiveUpTo: isLong ? 10 : 4)
        for index in 0..<runCount {
            let number = (Int(Self.seed - 1) * runCount + index) % pairCount
            let run = try CrashRun(settings, seed: Self.seed, afterCrash: index % 4 == 3) { .pair(number, $0) }
            try enumeration.enumerate(run, limit: share, seed: Self.seed &+ UInt64(index))
        }
        Self.report("two operations, \(runCount) of the \(pairCount) workloads of \(kindCount) kinds", enumeration)
    }

    @Test func severalOperationsWithSyncsAndCheckpointsAmongThem() throws {
        var enumeration = CrashEnumeration(Self.settings())
        for round in 0..<8 as Range<UInt64> {
            let settings = Self.settings(sector: round % 4 == 3 ? 4096 : 512)
            let run = try CrashRun(settings, seed: round, afterCrash: round % 2 == 1) {
                .mixed($0, seed: Self.seed &* 100 + round)
            }
            try enumeration.enumerate(run, limit: Self.total / 5 / 8, seed: round)
        }
        Self.report("mixed operations", enumeration)
    }

    @Test func rollingOverToOtherSegments() throws {
        let settings = Self.settings()
        var enumeration = CrashEnumeration(settings)
        for (syncs, afterCrash) in [(false, false), (true, false), (false, true), (true, true)] {
            let run = try CrashRun(settings, seed: 3, afterCrash: afterCrash) { .rollOver($0, syncs: syncs) }
            try enumeration.enumerate(run, limit: Self.total / 20, seed: Self.seed)
        }
        Self.report("roll-over", enumeration)
    }

    @Test func recyclingDeadSegments() throws {
        let settings = Self.settings()
        var enumeration = CrashEnumeration(settings)
        let run = try CrashRun(settings, seed: 4) { .recycling($0) }
        try enumeration.enumerate(run, limit: Self.total / 10, seed: Self.seed)
        Self.report("recycling", enumeration)
    }

    @Test func cleaning() throws {
        var settings = Self.settings()
        settings.capacityByteCount = 24 << 20
        settings.options.cleaning = .eager
        var enumeration = CrashEnumeration(settings)
        for seed in 0..<3 as Range<UInt64> {
            let run = try CrashRun(settings, seed: 5 + seed, afterCrash: seed == 1) {
                .cleaning($0, seed: Self.seed &* 10 + seed)
            }
            #expect(run.store.volume.housekeeper.cleaner.cleanedSegmentCount > 0)
            try enumeration.enumerate(run, limit: Self.total / 10, seed: Self.seed)
        }
        Self.report("cleaning", enumeration)
    }

    /// Nine tenths full, at times to the last byte, and an eager cleaner: what is overwritten, copied, cut off and removed lies in segments
    /// that are just being emptied, or are free already.
    @Test func cleaningAStoreThatIsNearlyFull() throws {
        var enumeration = CrashEnumeration(Self.settings())
        let isLong = Self.total >= 20_000
        enumeration.oracleInterval = isLong ? 2 : 4
        var counts = (cleaned: 0, cold: 0, recycled: 0, noSpace: 0)
        let runCount: UInt64 = isLong ? 16 : 4
        for round in 0..<runCount {
            let seed = Self.seed &* 100 + round
            var settings = Self.settings(sector: round % 4 == 3 ? 4096 : 512)
            settings.options.cleaning = .eager
            if round % 4 == 2 { settings.tampers = { device, _ in try Tampering.damageNewerSlot(device) } }
            enumeration.settings = settings
            let run = try CrashRun(settings, seed: seed, afterCrash: round % 4 == 1, filledTo: 90) { _ in
                .full(seed: seed)
            }
            let volume = run.store.volume
            volume.state.withLock { state in
                counts.cold += state.core.table.segments.count { $0.state == .inUse && $0.role == .cold }
                counts.recycled += state.core.table.segments.count { $0.incarnation > 1 }
            }
            counts.cleaned += volume.housekeeper.cleaner.cleanedSegmentCount
            counts.noSpace += run.noSpaceCount
            try enumeration.enumerate(run, limit: Self.total / (isLong ? 10 : 20) / Int(runCount), seed: seed)
        }
        #expect(counts.cleaned > 5 && counts.cold > 0 && counts.recycled > 5 && counts.noSpace > 0, "\(counts)")
        Environment.note("nearly full: \(counts); \(enumeration.noSpaceCount) found no space after a recovery")
        Self.report("nearly full", enumeration)
    }

    /// What a checkpoint freed is used again only after the one behind it: the older slot of the superblock is always enough.
    @Test func theOlderSlotIsEnough() throws {
        var settings = Self.settings()
        settings.capacityByteCount = 24 << 20
        settings.options.cleaning = .eager
        settings.tampers = { device, _ in try Tampering.damageNewerSlot(device) }
        var enumeration = CrashEnumeration(settings)
        for seed in 0..<6 as Range<UInt64> {
            let run = try CrashRun(settings, seed: seed) { tree in
                switch seed % 3 {
                case 0: .cleaning(tree, seed: Self.seed &* 10 + seed)
                case 1: .recycling(tree)
                default: .checkpoints(tree, seed: Self.seed &* 10 + seed)
                }
            }
            try enumeration.enumerate(run, limit: Self.total / 20, seed: seed)
        }
        Self.report("the older slot", enumeration)
    }

    /// Dead data is punched out of segments that live on.
    @Test func punching() throws {
        var settings = Self.settings()
        settings.capacityByteCount = 24 << 20
        var enumeration = CrashEnumeration(settings)
        for afterCrash in [false, true] {
            let run = try CrashRun(settings, seed: 9, afterCrash: afterCrash) { .punching($0) }
            #expect(run.store.volume.state.withLock { $0.punchedByteCount } > 0)
            try enumeration.enumerate(run, limit: Self.total / 10, seed: Self.seed)
        }
        Self.report("punching", enumeration)
    }

    /// A dead process's writes land while its successor works. They would do harm, and are kept from it by the store's lock,
    /// which the kernel holds until they have landed (KilledRingTests); this shows what that lock is worth.
    @Test(.disabled("the lock outlives a killed process's writes"))
    func lateWritesOfAKilledMount() throws {
        let settings = Self.settings()
        var enumeration = CrashEnumeration(settings)
        enumeration.hasLateWrites = true
        for seed in 0..<6 as Range<UInt64> {
            let run = try CrashRun(settings, seed: seed) { tree in
                seed < 2 ? .rollOver(tree, syncs: seed == 1) : .mixed(tree, seed: Self.seed &* 10 + seed)
            }
            try enumeration.enumerate(run, limit: Self.total / 20, seed: seed)
        }
        Self.report("late writes", enumeration)
    }

    /// A format cut off is no store, or an empty one; a format that returned is one.
    @Test func formatCutOffAnywhere() throws {
        let settings = Self.settings()
        let clock = SimulationClock()
        let device = SimulatedDevice(keepsHistory: true)
        try Volume.format(device, SimulatedStore.formatOptions(settings, clock))
        var random = SimulatedRandom(seed: Self.seed)
        var counts = (mounted: 0, refused: 0)
        for event in device.crashPoints {
            let states = device.crashStates(at: event, exhaustiveUpTo: 3, samples: 4, seed: random.next())
            for state in states.shuffled(using: &random).prefix(event == device.eventCount ? 100 : 6) {
                do throws(MountError) {
                    let volume = try Volume.mount(state.device(), settings.options, now: { clock.time }, log: { _ in })
                    #expect(
                        TreeComparison.firstDifference(volume, ModelFileSystem(time: clock.time)) == nil, "\(state)")
                    counts.mounted += 1
                } catch {
                    counts.refused += 1
                    #expect(event < device.eventCount, "\(error) at \(state)")
                }
            }
        }
        Environment.note("format: \(counts.mounted) states mounted, \(counts.refused) refused")
        #expect(counts.mounted > 0 && counts.refused > 0)
    }
}
