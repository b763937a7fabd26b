// Short workloads whose every event is a place to crash: what they do, and what may be found afterwards.

import Glibc

@testable import Treering

/// One step of a workload.
enum CrashStep {
    case operation(Operation)
    /// Everything so far becomes durable.
    case sync
    /// A checkpoint; everything before it is durable after it.
    case checkpoint
    case housekeep
    /// Completes so many submissions.
    case complete(Int)
    /// On a store that is nearly full.
    case full(FullStep)
}

struct CrashWorkload {
    var name: String
    var steps: [CrashStep]
}

/// The inodes of the small tree that every workload finds.
struct CrashTree {
    var directory: UInt64 = 0
    var other: UInt64 = 0
    var file: UInt64 = 0
    var linked: UInt64 = 0
    var open: UInt64 = 0
    /// The number that the first new inode will get.
    var next: UInt64 = 0
}

/// A workload run once on a device with a history, with what the model said after each record.
final class CrashRun {
    private(set) var name = ""
    let store: SimulatedStore
    /// What the tree was when the log had come so far.
    private(set) var states: [(nextSequence: UInt64, model: ModelFileSystem)] = []
    /// From these events on a crash must not lose records below these.
    private(set) var floors: [(event: Int, nextSequence: UInt64)] = []
    /// The tree as it is now, what is open included.
    private(set) var model: ModelFileSystem
    private(set) var tree = CrashTree()
    /// How many operations found no space; none may where the store does not get full.
    private(set) var noSpaceCount = 0
    let isFull: Bool
    static let caller = Caller(uid: 5, gid: 6, umask: 0, identity: Identity(groups: [6]))

    /// Prepares the tree, everything in it durable and in a checkpoint, then runs the workload that is made for it: in the
    /// same mount, or in one that had to recover something that no checkpoint holds. `filledTo`: with so many percent in use.
    init(
        _ settings: StoreSettings, seed: UInt64, afterCrash: Bool = false, filledTo percent: Int? = nil,
        _ make: (CrashTree) -> CrashWorkload
    ) throws {
        isFull = percent != nil
        store = try SimulatedStore(settings, seed: seed)
        model = ModelFileSystem(time: store.clock.time)
        tree.directory = try prepare(.make(1, "dir", mode: 0o040755, deviceNumber: 0, target: nil))
        tree.other = try prepare(.make(1, "other", mode: 0o042755, deviceNumber: 0, target: nil))
        tree.file = try prepare(.make(tree.directory, "file", mode: 0o100644, deviceNumber: 0, target: nil))
        tree.linked = try prepare(.make(1, "linked", mode: 0o100600, deviceNumber: 0, target: nil))
        tree.open = try prepare(.make(1, "open", mode: 0o100600, deviceNumber: 0, target: nil))
        _ = try prepare(.make(1, "empty", mode: 0o040700, deviceNumber: 0, target: nil))
        _ = try prepare(.link(tree.linked, tree.directory, "second"))
        for (offset, count) in [(0, 5000), (10_000, 2000), (16_384, 8192)] {
            _ = try prepare(.write(tree.file, offset: UInt64(offset), byteCount: count, seed: UInt64(offset)))
        }
        _ = try prepare(.write(tree.linked, offset: 0, byteCount: 100, seed: 1))
        _ = try prepare(.setXattr(tree.file, "user.small", byteCount: 10, seed: 2, []))
        _ = try prepare(.setXattr(tree.file, "user.large", byteCount: 5000, seed: 3, []))
        // All but the open file are forgotten by the kernel.
        for inode in [tree.directory, tree.other, tree.file, tree.linked] { _ = try prepare(.forget(inode, 9)) }
        if let percent { try prepareFull(percent, seed: seed) }
        try store.volume.housekeeper.checkpoint()
        try store.volume.housekeeper.checkpoint()
        if afterCrash {
            _ = try prepare(.make(1, "synced before the crash", mode: 0o100600, deviceNumber: 0, target: nil))
            try store.volume.syncAndWait()
            try store.cutPower(seed: seed)
            model.remount()
            _ = try prepare(.lookup(1, "open"))
        }
        store.device.keepHistory()
        tree.next = store.volume.state.withLock { $0.core.log.nextInode.rawValue }
        let workload = make(tree)
        name = workload.name
        // A mount that finds the store full has the cleaner append records behind what it recovered.
        noteState(at: afterCrash ? store.recoveredSequence : store.nextSequence)
        floors = [(store.device.eventCount, states.last!.nextSequence)]
        for step in workload.steps { try run(step) }
    }

