// The posix engine against the host: names, short files, direct and buffered, the bounded queue.

import Glibc
import Synchronization
import Testing

@testable import Treering

@Suite struct PosixDeviceTests {
    let directory = TemporaryDirectory()
    var store: HostString { "\(directory.path)/store" }

    func device(_ options: DeviceOptions = DeviceOptions()) throws -> PosixDevice {
        try PosixDevice.create(directory: store)
        return try PosixDevice(directory: store, options: options)
    }

    private func make(_ path: HostString) { Glibc.close(path.open(O_WRONLY | O_CREAT, 0o600)) }

    @Test func createTwiceIsFine() throws {
        try PosixDevice.create(directory: store)
        try PosixDevice.create(directory: store)
        let status = try HostString("\(store)/segments").status()
        #expect(status.st_mode & 0o777 == 0o700)
    }

    @Test func createOverAFileIsRefused() throws {
        make(store)
        #expect(throws: Errno.exists) { try PosixDevice.create(directory: store) }
    }

    @Test func openWithoutAStoreIsRefused() {
        #expect(throws: Errno.noEntry) { try PosixDevice(directory: store) }
    }

    @Test func names() throws {
        let device = try device()
        defer { device.shutDown() }
        let three = StoreFile.segment(SegmentNumber(3))
        let fresh = StoreFile.preparing(SegmentNumber(3))
        #expect(throws: Errno.noEntry) { try device.open(three, create: false) }
        device.close(try device.open(fresh, create: true))
        #expect(throws: Errno.exists) { try device.open(fresh, create: true) }
        device.close(try device.open(.superblock, create: true))
        make("\(store)/segments/stranger")
        make("\(store)/lock")
        #expect(try device.list() == [fresh, .superblock])
        try device.rename(fresh, to: three)
        try device.syncDirectories()
        #expect(try device.list() == [three, .superblock])
        try device.unlink(three)
        #expect(throws: Errno.noEntry) { try device.unlink(three) }
        #expect(try device.list() == [.superblock])
        let status = try HostString("\(store)/superblock").status()
        #expect(status.st_mode & 0o777 == 0o600)
    }

    @Test func linksAreNotFollowed() throws {
        let device = try device()
        defer { device.shutDown() }
        make("\(directory.path)/elsewhere")
        #expect(HostString("\(store)/index").withCString({ symlink("../elsewhere", $0) }) == 0)
        #expect(throws: Errno.self) { try device.open(.index, create: false) }
    }

    /// A pipe would keep whoever opens it waiting for its other end.
    @Test(.timeLimit(.minutes(1))) func whatIsNoRegularFileIsNotThereAndGivesWay() throws {
        let device = try device()
        defer { device.shutDown() }
        func put(_ name: String, _ make: (UnsafePointer<CChar>) -> Int32) {
            #expect(HostString("\(store)/\(name)").withCString(make) == 0)
        }
        let segments = (0..<3).map { StoreFile.segment(SegmentNumber(UInt32($0))) }
        let things: [(StoreFile, (UnsafePointer<CChar>) -> Int32)] = [
            (.index, { mkfifo($0, 0o600) }), (.superblock, { mkdir($0, 0o700) }),
            (segments[0], { mkfifo($0, 0o600) }), (segments[1], { symlink("/dev/zero", $0) }),
            (segments[2], { mknod($0, S_IFSOCK | 0o600, 0) }),
        ]
        for (file, make) in things { put(file.path, make) }
        #expect(try device.list() == [])
        let reader = try PosixDevice(directory: store, options: DeviceOptions(readOnly: true))
        defer { reader.shutDown() }
        for (file, _) in things {
            #expect(throws: Errno.invalid) { try device.open(file, create: false) }
            #expect(throws: Errno.invalid) { try reader.open(file, create: false) }
            device.close(try device.open(file, create: true))
        }
        #expect(try device.list().count == things.count)
    }

    @Test(arguments: [DirectMode.auto, .off])
    func shortFile(direct: DirectMode) throws {
        let device = try device(DeviceOptions(direct: direct))
        defer { device.shutDown() }
        let file = try device.open(.index, create: true)
        let buffer = AlignedBuffer(byteCount: 16384)
        for index in buffer.bytes.indices { buffer.bytes[index] = UInt8(truncatingIfNeeded: index / 7) }
        let write = Submission(.write, file, buffer.bytes.part(0, 5000), tag: 9)
        #expect(device.perform(write).result == 5000)
        let target = AlignedBuffer(byteCount: 16384)
        let read = Submission(.read, file, target.bytes.part(0, 8192), target.bytes.part(8192, 4096), tag: 9)
        #expect(device.perform(read).result == 5000)
        #expect(target.bytes.part(0, 5000).elementsEqual(buffer.bytes.part(0, 5000)))
        let beyond = Submission(.read, file, offset: 8192, target.bytes.part(0, 4096), tag: 9)
        #expect(device.perform(beyond).result == 0)
        let nothing = Submission(.write, file, offset: 8192, target.bytes.part(0, 0), tag: 9)
        #expect(device.perform(nothing).result == 0)
    }

