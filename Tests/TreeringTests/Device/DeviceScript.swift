// A random script of device calls, drawn from a seed, that any engine runs and that ends in a fingerprint of every byte
// read and left behind. Two engines are the same when their fingerprints are.

import Synchronization

@testable import Treering

/// Collects completions; a test waits for them by asking again and again.
final class CompletionLog: Sendable {
    private let state = Mutex<[UInt64: [Int]]>([:])
    private let total = Counter()

    func attach(to device: some Device) {
        device.onCompletion { [self] completion in
            state.withLock { $0[completion.tag, default: []].append(completion.result) }
            _ = total.raise()
        }
    }

    var all: [UInt64: [Int]] { state.withLock { $0 } }
    var count: Int { total.value }

    /// Waits until `count` completions have come in; false after ten seconds.
    func wait(for count: Int, pump: () -> Void = {}) -> Bool {
        for _ in 0..<100_000 {
            pump()
            if self.count >= count { return true }
            usleepShort()
        }
        return false
    }
}

/// What a script saw.
struct ScriptResult: Equatable {
    var events: [String] = []
    var files: [String: UInt64] = [:]
}

/// Runs `count` random steps: control calls, single operations and batches of several that do not overlap.
struct DeviceScript<Engine: Device> {
    let device: Engine
    let log = CompletionLog()
    let pump: () -> Void
    private var random: SimulatedRandom
    private var open: [(name: StoreFile, file: DeviceFile)] = []
    private var result = ScriptResult()
    private var submitted = 0
    private let memory = AlignedBuffer(byteCount: 1 << 20)

    init(_ device: Engine, seed: UInt64, pump: @escaping () -> Void = {}) {
        self.device = device
        self.pump = pump
        random = SimulatedRandom(seed: seed)
        log.attach(to: device)
    }

    static func fingerprint(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for offset in stride(from: 0, to: bytes.count, by: 8) {
            var word: UInt64 = 0
            for index in offset..<min(offset + 8, bytes.count) where offset + 8 > bytes.count {
                word = word << 8 | UInt64(bytes[index])
            }
            if offset + 8 <= bytes.count { word = bytes.load(offset) }
            hash = (hash ^ word) &* 0x100_0000_01B3
            hash ^= hash >> 29
        }
        return hash
    }

    mutating func run(_ count: Int) throws -> ScriptResult {
        let names: [StoreFile] = [.superblock, .index, .segment(SegmentNumber(3)), .segment(SegmentNumber(0xAB))]
        for name in names { open.append((name, try device.open(name, create: true))) }
        for _ in 0..<count { try step() }
        for (name, file) in open {
            let length = try Int(device.byteCount(of: file))
            let buffer = AlignedBuffer(byteCount: max(1, length))
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[0..<length])
            result.events.append("\(device.perform(Submission(.read, file, offset: 0, part, tag: 0)).result)")
            result.files[name.path] = Self.fingerprint(UnsafeRawBufferPointer(part))
            device.close(file)
        }
        result.events += try device.list().map(\.path)
        return result
    }

    private mutating func step() throws {
        let (_, file) = open[Int(random.next() % UInt64(open.count))]
        switch random.next() % 12 {
        case 0:
            try device.resize(file, to: random.next() % 300_000)
        case 1:
            do {
                try device.punch(file, offset: random.next() % 64 * 4096, byteCount: random.next() % 8 * 4096)
            } catch { guard error == .notSupported else { throw error } }
        case 2:
            try swapNames()
        case 3...6:
            batch(file)
        default:
            single(file)
        }
        result.events.append("\(try device.byteCount(of: file))")
    }

    private mutating func swapNames() throws {
        let number = SegmentNumber(UInt32(random.next() % 1000) + 1000)
        if try device.list().contains(.segment(number)) { return try device.unlink(.segment(number)) }
        device.close(try device.open(.preparing(number), create: true))
        try device.rename(.preparing(number), to: .segment(number))
        try device.syncDirectories()
    }

    /// A place, a length and two parts; aligned about half of the time.
    private mutating func shape() -> (offset: UInt64, first: Int, second: Int) {
        let unit: UInt64 = random.next() & 1 == 0 ? 4096 : 1
        let scale = 4096 / unit
        let first = Int(random.next() % (8 * scale) * unit)
        let second = random.next() & 1 == 0 ? 0 : Int(random.next() % (4 * scale) * unit)
        return (random.next() % (64 * scale) * unit, first, second)
    }

    private mutating func submission(
        _ operation: Submission.Operation, _ file: DeviceFile, at place: Int, tag: UInt64,
        _ shape: (offset: UInt64, first: Int, second: Int)
    ) -> Submission {
        let part = memory.bytes.part(place, shape.first + shape.second)
        var filler = operation == .read ? 0 : random.next() | 1
        for offset in stride(from: 0, to: part.count, by: 8) {
            for index in offset..<min(offset + 8, part.count) where offset + 8 > part.count {
                part[index] = UInt8(truncatingIfNeeded: filler)
            }
            if offset + 8 <= part.count { part.store(filler, at: offset) }
            filler = filler &* 6_364_136_223_846_793_005
        }
        let second = shape.second > 0 ? part.part(shape.first, shape.second) : nil
        return Submission(operation, file, offset: shape.offset, part.part(0, shape.first), second, tag: tag)
    }

    private mutating func single(_ file: DeviceFile) {
        let operations: [Submission.Operation] = [.read, .write, .writeDurable, .sync]
        let operation = operations[Int(random.next() % 4)]
        let one = submission(operation, file, at: 0, tag: 1, operation == .sync ? (0, 0, 0) : shape())
        note(one, device.perform(one).result)
    }

    /// Several operations in flight at a time, at places of their own, then all completions.
    private mutating func batch(_ file: DeviceFile) {
        let isRead = random.next() & 1 == 0
        var batch: [Submission] = []
        for index in 0..<8 {
            var shape = self.shape()
            shape.offset = UInt64(index) * 65536 + shape.offset % 16384
            let operation: Submission.Operation = isRead ? .read : random.next() & 1 == 0 ? .write : .writeDurable
            batch.append(submission(operation, file, at: index * 65536, tag: UInt64(submitted + index), shape))
        }
        device.submit(batch)
        submitted += 8
        precondition(log.wait(for: submitted, pump: pump), "completions are missing")
        for one in batch {
            let results = log.all[one.tag] ?? []
            precondition(results.count == 1)
            note(one, results[0])
        }
    }

    private mutating func note(_ submission: Submission, _ outcome: Int) {
        result.events.append("\(submission.operation) @\(submission.offset) \(submission.byteCount): \(outcome)")
        guard submission.operation == .read else { return }
        let first = Self.fingerprint(.init(submission.first))
        let second = submission.second.map { Self.fingerprint(.init($0)) } ?? 0
        result.events.append("\(first) \(second)")
    }
}
