// Hostile stores: bytes of every structure changed, checksums made right again, and then everything that reads a store from outside is
// asked to. It may refuse and report; it may not trap, hang, or take memory without bound. TREERING_FUZZ says how many stores,
// TREERING_SEED where to begin; each seed replays by itself, and is printed before it runs where TREERING_FUZZ is set.

import Glibc
import Testing

@testable import Treering

@Suite(.serialized) struct HostileStoreTests {
    private static let count = Environment.count("TREERING_FUZZ", debug: 40, release: 200)
    private static let first = Environment.number("TREERING_SEED") ?? 1

    @Test func mutatedStoresNeverTrap() throws {
        let template = try HostileTemplate()
        let watchdog = try Watchdog(secondCount: 120)
        let isLong = Environment.number("TREERING_FUZZ") != nil
        var tally = HostileTally()
        for seed in Self.first..<Self.first + UInt64(Self.count) {
            if isLong { Environment.note("hostile store \(seed)") }
            let text = "hostile store \(seed)"
            for _ in 0..<64 { watchdog.alive(text) }
            var run = HostileRun(template, seed: seed)
            run.mutate()
            run.askEverything(&tally)
            #expect(residentByteCount() < 3 << 30, "seed \(seed) took too much memory")
        }
        watchdog.stop()
        Environment.note("hostile stores: \(Self.count) from seed \(Self.first): \(tally)")
        // Of a single store, as in a replay, only one of both can be.
        #expect(Self.count < 20 || tally.mounted > 0 && tally.refused > 0)
    }

    /// Without a superblock, a batch that was repaired in memory could still not be followed, and was repaired again for hours.
    @Test func aPlaceIsMendedOnce() throws {
        let watchdog = try Watchdog(secondCount: 30)
        var tally = HostileTally()
        var run = HostileRun(try HostileTemplate(), seed: 1534)
        run.mutate()
        watchdog.alive("hostile store 1534")
        run.askEverything(&tally)
        watchdog.stop()
    }

    private func residentByteCount() -> Int {
        guard let file = fopen("/proc/self/statm", "r") else { return 0 }
        defer { fclose(file) }
        var words = [CChar](repeating: 0, count: 128)
        fgets(&words, 128, file)
        let text = String(decoding: words.map { UInt8(bitPattern: $0) }.prefix { $0 != 0 }, as: UTF8.self)
        return (Int(text.split(separator: " ").dropFirst().first ?? "0") ?? 0) * 4096
    }
}

struct HostileTally {
    var mounted = 0
    var refused = 0
    var checked = 0
    var repaired = 0
    var exported = 0
}

/// One hostile store.
struct HostileRun {
    private let device: SimulatedDevice
    private var staging: [UInt8]
    private let settings: StoreSettings
    private var random: SimulatedRandom
    private let seed: UInt64

    init(_ template: HostileTemplate, seed: UInt64) {
        random = SimulatedRandom(seed: seed)
        device = (random.next() % 2 == 0 ? template.clean : template.unclean).snapshotAfterKill()
        staging = template.staging
        settings = template.settings
        self.seed = seed
    }

    // MARK: Mutating

    mutating func mutate() {
        for _ in 0..<1 + random.next() % 3 {
            switch random.next() % 10 {
            case 0: mutateSuperblock()
            case 1: mutateSegmentHeader()
            case 2: mutateBatchHeader()
            case 3, 4: mutateRecord()
            case 5: mutatePage()
            case 6: mutateStaging()
            case 7: mutateRun()
            case 8: mutateCopy()
            default: flipAnything()
            }
        }
        if random.next() % 4 == 0 { mutateFiles() }
        // What makes a new superblock believes as little as what reads one.
        if random.next() % 4 == 0 {
            try? Tampering.loseSuperblock(device, how: random.next(), andCopies: random.next() % 2 == 0)
        }
    }

    /// A number that somebody might have forgotten to check.
    private mutating func number() -> UInt64 {
        switch random.next() % 10 {
        case 0: return 0
        case 1: return 1
        case 2: return UInt64.max
        case 3: return UInt64(Int64.max)
        case 4: return UInt64(UInt32.max)
        case 5: return UInt64(Int32.max) + random.next() % 3
        case 6: return random.next() % 16
        case 7: return 1 << (random.next() % 64)
        case 8: return (1 << (random.next() % 64)) &- 1
        default: return random.next()
        }
    }