    @Test func directAndBufferedSeeTheSameBytes() throws {
        let device = try device(DeviceOptions(direct: .auto))
        defer { device.shutDown() }
        let file = try device.open(.index, create: true)
        let buffer = AlignedBuffer(byteCount: 8192)
        for round in 0..<UInt8(20) {
            buffer.bytes.part(0, 8192).initializeMemory(as: UInt8.self, repeating: round)
            // Buffered first (an odd length leaves dirty pages), direct over it, then the other way round.
            let odd = Submission(.write, file, offset: 4096 + 100, buffer.bytes.part(0, 333), tag: 0)
            #expect(device.perform(odd).result == 333)
            let whole = Submission(
                .writeDurable, file, buffer.bytes.part(0, 4096), buffer.bytes.part(4096, 4096), tag: 0)
            #expect(device.perform(whole).result == 8192)
            let target = AlignedBuffer(byteCount: 8192)
            #expect(
                device.perform(Submission(.read, file, offset: 4095, target.bytes.part(1, 501), tag: 0)).result == 501)
            #expect(target.bytes.part(1, 501).allSatisfy { $0 == round })
        }
    }

    @Test func aHoleIsFoundUntilItIsWrittenOver() throws {
        let device = try device()
        defer { device.shutDown() }
        let file = try device.open(.segment(SegmentNumber(2)), create: true)
        let data = AlignedBuffer(byteCount: 1 << 20)
        for index in data.bytes.indices { data.bytes[index] = 1 }
        try device.wait(Submission(.write, file, data.bytes, tag: 0))
        try device.wait(Submission(.sync, file, tag: 0))
        #expect(device.hole(in: file, from: 0) == nil)
        do { try device.punch(file, offset: 65536, byteCount: 131_072) } catch {
            #expect(error == .notSupported)
            return
        }
        #expect(device.hole(in: file, from: 0) == 65536..<196_608)
        #expect(device.hole(in: file, from: 131_072) == 131_072..<196_608)
        #expect(device.hole(in: file, from: 196_608) == nil)
        #expect(device.hole(in: file, from: 1 << 30) == nil)
        try device.wait(Submission(.write, file, offset: 65536, data.bytes.part(0, 131_072), tag: 0))
        #expect(device.hole(in: file, from: 0) == nil)
    }

    @Test func resizeReservesAndPunchGivesBack() throws {
        let device = try device()
        defer { device.shutDown() }
        let file = try device.open(.segment(SegmentNumber(1)), create: true)
        try device.resize(file, to: 1 << 20)
        var status = try HostString("\(store)/segments/00000001.seg").status()
        #expect(status.st_size == 1 << 20 && status.st_blocks * 512 >= 1 << 20)
        do {
            try device.punch(file, offset: 4096, byteCount: 1 << 19)
            status = try HostString("\(store)/segments/00000001.seg").status()
            #expect(status.st_size == 1 << 20 && status.st_blocks * 512 <= 1 << 19)
        } catch {
            #expect(error == .notSupported)
        }
        try device.resize(file, to: 100)
        #expect(try device.byteCount(of: file) == 100)
        try device.resize(file, to: 0)
        #expect(try device.byteCount(of: file) == 0)
        #expect(throws: Errno.self) { try device.resize(file, to: 1 << 62) }
        #expect(try device.byteCount(of: file) == 0)
        let space = try device.hostSpace()
        #expect(space.totalByteCount > space.availableByteCount && space.availableByteCount > 0)
    }

    @Test func readOnly() throws {
        let writer = try device()
        let file = try writer.open(.index, create: true)
        let buffer = AlignedBuffer(byteCount: 4096)
        buffer.bytes.initializeMemory(as: UInt8.self, repeating: 7)
        #expect(writer.perform(Submission(.write, file, buffer.bytes, tag: 0)).result == 4096)
        writer.shutDown()
        let reader = try PosixDevice(directory: store, options: DeviceOptions(readOnly: true))
        defer { reader.shutDown() }
        let again = try reader.open(.index, create: false)
        buffer.bytes.zero(0, 4096)
        #expect(reader.perform(Submission(.read, again, buffer.bytes, tag: 0)).result == 4096)
        #expect(buffer.bytes.allSatisfy { $0 == 7 })
        #expect(reader.perform(Submission(.write, again, buffer.bytes, tag: 0)).result < 0)
        #expect(throws: Errno.readOnly) { try reader.open(.superblock, create: true) }
        #expect(throws: Errno.readOnly) { try reader.resize(again, to: 0) }
        #expect(throws: Errno.readOnly) { try reader.unlink(.index) }
    }

    @Test func directSupportOnAHostWithoutIt() {
        let support = DirectSupport(-1, isReadOnly: false)
        #expect(!support.isUsable)
        #expect(support.explanation.contains("O_DIRECT"))
    }
}
