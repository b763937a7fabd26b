// Tests of the test: variants that are broken on purpose must be caught by the crash enumeration, or it would prove nothing.

import Testing

@testable import Treering

@Suite(.serialized) struct BrokenVariantTests {
    private static func settings(_ lies: @escaping @Sendable (TraceEntry) -> Bool) -> StoreSettings {
        var settings = StoreSettings()
        settings.capacityByteCount = 16 << 20
        settings.lies = lies
        return settings
    }

    /// What the enumeration says of the first run in which it finds something wrong; nil where it finds nothing.
    private func violation(
        _ settings: StoreSettings, limit: Int = 150, rounds: Range<UInt64> = 0..<8,
        _ make: (CrashTree, UInt64) -> CrashWorkload
    ) -> String? {
        for round in rounds {
            do {
                var enumeration = CrashEnumeration(settings)
                let run = try CrashRun(settings, seed: round, afterCrash: round % 2 == 1) { make($0, round) }
                try enumeration.enumerate(run, limit: limit, seed: round)
            } catch { return "\(error)" }
        }
        return nil
    }

    private static func mixed(_ tree: CrashTree, _ round: UInt64) -> CrashWorkload {
        var workload = CrashWorkload.mixed(tree, seed: 100 + round)
        workload.steps += [.sync]
        return workload
    }

    /// Nothing but the lie is wrong with these workloads.
    @Test func theSameWorkloadsAreCleanWhereNothingIsBroken() {
        let found = violation(Self.settings { _ in false }, limit: 40, rounds: 0..<1, Self.mixed)
        #expect(found == nil, "\(found ?? "")")
    }

    @Test func noFlushBeforeAcknowledging() throws {
        let isLog: @Sendable (TraceEntry) -> Bool = { entry in
            if case .segment = entry.file { entry.kind == .sync } else { false }
        }
        let found = violation(Self.settings(isLog)) { tree, _ in .rollOver(tree, syncs: true) }
        #expect(found != nil)
    }

    @Test func aSuperblockBeforeItsPages() {
        let found = violation(Self.settings { $0.kind == .sync && $0.file == .index }) { tree, round in
            var workload = Self.mixed(tree, round)
            workload.steps += [.checkpoint, .checkpoint]
            return workload
        }
        #expect(found != nil)
    }

    /// Recovery that does not declare where the dead mount's log ends, nor voids what lies beyond.
    @Test func anAbandonedSuffixAccepted() {
        let found = violation(
            Self.settings { entry in
                if case .segment = entry.file {
                    entry.kind == .write && entry.offset == 0 && entry.byteCount == UInt64(SegmentHeader.byteCount)
                } else {
                    false
                }
            }, limit: 400
        ) { tree, round in .rollOver(tree, syncs: round % 2 == 0) }
        #expect(found != nil)
    }
}
