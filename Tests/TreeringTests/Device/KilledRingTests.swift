// A killed process's ring drains after its death. Its registered lock must not be free before that: then a successor
// that has the lock knows that nothing of its predecessor's is still on its way to the disk.

#if Liburing
    import CLinux
    import Glibc
    import Testing

    @testable import Treering

    @Suite(.serialized, .enabled(if: EngineProbe.ringIsTestable)) struct KilledRingTests {
        static let partByteCount = 1 << 20
        static let partCount = 256

        /// What a killed process's files look like when its lock is had, and half a second later.
        struct Aftermath {
            var atLock: [UInt64]
            var later: [UInt64]
            var lockMicroseconds: Int
            var landed: Int { later.filter { $0 != 0 }.count }
        }

        /// In a child: a ring with the lock registered (or not), 256 MiB of writes in flight; then it waits for its end.
        static func writeAndWait(_ store: HostString, _ ready: Int32, registersLock: Bool) {
            let lock = HostString("\(store)/lock").open(O_RDWR | O_CREAT, 0o600)
            guard lock >= 0, linux_flock(lock, Int32(LINUX_LOCK_EXCLUSIVE)) == 0 else { return }
            var options = DeviceOptions(fileCapacity: 8)
            if registersLock { options.lockDescriptor = lock }
            guard let files = try? HostFiles(directory: store, options: options),
                let device = try? RingDevice(files, options),
                let file = try? device.open(.index, create: false)
            else { return }
            let buffer = AlignedBuffer(byteCount: partByteCount)
            buffer.bytes.initializeMemory(as: UInt8.self, repeating: 0xEE)
            device.onCompletion { _ in }
            let writes = (0..<UInt64(partCount)).map {
                Submission(.write, file, offset: $0 * UInt64(partByteCount), buffer.bytes, tag: $0)
            }
            device.submit(writes)
            var byte: UInt8 = 1
            guard write(ready, &byte, 1) == 1 else { return }
            while true { pause() }
        }

        /// Forks, kills the child in the midst of its writes and looks; nil where the child did not get that far.
        static func killInFlight(registersLock: Bool) throws -> Aftermath? {
            let directory = TemporaryDirectory()
            let store = directory.path
            try HostFiles.create(directory: store)
            let device = try PosixDevice(directory: store)
            defer { device.shutDown() }
            let file = try device.open(.index, create: true)
            try device.resize(file, to: UInt64(partCount * partByteCount))
            var pipes: [Int32] = [0, 0]
            #expect(pipe(&pipes) == 0)
            let child = linux_fork()
            if child == 0 {
                alarm(20)
                writeAndWait(store, pipes[1], registersLock: registersLock)
                _exit(1)
            }
            Glibc.close(pipes[1])
            defer { Glibc.close(pipes[0]) }
            var waiting = pollfd(fd: pipes[0], events: Int16(POLLIN), revents: 0)
            var byte: UInt8 = 0
            let isReady = poll(&waiting, 1, 15_000) == 1 && read(pipes[0], &byte, 1) == 1
            kill(child, SIGKILL)
            let start = now()
            let lock = HostString("\(store)/lock").open(O_RDWR | O_CREAT, 0o600)
            while linux_flock(lock, Int32(LINUX_LOCK_EXCLUSIVE)) != 0 {}
            let end = now()
            let atLock = marks(device, file)
            usleep(500_000)
            let later = marks(device, file)
            Glibc.close(lock)
            var status: Int32 = 0
            waitpid(child, &status, 0)
            guard isReady else { return nil }
            return Aftermath(atLock: atLock, later: later, lockMicroseconds: Int(end - start) / 1000)
        }

        static func now() -> UInt64 {
            var time = timespec()
            clock_gettime(CLOCK_MONOTONIC, &time)
            return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
        }

        /// A word of the last block of each part, latest part first, read past the page cache.
        static func marks(_ device: PosixDevice, _ file: DeviceFile) -> [UInt64] {
            let buffer = AlignedBuffer(byteCount: 4096)
            return (0..<partCount).reversed().map { part in
                let offset = UInt64((part + 1) * partByteCount - 4096)
                let read = Submission(.read, file, offset: offset, buffer.bytes, tag: 0)
                return device.perform(read).result == 4096 ? buffer.bytes.load(4088, as: UInt64.self) : .max
            }
        }

        @Test func theLockOutlivesTheWritesOfAKilledProcess() throws {
            for attempt in 0..<3 {
                guard let aftermath = try Self.killInFlight(registersLock: true) else { continue }
                #expect(aftermath.atLock == aftermath.later, "a write landed after the lock was free")
                print(
                    "lock after \(aftermath.lockMicroseconds) µs, \(aftermath.landed) of \(Self.partCount) landed, attempt \(attempt)"
                )
                return
            }
            Issue.record("the child never got its writes under way")
        }

        @Test(.enabled(if: getenv("TREERING_EXPERIMENT") != nil)) func withoutTheRegistrationItDoesNot() throws {
            for _ in 0..<10 {
                guard let aftermath = try Self.killInFlight(registersLock: false) else { continue }
                let late = zip(aftermath.atLock, aftermath.later).filter { $0 != $1 }.count
                print(
                    "unregistered: lock after \(aftermath.lockMicroseconds) µs, \(aftermath.landed) landed, \(late) of them after it"
                )
            }
            for _ in 0..<10 {
                guard let aftermath = try Self.killInFlight(registersLock: true) else { continue }
                let late = zip(aftermath.atLock, aftermath.later).filter { $0 != $1 }.count
                print(
                    "registered: lock after \(aftermath.lockMicroseconds) µs, \(aftermath.landed) landed, \(late) of them after it"
                )
            }
        }
    }
#endif
