// More files than descriptors: which are closed for others, which never, and what becomes of a flush nobody asked for.

import Glibc
import Testing

@testable import Treering

@Suite struct DescriptorTableTests {
    private let opened = Counter()
    private static let segments = (0..<200).map { StoreFile.segment(SegmentNumber(UInt32($0))) }

    /// A table over files that are all the same device file.
    private func table(_ placeCount: Int, of path: String = "/dev/zero") -> DescriptorTable {
        let opened = self.opened
        return DescriptorTable(placeCount: placeCount) { (_, _) throws(Errno) in
            _ = opened.raise()
            let descriptor = Glibc.open(path, O_RDWR | O_CLOEXEC)
            guard descriptor >= 0 else { throw .last }
            return .init(buffered: descriptor, direct: -1)
        }
    }

    private func use(_ table: DescriptorTable, _ file: DeviceFile, writes: Bool = false) throws {
        _ = try table.begin(file)
        table.end(file, isUnsynced: writes)
    }

    @Test func theFileThatWasNotUsedForLongestIsClosed() throws {
        let table = table(8)
        let files = try Self.segments.prefix(8).map { try table.open($0, create: false) }
        // The first new one finds all used; from then on what is used between two openings stays.
        for name in Self.segments[8..<40] {
            try use(table, files[3])
            _ = try table.open(name, create: false)
        }
        let before = opened.value
        try use(table, files[3])
        #expect(opened.value == before)
        try use(table, files[0])
        #expect(opened.value == before + 1)
        #expect(table.openFileCount == 8)
    }

    @Test func aFileInUseOrUnsyncedStaysOpen() throws {
        let table = table(4)
        let files = try Self.segments.prefix(100).map { try table.open($0, create: false) }
        let held = try table.begin(files[0])
        try use(table, files[1], writes: true)
        let before = opened.value
        for file in files[2...] { try use(table, file) }
        #expect(fcntl(held.buffered, F_GETFD) >= 0)
        table.end(files[0], isUnsynced: false)
        let now = opened.value
        #expect(now > before)
        try use(table, files[1])
        #expect(opened.value == now, "a file with unsynced writes was closed")
        // Flushed, it is one like the others.
        _ = try table.begin(files[1])
        #expect(table.beginSync(files[1]) == 0)
        table.end(files[1], isUnsynced: false)
        for file in files[2...] { try use(table, file) }
        let then = opened.value
        try use(table, files[1])
        #expect(opened.value == then + 1)
    }

    /// /dev/full has no fdatasync: the flush before closing fails, and the next flush that is asked for says so, once.
    @Test func aFlushThatFailedAtClosingIsTold() throws {
        let table = table(2, of: "/dev/full")
        let files = try Self.segments.prefix(4).map { try table.open($0, create: false) }
        for file in files[0..<3] { try use(table, file, writes: true) }
        try use(table, files[3])
        #expect(files.filter { table.hasLostError($0) }.count >= 1)
        for file in files where table.hasLostError(file) {
            #expect(table.beginSync(file) == EINVAL)
            #expect(table.beginSync(file) == 0)
        }
    }

    @Test func whatIsKeptStaysOpen() throws {
        let table = table(8)
        let files = try Self.segments.prefix(100).map { try table.open($0, create: false) }
        table.keepOpen([files[5], files[6], files[7]])
        let before = opened.value
        for file in files[10...] { try use(table, file) }
        let now = opened.value
        #expect(now >= before + 80)
        try use(table, files[5])
        try use(table, files[6])
        #expect(opened.value == now, "a segment that is kept was closed")
        table.keepOpen([files[20], files[7]])
        for file in files[30...] { try use(table, file) }
        let then = opened.value
        try use(table, files[20])
        #expect(opened.value == then)
        try use(table, files[5])
        #expect(opened.value == then + 1)
        // A number that is given away again has nothing of the file before.
        table.close(files[20])
        let other = try table.open(Self.segments[150], create: false)
        #expect(other == files[20])
        for file in files[30...] { try use(table, file) }
        let last = opened.value
        try use(table, other)
        #expect(opened.value == last + 1)
    }

    @Test func whereAllAreInUseAUseWaits() throws {
        let table = table(2)
        let files = try Self.segments.prefix(3).map { try table.open($0, create: false) }
        for file in files[0..<2] { _ = try table.begin(file) }
        #expect(table.beginWithoutWaiting(files[2]) == nil)
        let isIn = Counter()
        let thread = try DeviceThread(name: "waits") {
            _ = try? table.begin(files[2])
            _ = isIn.raise()
        }
        usleep(20_000)
        #expect(isIn.value == 0)
        table.end(files[0], isUnsynced: false)
        thread.join()
        #expect(isIn.value == 1)
    }

    @Test func filesThatStayOpenAreBounded() throws {
        let table = table(2)
        let index = try table.open(.index, create: false)
        _ = try table.open(.superblock, create: false)
        #expect(throws: Errno(EMFILE)) { try table.open(Self.segments[0], create: false) }
        table.close(index)
        _ = try table.open(Self.segments[0], create: false)
        _ = try table.open(Self.segments[1], create: false)
    }

