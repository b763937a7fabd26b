// A volume with a real housekeeper and real client threads: checkpoints, syncs, recycling and failures of the disk all at once. The
// simulation steps all of that; here the threads do as they like, and what must hold holds all the same.

import Glibc
import Synchronization
import Testing

@testable import Treering

@Suite(.serialized) struct StressTests {
    private static let rounds = max(200, Environment.count("TREERING_OPERATIONS", debug: 4000, release: 20_000) / 20)

    @Test(arguments: [false, true]) func clientsAndHousekeeperTogether(hasFaults: Bool) throws {
        var settings = StoreSettings(cacheByteCount: 256 << 10)
        settings.capacityByteCount = 64 << 20
        settings.order = .random
        settings.options.commitIntervalNanoseconds = 5_000_000
        settings.options.checkpointIntervalNanoseconds = 20_000_000
        settings.options.checkpointByteCount = 1 << 20
        let store = try SimulatedStore(settings, seed: 5)
        let volume = store.volume
        try volume.housekeeper.start()
        let disk = Disk(store.device, faultEvery: hasFaults ? 150 : 0)
        let diskThread = try DeviceThread(name: "disk") { disk.run() }
        let clients = (0..<4).map { StressClient(volume, UInt64($0), rounds: Self.rounds) }
        let threads = try clients.map { client in try DeviceThread(name: "client") { client.run() } }
        for thread in threads { thread.join() }
        store.device.clearFaults()
        // A fault may hit what is being written again: then the mount is read-only and says so, which is no client's fault. The
        // housekeeper may need a moment to notice.
        for _ in 0..<500 where !store.volume.isReadOnly && clients.contains(where: { $0.problem != nil }) {
            usleep(10_000)
        }
        if !store.volume.isReadOnly { for client in clients { #expect(client.problem == nil) } }
        let (checkpoints, relocated) = volume.state.withLock { ($0.checkpointCount, $0.relocationCount) }
        Environment.note(
            "stress: \(checkpoints) checkpoints, \(disk.faultCount) faults, \(relocated) times written again")
        if hasFaults && volume.isReadOnly {
            #expect(store.log.lines.contains { $0.contains("read-only") }, "\(store.log.lines)")
            #expect(throws: Errno.self) { try volume.unmount() }
            disk.stop()
            return diskThread.join()
        }
        #expect(checkpoints > 2)
        #expect(!hasFaults || relocated > 0)
        #expect(!volume.isReadOnly, "\(store.log.lines)")
        try volume.unmount()
        disk.stop()
        diskThread.join()
        #expect(try Checker.check(store.device.snapshotAfterKill(), readsData: true).problems == [])
        let again = try SimulatedStore(settings, on: store.device.snapshotAfterKill(), clock: store.clock)
        for client in clients { #expect(client.difference(in: again.volume) == nil) }
    }
}

/// Completes what is submitted, and fails some of it.
private final class Disk: @unchecked Sendable {
    private let device: SimulatedDevice
    private let faultEvery: Int
    private let isOver = Atomic<Bool>(false)
    private(set) var faultCount = 0

    init(_ device: SimulatedDevice, faultEvery: Int) {
        self.device = device
        self.faultEvery = faultEvery
    }

    func stop() { isOver.store(true, ordering: .relaxed) }

    func run() {
        var count = 0
        while !isOver.load(ordering: .relaxed) {
            guard device.step() else {
                usleep(50)
                continue
            }
            count += 1
            guard faultEvery > 0, count % faultEvery == 0, device.faultCount == 0, faultCount < 12 else { continue }
            faultCount += 1
            let kinds: Set<TraceEntry.Kind> = faultCount % 2 == 0 ? [.sync] : [.write, .writeDurable]
            device.inject(SimulatedFault(.failAndLose(.ioError), kinds: kinds))
        }
    }
}

/// One thread's files: made, written, read, renamed, removed, synced, and known byte for byte.
private final class StressClient: @unchecked Sendable {
    private let volume: Volume<SimulatedDevice>
    private let number: UInt64
    private let rounds: Int
    private var random: SimulatedRandom
    private var files: [(name: String, inode: UInt64, bytes: [UInt8])] = []
    private(set) var problem: String?

    init(_ volume: Volume<SimulatedDevice>, _ number: UInt64, rounds: Int) {
        self.volume = volume
        self.number = number
        self.rounds = rounds
        random = SimulatedRandom(seed: number)
    }

    func run() {
        for round in 0..<rounds where problem == nil { step(round) }
    }

    private func step(_ round: Int) {
        let drawn = random.next() % 20
        if files.count < 3 || drawn < 3 && files.count < 12 { return make(round) }
        let index = Int(random.next() % UInt64(files.count))
        switch drawn {
        case 3..<10: write(index)
        case 10..<15: read(index)
        case 15: remove(index)
        case 16: sync()
        default: rename(index, round)
        }
    }

    private func make(_ round: Int) {
        let name = "\(number)-\(round)"
        let reply = call(.make(1, name, mode: 0o100644, deviceNumber: 0, target: nil))
        guard let made = reply?.made, made != 0 else { return fail("making \(name)") }
        files.append((name, made, []))
    }

    private func write(_ index: Int) {
        let count = Int(random.next() % 30_000) + 1
        let seed = random.next()
        // Appending or overwriting the start, so that no holes come about.
        let offset = random.next() % 2 == 0 || files[index].bytes.count > 90_000 ? 0 : files[index].bytes.count
        guard call(.write(files[index].inode, offset: UInt64(offset), byteCount: count, seed: seed)) != nil else {
            return fail("writing \(files[index].name)")
        }
        let end = min(files[index].bytes.count, offset + count)
        files[index].bytes.replaceSubrange(offset..<end, with: Operation.bytes(count, seed: seed))
    }

    private func read(_ index: Int) {
        let file = files[index]
        guard case .bytes(let found)? = callOutcome(.read(file.inode, offset: 0, byteCount: 128 << 10)) else {
            return fail("reading \(file.name)")
        }
        if found != file.bytes { fail("\(file.name) has other bytes") }
    }

    private func remove(_ index: Int) {
        let file = files.remove(at: index)
        guard call(.unlink(1, file.name)) != nil else { return fail("removing \(file.name)") }
        volume.forget(InodeNumber(file.inode), 1)
    }

    private func rename(_ index: Int, _ round: Int) {
        let name = "\(number)-new-\(round)"
        guard call(.rename(1, files[index].name, 1, name, [])) != nil else { return fail("renaming") }
        files[index].name = name
    }

    private func sync() {
        let gate = Gate<Errno?>()
        volume.sync(mayWait: random.next() % 2 == 0) { gate.open($0) }
        if let error = gate.wait() { fail("syncing: \(error)") }
    }

    private func fail(_ text: String) { problem = problem ?? "client \(number): \(text)" }

    private func callOutcome(_ operation: Operation) -> Outcome? {
        guard let reply = call(operation) else { return nil }
        guard case .plan(let plan) = reply.value else { return nil }
        let gate = Gate<Outcome>()
        volume.finish(plan, mayWait: random.next() % 2 == 0) { gate.open($0) }
        return gate.wait()
    }

    /// Runs an operation as a server does, and waits for it; nil where it failed.
    private func call(_ operation: Operation) -> VolumeReply? {
        let gate = Gate<VolumeReply?>()
        attempt(Body(operation.body(Caller(uid: 0, gid: 0, umask: 0))), nil, gate, mayWait: random.next() % 2 == 0)
        return gate.wait()
    }

    private func attempt(_ body: Body, _ attempt: Attempt?, _ gate: Gate<VolumeReply?>, mayWait: Bool) {
        do throws(Stop) { gate.open(try volume.run(body.run)) } catch {
            guard case .blocked(let blocker) = error else { return gate.open(nil) }
            volume.park(blocker, attempt, mayWait: mayWait) { [self] attempt, _ in
                self.attempt(body, attempt, gate, mayWait: mayWait)
            }
        }
    }

    /// What the store shows otherwise than this client left it.
    func difference(in volume: Volume<SimulatedDevice>) -> String? {
        for file in files {
            let bytes = try? volume.bytes { (core) throws(Stop) in
                try core.planRead(InodeNumber(file.inode), at: 0, 128 << 10)
            }
            if bytes != file.bytes { return "\(file.name) has other bytes after a mount" }
        }
        return nil
    }

    private final class Body: @unchecked Sendable {
        let run: Operation.Body
        init(_ run: @escaping Operation.Body) { self.run = run }
    }
}

/// A value that another thread brings.
private final class Gate<Value>: @unchecked Sendable {
    private let monitor = Monitor()
    private let isOpen: Condition
    private var value: Value?

    init() { isOpen = Condition(monitor) }

    func open(_ value: Value) {
        monitor.withLock {
            self.value = value
            isOpen.broadcast()
        }
    }

    func wait() -> Value {
        monitor.withLock {
            while value == nil { isOpen.wait() }
            return value!
        }
    }
}
