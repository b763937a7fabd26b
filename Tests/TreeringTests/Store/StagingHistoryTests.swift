// Histories that diverge: a mount is killed in one place, the store is mounted in another that does not see what it left in staging, and
// then in the first again. Whatever was replayed must continue the log, and nothing that continues it may be left out.

import Testing

@testable import Treering

/// A store that is mounted here and there. Staging that a killed mount leaves is seen in its own place only, and nobody ever removes it.
private final class TravellingStore {
    enum End: CaseIterable { case unmount, kill }

    /// A mount, and what it showed at last, in the order in which it was made.
    struct Session {
        var place: Int
        var names: [String] = []
        var isKilled = false
    }

    private(set) var device = SimulatedDevice()
    private(set) var volume: Volume<SimulatedDevice>!
    private var allStaged: [Int: [StagedRecords]] = [:]
    private var memory: AlignedBuffer!
    private let geometry = StagingGeometry(stagingByteCount: 1 << 20, segmentByteCount: 1 << 20)
    private(set) var sessions: [Session] = []
    /// What was synced at last.
    private(set) var durable: [String] = []
    private var count = 0
    private(set) var lines: [String] = []

    private let name: String

    init(_ name: String = "") throws {
        self.name = name
        try Volume.format(
            device,
            FormatOptions(
                capacityByteCount: 16 << 20, uuid: StoreUUID(high: 1, low: 2), hashKey: StoreUUID(high: 3, low: 4),
                now: TestStore.now))
    }

    static func content(_ name: String) -> [UInt8] {
        let seed = name.utf8.reduce(0) { $0 &* 31 &+ UInt64($1) }
        return [UInt8](repeating: UInt8(truncatingIfNeeded: seed), count: seed % 3 == 0 ? 9000 : 50)
    }

    func mount(in place: Int) throws {
        memory = AlignedBuffer(byteCount: geometry.byteCount)
        memory.bytes.zero(0, memory.bytes.count)
        let log = LogBox()
        volume = try Volume.mount(
            device, VolumeOptions(), staging: Staging(geometry: geometry, memory: memory.bytes, owner: memory),
            allStaged: allStaged[place] ?? [], now: TestStore.now
        ) { log.lines.append($0) }
        lines = log.lines
        TestStore.stamp(memory, geometry, volume)
        sessions.append(Session(place: place, names: try names()))
    }

    func add() throws {
        let name = "\(count) in \(sessions.last!.place)"
        count += 1
        try Array(name.utf8).withUnsafeBytes { bytes in
            let inode = try volume.perform { (core) throws(Stop) in
                try core.make(.root, bytes, NewInode(mode: 0o100644), TestStore.context)
            }.inode
            _ = try Self.content(name).withUnsafeBytes { bytes in
                try volume.perform { (core) throws(Stop) in try core.write(inode, at: 0, bytes, [], .nobody) }
            }
        }
        sessions[sessions.count - 1].names.append(name)
    }

    func sync() throws {
        try volume.syncAndWait()
        durable = sessions.last!.names
    }

    func end(_ end: End) throws {
        switch end {
        case .unmount:
            try volume.unmount()
            durable = sessions.last!.names
        case .kill:
            sessions[sessions.count - 1].isKilled = true
            let tail = try #require(StagedRecords(copying: UnsafeRawBufferPointer(memory.bytes)))
            allStaged[sessions.last!.place, default: []].append(tail)
        }
        device = device.snapshotAfterKill(seed: UInt64(count))
    }

    /// What the mount shows, in the order in which it was made; each file has its content.
    private func names() throws -> [String] {
        var found: [String] = []
        try volume.perform { (core) throws(Stop) in
            found = []
            try core.readDirectory(.root, after: 2, isAccess: false) { (entry) throws(Stop) in
                found.append(String(decoding: entry.name, as: UTF8.self))
                return true
            }
        }
        for name in found {
            try Array(name.utf8).withUnsafeBytes { bytes in
                let inode = try volume.perform { (core) throws(Stop) in try core.lookup(.root, bytes) }.inode
                let read = try volume.bytes { (core) throws(Stop) in try core.planRead(inode, at: 0, 1 << 16) }
                #expect(read == Self.content(name) || read.isEmpty, "\(name)")
            }
        }
        return found.sorted { Int($0.prefix { $0 != " " })! < Int($1.prefix { $0 != " " })! }
    }

    /// Mounts, and sees that what it shows is one history, with all that was synced, and all that a killed mount had acknowledged whose staging
    /// is here and continues the log.
    func mountAndCheck(in place: Int) throws {
        let before = sessions
        try mount(in: place)
        let names = sessions.last!.names
        #expect(before.isEmpty || before.contains { $0.names.starts(with: names) }, "\(name): a mixture: \(names)")
        #expect(names.starts(with: durable), "\(name): \(durable) were synced, \(names) are there")
        if let last = before.last, !last.isKilled || last.place == place {
            // Where the last one had added nothing, one that it had passed over may come after it.
            #expect(names.starts(with: last.names), "\(name): \(last.names) were acknowledged, \(names) are there")
        }
    }

    private final class LogBox: @unchecked Sendable {
        var lines: [String] = []
    }
}

@Suite struct StagingHistoryTests {
    /// What the mount in the other place does before it ends.
    enum Work: CaseIterable { case nothing, unsynced, synced }

