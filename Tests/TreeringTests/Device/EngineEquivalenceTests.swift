// From one seed, every engine returns the same bytes and leaves the same files.

import Testing

@testable import Treering

@Suite struct EngineEquivalenceTests {
    static func simulated(_ seed: UInt64, _ order: SimulatedDevice.Order) throws -> ScriptResult {
        let device = SimulatedDevice(seed: seed, order: order)
        var script = DeviceScript(device, seed: seed) { device.drain() }
        return try script.run(150)
    }

    static func host(_ seed: UInt64, _ engine: EngineChoice, _ options: DeviceOptions) throws -> ScriptResult {
        let directory = TemporaryDirectory()
        let store = directory.path + "/store"
        try HostDevice.create(directory: store)
        let device = try HostDevice.open(directory: store, engine: engine, options: options)
        var script = DeviceScript(device, seed: seed)
        defer { device.shutDown() }
        return try script.run(150)
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func posixAndSimulated(seed: UInt64) throws {
        let expected = try Self.simulated(seed, .fifo)
        #expect(try Self.simulated(seed, .random) == expected, "seed \(seed)")
        #expect(try Self.host(seed, .posix, DeviceOptions(direct: .auto)) == expected, "seed \(seed)")
        #expect(try Self.host(seed, .posix, DeviceOptions(direct: .off, workerCount: 1)) == expected, "seed \(seed)")
    }

    #if Liburing
        @Test(.enabled(if: EngineProbe.ringIsTestable), arguments: [1, 2, 3, 4] as [UInt64])
        func ringAndSimulated(seed: UInt64) throws {
            let expected = try Self.simulated(seed, .fifo)
            #expect(try Self.host(seed, .ring, DeviceOptions(direct: .auto)) == expected, "seed \(seed)")
            #expect(try Self.host(seed, .ring, DeviceOptions(direct: .off, queueDepth: 2)) == expected, "seed \(seed)")
            #expect(try Self.host(seed, .ring, DeviceOptions(sqpoll: true)) == expected, "seed \(seed)")
        }
    #endif
}
