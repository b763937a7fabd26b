// The store that hostile ones are made from: something of everything, clean and after a kill.

import Testing

@testable import Treering

/// A store with something of everything, some of it after the last checkpoint.
final class HostileTemplate {
    let clean: SimulatedDevice
    let unclean: SimulatedDevice
    let staging: [UInt8]
    let settings: StoreSettings

    init() throws {
        var settings = StoreSettings()
        settings.capacityByteCount = 24 << 20
        self.settings = settings
        let store = try Self.withHistory(settings)
        var random = SimulatedRandom(seed: 11)
        let generatorCaller = Caller(uid: 1, gid: 1, umask: 0)
        var directories: [UInt64] = [1]
        var files: [UInt64] = []
        func perform(_ operation: Operation) throws -> UInt64 {
            try store.volume.perform(operation.body(generatorCaller)).made
        }
        for round in 0..<160 {
            let parent = directories[Int(random.next() % UInt64(directories.count))]
            switch random.next() % 10 {
            case 0:
                directories.append(
                    try perform(.make(parent, "d\(round)", mode: 0o040755, deviceNumber: 0, target: nil)))
            case 1: _ = try perform(.make(parent, "l\(round)", mode: 0o120777, deviceNumber: 0, target: "target"))
            case 2, 3:
                files.append(try perform(.make(parent, "f\(round)", mode: 0o100644, deviceNumber: 0, target: nil)))
            case 4: if let file = files.last { _ = try perform(.link(file, parent, "h\(round)")) }
            case 5:
                if let file = files.last {
                    _ = try perform(
                        .setXattr(file, "user.x\(round)", byteCount: Int(random.next() % 6000), seed: 3, []))
                }
            case 6:
                if let file = files.first {
                    var changes = AttributeChanges()
                    changes.byteCount = random.next() % 50_000
                    _ = try perform(.setAttributes(file, changes))
                }
            default:
                if let file = files.randomElement(using: &random) {
                    _ = try perform(
                        .write(
                            file, offset: random.next() % 60_000, byteCount: 1 + Int(random.next() % 12_000), seed: 4))
                }
            }
            if round % 20 == 19 { try store.volume.syncAndWait() }
            if round == 60 || round == 110 { try store.volume.housekeeper.checkpoint() }
        }
        try Self.requireEverything(store)
        try store.volume.syncAndWait()
        staging = store.stagingBytes
        unclean = store.device.snapshotAfterKill()
        try store.volume.unmount()
        clean = store.device.snapshotAfterKill()
    }

    /// A store that has lived: segments emptied, cold ones, holes; access lists, reservations, copies.
    private static func withHistory(_ settings: StoreSettings) throws -> SimulatedStore {
        var eager = settings
        eager.options.cleaning = .eager
        let young = try SimulatedStore(eager)
        var tree = CrashTree()
        func make(_ parent: UInt64, _ name: String, _ mode: UInt32) throws -> UInt64 {
            let operation = Operation.make(parent, name, mode: mode, deviceNumber: 0, target: nil)
            return try young.volume.perform(operation.body(caller)).made
        }
        tree.directory = try make(1, "dir", 0o040755)
        tree.file = try make(tree.directory, "file", 0o100644)
        tree.linked = try make(1, "linked", 0o100644)
        tree.open = try make(1, "open", 0o100644)
        try run(CrashWorkload.cleaning(tree, seed: 1).steps, young)
        try young.volume.unmount()
        // Where cleaning is eager nothing is left to be punched.
        let store = try SimulatedStore(settings, on: young.device.snapshotAfterKill(), clock: young.clock)
        try run(CrashWorkload.punching(tree).steps, store)
        let extra: [Operation] = [
            .setAccessList(tree.file, isDefault: false, [7, 6, 4, 6, 0]),
            .setAccessList(tree.directory, isDefault: true, [7, 6, 4, 6, 0]),
            .allocate(tree.linked, .keepsSize, offset: 1_000_000, byteCount: 300_000),
            .copyRange(tree.linked, from: 0, tree.open, to: 5000, byteCount: 200_000),
            .copyRange(tree.linked, from: 8192, tree.file, to: 0, byteCount: 100_000),
            .allocate(tree.open, [.punchesHole, .keepsSize], offset: 20_000, byteCount: 30_000),
        ]
        try run(extra.map { .operation($0) } + [.sync, .checkpoint], store)
        return store
    }

    private static let caller = Caller(uid: 1, gid: 1, umask: 0, identity: Identity(groups: [1]))

    private static func run(_ steps: [CrashStep], _ store: SimulatedStore) throws {
        for step in steps {
            switch step {
            case .operation(let operation): _ = try store.volume.perform(operation.body(caller))
            case .sync: try store.volume.syncAndWait()
            case .checkpoint: try store.volume.housekeeper.checkpoint()
            case .housekeep: store.volume.housekeeper.housekeep(commits: true, checkpoints: true)
            case .full: preconditionFailure("for crashes")
            case .complete(let count): for _ in 0..<count where !store.device.step() { break }
            }
        }
    }

    /// The template must have what it is there for.
    private static func requireEverything(_ store: SimulatedStore) throws {
        try store.volume.state.withLock { state in
            let index = state.core.index
            try #require(state.core.table.segments.contains { $0.state == .inUse && $0.role == .cold })
            try #require(state.punchedByteCount > 0)
            try #require(index.reservedByteCount > 0)
            try #require(index.sharedByteCount ?? 0 > 0)
        }
    }
}
