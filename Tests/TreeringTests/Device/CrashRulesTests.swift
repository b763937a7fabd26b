// What a power cut may take and what it may not: the rules that every crash simulation rests on.

import Testing

@testable import Treering

/// A simulated store of two segments with everything so far durable, and short ways to write.
final class CrashBench {
    let device: SimulatedDevice
    let first: DeviceFile
    let second: DeviceFile
    static let one = StoreFile.segment(SegmentNumber(1))
    static let two = StoreFile.segment(SegmentNumber(2))
    private let buffers: [AlignedBuffer] = (0..<16).map { byte in
        let buffer = AlignedBuffer(byteCount: 8192)
        buffer.bytes.initializeMemory(as: UInt8.self, repeating: UInt8(byte))
        return buffer
    }

    init(sector: UInt64 = 512) throws {
        device = SimulatedDevice(sectorByteCount: sector, keepsHistory: true)
        first = try device.open(Self.one, create: true)
        second = try device.open(Self.two, create: true)
        for file in [first, second] {
            try device.resize(file, to: 65536)
            _ = device.perform(Submission(.sync, file, tag: 0))
        }
        try device.syncDirectories()
    }

    func submission(
        _ operation: Submission.Operation, _ file: DeviceFile, _ byte: UInt8, at offset: UInt64 = 0, count: Int = 4096
    ) -> Submission {
        if operation == .sync { return Submission(.sync, file, tag: 0) }
        return Submission(operation, file, offset: offset, buffers[Int(byte)].bytes.part(0, count), tag: UInt64(byte))
    }

    func write(_ file: DeviceFile, _ byte: UInt8, at offset: UInt64 = 0, count: Int = 4096) {
        #expect(device.perform(submission(.write, file, byte, at: offset, count: count)).result == count)
    }

    func writeDurable(_ file: DeviceFile, _ byte: UInt8, at offset: UInt64 = 0) {
        #expect(device.perform(submission(.writeDurable, file, byte, at: offset)).result == 4096)
    }

    func sync(_ file: DeviceFile) { #expect(device.perform(Submission(.sync, file, tag: 0)).result == 0) }

    /// The values that byte `offset` of a file may have after a power cut; −1 where the file may be gone or too short.
    func outcomes(_ file: StoreFile = CrashBench.one, at offset: Int = 0) -> Set<Int> {
        Set(
            device.crashStates().map { state in
                guard let bytes = state.device().contents(of: file), offset < bytes.count else { return -1 }
                return Int(bytes[offset])
            })
    }
}

@Suite struct CrashRulesTests {
    @Test func writeWithoutSyncMayBeLostOrKept() throws {
        let bench = try CrashBench()
        bench.write(bench.first, 1)
        #expect(bench.outcomes() == [0, 1])
    }

    @Test func syncKeepsWhatCompletedBefore() throws {
        let bench = try CrashBench()
        bench.write(bench.first, 1)
        bench.sync(bench.first)
        #expect(bench.outcomes() == [1])
        bench.write(bench.first, 2)
        #expect(bench.outcomes() == [1, 2])
    }

    @Test func syncCoversItsOwnFileOnly() throws {
        let bench = try CrashBench()
        bench.write(bench.first, 1)
        bench.sync(bench.second)
        #expect(bench.outcomes() == [0, 1])
    }

    @Test func syncCoversOnlyWhatCompletedBeforeItWasSubmitted() throws {
        let bench = try CrashBench()
        bench.device.submit([bench.submission(.write, bench.first, 1)])
        bench.device.submit([bench.submission(.sync, bench.first, 0)])
        bench.device.drain()
        #expect(bench.outcomes() == [0, 1])
    }

    @Test func syncIsOfNoUseBeforeItCompletes() throws {
        let bench = try CrashBench()
        bench.write(bench.first, 1)
        bench.device.submit([bench.submission(.sync, bench.first, 0)])
        #expect(bench.outcomes() == [0, 1])
        bench.device.drain()
        #expect(bench.outcomes() == [1])
    }

