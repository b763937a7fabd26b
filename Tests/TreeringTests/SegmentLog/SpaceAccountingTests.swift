// The accounting of space by itself, on every combination of what it decides from.

import Testing

@testable import Treering

@Suite struct SpaceAccountingTests {
    private static let segmentByteCount = 1 << 20
    private static let geometry = StagingGeometry(stagingByteCount: 1 << 20, segmentByteCount: segmentByteCount)

    /// What a store may be like: of `count` segments, so many are in use, dead and prepared.
    private struct Case: CustomStringConvertible {
        var count = 16
        var inUse = 0
        var dead = 0
        var prepared = 0
        var headOffset: Int?
        var isHostFull = false
        var isStuck = false
        var standsStill = false
        var withheld = 0
        var live: Int64 = 1000

        var description: String {
            "\(inUse) in use, \(dead) dead, \(prepared) prepared of \(count), head \(headOffset ?? -1), host full \(isHostFull), stuck \(isStuck), standstill \(standsStill), withheld \(withheld)"
        }

        func make() -> SpaceAccounting {
            let table = SegmentTable(segmentByteCount: segmentByteCount, countLimit: count)
            for number in 0..<UInt32(inUse + prepared) {
                table.addPrepared(SegmentNumber(number), incarnation: 1, file: DeviceFile(rawValue: Int32(number)))
                guard number < inUse else { continue }
                _ = table.openHead(firstBatch: BatchSequence(UInt64(number) + 1), epoch: MountEpoch(1))
                if number >= dead { table.charge(SegmentNumber(number), Int(live)) }
                table.seal(SegmentNumber(number), lastBatch: BatchSequence(UInt64(number) + 1))
            }
            let space = SpaceAccounting(table: table, geometry: geometry)
            (space.headOffset, space.isHostFull) = (headOffset, isHostFull)
            (space.isCheckpointStuck, space.withheldSegmentCount) = (isStuck, withheld)
            if standsStill { (space.writeStandstill, space.removalStandstill) = (table.standstill, table.standstill) }
            return space
        }
    }

    /// Every combination of small numbers.
    private static func forEachCase(_ body: (Case, SpaceAccounting) -> Void) -> Int {
        var count = 0
        for inUse in 0...16 {
            for dead in Set([0, min(1, inUse)]) {
                for prepared in Set([0, 1, 3].map { min($0, 16 - inUse) }) {
                    for headOffset in [nil, 4096, segmentByteCount / 2, segmentByteCount - 4096] {
                        for flags in 0..<8 {
                            for withheld in [0, 2] {
                                let one = Case(
                                    inUse: inUse, dead: dead, prepared: prepared, headOffset: headOffset,
                                    isHostFull: flags & 1 != 0, isStuck: flags & 2 != 0, standsStill: flags & 4 != 0,
                                    withheld: withheld)
                                body(one, one.make())
                                count += 1
                            }
                        }
                    }
                }
            }
        }
        return count
    }

    @Test func whatEachTierLeavesAlone() {
        let space = Case().make()
        // Four batches of staging fit into one segment.
        #expect(SpaceTier.allCases.map(space.keptSegmentCount) == [6, 3, 0])
        space.withheldSegmentCount = 4
        #expect(SpaceTier.allCases.map(space.keptSegmentCount) == [10, 3, 0])
    }