    /// The limit of the process is met before the table is full: others are closed; and the work goes on.
    @Test func whereTheSystemHasNoDescriptorOthersAreClosed() throws {
        let (opened, closed) = (Counter(), Counter())
        let table = DescriptorTable(placeCount: 100) { (_, _) throws(Errno) in
            guard opened.value - closed.value < 3 else { throw Errno(EMFILE) }
            let descriptor = Glibc.open("/dev/zero", O_RDWR | O_CLOEXEC)
            guard descriptor >= 0 else { throw .last }
            _ = opened.raise()
            return .init(buffered: descriptor, direct: -1)
        }
        table.placeChanged = { if !$1.isOpen { _ = closed.raise() } }
        let files = try Self.segments.map { try table.open($0, create: false) }
        for file in files.reversed() { try use(table, file) }
        #expect(table.openFileCount == 3)
    }

    // MARK: Engines

    private static func write(_ device: some Device, _ file: DeviceFile, _ byte: UInt8) {
        let block = AlignedBuffer(byteCount: 4096)
        block.bytes.initializeMemory(as: UInt8.self, repeating: byte)
        #expect(device.perform(Submission(.write, file, block.bytes, tag: 0)).result == 4096)
    }

    /// 200 segments with 8 places, written, flushed and read in every order from several threads' worth of submissions at a time.
    private func manySegments(_ device: some Device, _ table: DescriptorTable) throws {
        let log = CompletionLog()
        log.attach(to: device)
        let index = try device.open(.index, create: true)
        let files = try Self.segments.map { try device.open($0, create: true) }
        for (number, file) in files.enumerated() {
            Self.write(device, file, UInt8(number))
            if number % 3 == 0 { #expect(device.perform(Submission(.sync, file, tag: 0)).result == 0) }
        }
        let memory = AlignedBuffer(byteCount: files.count * 4096)
        var expected = 0
        for round in 0..<5 {
            var batch: [Submission] = []
            for step in files.indices {
                let number = (step * 37 + round) % files.count
                let bytes = memory.bytes.part(number * 4096, 4096)
                bytes.initializeMemory(as: UInt8.self, repeating: 0xFF)
                batch.append(Submission(.read, files[number], bytes, tag: UInt64(number)))
                if step % 50 == 0 { batch.append(Submission(.sync, index, tag: 1000)) }
            }
            expected += batch.count
            device.submit(batch)
            #expect(log.wait(for: expected))
            for number in files.indices {
                #expect(memory.bytes.part(number * 4096, 4096).allSatisfy { $0 == UInt8(number) })
            }
        }
        #expect(table.openFileCount <= 8)
        #expect(table.reopenedCount > 400)
        for file in files { device.close(file) }
        #expect(table.openFileCount == 1)
        device.shutDown()
    }

    @Test(arguments: [DirectMode.auto, .off]) func manySegmentsOnPosix(direct: DirectMode) throws {
        let directory = TemporaryDirectory()
        try PosixDevice.create(directory: directory.path)
        let device = try PosixDevice(
            directory: directory.path, options: DeviceOptions(direct: direct, fileCapacity: 8))
        try manySegments(device, device.files.table)
    }

    #if Liburing
        @Test(.enabled(if: EngineProbe.ringIsTestable), arguments: [false, true])
        func manySegmentsOnRing(sqpoll: Bool) throws {
            let directory = TemporaryDirectory()
            try HostFiles.create(directory: directory.path)
            let options = DeviceOptions(queueDepth: 64, fileCapacity: 8, sqpoll: sqpoll)
            let device = try RingDevice(HostFiles(directory: directory.path, options: options), options)
            try manySegments(device, device.files.table)
        }
    #endif

    /// A segment that is renamed while it is open goes by its new name when it is opened again.
    @Test func aRenamedFileIsFoundAgain() throws {
        let directory = TemporaryDirectory()
        try PosixDevice.create(directory: directory.path)
        let device = try PosixDevice(directory: directory.path, options: DeviceOptions(fileCapacity: 8))
        defer { device.shutDown() }
        let first = try device.open(.preparing(SegmentNumber(0)), create: true)
        Self.write(device, first, 7)
        #expect(device.perform(Submission(.sync, first, tag: 0)).result == 0)
        try device.rename(.preparing(SegmentNumber(0)), to: Self.segments[0])
        for name in Self.segments[1..<30] { device.close(try device.open(name, create: true)) }
        for name in Self.segments[1..<30] { _ = try device.open(name, create: false) }
        let block = AlignedBuffer(byteCount: 4096)
        #expect(device.perform(Submission(.read, first, block.bytes, tag: 0)).result == 4096)
        #expect(block.bytes[0] == 7)
        // One that somebody has removed is an error, not another file.
        for name in Self.segments[1..<30] { try device.unlink(name) }
        try device.unlink(Self.segments[0])
    }
}