    /// FUA without flush: a durable write takes nothing else along.
    @Test func durableWriteKeepsExactlyItsOwnBytes() throws {
        let bench = try CrashBench()
        bench.write(bench.first, 1)
        bench.writeDurable(bench.first, 2, at: 4096)
        #expect(bench.outcomes(at: 0) == [0, 1])
        #expect(bench.outcomes(at: 4096) == [2])
        #expect(bench.outcomes(at: 8192) == [0])
    }

    @Test func olderWriteDoesNotComeBackOverADurableOne() throws {
        let bench = try CrashBench()
        bench.write(bench.first, 1, count: 8192)
        bench.writeDurable(bench.first, 2)
        #expect(bench.outcomes(at: 0) == [2])
        #expect(bench.outcomes(at: 4096) == [0, 1])
    }

    @Test func writeInFlightMayLandOverADurableOne() throws {
        let bench = try CrashBench()
        bench.device.submit([bench.submission(.write, bench.first, 1)])
        bench.writeDurable(bench.first, 2)
        #expect(bench.outcomes() == [1, 2])
    }

    @Test func writesOfOneFileMayBeLostInAnyOrder() throws {
        let bench = try CrashBench()
        bench.write(bench.first, 1)
        bench.write(bench.first, 2, at: 4096)
        let seen = Set(
            bench.device.crashStates().map { state -> [UInt8] in
                let bytes = state.device().contents(of: CrashBench.one)!
                return [bytes[0], bytes[4096]]
            })
        #expect(seen.isSuperset(of: [[0, 0], [1, 0], [0, 2], [1, 2]]))
    }

    @Test(arguments: [512, 4096] as [UInt64])
    func tornAtTheSector(sector: UInt64) throws {
        let bench = try CrashBench(sector: sector)
        bench.device.submit([bench.submission(.write, bench.first, 1, count: 8192)])
        var patterns: Set<[UInt8]> = []
        for seed in 0..<200 as Range<UInt64> {
            let bytes = bench.device.crash(seed: seed).device().contents(of: CrashBench.one)![0..<8192]
            let sectors = stride(from: 0, to: 8192, by: Int(sector)).map { Array(bytes[$0..<$0 + Int(sector)]) }
            #expect(sectors.allSatisfy { part in part.allSatisfy { $0 == part[0] } })
            patterns.insert(sectors.map { $0[0] })
        }
        #expect(patterns.count >= (sector == 4096 ? 4 : 20))
    }

    @Test func namesAreLostLatestFirst() throws {
        let bench = try CrashBench()
        let fresh = StoreFile.preparing(SegmentNumber(3))
        let three = StoreFile.segment(SegmentNumber(3))
        let file = try bench.device.open(fresh, create: true)
        bench.writeDurable(file, 5)
        try bench.device.rename(fresh, to: three)
        try bench.device.unlink(CrashBench.two)
        let seen = Set(bench.device.crashStates().map { $0.device().list() })
        #expect(
            seen == [
                [CrashBench.one, CrashBench.two], [CrashBench.one, CrashBench.two, fresh],
                [CrashBench.one, CrashBench.two, three], [CrashBench.one, three],
            ])
        try bench.device.syncDirectories()
        #expect(Set(bench.device.crashStates().map { $0.device().list() }) == [[CrashBench.one, three]])
        #expect(bench.outcomes(three) == [5])
    }

    @Test func renameOverAFileLosesOneOrTheOther() throws {
        let bench = try CrashBench()
        let old = try bench.device.open(.index, create: true)
        bench.writeDurable(old, 1)
        try bench.device.syncDirectories()
        let new = try bench.device.open(.newIndex, create: true)
        bench.writeDurable(new, 2)
        try bench.device.rename(.newIndex, to: .index)
        #expect(bench.outcomes(.index) == [1, 2])
        try bench.device.syncDirectories()
        #expect(bench.outcomes(.index) == [2])
    }