    /// Who comes later in the table may use whatever those before it may.
    @Test func tiersAreInOrder() {
        let order: [SpaceTier] = [.write, .removal, .recovery]
        let count = Self.forEachCase { one, space in
            for (first, second) in zip(order, order.dropFirst()) {
                #expect(space.keptSegmentCount(first) >= space.keptSegmentCount(second), "\(one)")
                if space.roomForSegment(first) == .fits { #expect(space.roomForSegment(second) == .fits, "\(one)") }
                if space.roomInHead(first) == .fits { #expect(space.roomInHead(second) == .fits, "\(one)") }
                if space.isShort(for: second) { #expect(space.isShort(for: first), "\(one)") }
            }
        }
        #expect(count > 4000)
    }

    /// A segment is begun where one is prepared, and waited for where something can bring one.
    @Test func waitingIsNeverInVain() {
        _ = Self.forEachCase { one, space in
            for tier in SpaceTier.allCases {
                let mayPrepare = !one.isHostFull && one.inUse + one.prepared < one.count
                let mayClean = !one.isStuck && (one.dead > 0 || tier != .recovery && !one.standsStill && one.inUse > 1)
                switch space.roomForSegment(tier) {
                case .fits: #expect(one.prepared > 0, "\(one), \(tier)")
                case .wait: #expect(mayPrepare || mayClean, "\(one), \(tier)")
                case .full: #expect(!mayClean, "\(one), \(tier)")
                case .crowded: Issue.record("\(one), \(tier): a segment is never crowded")
                }
                if space.roomInHead(tier) == .wait { #expect(tier == .write && one.headOffset != nil, "\(one)") }
                if space.roomInHead(tier) == .full { #expect(!mayClean, "\(one), \(tier)") }
            }
        }
    }

    /// Nothing that frees space is ever refused a segment that is there, whatever the host says.
    @Test func removalsFindWhatIsPreparedOnAFullHost() {
        _ = Self.forEachCase { one, space in
            if one.isHostFull, one.prepared > 0 { #expect(space.roomForSegment(.removal) == .fits, "\(one)") }
            if one.prepared > 0, one.inUse < one.count { #expect(space.roomForSegment(.recovery) == .fits, "\(one)") }
        }
    }

    @Test func liveBytesAreRefusedInOrder() {
        let file = InodeNumber(7)
        for withheld in [0, 3] {
            for reserved in [0, 1 << 20, 4 << 20] as [UInt64] {
                let space = Case(inUse: 4, prepared: 1, headOffset: 4096, withheld: withheld).make()
                let answer = { (byteCount: Int, claim: RoomClaim, isComing: Bool) in
                    space.room(for: byteCount, .write, claim, reserved: reserved, isComing: isComing)
                }
                let claims: [RoomClaim] = [
                    .none, .allocated(file, releasedByteCount: 0), .allocated(file, releasedByteCount: reserved),
                    .joining,
                ]
                var limits: [Int] = []
                for claim in claims {
                    // The most that fits.
                    var (low, high) = (0, 64 << 20)
                    while low < high {
                        let middle = (low + high + 1) / 2
                        if answer(middle, claim, false) == .fits { low = middle } else { high = middle - 1 }
                    }
                    limits.append(low)
                    guard low < 64 << 20 else { continue }
                    #expect(answer(low + 1, claim, true) == .wait)
                    let refusal = answer(low + 1, claim, false)
                    if case .none = claim { #expect(refusal == .full) } else { #expect(refusal == .crowded) }
                }
                #expect(limits == limits.sorted() && limits.last == 64 << 20)
                let unclaimed = space.liveByteCountLimit - SpaceAccounting.byteCount(ofReserved: reserved) - 4000
                #expect(limits[0] == Int(max(0, unclaimed)))
                for tier in [SpaceTier.removal, .recovery] {
                    #expect(space.room(for: 64 << 20, tier, .none, reserved: reserved, isComing: false) == .fits)
                }
            }
        }
    }

    /// What is owed to reserved ranges is left alone by writes that claim none, and by nobody else.
    @Test func reservedSegmentsAreLeftToThoseWhoClaimThem() {
        let space = Case(inUse: 8, prepared: 1).make()
        #expect(!space.isShort(for: .write))
        _ = space.room(for: 1, .write, .none, reserved: 3 << 20, isComing: false)
        #expect(space.owedSegmentCount == space.segmentCount(ofReserved: 3 << 20) && space.owedSegmentCount >= 4)
        #expect(space.isShort(for: .write) && !space.isShort(for: .removal))
        _ = space.room(for: 1, .write, .joining, reserved: 3 << 20, isComing: false)
        #expect(space.owedSegmentCount == 0 && !space.isShort(for: .write))
    }

    /// What statfs says is free can be written as far as live bytes go, and what it says is available can be reserved.
    @Test func whatIsShownCanBeHad() {
        for inUse in 1...12 {
            for reserved in [0, 100 << 10, 2 << 20] as [UInt64] {
                let space = Case(inUse: inUse, prepared: 1, headOffset: 4096, live: 300 << 10).make()
                let (total, free) = space.totalAndFree(reserved: reserved, removing: 0)
                #expect(free <= total && total == UInt64(space.liveByteCountLimit))
                #expect(
                    space.room(for: Int(free), .write, .none, reserved: reserved, isComing: false) == .fits || free == 0
                )
                let available = SpaceAccounting.reservableByteCount(in: free)
                #expect(space.roomToReserve(available, available: available, isComing: false) == .fits)
                #expect(SpaceAccounting.byteCount(ofReserved: available) <= Int64(free))
                space.isHostFull = true
                let own = UInt64(space.table.pool.count) << 20 + UInt64(space.table.reclaimableByteCount)
                #expect(space.totalAndFree(reserved: reserved, removing: 0).free == min(free, own))
            }
        }
    }

    /// A store of the least capacity for what it holds has room for it.
    @Test func theLeastCapacityHoldsWhatIsNeeded() {
        for needed in [0, 1, 5 << 20, 100 << 20] as [Int64] {
            let space = Case().make()
            let count = space.leastSegmentCount(for: needed, capacityMinimum: 16 << 20)
            #expect(count >= 16 && space.liveByteCountLimit(ofSegments: count) >= needed)
        }
    }
}
