// The simulated device itself: order, traces, faults, room.

import Testing

@testable import Treering

@Suite struct SimulatedDeviceTests {
    @Test func goldenTrace() throws {
        let bench = try CrashBench()
        let start = bench.device.trace.count
        bench.write(bench.first, 1, at: 8192, count: 8192)
        bench.sync(bench.first)
        bench.writeDurable(bench.second, 2)
        let file = try bench.device.open(.newIndex, create: true)
        try bench.device.resize(file, to: 4096)
        try bench.device.punch(bench.first, offset: 0, byteCount: 8192)
        try bench.device.rename(.newIndex, to: .index)
        try bench.device.syncDirectories()
        #expect(throws: Errno.noEntry) { try bench.device.unlink(.superblock) }
        #expect(
            bench.device.traceLines(from: start) == [
                "write segment 1 @8192 8192", "sync segment 1", "writeDurable segment 2 @0 4096", "create index.new",
                "resize index.new 4096", "punch segment 1 @0 8192", "rename index.new to index", "sync directories",
                "unlink superblock failed with 2",
            ])
    }

    @Test func completionsComeInTheOrderOfTheSeed() throws {
        func order(_ order: SimulatedDevice.Order, _ seed: UInt64) throws -> [UInt64] {
            let device = SimulatedDevice(seed: seed, order: order)
            let file = try device.open(.index, create: true)
            let buffer = AlignedBuffer(byteCount: 4096)
            nonisolated(unsafe) var seen: [UInt64] = []
            device.onCompletion { seen.append($0.tag) }
            device.submit((0..<10).map { Submission(.write, file, offset: $0 * 512, buffer.bytes, tag: $0) })
            #expect(device.inFlightCount == 10 && device.inFlight.count == 10)
            device.drain()
            return seen
        }
        #expect(try order(.fifo, 1) == Array(0..<10))
        #expect(try order(.random, 1) == order(.random, 1))
        #expect(try order(.random, 1) != order(.random, 2))
    }

    @Test func failures() throws {
        let bench = try CrashBench()
        bench.device.inject(SimulatedFault(.fail(.ioError), kinds: [.write], file: CrashBench.one, nth: 2))
        bench.write(bench.first, 1)
        bench.write(bench.second, 1)
        #expect(bench.device.perform(bench.submission(.write, bench.first, 2)).error == .ioError)
        bench.write(bench.first, 3, at: 4096)
        #expect(bench.device.contents(of: CrashBench.one)![0] == 1)

        bench.device.inject(SimulatedFault(.fail(.noSpace), kinds: [.resize, .create], isLasting: true))
        #expect(throws: Errno.noSpace) { try bench.device.resize(bench.first, to: 4096) }
        #expect(throws: Errno.noSpace) { try bench.device.open(.index, create: true) }
        bench.device.removeFaults()
        #expect(throws: Never.self) { try bench.device.resize(bench.first, to: 8192) }

        bench.device.inject(SimulatedFault(.shorten(100), kinds: [.read]))
        #expect(bench.device.perform(bench.submission(.read, bench.first, 0)).result == 100)
        bench.device.inject(SimulatedFault(.shorten(512)))
        #expect(bench.device.perform(bench.submission(.write, bench.first, 5)).result == 512)
        #expect(bench.device.contents(of: CrashBench.one)![511...512] == [5, 1])
    }

    /// It was whole and yet not durable, which no device may answer.
    @Test func whatIsNotShortenedIsDurable() throws {
        let bench = try CrashBench()
        bench.device.inject(SimulatedFault(.shorten(4096)))
        bench.writeDurable(bench.first, 3)
        #expect(bench.device.faultCount == 0)
        #expect(bench.outcomes() == [3])
    }

    @Test func tornFailure() throws {
        let bench = try CrashBench()
        bench.device.inject(SimulatedFault(.failTorn(.ioError), kinds: [.write]))
        #expect(bench.device.perform(bench.submission(.write, bench.first, 7, count: 8192)).error == .ioError)
        let count = bench.device.contents(of: CrashBench.one)!.filter { $0 == 7 }.count
        #expect(count > 0 && count < 8192 && count % 512 == 0)
        #expect(bench.outcomes(at: 0).isSubset(of: [0, 7]))
    }

    @Test func failedSyncKeepsOrLoses() throws {
        let bench = try CrashBench()
        bench.write(bench.first, 1)
        bench.device.inject(SimulatedFault(.fail(.ioError), kinds: [.sync]))
        #expect(bench.device.perform(bench.submission(.sync, bench.first, 0)).error == .ioError)
        #expect(bench.outcomes() == [0, 1])
        bench.sync(bench.first)
        #expect(bench.outcomes() == [1])

        bench.write(bench.first, 2)
        bench.device.inject(SimulatedFault(.failAndLose(.ioError), kinds: [.sync]))
        #expect(bench.device.perform(bench.submission(.sync, bench.first, 0)).error == .ioError)
        bench.sync(bench.first)
        #expect(bench.device.contents(of: CrashBench.one)![0] == 2)
        #expect(bench.outcomes() == [1], "a later sync does not bring back what the host forgot")
    }

    @Test func flippedAndDamagedBytes() throws {
        let bench = try CrashBench()
        bench.writeDurable(bench.first, 8)
        let target = AlignedBuffer(byteCount: 8192)
        let read = Submission(
            .read, bench.first, offset: 0, target.bytes.part(0, 1024), target.bytes.part(1024, 1024), tag: 0)
        bench.device.flip(CrashBench.one, at: 5, bits: 0x80)
        bench.device.flip(CrashBench.one, at: 1500, bits: 1)
        #expect(bench.device.perform(read).result == 2048)
        #expect(target.bytes[5] == 0x88 && target.bytes[1500] == 9 && target.bytes[6] == 8)
        bench.device.removeFaults()
        _ = bench.device.perform(read)
        #expect(target.bytes[5] == 8)
        bench.device.damage(CrashBench.one, at: 5)
        _ = bench.device.perform(read)
        #expect(target.bytes[5] == 9)
        #expect(bench.outcomes(at: 5) == [9])
    }

    @Test func hostWithoutRoom() throws {
        let bench = try CrashBench()
        bench.device.limitHost(toByteCount: 2 * 65536 + 8192)
        #expect(bench.device.hostSpace().availableByteCount == 8192)
        #expect(throws: Errno.noSpace) { try bench.device.resize(bench.first, to: 65536 + 12288) }
        #expect(bench.device.byteCount(of: bench.first) == 65536)
        bench.write(bench.first, 1, at: 65536, count: 8192)
        #expect(bench.device.perform(bench.submission(.write, bench.second, 1, at: 65536)).error == .noSpace)
        try bench.device.punch(bench.first, offset: 0, byteCount: 4096)
        bench.write(bench.second, 1, at: 65536)
        #expect(bench.device.perform(bench.submission(.write, bench.first, 1)).error == .noSpace)
        try bench.device.unlink(CrashBench.two)
        bench.device.close(bench.second)
        try bench.device.syncDirectories()
        bench.write(bench.first, 1)
    }

    @Test func snapshotsAreIndependent() throws {
        let bench = try CrashBench()
        bench.writeDurable(bench.first, 1)
        let state = bench.device.crash(seed: 1)
        let copy = state.device()
        let file = try copy.open(CrashBench.one, create: false)
        #expect(copy.perform(bench.submission(.write, file, 2)).result == 4096)
        #expect(bench.device.contents(of: CrashBench.one)![0] == 1)
        #expect(state.device().contents(of: CrashBench.one)![0] == 1)
        #expect(copy.contents(of: CrashBench.one)![0] == 2)
    }
}