    private func check(_ store: TravellingStore) throws {
        #expect(try Checker.check(store.device.snapshotAfterKill(), readsData: true).problems == [])
    }

    /// Killed in A, mounted in B, mounted in A.
    @Test(arguments: Work.allCases, TravellingStore.End.allCases)
    private func killedHereMountedThereMountedHere(_ work: Work, _ end: TravellingStore.End) throws {
        let store = try TravellingStore()
        try store.mountAndCheck(in: 0)
        try store.add()
        try store.sync()
        // More than the others add: a part of it would fit behind theirs.
        for _ in 0..<6 { try store.add() }
        try store.end(.kill)
        try store.mountAndCheck(in: 1)
        #expect(store.sessions.last!.names.count == 1)
        if work != .nothing { for _ in 0..<3 { try store.add() } }
        if work == .synced { try store.sync() }
        try store.end(end)
        try store.mountAndCheck(in: 0)
        let names = store.sessions.last!.names
        if work == .nothing || work == .unsynced && end == .kill {
            // Nobody has gone on in the log: what the first had acknowledged is there after all.
            #expect(names == store.sessions[0].names)
        } else {
            #expect(names == store.sessions[1].names)
            #expect(store.lines.contains { $0.contains("left the staging of mount 2 alone") })
        }
        for _ in 0..<3 { try store.add() }
        try store.end(.kill)
        // What was killed there continues nothing either.
        try store.mountAndCheck(in: 1)
        try store.add()
        try store.end(.unmount)
        try check(store)
    }

    /// Staging that had been passed over is taken in, and that is cut off when a part of it is in the log: it goes on being the one that
    /// continues the log, and what had been passed over beside it does not.
    @Test func takingInWhatWasPassedOverIsCutOff() {
        func sequence(_ number: UInt64) -> RecordSequence { RecordSequence(number) }
        let last = MountEpoch(1)
        func standing(_ history: StagingHistory, _ epoch: UInt64, _ next: UInt64) -> StagingStanding {
            history.standing(of: MountEpoch(epoch), next: sequence(next), last: last)
        }
        // Mount 2 in one place and mount 3 in another are killed; mount 4 finds what the first has left.
        var history = StagingHistory(void: MountEpoch(1), passed: MountEpoch(1), next: sequence(10))
        history.begin(MountEpoch(2), next: sequence(10), last: last, with: nil, passesOver: false)
        history.begin(MountEpoch(3), next: sequence(10), last: last, with: nil, passesOver: true)
        #expect(standing(history, 2, 10) == .passed && standing(history, 3, 10) == .valid)
        history.begin(MountEpoch(4), next: sequence(10), last: last, with: MountEpoch(2), passesOver: true)
        for next in [10, 14] as [UInt64] {
            #expect(standing(history, 2, next) == .valid)
            #expect(standing(history, 4, next) == .valid)
        }
        #expect(standing(history, 3, 14) == .void)
        // Cut off, and begun again here, or in the other place, or finished.
        var again = history
        again.begin(MountEpoch(5), next: sequence(14), last: last, with: MountEpoch(2), passesOver: false)
        #expect(standing(again, 2, 16) == .valid && standing(again, 3, 16) == .void)
        var elsewhere = history
        elsewhere.begin(MountEpoch(5), next: sequence(14), last: last, with: nil, passesOver: true)
        #expect(standing(elsewhere, 2, 14) == .void && standing(elsewhere, 3, 14) == .void)
        history.tookIn(MountEpoch(4), next: sequence(16))
        #expect(standing(history, 2, 16) == .void && standing(history, 3, 16) == .void)
    }

    /// Between the two a repair found something to repair, in a place that does not see what was left.
    @Test func aRepairInBetweenGoesOnWithoutWhatItDoesNotSee() throws {
        let store = try TravellingStore()
        try store.mountAndCheck(in: 0)
        try store.add()
        try store.sync()
        for _ in 0..<3 { try store.add() }
        try store.end(.kill)
        let device = store.device
        device.damage(.index, at: 8192 + 50)
        let report = try Repairer.repair(indexCacheByteCount: 1 << 20, log: { _ in }) {
            device
        } mount: { (device, options) throws(MountError) in
            try Volume.mount(device, options, now: TestStore.now) { _ in }
        }
        #expect(!report.found.isClean && report.left.isClean)
        try store.mountAndCheck(in: 0)
        try store.add()
        try store.end(.unmount)
        try check(store)
    }

    /// Mounts in three places that end as they like.
    @Test func randomTravelsShowOneHistory() throws {
        #if DEBUG
            let seeds = 0..<20 as Range<UInt64>
        #else
            let seeds = 0..<200 as Range<UInt64>
        #endif
        for seed in seeds {
            var random = SimulatedRandom(seed: seed)
            let store = try TravellingStore("seed \(seed)")
            for _ in 0..<8 {
                try store.mountAndCheck(in: Int(random.next() % 3))
                for _ in 0..<random.next() % 5 {
                    try store.add()
                    if random.next() % 4 == 0 { try store.sync() }
                }
                try store.end(random.next() % 4 == 0 ? .unmount : .kill)
            }
            try store.mountAndCheck(in: 0)
            try store.end(.unmount)
            try check(store)
        }
    }
}