    /// Goes on with a store that was recovered.
    init(on store: SimulatedStore, _ model: ModelFileSystem, isFull: Bool) {
        self.store = store
        self.model = model
        self.isFull = isFull
        noteState(at: store.recoveredSequence)
        floors = [(store.device.eventCount, store.recoveredSequence)]
    }

    /// The tree without what only an open file keeps alive: after a crash nothing is open.
    private func noteState(at nextSequence: UInt64? = nil) {
        var seen = model
        seen.remount()
        states.append((nextSequence ?? store.nextSequence, seen))
    }

    func prepare(_ operation: Operation) throws -> UInt64 {
        let (outcome, made) = try perform(operation)
        if case .failed(let error) = outcome { throw SimulationFailure("preparing, \(operation) failed with \(error)") }
        return made
    }

    func perform(_ operation: Operation) throws -> (Outcome, UInt64) {
        store.clock.tick()
        model.time = store.clock.time
        var made: UInt64 = 0
        var outcome = Outcome.done
        if case .forget(let inode, let count) = operation {
            store.volume.forget(InodeNumber(inode), count)
        } else {
            do throws(Errno) {
                let reply = try store.volume.perform(operation.body(Self.caller))
                made = reply.made
                if case .outcome(let value) = reply.value { outcome = value }
            } catch { outcome = .failed(error.rawValue) }
        }
        if isFull, outcome == .failed(Errno.noSpace.rawValue) {
            try checkNoSpace(operation)
            return (outcome, 0)
        }
        let expected = model.run(operation, number: made, caller: Self.caller, valueLimit: store.valueLimit)
        guard outcome == expected else {
            throw SimulationFailure("\(operation) gives \(outcome.difference(from: expected))")
        }
        return (outcome, made)
    }

    /// An operation that finds no space frees none, would have succeeded, and has changed nothing.
    private func checkNoSpace(_ operation: Operation) throws {
        noSpaceCount += 1
        if operation.freesSpace { throw SimulationFailure("\(operation) finds no space, though it frees some") }
        var copy = model
        let expected = copy.run(
            operation, number: model.nextInode, caller: Self.caller, valueLimit: store.valueLimit)
        if case .failed = expected { throw SimulationFailure("\(operation) gives ENOSPC, not \(expected)") }
        if let difference = TreeComparison.firstDifference(store.volume, model) {
            throw SimulationFailure("\(operation) found no space, and then \(difference)")
        }
    }

    func run(_ step: CrashStep) throws {
        switch step {
        case .operation(let operation): try run(operation)
        case .sync:
            let reached = store.nextSequence
            try store.volume.syncAndWait()
            floors.append((store.device.eventCount, reached))
        case .checkpoint:
            let reached = store.nextSequence
            try store.volume.housekeeper.checkpoint()
            floors.append((store.device.eventCount, reached))
        case .housekeep:
            store.volume.housekeeper.housekeep(commits: true, checkpoints: true)
            noteState()
        case .complete(let count):
            for _ in 0..<count where !store.device.step() { break }
        case .full(let step): try run(step)
        }
    }

    /// An operation of the workload.
    @discardableResult func run(_ operation: Operation) throws -> (Outcome, UInt64) {
        defer { noteState() }
        return try perform(operation)
    }

    // MARK: What may be found

