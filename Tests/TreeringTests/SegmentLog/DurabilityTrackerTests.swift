// "Durable through N" means: every batch up to N was written with DSYNC, or before the start of a sync of its own file.

import Testing

@testable import Treering

@Suite struct DurabilityTrackerTests {
    private let one = DeviceFile(rawValue: 1)
    private let two = DeviceFile(rawValue: 2)

    private func batch(_ number: UInt64) -> BatchSequence { BatchSequence(number) }

    private func tracker(_ batches: [(UInt64, DeviceFile, Bool)]) -> DurabilityTracker {
        var tracker = DurabilityTracker(through: .zero)
        for (number, file, isDurable) in batches { tracker.submitted(batch(number), file, isDurableWrite: isDurable) }
        return tracker
    }

    @Test func aDurableWriteIsDurableAtItsCompletion() {
        var tracker = tracker([(1, one, true)])
        #expect(tracker.durable == .zero)
        tracker.completed(batch(1))
        #expect(tracker.durable == batch(1))
        #expect(tracker.undurableCount == 0)
    }

    @Test func aDurableWriteDoesNotTakeEarlierOnesAlong() {
        var tracker = tracker([(1, one, false), (2, one, true)])
        tracker.completed(batch(1))
        tracker.completed(batch(2))
        #expect(tracker.durable == .zero)
        #expect(tracker.written == batch(2))
        tracker.want(batch(2))
        let syncs = tracker.syncsToSubmit()
        #expect(syncs.map(\.file) == [one])
        tracker.syncCompleted(syncs[0].id)
        #expect(tracker.durable == batch(2))
    }

    @Test func nothingIsSyncedThatNobodyWants() {
        var tracker = tracker([(1, one, false)])
        tracker.completed(batch(1))
        #expect(tracker.syncsToSubmit().isEmpty)
    }

    @Test func aSyncCoversOnlyWhatWasWrittenBeforeIt() {
        var tracker = tracker([(1, one, false), (2, one, false)])
        tracker.want(batch(2))
        tracker.completed(batch(1))
        let first = tracker.syncsToSubmit()
        #expect(first.count == 1)
        tracker.completed(batch(2))
        let second = tracker.syncsToSubmit()
        #expect(second.count == 1)
        tracker.syncCompleted(first[0].id)
        #expect(tracker.durable == batch(1))
        tracker.syncCompleted(second[0].id)
        #expect(tracker.durable == batch(2))
    }

    @Test func aSyncCoversItsOwnFileOnly() {
        var tracker = tracker([(1, one, false), (2, two, false)])
        tracker.completed(batch(1))
        tracker.completed(batch(2))
        tracker.want(batch(2))
        let syncs = tracker.syncsToSubmit()
        #expect(Set(syncs.map(\.file)) == [one, two])
        tracker.syncCompleted(syncs.first { $0.file == two }!.id)
        #expect(tracker.durable == .zero)
        tracker.syncCompleted(syncs.first { $0.file == one }!.id)
        #expect(tracker.durable == batch(2))
    }

    /// The head has gone over to another segment: the old one's writes count before the new one's are durable.
    @Test func rollOverNeedsTheOldSegmentAsWell() {
        var tracker = tracker([(1, one, false), (2, two, true)])
        tracker.completed(batch(2))
        #expect(tracker.durable == .zero)
        tracker.want(batch(2))
        #expect(tracker.syncsToSubmit().isEmpty)
        tracker.completed(batch(1))
        let syncs = tracker.syncsToSubmit()
        #expect(syncs.map(\.file) == [one])
        tracker.syncCompleted(syncs[0].id)
        #expect(tracker.durable == batch(2))
    }

    @Test func oneSyncCarriesWhatElseIsWrittenInItsFile() {
        var tracker = tracker([(1, one, false), (2, one, false), (3, one, false)])
        for number in 1...3 as ClosedRange<UInt64> { tracker.completed(batch(number)) }
        tracker.want(batch(1))
        let syncs = tracker.syncsToSubmit()
        #expect(syncs.count == 1)
        #expect(tracker.syncsToSubmit().isEmpty)
        tracker.syncCompleted(syncs[0].id)
        #expect(tracker.durable == batch(3))
    }

    @Test func writtenIsContiguous() {
        var tracker = tracker([(1, one, false), (2, one, false), (3, one, false)])
        tracker.completed(batch(3))
        tracker.completed(batch(2))
        #expect(tracker.written == .zero)
        tracker.completed(batch(1))
        #expect(tracker.written == batch(3))
    }

    /// Random completions against the definition.
    @Test(arguments: 0..<50 as Range<UInt64>)
    func againstTheDefinition(seed: UInt64) {
        var random = SimulatedRandom(seed: seed)
        var tracker = DurabilityTracker(through: .zero)
        var batches: [(file: DeviceFile, isDurableWrite: Bool, isWritten: Bool, isDurable: Bool)] = []
        var syncs: [(id: UInt32, covered: [Int])] = []
        for _ in 0..<300 {
            switch random.next() % 5 {
            case 0:
                let file = random.next() % 3 == 0 ? two : one
                let isDurable = random.next() % 3 == 0
                batches.append((file, isDurable, false, false))
                tracker.submitted(batch(UInt64(batches.count)), file, isDurableWrite: isDurable)
            case 1, 2:
                guard let index = batches.indices.filter({ !batches[$0].isWritten }).randomElement(using: &random)
                else { break }
                batches[index].isWritten = true
                batches[index].isDurable = batches[index].isDurableWrite
                tracker.completed(batch(UInt64(index + 1)))
            case 3:
                tracker.want(batch(random.next() % UInt64(batches.count + 1)))
                for (id, file) in tracker.syncsToSubmit() {
                    syncs.append((id, batches.indices.filter { batches[$0].file == file && batches[$0].isWritten }))
                }
            default:
                guard let index = syncs.indices.randomElement(using: &random) else { break }
                let sync = syncs.remove(at: index)
                for covered in sync.covered { batches[covered].isDurable = true }
                tracker.syncCompleted(sync.id)
            }
            let durable = batches.firstIndex { !$0.isDurable } ?? batches.count
            let written = batches.firstIndex { !$0.isWritten } ?? batches.count
            // It may know less than is true, never more; without a sync in flight it knows all.
            #expect(tracker.durable <= batch(UInt64(durable)))
            #expect(tracker.written == batch(UInt64(written)) || tracker.written >= tracker.durable)
            if syncs.isEmpty { #expect(tracker.durable == batch(UInt64(durable))) }
        }
    }

    /// A flush that failed has told what was lost to itself alone: others of that file, in flight at that time, do not count.
    @Test func afterAFailedSyncNoOtherOfItsFileCounts() {
        var tracker = tracker([(1, one, false), (2, one, false), (3, two, true)])
        tracker.completed(batch(1))
        tracker.want(batch(3))
        let first = tracker.syncsToSubmit()
        tracker.completed(batch(2))
        let second = tracker.syncsToSubmit()
        tracker.syncFailed(first[0].id)
        tracker.syncCompleted(second[0].id)
        tracker.completed(batch(3))
        #expect(tracker.durable == .zero)
        #expect(tracker.inFlightCount == 0)
    }

    @Test func aFailedWriteIsNotInFlightAndNeverWritten() {
        var tracker = tracker([(1, one, true), (2, one, true)])
        tracker.writeFailed(batch(1))
        tracker.completed(batch(2))
        #expect(tracker.inFlightCount == 0)
        #expect(tracker.durable == .zero && tracker.written == .zero)
    }
}
