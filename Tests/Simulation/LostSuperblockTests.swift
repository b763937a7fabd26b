// Stores whose superblock is lost each time before they are mounted, and made anew: against the model, after every ending and at every
// crash state, those of the repair itself included. TREERING_OPERATIONS, TREERING_CRASH_STATES and TREERING_SEED as elsewhere.

import Testing

@testable import Treering

@Suite(.serialized) struct LostSuperblockTests {
    private static let total = Environment.count("TREERING_CRASH_STATES", debug: 1200, release: 4000)
    private static let seed = Environment.number("TREERING_SEED") ?? 1

    private static func loses(andCopies: Bool) -> @Sendable (SimulatedDevice, [StagingHeader]) throws -> Void {
        return { device, staging in
            try Tampering.loseSuperblock(device, how: UInt64(device.eventCount), andCopies: andCopies)
            try Tampering.renewSuperblock(device, staging)
        }
    }

    /// What a checkpoint freed is used again only when the copies do not need it any more.
    @Test func theCopiesAreAsGoodAsTheSlots() throws {
        var settings = StoreSettings()
        settings.capacityByteCount = 24 << 20
        settings.options.cleaning = .eager
        settings.tampers = Self.loses(andCopies: false)
        var enumeration = CrashEnumeration(settings)
        for seed in 0..<8 as Range<UInt64> {
            let run = try CrashRun(settings, seed: seed, afterCrash: seed >= 4) { tree in
                switch seed % 4 {
                case 0: .cleaning(tree, seed: Self.seed &* 10 + seed)
                case 1: .recycling(tree)
                case 2: .mixed(tree, seed: Self.seed &* 10 + seed)
                default: .checkpoints(tree, seed: Self.seed &* 10 + seed)
                }
            }
            try enumeration.enumerate(run, limit: Self.total / 20, seed: seed)
        }
        Environment.note("the copies: \(enumeration.summary)")
    }

    /// With the index gone as well, the segments tell all. After a power cut they need not, in theory, where the newest segment is whole and
    /// the one before never reached the disk (docs/decisions/024): no seed is known that comes to it.
    @Test(arguments: [false, true]) func randomOperations(andCopies: Bool) throws {
        let operations = Environment.count("TREERING_OPERATIONS", debug: 2000, release: 12_000)
        for seed in Self.seed..<Self.seed + 4 {
            var options = RandomOperationsTests.options(seed, operations / 4)
            options.store.tampers = Self.loses(andCopies: andCopies)
            options.remounts = 40
            options.kills = 60
            options.powerCuts = 60
            let simulation = try RandomOperationsTests.told("lost superblocks", options, seed)
            #expect(simulation.counts["remount", default: 0] + simulation.counts["kill", default: 0] > 3)
        }
    }
}