    func floor(at event: Int) -> UInt64 { floors.last { $0.event <= event }?.nextSequence ?? 0 }

    /// The state of the tree for a log that ends before this record.
    func model(at nextSequence: UInt64) -> ModelFileSystem? { states.last { $0.nextSequence <= nextSequence }?.model }
}

extension CrashWorkload {
    /// One operation of every kind that changes something, by name.
    static func operations(_ tree: CrashTree) -> [(String, [Operation])] {
        var size = AttributeChanges()
        size.byteCount = 3000
        var longer = AttributeChanges()
        longer.byteCount = 100_000
        var mode = AttributeChanges()
        mode.mode = 0o700
        mode.uid = 9
        return [
            ("create", [.make(tree.directory, "new", mode: 0o100600, deviceNumber: 0, target: nil)]),
            ("mkdir", [.make(1, "new", mode: 0o040700, deviceNumber: 0, target: nil)]),
            ("symlink", [.make(tree.other, "new", mode: 0o120777, deviceNumber: 0, target: "where")]),
            (
                "long symlink",
                [.make(1, "new", mode: 0o120777, deviceNumber: 0, target: String(repeating: "x", count: 4000))]
            ),
            ("link", [.link(tree.file, tree.other, "third")]),
            ("unlink", [.unlink(tree.directory, "file")]),
            ("unlink one name", [.unlink(1, "linked")]),
            ("unlink an open file", [.unlink(1, "open")]),
            ("unlink and forget", [.unlink(1, "open"), .forget(tree.open, 1)]),
            ("rmdir", [.removeDirectory(1, "empty")]),
            ("rename", [.rename(tree.directory, "file", 1, "moved", [])]),
            ("rename over", [.rename(tree.directory, "file", 1, "linked", [])]),
            ("rename a directory over one", [.rename(1, "dir", 1, "empty", [])]),
            ("exchange", [.rename(tree.directory, "file", 1, "empty", .exchange)]),
            ("small write", [.write(tree.file, offset: 4000, byteCount: 50, seed: 9)]),
            ("large write", [.write(tree.file, offset: 1000, byteCount: 100_000, seed: 9)]),
            ("punch", [.allocate(tree.file, [.punchesHole, .keepsSize], offset: 1000, byteCount: 18_000)]),
            ("zero", [.allocate(tree.file, .zeroes, offset: 3000, byteCount: 40_000)]),
            ("reserve", [.allocate(tree.file, [], offset: 2000, byteCount: 100_000)]),
            (
                "reserve and write",
                [
                    .allocate(tree.file, .keepsSize, offset: 30_000, byteCount: 60_000),
                    .write(tree.file, offset: 40_000, byteCount: 9000, seed: 8),
                ]
            ),
            ("copy", [.copyRange(tree.file, from: 100, tree.linked, to: 50, byteCount: 24_000)]),
            (
                "copy, then unlink the source",
                [.copyRange(tree.file, from: 0, tree.open, to: 0, byteCount: 1 << 20), .unlink(tree.directory, "file")]
            ),
            ("copy within a file", [.copyRange(tree.file, from: 4000, tree.file, to: 30_000, byteCount: 12_000)]),
            ("truncate", [.setAttributes(tree.file, size)]),
            ("extend", [.setAttributes(tree.file, longer)]),
            ("chmod", [.setAttributes(tree.file, mode)]),
            ("set a small attribute", [.setXattr(tree.directory, "user.a", byteCount: 100, seed: 4, [])]),
            ("set a large attribute", [.setXattr(tree.file, "user.small", byteCount: 60_000, seed: 4, [])]),
            ("remove an attribute", [.removeXattr(tree.file, "user.large")]),
            ("unnamed file", [.makeUnnamed(tree.directory, mode: 0o600)]),
            ("link of an unnamed file", [.makeUnnamed(tree.directory, mode: 0o600), .link(tree.next, 1, "named")]),
            ("whiteout", [.rename(tree.directory, "file", 1, "moved", .whiteout)]),
            ("whiteout over a file", [.rename(tree.directory, "file", 1, "linked", [.whiteout])]),
        ] + accessOperations(tree, mode)
    }

