// A store on a simulated device with a clock that stands still until a test moves it: mounted, remounted, killed, cut off.

@testable import Treering

/// The time of a simulation.
final class SimulationClock: @unchecked Sendable {
    var time = Timestamp(seconds: 1_000_000, nanoseconds: 0)
    func tick() { time.seconds += 1 }
}

/// Lines that a volume logged.
final class LogLines: @unchecked Sendable {
    var lines: [String] = []

    /// The lines since the last time.
    func take() -> [String] {
        defer { lines = [] }
        return lines
    }
}

/// What a simulated store is like.
struct StoreSettings {
    var capacityByteCount: UInt64 = 32 << 20
    var segmentByteCount = 1 << 20
    var order = SimulatedDevice.Order.fifo
    var sectorByteCount: UInt64 = 512
    var options = VolumeOptions()
    /// Writes and flushes that do nothing though they report success, once the store is formatted.
    var lies: (@Sendable (TraceEntry) -> Bool)?
    /// Done to what an unmount or a crash has left before it is mounted.
    /// Is told what of staging will be found.
    var tampers: (@Sendable (SimulatedDevice, [StagingHeader]) throws -> Void)?
    /// A killed mount had acknowledged one record more than it had published.
    var withholdsLastRecord = false

    init(cacheByteCount: Int = 64 << 10) {
        options.stagingByteCount = 1 << 20
        options.indexCacheByteCount = cacheByteCount
        options.poolLimit = 4
        options.punchByteCountMinimum = 2 * blockByteCount
        options.bounds = WorkBounds(
            extentCount: 8, pieceCount: 4, readCount: 2, scratchByteCount: 8192, replacedExtentCount: 3,
            attributeCount: 2)
    }
}

final class SimulatedStore {
    static let uuid = StoreUUID(high: 1, low: 2)
    let settings: StoreSettings
    let clock: SimulationClock
    let log = LogLines()
    private(set) var device: SimulatedDevice
    private(set) var volume: Volume<SimulatedDevice>
    /// The memory of the present mount's staging.
    private var staging: AlignedBuffer

    /// Formats and mounts.
    init(_ settings: StoreSettings, seed: UInt64 = 0, keepsHistory: Bool = false) throws {
        self.settings = settings
        clock = SimulationClock()
        device = SimulatedDevice(
            seed: seed, order: settings.order, sectorByteCount: settings.sectorByteCount, keepsHistory: keepsHistory)
        try Volume.format(device, Self.formatOptions(settings, clock))
        if let lies = settings.lies { device.lie(about: lies) }
        (volume, staging) = try Self.mount(device, settings, clock, log, allStaged: [])
    }

    /// Mounts what is on a device.
    init(_ settings: StoreSettings, on device: SimulatedDevice, clock: SimulationClock, allStaged: [StagedRecords] = [])
        throws
    {
        self.settings = settings
        self.clock = clock
        self.device = device
        try settings.tampers?(device, allStaged.map(\.header))
        if let lies = settings.lies { device.lie(about: lies) }
        (volume, staging) = try Self.mount(device, settings, clock, log, allStaged: allStaged)
    }

    static func formatOptions(_ settings: StoreSettings, _ clock: SimulationClock) -> FormatOptions {
        FormatOptions(
            capacityByteCount: settings.capacityByteCount, segmentByteCount: settings.segmentByteCount, uuid: uuid,
            hashKey: StoreUUID(high: 3, low: 4), now: { clock.time })
    }

    private static func mount(
        _ device: SimulatedDevice, _ settings: StoreSettings, _ clock: SimulationClock, _ log: LogLines,
        allStaged: [StagedRecords]
    ) throws(MountError) -> (Volume<SimulatedDevice>, AlignedBuffer) {
        let geometry = StagingGeometry(
            stagingByteCount: settings.options.stagingByteCount, segmentByteCount: settings.segmentByteCount)
        let memory = AlignedBuffer(byteCount: geometry.byteCount)
        memory.bytes.zero(0, memory.bytes.count)
        let staging = Staging(geometry: geometry, memory: memory.bytes, owner: memory)
        let volume = try Volume.mount(
            device, settings.options, staging: staging, allStaged: allStaged, now: { clock.time },
            log: { log.lines.append($0) }
        )
        StagingHeader(
            uuid: uuid, epoch: volume.state.withLock { $0.core.log.epoch }, generation: 0, device: 0, directory: 0,
            bootID: StoreUUID(high: 0, low: 0), owner: 0, identity: 1, geometry: geometry
        ).encode(into: memory.bytes)
        return (volume, memory)
    }

    // MARK: State

    /// The sequence that the next record gets: how far the store's history has come.
    var nextSequence: UInt64 { volume.state.withLock { $0.core.log.nextSequence.rawValue } }
    /// The same at the moment when the mount had recovered what it found; the mount itself may have gone on since.
    var recoveredSequence: UInt64 { volume.state.withLock { $0.recoveredSequence.rawValue } }
    /// What the present mount's staging holds.
    var stagingBytes: [UInt8] { Array(staging.bytes) }
    var valueLimit: Int { min(65_536, volume.maxWriteByteCount) }

    /// What a successor would find in staging if the process died now.
    var stagedRecords: StagedRecords? {
        let bytes = UnsafeRawBufferPointer(staging.bytes)
        guard settings.withholdsLastRecord else { return StagedRecords(copying: bytes) }
        return Tampering.withholdingLastRecord(bytes).withUnsafeBytes { StagedRecords(copying: $0) }
    }

    // MARK: Endings

    /// Unmounts and mounts again, on a copy of the device whose trace begins anew.
    func remount(seed: UInt64) throws {
        try volume.unmount()
        device = device.snapshotAfterKill(seed: seed, order: settings.order)
        try settings.tampers?(device, [])
        (volume, staging) = try Self.mount(device, settings, clock, log, allStaged: [])
    }

    /// The process dies. With `keepsStaging` its successor finds the staging.
    func kill(seed: UInt64, keepsStaging: Bool) throws {
        let tail = keepsStaging ? stagedRecords : nil
        let next = device.snapshotAfterKill(seed: seed, order: settings.order)
        device = next
        try settings.tampers?(device, tail.map { [$0.header] } ?? [])
        (volume, staging) = try Self.mount(next, settings, clock, log, allStaged: tail.map { [$0] } ?? [])
    }

    /// The power fails.
    func cutPower(seed: UInt64) throws {
        device = device.crash(seed: seed).device(seed: seed, order: settings.order)
        try settings.tampers?(device, [])
        (volume, staging) = try Self.mount(device, settings, clock, log, allStaged: [])
    }
}
