// A ring that really breaks under a mount: its descriptor becomes something else, so that the kernel refuses every io_uring_enter.

#if Liburing
    import Glibc
    import Testing

    @testable import Treering

    @Suite(.enabled(if: EngineProbe.ringIsTestable)) struct BrokenRingTests {
        let directory = TemporaryDirectory()

        private func make(_ volume: HostVolume, _ name: String) throws -> InodeNumber {
            try Array(name.utf8).withUnsafeBytes { name in
                try volume.perform { (core) throws(Stop) in
                    try core.make(.root, name, NewInode(mode: 0o100644), .nobody)
                }
            }.inode
        }

        private func write(_ volume: HostVolume, _ inode: InodeNumber, _ value: UInt8, _ offset: UInt64) throws {
            _ = try [UInt8](repeating: value, count: 64 << 10).withUnsafeBytes { bytes in
                try volume.perform { (core) throws(Stop) in try core.write(inode, at: offset, bytes, [], .nobody) }
            }
        }

        /// Batches are in flight and an fsync is under way when it breaks; nothing is lost, and the mount goes on with posix.
        @Test func degradesToPosixWithNothingLost() throws {
            try HostDevice.create(directory: directory.path)
            let device = try HostDevice.open(directory: directory.path, engine: .ring)
            let ring = device.engine as! RingDevice
            try HostVolume.format(device, FormatOptions(capacityByteCount: 64 << 20))
            let options = VolumeOptions()
            let volume = try HostVolume.mount(device, options) { _ in }
            let inode = try make(volume, "file")
            for piece in 0..<100 as Range<UInt64> { try write(volume, inode, UInt8(piece), piece << 16) }
            let null = open("/dev/null", O_RDWR)
            #expect(dup2(null, ring.ring.ring.pointee.ring_fd) >= 0)
            close(null)
            for piece in 100..<200 as Range<UInt64> {
                try write(volume, inode, UInt8(piece), piece << 16)
                if piece % 20 == 0 { try volume.syncAndWait() }
            }
            try volume.syncAndWait()
            #expect(device.degradation != nil)
            #expect(device.engineName == "ring (broken; posix)")
            #expect(!volume.isReadOnly)
            for piece in 0..<200 as Range<UInt64> {
                let bytes = try volume.bytes { (core) throws(Stop) in
                    try core.planRead(inode, at: piece << 16, 64 << 10)
                }
                #expect(bytes == [UInt8](repeating: UInt8(piece), count: 64 << 10))
            }
            try volume.unmount()
            let again = try HostDevice.open(directory: directory.path, engine: .posix)
            #expect(try Checker.check(again, readsData: true).problems == [])
            again.shutDown()
        }
    }
#endif
