// From one seed, every engine returns the same bytes and leaves the same files.

import Testing

@testable import Treering

@Suite struct EngineEquivalenceTests {
    static func simulated(_ seed: UInt64, _ order: SimulatedDevice.Order) throws -> ScriptResult {
        let device = SimulatedDevice(seed: seed, order: order)
        var script = DeviceScript(device, seed: seed) { device.drain() }
        return try script.run(150)
    }

    static func host(_ seed: UInt64, _ options: DeviceOptions) throws -> ScriptResult {
        let directory = TemporaryDirectory()
        let store = directory.path + "/store"
        try PosixDevice.create(directory: store)
        let device = try PosixDevice(directory: store, options: options)
        var script = DeviceScript(device, seed: seed)
        defer { device.shutDown() }
        return try script.run(150)
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func posixAndSimulated(seed: UInt64) throws {
        let expected = try Self.simulated(seed, .fifo)
        #expect(try Self.simulated(seed, .random) == expected, "seed \(seed)")
        #expect(try Self.host(seed, DeviceOptions(direct: .auto)) == expected, "seed \(seed)")
        #expect(try Self.host(seed, DeviceOptions(direct: .off, workerCount: 1)) == expected, "seed \(seed)")
    }
}
