// Sums over all segments that are kept with each change say what looking at every segment would.

import Testing

@testable import Treering

@Suite struct SegmentListTests {
    private let size: Int64 = 1 << 20

    private func expectTrue(_ table: SegmentTable, _ step: Int) {
        let all = table.segments
        let sealed = all.filter(\.isSealed)
        #expect(
            table.reclaimableByteCount == sealed.reduce(0) { $0 + max(0, size - $1.live) }, "step \(step)")
        #expect(
            table.deadByteCount == sealed.reduce(0) { $0 + ($1.live == 0 ? 0 : max(0, size - $1.live)) },
            "step \(step)")
        #expect(table.deadSegmentCount == sealed.filter { $0.live == 0 }.count, "step \(step)")
        #expect(table.hasDeadSegment == sealed.contains { $0.live == 0 }, "step \(step)")
        #expect(
            table.changedNumbers().map { Int($0.rawValue) } == all.indices.filter { all[$0].isChanged }, "step \(step)")
        #expect(
            table.absentNumber().map { Int($0.rawValue) }
                == all.prefix(table.countLimit).firstIndex { $0.state == .absent }, "step \(step)")
        let stamps = all.filter { $0.state == .inUse && $0.role == .hot }.map(\.firstBatch)
        for batch in stride(from: UInt64(0), through: 400, by: 37) {
            let batch = BatchSequence(batch)
            #expect(table.stamp(through: batch) == stamps.filter { $0 <= batch }.max(), "step \(step)")
            for own in [0, 5, 1000] {
                let others = all.indices.filter { $0 != own && all[$0].state == .inUse && all[$0].role == .hot }
                let until = BatchSequence(batch.rawValue + 50)
                #expect(
                    table.holdsAnything(since: batch, until: until, besides: SegmentNumber(UInt32(own)))
                        == others.contains { all[$0].firstBatch >= batch && all[$0].firstBatch <= until },
                    "step \(step)")
            }
        }
    }

    @Test(arguments: [1, 2, 3] as [UInt64]) func sumsAreWhatLookingAtAllSays(seed: UInt64) {
        var random = SimulatedRandom(seed: seed)
        let table = SegmentTable(segmentByteCount: Int(size), countLimit: 40)
        var batch = UInt64(0)
        var checkpoint = UInt64(0)
        for step in 0..<1500 {
            let any = SegmentNumber(UInt32(random.next() % UInt64(table.segments.count)))
            let inUse = table.segments.indices.filter { table.segments[$0].state == .inUse }
            switch random.next() % 9 {
            case 0:
                if let number = table.absentNumber() {
                    let next = table[number].incarnation + 1
                    table.addPrepared(number, incarnation: next, file: DeviceFile(rawValue: 0))
                }
            case 1:
                batch += 3
                let role: SegmentHeader.Role = random.next() % 4 == 0 ? .cold : .hot
                _ = table.openHead(role, firstBatch: BatchSequence(batch), epoch: MountEpoch(1))
            case 2 where table[any].state == .inUse && table[any].lastBatch == .zero:
                table.seal(any, lastBatch: BatchSequence(batch + 1))
            case 3 where !inUse.isEmpty:
                table.charge(SegmentNumber(UInt32(inUse[Int(random.next() % UInt64(inUse.count))])), 4096)
            case 4: if table[any].state == .inUse { table.charge(any, -Int(table[any].live)) }
            case 5:
                checkpoint += 1
                table.noteEmpty(at: CheckpointNumber(checkpoint))
                let dead = table.recyclable(through: CheckpointNumber(checkpoint > 2 ? checkpoint - 2 : 0))
                for number in dead { table.recycle(number, incarnation: table[number].incarnation + 1) }
            case 6: if table[any].state == .prepared { table.remove(any) }
            case 7: for number in table.changedNumbers() { table[number].isChanged = false }
            default: table[any].isChanged = true
            }
            if step % 5 == 0 { expectTrue(table, step) }
        }
    }

    @Test func anotherNumberOfSegments() {
        let table = SegmentTable(segmentByteCount: Int(size), countLimit: 10)
        for _ in 0..<10 { table.addPrepared(table.absentNumber()!, incarnation: 1, file: DeviceFile(rawValue: 0)) }
        #expect(table.absentNumber() == nil)
        table.resize(to: 20)
        #expect(table.absentNumber() == SegmentNumber(10))
        expectTrue(table, 0)
        table.resize(to: 12)
        table.remove(SegmentNumber(3))
        #expect(table.absentNumber() == SegmentNumber(3))
        expectTrue(table, 1)
    }

    /// README states what a segment costs in memory.
    @Test func aSegmentIsSmall() { #expect(MemoryLayout<Segment>.stride <= 112) }
}
