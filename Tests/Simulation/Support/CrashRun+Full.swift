// Workloads on a store that is nearly full, with an eager cleaner: what fills it, and what happens to that while segments are emptied.

@testable import Treering

/// One step of a workload that fills a store with files of its own.
enum FullStep: Sendable {
    /// Files until so many percent of what `df` calls the size are in use; at 100 until an operation finds no space.
    case fill(Int)
    /// Removes files until no more than so many percent are in use, and one at least.
    case empty(Int)
    /// A file of so many bytes must find room.
    case fits(Int)
    /// So many operations on those files, drawn from a seed.
    case churn(Int, seed: UInt64)
    /// For tests of the tests.
    case defect(@Sendable (SimulatedStore) -> Void)
}

extension CrashRun {
    private static let prefix = "ballast "

    /// How many percent of what `df` calls the size are in use.
    func usedPercent() throws -> Int {
        let status = try store.volume.perform { (core) throws(Stop) in core.status() }
        return Int((status.totalByteCount - status.freeByteCount) * 100 / status.totalByteCount)
    }

    /// The files that fill the store, in a fixed order.
    private var ballast: [(name: String, inode: UInt64)] {
        model.inodes[ModelFileSystem.root]!.entries.filter { $0.key.hasPrefix(Self.prefix) }
            .sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    /// Fills the store, and overwrites some of it here and there with the cleaner at work: no two segments are alike.
    func prepareFull(_ percent: Int, seed: UInt64) throws {
        var random = SimulatedRandom(seed: seed)
        for round in 0..<4 {
            try fill(to: percent * (round + 1) / 4)
            for _ in 0..<30 { try overwrite(&random) }
            try run(.housekeep)
        }
        try fill(to: percent)
    }

    func run(_ step: FullStep) throws {
        switch step {
        case .fill(let percent): try fill(to: percent)
        case .empty(let percent): try empty(to: percent)
        case .fits(let byteCount): try checkFits(byteCount)
        case .churn(let count, let seed):
            var random = SimulatedRandom(seed: seed)
            for _ in 0..<count { try churn(&random) }
        case .defect(let change): change(store)
        }
    }

    private func fill(to percent: Int) throws {
        let before = noSpaceCount
        while try noSpaceCount == before && (percent >= 100 || usedPercent() < percent) {
            try addFile(byteCount: 110_000)
        }
    }

    private func addFile(byteCount: Int) throws {
        // A name that no other file has had.
        let number = UInt64(store.clock.time.seconds)
        let make = Operation.make(1, "\(Self.prefix)\(number)", mode: 0o100600, deviceNumber: 0, target: nil)
        let (_, inode) = try run(make)
        if inode == 0 { return }
        try run(.write(inode, offset: 0, byteCount: byteCount, seed: number))
        try run(.forget(inode, 1))
    }

    /// There is room for a file of so many bytes.
    private func checkFits(_ byteCount: Int) throws {
        let before = noSpaceCount
        try addFile(byteCount: byteCount)
        if noSpaceCount > before {
            throw SimulationFailure(
                "\(byteCount) bytes find no space, though \(try usedPercent()) % are in use: \(spaceDescription)")
        }
    }

    /// For a person.
    private var spaceDescription: String {
        let segments = store.volume.state.withLock { state in
            let table = state.core.table
            let log = state.core.log
            let kept = log.space.keptSegmentCount(.write)
            return
                "\(table.freeCount) of \(table.countLimit) segments free, \(table.pool.count) prepared, \(kept) kept for writes, \(log.space.keptSegmentCount(.removal)) for removals, \(log.space.owedSegmentCount) owed; \(table.liveByteCount) of \(log.space.liveByteCountLimit) live, standstill at \(log.space.writeStandstill?.live ?? -1); "
                + table.segments.enumerated().filter { $0.element.state == .inUse }.map {
                    "\($0.offset): \($0.element.role) \($0.element.isSealed ? "sealed" : "open") \($0.element.live)"
                }.joined(separator: ", ")
        }
        return ([segments] + store.log.take().suffix(8)).joined(separator: "\n")
    }

    private func empty(to percent: Int) throws {
        repeat {
            guard let file = ballast.first else { throw SimulationFailure("all is removed, and the store is full") }
            try run(.unlink(1, file.name))
        } while try usedPercent() > percent
    }

    private func overwrite(_ random: inout SimulatedRandom) throws {
        let files = ballast
        let file = files[Int(random.next() % UInt64(files.count))].inode
        let offset = random.next() % 27 * 4096
        try run(.write(file, offset: offset, byteCount: 4096 << Int(random.next() % 3), seed: random.next()))
    }

    /// One of the operations that the cleaner has to get along with.
    private func churn(_ random: inout SimulatedRandom) throws {
        func below(_ limit: UInt64) -> UInt64 { random.next() % limit }
        let files = ballast
        guard files.count > 2 else { return try addFile(byteCount: 50_000) }
        let place = Int(below(UInt64(files.count)))
        let file = files[place]
        let other = files[(place + 1 + Int(below(UInt64(files.count - 1)))) % files.count]
        switch below(14) {
        case 0: try run(.write(file.inode, offset: below(100_000), byteCount: 700, seed: below(1000)))
        case 1, 2:
            let count = 4096 + below(60_000)
            try run(.copyRange(other.inode, from: below(50_000), file.inode, to: below(50_000), byteCount: count))
        case 3:
            var size = AttributeChanges()
            size.byteCount = below(100_000)
            try run(.setAttributes(file.inode, size))
        case 4:
            let offset = below(80_000)
            try run(.allocate(file.inode, [.punchesHole, .keepsSize], offset: offset, byteCount: 1 + below(40_000)))
        case 5: try run(.unlink(1, file.name))
        case 6: try addFile(byteCount: 1 + Int(below(100_000)))
        case 7: try run(.rename(1, file.name, 1, other.name, []))
        case 8: try run(.setXattr(file.inode, "user.a", byteCount: 1 + Int(below(9000)), seed: below(1000), []))
        case 9:
            // What comes and goes leaves tombstones.
            let (_, inode) = try run(.make(1, "short", mode: 0o100600, deviceNumber: 0, target: nil))
            if inode == 0 { return }
            try run(.forget(inode, 1))
            try run(.unlink(1, "short"))
        case 10:
            // What is reserved counts as used.
            let mode: AllocateMode = below(3) == 0 ? .zeroes : .keepsSize
            try run(.allocate(file.inode, mode, offset: below(120_000), byteCount: 1 + below(60_000)))
        default: try overwrite(&random)
        }
    }
}

extension CrashWorkload {
    /// What happens to a store that is full to nine tenths while its segments are emptied, with the last byte in some rounds.
    static func full(seed: UInt64, roundCount: Int = 6) -> CrashWorkload {
        var random = SimulatedRandom(seed: seed)
        var steps: [CrashStep] = []
        for round in 0..<roundCount {
            steps.append(.full(.churn(5, seed: random.next())))
            if random.next() % 2 == 0 { steps.append(.sync) }
            steps += [.housekeep, .full(.churn(3, seed: random.next()))]
            if random.next() % 3 == 0 { steps.append(.checkpoint) }
            steps += [.complete(Int(random.next() % 4)), .housekeep]
            if round % 3 == 1 {
                steps += [.full(.fill(100)), .full(.churn(3, seed: random.next())), .full(.empty(90))]
            }
            if round % 3 == 2 { steps.append(.full(.fill(90))) }
        }
        return CrashWorkload(name: "full \(seed)", steps: steps + [.complete(3)])
    }

    /// What a store that was recovered nearly full must be able to do.
    static func afterFull(seed: UInt64) -> [CrashStep] {
        [
            .full(.empty(95)), .full(.churn(4, seed: seed)), .housekeep, .full(.fill(100)),
            .full(.churn(2, seed: seed &+ 1)), .sync, .full(.empty(88)),
            .housekeep, .housekeep, .full(.fits(60_000)), .full(.churn(3, seed: seed &+ 2)), .complete(2),
        ]
    }
}