    /// Changes a field, or a few bits, of a range.
    private mutating func spoil(_ bytes: UnsafeMutableRawBufferPointer, _ range: Range<Int>) {
        guard range.count >= 8 else { return }
        let width = [1, 2, 4, 8][Int(random.next() % 4)]
        let place = range.lowerBound + Int(random.next() % UInt64(range.count / width)) * width
        switch random.next() % 4 {
        case 0: bytes[place] ^= 1 << UInt8(random.next() % 8)
        case 1:
            // A neighbour's value: plausible, and wrong.
            let other = range.lowerBound + Int(random.next() % UInt64(range.count / width)) * width
            for index in 0..<width { bytes[place + index] = bytes[other + index] }
        case 2:
            let old = bytes[place]
            bytes[place] = random.next() % 2 == 0 ? old &+ 1 : old &- 1
        default:
            let value = number()
            for index in 0..<width { bytes[place + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
        }
    }

    /// Edits a part of a file on the medium.
    private mutating func edit(
        _ file: StoreFile, _ offset: Int, _ byteCount: Int,
        _ body: (inout HostileRun, UnsafeMutableRawBufferPointer) -> Void
    ) {
        guard let handle = try? device.open(file, create: false) else { return }
        defer { device.close(handle) }
        let buffer = AlignedBuffer(byteCount: (byteCount + 4095) / 4096 * 4096)
        let bytes = buffer.bytes.part(0, byteCount)
        let completion = device.perform(Submission(.read, handle, offset: UInt64(offset), bytes, tag: 0))
        guard completion.result == byteCount else { return }
        body(&self, bytes)
        _ = device.perform(Submission(.writeDurable, handle, offset: UInt64(offset), bytes, tag: 0))
    }

    private mutating func mutateSuperblock() {
        mutateSuperblock(.superblock, Int(Superblock.slotOffsets[Int(random.next() % 2)]))
    }

    private mutating func mutateCopy() { mutateSuperblock(.index, Int(Superblock.copyOffsets[Int(random.next() % 2)])) }

    private mutating func mutateSuperblock(_ file: StoreFile, _ offset: Int) {
        let field = Superblock.layout
        edit(file, offset, Superblock.slotByteCount) { run, bytes in
            run.spoil(bytes, field.checksum.end..<field.blockUUID.offset)
            bytes.seal(field.checksum)
        }
    }

    private mutating func segment() -> StoreFile? {
        device.list().filter { if case .segment = $0 { true } else { false } }.randomElement(using: &random)
    }

    private mutating func mutateSegmentHeader() {
        guard let file = segment() else { return }
        let field = SegmentHeader.layout
        edit(file, 0, SegmentHeader.byteCount) { run, bytes in
            run.spoil(bytes, field.checksum.end..<field.capacity.end)
            bytes.seal(field.checksum)
        }
    }

    private mutating func mutateRun() {
        for file in device.list() {
            guard case .segment = file,
                let offset = HostileLog.batches(device, file, magic: RunHeader.magic).randomElement(using: &random)
            else { continue }
            edit(file, offset, RunHeader.byteCount) { run, bytes in
                run.spoil(bytes, RunHeader.layout.checksum.end..<RunHeader.layout.payloads[17].offset)
                bytes.seal(RunHeader.layout.checksum)
            }
        }
    }

    private mutating func mutateBatchHeader() {
        guard let file = segment(), let offset = HostileLog.batches(device, file).randomElement(using: &random) else {
            return
        }
        edit(file, offset, BatchHeader.byteCount) { run, bytes in
            run.spoil(bytes, BatchHeader.layout.checksum.end..<BatchHeader.byteCount)
            bytes.seal(BatchHeader.layout.checksum)
        }
    }

    /// Changes a record, and makes the checksums of record, batch and chain right again.
    private mutating func mutateRecord() {
        guard let file = segment(), let offset = HostileLog.batches(device, file).randomElement(using: &random) else {
            return
        }
        edit(file, offset, min(HostileLog.room, (1 << 20) - offset)) { run, bytes in
            guard let (records, area) = HostileLog.records(UnsafeRawBufferPointer(bytes)) else { return }
            for _ in 0..<1 + run.random.next() % 3 {
                guard let range = records.randomElement(using: &run.random) else { return }
                run.spoil(bytes, range.lowerBound + Record.layout.checksum.end..<range.upperBound)
                bytes.part(range.lowerBound, range.count).seal(Record.layout.checksum)
            }
            HostileLog.sealBatch(bytes, area)
        }
    }

    private mutating func mutatePage() {
        guard let size = device.contents(of: .index)?.count else { return }
        let page = Int(random.next() % UInt64(max(1, min(size / IndexPage.byteCount, 200))))
        let field = IndexPage.header
        edit(.index, page * IndexPage.byteCount, IndexPage.byteCount) { run, bytes in
            guard bytes[field.magic] != 0 else { return }
            for _ in 0..<1 + run.random.next() % 4 {
                let isHeader = run.random.next() % 3 == 0
                run.spoil(
                    bytes,
                    isHeader
                        ? field.checksum.end..<field.entries.offset : field.entries.offset..<IndexPage.byteCount)
            }
            bytes.seal(field.checksum)
        }
    }

    private mutating func mutateStaging() {
        var copy = staging
        defer { staging = copy }
        let field = StagingLayout.header
        copy.withUnsafeMutableBytes { bytes in
            switch random.next() % 3 {
            case 0:
                spoil(bytes, field.checksum.end..<field.path.offset + 2)
                bytes.part(0, StagingLayout.headerByteCount).seal(field.checksum)
            case 1: spoil(bytes, field.descriptors.offset..<field.descriptors[4].offset)
            default: spoil(bytes, StagingLayout.slotsOffset..<bytes.count)
            }
        }
    }

    private mutating func flipAnything() {
        guard let file = device.list().randomElement(using: &random), let size = device.contents(of: file)?.count,
            size > 0
        else { return }
        for _ in 0..<1 + random.next() % 20 {
            device.damage(file, at: random.next() % UInt64(size), bits: UInt8(truncatingIfNeeded: random.next() | 1))
        }
    }

    private mutating func mutateFiles() {
        guard let file = device.list().randomElement(using: &random) else { return }
        switch random.next() % 3 {
        case 0:
            try? device.unlink(file)
            try? device.syncDirectories()
        case 1:
            guard let handle = try? device.open(file, create: false) else { return }
            try? device.resize(handle, to: random.next() % (1 << 20))
            device.close(handle)
        default:
            if let other = device.list().randomElement(using: &random), other != file {
                try? device.rename(file, to: other)
                try? device.syncDirectories()
            }
        }
    }

    // MARK: Asking

    mutating func askEverything(_ tally: inout HostileTally) {
        let copy = { [device] in device.snapshotAfterKill() }
        if (try? Checker.check(copy(), readsData: true, indexCacheByteCount: 1 << 20)) != nil { tally.checked += 1 }
        dump(copy())
        export(copy(), &tally)
        mount(copy(), &tally)
        repair(copy(), &tally)
        if let tail = staging.withUnsafeBytes({ StagedRecords(copying: $0) }) {
            mount(copy(), &tally, allStaged: [tail])
        }
    }

    private func dump(_ device: SimulatedDevice) {
        var count = 0
        let line: (String) -> Void = { count += $0.utf8.count }
        try? Dump.superblock(device, line)
        try? Dump.index(device, line)
        for case .segment(let number) in device.list() { try? Dump.segment(device, number.rawValue, line) }
        for inode in [1, 2, 3, 7] as [UInt64] { try? Dump.inode(device, inode, line) }
        #expect(count < 64 << 20, "seed \(seed): the dump has no end")
    }

    private func export(_ device: SimulatedDevice, _ tally: inout HostileTally) {
        let path = "/tmp/treering-hostile-\(getpid())"
        mkdir(path, 0o700)
        let target = open(path, O_RDONLY | O_DIRECTORY)
        guard target >= 0 else { return }
        defer {
            close(target)
            removeTree(path)
        }
        guard let view = try? StoreView.open(device, indexCacheByteCount: 1 << 20, log: { _ in }) else { return }
        if (try? Exporter.export(view, into: target)) != nil { tally.exported += 1 }
    }

    private func mount(_ device: SimulatedDevice, _ tally: inout HostileTally, allStaged: [StagedRecords] = []) {
        var options = settings.options
        options.isReadOnly = allStaged.isEmpty && seed % 3 == 0
        guard let volume = try? Volume.mount(device, options, allStaged: allStaged, log: { _ in }) else {
            tally.refused += 1
            return
        }
        tally.mounted += 1
        HostileOperations(volume).run(1...80, isWritten: !options.isReadOnly)
        var stepCount = 0
        _ = volume.scrub {
            stepCount += 1
            return stepCount < 100_000
        }
        #expect(stepCount < 100_000, "seed \(seed): a scrub has no end")
        try? volume.unmount()
    }

    private func repair(_ device: SimulatedDevice, _ tally: inout HostileTally) {
        let report = try? Repairer.repair(indexCacheByteCount: 1 << 20, log: { _ in }) {
            device
        } mount: { (device, options) throws(MountError) in
            try Volume.mount(device, options) { _ in }
        }
        if report?.left.isClean == true { tally.repaired += 1 }
    }

    private func removeTree(_ path: String) {
        if unlink(path) == 0 { return }
        if let directory = opendir(path) {
            while let entry = readdir(directory) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                    String(cString: UnsafeRawPointer(pointer).assumingMemoryBound(to: CChar.self))
                }
                if name != ".", name != ".." { removeTree("\(path)/\(name)") }
            }
            closedir(directory)
        }
        rmdir(path)
    }
}
