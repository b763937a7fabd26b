// Bounded queues under many submissions, submissions from completions, and the end of a device.

import Glibc
import Synchronization
import Testing

@testable import Treering

@Suite struct QueueTests {
    /// Ten thousand small writes from several threads through a queue of 16; each completes exactly once.
    static func flood(_ device: some Device, rounds: Int = 100) throws {
        let log = CompletionLog()
        log.attach(to: device)
        let file = try device.open(.index, create: true)
        let buffer = AlignedBuffer(byteCount: 4096)
        buffer.bytes.initializeMemory(as: UInt8.self, repeating: 0x42)
        nonisolated(unsafe) let bytes = buffer.bytes
        var threads: [DeviceThread] = []
        for thread in 0..<4 {
            threads.append(
                try DeviceThread(name: "flood") {
                    for round in 0..<rounds {
                        device.submit(
                            (0..<25).map { index in
                                let tag = UInt64((thread * rounds + round) * 25 + index)
                                return Submission(
                                    .write, file, offset: tag * 64, bytes.part(0, 64), tag: tag)
                            })
                    }
                })
        }
        for thread in threads { thread.join() }
        #expect(log.wait(for: rounds * 100))
        let results = log.all
        #expect(results.count == rounds * 100)
        #expect(results.values.allSatisfy { $0 == [64] })
        #expect(try device.byteCount(of: file) == UInt64(rounds) * 6400)
        device.shutDown()
        withExtendedLifetime(buffer) {}
    }

    /// Every completion submits two more until there are enough; a handler never waits for room that only it can make.
    static func chain(_ device: some Device) throws {
        let file = try device.open(.index, create: true)
        let buffer = AlignedBuffer(byteCount: 4096)
        nonisolated(unsafe) let bytes = buffer.bytes
        let submitted = Counter()
        let completed = Counter()
        device.onCompletion { [unowned device] completion in
            precondition(completion.result == 64)
            for _ in 0..<2 where submitted.raise() < 3000 {
                device.submit([Submission(.write, file, bytes.part(0, 64), tag: 1)])
            }
            _ = completed.raise()
        }
        _ = submitted.raise()
        device.submit([Submission(.write, file, bytes.part(0, 64), tag: 0)])
        for _ in 0..<100_000 where completed.value < 3000 { usleepShort() }
        #expect(completed.value == 3000)
        device.shutDown()
        withExtendedLifetime(buffer) {}
    }

    @Test func posixFlood() throws {
        let directory = TemporaryDirectory()
        try PosixDevice.create(directory: directory.path)
        try Self.flood(PosixDevice(directory: directory.path, options: DeviceOptions(queueDepth: 16)))
    }

    @Test func posixChain() throws {
        let directory = TemporaryDirectory()
        try PosixDevice.create(directory: directory.path)
        try Self.chain(PosixDevice(directory: directory.path, options: DeviceOptions(queueDepth: 4, workerCount: 2)))
    }

    @Test func simulatedFlood() throws { try Self.flood(SimulatedDevice(order: .immediate), rounds: 5) }

    @Test func shutDownCompletesWhatWasSubmitted() throws {
        let directory = TemporaryDirectory()
        try PosixDevice.create(directory: directory.path)
        let device = try PosixDevice(directory: directory.path)
        let log = CompletionLog()
        log.attach(to: device)
        let file = try device.open(.index, create: true)
        let buffer = AlignedBuffer(byteCount: 4096)
        for tag in 0..<UInt64(100) {
            device.submit([Submission(.writeDurable, file, offset: tag * 4096, buffer.bytes, tag: tag)])
        }
        device.shutDown()
        #expect(log.count == 100)
    }
}

/// A number that several threads count up.
final class Counter: Sendable {
    private let number = Atomic(0)
    var value: Int { number.load(ordering: .acquiring) }
    /// Adds one; returns the number before.
    func raise() -> Int { number.add(1, ordering: .acquiringAndReleasing).oldValue }
}