    private static func accessOperations(_ tree: CrashTree, _ mode: AttributeChanges) -> [(String, [Operation])] {
        [
            ("set an access list", [.setAccessList(tree.file, isDefault: false, [7, 6, 4, 6, 0])]),
            (
                "chmod with an access list",
                [.setAccessList(tree.file, isDefault: false, [7, 6, 4, 6, 0]), .setAttributes(tree.file, mode)]
            ),
            (
                "create with an inherited list",
                [
                    .setAccessList(tree.directory, isDefault: true, [7, 6, 4, 6, 0]),
                    .make(tree.directory, "new", mode: 0o100666, deviceNumber: 0, target: nil),
                    .make(tree.directory, "newer", mode: 0o040777, deviceNumber: 0, target: nil),
                ]
            ),
            ("chattr", [.setFlags(tree.file, [.noDump, .noAccessTime])]),
            ("access", [.access(tree.directory)]),
        ]
    }

    static let endings: [(String, [CrashStep])] = [("", []), (", sync", [.sync]), (", checkpoint", [.checkpoint])]

    /// How many workloads `pair` knows.
    static var pairCount: Int {
        let kinds = operations(CrashTree()).count
        return kinds * kinds * endings.count * endings.count
    }

    /// Two operations, each with an ending. Neighbours in number have little in common.
    static func pair(_ number: Int, _ tree: CrashTree) -> CrashWorkload {
        let kinds = operations(tree)
        // A factor without a common divisor visits every one of them once.
        var rest = number * 7919 % pairCount
        func draw(_ count: Int) -> Int {
            defer { rest /= count }
            return rest % count
        }
        let parts = (0..<2).map { _ in (kinds[draw(kinds.count)], endings[draw(endings.count)]) }
        var steps: [CrashStep] = []
        var forgotten: Set<UInt64> = []
        for (kind, ending) in parts {
            for operation in kind.1 {
                if case .forget(let inode, _) = operation, !forgotten.insert(inode).inserted { continue }
                steps.append(.operation(operation))
            }
            steps += ending.1
        }
        return CrashWorkload(
            name: "\(parts[0].0.0)\(parts[0].1.0); \(parts[1].0.0)\(parts[1].1.0)", steps: steps + [.complete(4)])
    }

    /// A write that is synced, then so much without a sync that the log goes over to other segments.
    static func rollOver(_ tree: CrashTree, syncs: Bool) -> CrashWorkload {
        var steps: [CrashStep] = []
        for round in 0..<22 as Range<UInt64> {
            steps.append(.operation(.write(tree.file, offset: round * 100_000, byteCount: 120_000, seed: round)))
            if syncs, round % 7 == 3 { steps.append(.sync) }
            if round % 5 == 2 { steps.append(.complete(2)) }
        }
        return CrashWorkload(name: syncs ? "roll-over with syncs" : "roll-over", steps: steps)
    }

    /// Whole segments die, are recycled and used again.
    static func recycling(_ tree: CrashTree) -> CrashWorkload {
        var steps: [CrashStep] = []
        var none = AttributeChanges()
        none.byteCount = 0
        for round in 0..<3 as Range<UInt64> {
            for piece in 0..<10 as Range<UInt64> {
                steps.append(
                    .operation(.write(tree.file, offset: piece * 100_000, byteCount: 120_000, seed: round + piece)))
            }
            steps += [
                .operation(.setAttributes(tree.file, none)), .sync, .housekeep, .checkpoint, .housekeep, .housekeep,
            ]
        }
        return CrashWorkload(name: "recycling", steps: steps)
    }