    @Test func lengthComesWithTheData() throws {
        let bench = try CrashBench()
        let file = try bench.device.open(.index, create: true)
        try bench.device.syncDirectories()
        try bench.device.resize(file, to: 16384)
        bench.writeDurable(file, 3, at: 4096)
        let lengths = Set(bench.device.crashStates().map { $0.device().contents(of: .index)!.count })
        #expect(lengths == [8192, 16384])
        #expect(bench.outcomes(.index, at: 4096) == [3])
        bench.sync(file)
        #expect(Set(bench.device.crashStates().map { $0.device().contents(of: .index)!.count }) == [16384])
    }

    @Test func cutBeforeADurableWriteDoesNotComeAfterIt() throws {
        let bench = try CrashBench()
        bench.write(bench.first, 1, at: 8192)
        try bench.device.resize(bench.first, to: 4096)
        bench.writeDurable(bench.first, 2, at: 8192)
        #expect(bench.outcomes(at: 8192) == [2])
        bench.write(bench.first, 3, at: 12288)
        #expect(bench.outcomes(at: 4096) == [0])
    }

    @Test func punchMayBeLost() throws {
        let bench = try CrashBench()
        bench.writeDurable(bench.first, 1)
        try bench.device.punch(bench.first, offset: 0, byteCount: 4096)
        #expect(bench.outcomes() == [0, 1])
        bench.sync(bench.first)
        #expect(bench.outcomes() == [0])
    }

    @Test func killKeepsWhatCompletedAndAPowerCutAfterItMayNot() throws {
        let bench = try CrashBench()
        bench.write(bench.first, 1)
        bench.device.submit([bench.submission(.write, bench.first, 2, at: 4096)])
        var landed: Set<UInt8> = []
        for seed in 0..<20 as Range<UInt64> {
            let killed = bench.device.snapshotAfterKill(seed: seed)
            let bytes = killed.contents(of: CrashBench.one)!
            #expect(bytes[0] == 1)
            landed.insert(bytes[4096])
            let after = Set(killed.crashStates().map { $0.device().contents(of: CrashBench.one)![0] })
            #expect(after == [0, 1])
        }
        #expect(landed == [0, 2])
    }

    @Test func writesOfADeadProcessLandUnderItsSuccessor() throws {
        let bench = try CrashBench()
        bench.device.submit([bench.submission(.write, bench.first, 1)])
        var late = 0
        for seed in 0..<40 as Range<UInt64> {
            let successor = bench.device.snapshotAfterKill(seed: seed, lateWrites: true)
            let file = try successor.open(CrashBench.one, create: false)
            #expect(successor.perform(bench.submission(.writeDurable, file, 2)).result == 4096)
            let count = successor.landLateWrites()
            late += count
            #expect(successor.contents(of: CrashBench.one)![0] == (count > 0 ? 1 : 2))
        }
        #expect(late > 0)
    }

    /// Every event of a history can be crashed at; a value written durably at one point is there at all later ones.
    @Test func everyPointOfAHistory() throws {
        let bench = try CrashBench()
        var durableAt: [(event: Int, place: Int, byte: UInt8)] = []
        for round in 0..<6 {
            bench.write(bench.second, UInt8(round + 1), at: UInt64(round) * 4096)
            bench.writeDurable(bench.first, UInt8(round + 1), at: UInt64(round) * 4096)
            durableAt.append((bench.device.eventCount, round * 4096, UInt8(round + 1)))
        }
        #expect(bench.device.crashPoints.upperBound == bench.device.eventCount + 1)
        for event in bench.device.crashPoints {
            for state in bench.device.crashStates(at: event, exhaustiveUpTo: 3, samples: 8, seed: 1) {
                guard let bytes = state.device().contents(of: CrashBench.one) else { continue }
                for (since, place, byte) in durableAt where event >= since {
                    #expect(bytes[place] == byte, "\(state)")
                }
            }
        }
    }
}
