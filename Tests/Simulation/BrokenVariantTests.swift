// Tests of the test: variants that are broken on purpose must be caught by the crash enumeration, or it would prove nothing.

import Synchronization
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

    /// DSYNC taken for a flush of what was written before it: no flush of a segment once there was a write with DSYNC.
    @Test func durableWritesTakenForFlushes() {
        let hadDurableWrite = Atomic<Bool>(false)
        let found = violation(
            Self.settings { entry in
                guard case .segment = entry.file else { return false }
                switch entry.kind {
                case .writeDurable: hadDurableWrite.store(true, ordering: .relaxed)
                case .sync: return hadDurableWrite.load(ordering: .relaxed)
                default: break
                }
                return false
            }
        ) { tree, _ in .rollOver(tree, syncs: true) }
        #expect(found != nil)
    }

    /// Pages and segments used again when one checkpoint is durable behind those that named them: what the disk says is the last but
    /// one checkpoint is older than the store believes.
    @Test func reusedAfterOneCheckpoint() {
        let count = Atomic<Int>(0)
        var settings = Self.settings { entry in
            guard entry.file == .superblock, entry.kind == .write || entry.kind == .writeDurable else { return false }
            return count.add(1, ordering: .relaxed).newValue % 2 == 0
        }
        settings.tampers = { device, _ in try Tampering.damageNewerSlot(device) }
        #expect(violation(settings, limit: 100) { tree, round in .checkpoints(tree, seed: round) } != nil)
    }

    /// What the enumeration says of nearly full stores whose cleaner has a defect: a step put behind every round of housekeeping.
    private func violationWhileCleaning(
        _ settings: StoreSettings, _ defect: @escaping @Sendable (SimulatedStore) -> Void
    ) -> String? {
        var settings = settings
        settings.options.cleaning = .eager
        for seed in 1...4 as ClosedRange<UInt64> {
            do {
                var enumeration = CrashEnumeration(settings)
                let run = try CrashRun(settings, seed: seed, filledTo: 90) { _ in
                    var workload = CrashWorkload.full(seed: seed)
                    workload.steps = workload.steps.flatMap { step in
                        if case .housekeep = step { [step, .full(.defect(defect))] } else { [step] }
                    }
                    return workload
                }
                try enumeration.enumerate(run, limit: 60, seed: seed)
            } catch { return "\(error)" }
        }
        return nil
    }

    /// A segment that the cleaner has emptied is used again before a checkpoint makes durable where its records have gone.
    @Test func aVictimRecycledBeforeTheCheckpoint() {
        let found = violationWhileCleaning(Self.settings { _ in false }) { store in
            store.volume.state.withLock { state in
                let older = state.slots.map(\.checkpoint).min()!
                let table = state.core.table
                for index in table.segments.indices where table.segments[index].isSealed {
                    let number = SegmentNumber(UInt32(index))
                    if table[number].live == 0 { table[number].emptySince = older }
                }
            }
            store.volume.housekeeper.recycleSegments()
        }
        #expect(found != nil)
        Environment.note("a victim recycled too early: \(found ?? "")")
    }

    /// Copied blocks are named before they are durable: flushes of the cleaner's segments do nothing.
    @Test func movedBlocksNamedBeforeTheirFlush() {
        let coldSegments = Mutex<Set<SegmentNumber>>([])
        let settings = Self.settings { entry in
            guard case .segment(let number) = entry.file, entry.kind == .sync else { return false }
            return coldSegments.withLock { $0.contains(number) }
        }
        let found = violationWhileCleaning(settings) { store in
            let cold = store.volume.state.withLock { state in
                let table = state.core.table
                return table.segments.indices.filter {
                    table.segments[$0].state == .inUse && table.segments[$0].role == .cold
                }.map { SegmentNumber(UInt32($0)) }
            }
            coldSegments.withLock { $0 = Set(cold) }
        }
        #expect(found != nil)
        Environment.note("moved blocks not flushed: \(found ?? "")")
    }

    /// A record of which only a part is applied: operations are not atomic.
    @Test func halfARecordApplied() {
        var settings = Self.settings { _ in false }
        let segmentByteCount = settings.segmentByteCount
        settings.tampers = { device, _ in
            try Tampering.halveLastRecord(device, segmentByteCount: segmentByteCount)
        }
        #expect(violation(settings, limit: 60, Self.mixed) != nil)
    }

    /// An operation answered before its record, or one before it, is published in staging: a kill loses it.
    @Test func acknowledgedPastAnUnpublishedRecord() throws {
        func survives(_ withholds: Bool) -> Bool {
            (1...3 as ClosedRange<UInt64>).allSatisfy { seed in
                var options = RandomSimulation.Options()
                options.operationCount = 2000
                options.kills = 60
                options.store.withholdsLastRecord = withholds
                do {
                    try RandomSimulation(options, seed: seed).run()
                    return true
                } catch { return false }
            }
        }
        #expect(survives(false))
        #expect(!survives(true))
    }

    /// A batch that was durable is damaged, in a segment that an earlier mount began. A later one says that it was durable, so it is no torn tail, and mounting is refused; where
    /// that is ignored, what was synced is lost without a word.
    @Test func theDurableSequenceIgnored() throws {
        func lostWithoutAWord(forgetsDurable: Bool) throws -> Bool {
            let settings = Self.settings { _ in false }
            let run = try CrashRun(settings, seed: 1) { tree in
                CrashWorkload(
                    name: "syncs",
                    steps: (0..<6).flatMap { number -> [CrashStep] in
                        [
                            .operation(
                                .make(tree.directory, "new\(number)", mode: 0o100644, deviceNumber: 0, target: nil)),
                            .sync,
                        ]
                    })
            }
            let event = run.store.device.eventCount
            let floor = run.floor(at: event)
            let device = run.store.device.crash(seed: 1).device()
            try Tampering.damage(
                device, segmentByteCount: settings.segmentByteCount, batchesBeforeLast: 2,
                forgetsDurable: forgetsDurable)
            do {
                return try SimulatedStore(settings, on: device, clock: run.store.clock).nextSequence < floor
            } catch let error as MountError {
                #expect("\(error)".contains("the log is damaged"), "\(error)")
                return false
            }
        }
        #expect(try !lostWithoutAWord(forgetsDurable: false))
        #expect(try lostWithoutAWord(forgetsDurable: true))
    }
}