    /// Segments that are half dead are emptied by the cleaner, while what it moves changes.
    static func cleaning(_ tree: CrashTree, seed: UInt64) -> CrashWorkload {
        var random = SimulatedRandom(seed: seed)
        var steps: [CrashStep] = []
        var none = AttributeChanges()
        none.byteCount = 50_000
        for round in 0..<4 as Range<UInt64> {
            for piece in 0..<9 as Range<UInt64> {
                let file = [tree.file, tree.linked, tree.open][Int(piece % 3)]
                steps.append(
                    .operation(.write(file, offset: piece * 100_000, byteCount: 110_000, seed: round * 10 + piece)))
                steps.append(.operation(.write(file, offset: piece * 3000, byteCount: 700, seed: round * 20 + piece)))
                steps.append(
                    .operation(
                        .make(tree.directory, "name \(round) \(piece)", mode: 0o100600, deviceNumber: 0, target: nil)))
            }
            steps += [.sync, .housekeep]
            for piece in 0..<6 as Range<UInt64> {
                steps.append(
                    .operation(
                        .write(tree.file, offset: random.next() % 200 * 4096, byteCount: 9000, seed: round + piece)))
                steps.append(.operation(.unlink(tree.directory, "name \(round) \(piece)")))
            }
            steps += [.operation(.setAttributes(tree.open, none)), .sync, .housekeep, .complete(3), .housekeep]
        }
        return CrashWorkload(name: "cleaning \(seed)", steps: steps)
    }

    /// Segments live on in small pieces between large ones that die; an idle mount punches those.
    static func punching(_ tree: CrashTree) -> CrashWorkload {
        var steps: [CrashStep] = []
        var none = AttributeChanges()
        none.byteCount = 0
        for round in 0..<2 as Range<UInt64> {
            for piece in 0..<16 as Range<UInt64> {
                steps.append(
                    .operation(
                        .write(tree.file, offset: piece * 90_000, byteCount: 90_000, seed: round * 40 + piece)))
                let kept = (round * 16 + piece) * 12_000
                steps.append(.operation(.write(tree.linked, offset: kept, byteCount: 12_000, seed: round + piece)))
            }
            steps += [.sync, .checkpoint, .operation(.setAttributes(tree.file, none)), .sync]
            steps += [.housekeep, .housekeep, .housekeep, .housekeep]
            steps += [
                .operation(.write(tree.linked, offset: 5000, byteCount: 9000, seed: round)), .housekeep, .complete(2),
            ]
        }
        return CrashWorkload(name: "punching", steps: steps)
    }

    /// Small operations with syncs and checkpoints among them, several batches in flight.
    static func mixed(_ tree: CrashTree, seed: UInt64) -> CrashWorkload {
        var random = SimulatedRandom(seed: seed)
        var steps: [CrashStep] = []
        var pool = operations(tree).map(\.1)
        pool.shuffle(using: &random)
        for operations in pool.prefix(8) {
            steps += operations.map { .operation($0) }
            switch random.next() % 8 {
            case 0: steps.append(.sync)
            case 1: steps.append(.checkpoint)
            case 2: steps.append(.housekeep)
            case 3: steps.append(.complete(1))
            default: break
            }
        }
        return CrashWorkload(name: "mixed \(seed)", steps: steps)
    }

    /// A checkpoint after every few operations, so that pages are freed and used again all the time.
    static func checkpoints(_ tree: CrashTree, seed: UInt64) -> CrashWorkload {
        var random = SimulatedRandom(seed: seed)
        var steps: [CrashStep] = []
        for round in 0..<12 as Range<UInt64> {
            steps += [
                .operation(
                    .make(tree.directory, "made \(round)", mode: 0o100644, deviceNumber: 0, target: nil)),
                .operation(.write(tree.file, offset: random.next() % 100 * 4096, byteCount: 9000, seed: round)),
            ]
            if round % 3 == 2 { steps.append(.operation(.unlink(tree.directory, "made \(round - 2)"))) }
            steps += [.checkpoint, .housekeep]
        }
        return CrashWorkload(name: "checkpoints \(seed)", steps: steps)
    }
}
