// The ring engine: its bounded table of slots, its end, and what becomes of everything when it breaks.

#if Liburing
    import CLinux
    import Glibc
    import Testing

    @testable import Treering

    @Suite(.enabled(if: EngineProbe.ringIsTestable)) struct RingDeviceTests {
        let directory = TemporaryDirectory()

        func device(_ options: DeviceOptions = DeviceOptions()) throws -> RingDevice {
            try HostFiles.create(directory: directory.path)
            return try RingDevice(HostFiles(directory: directory.path, options: options), options)
        }

        @Test(arguments: [16, 256]) func flood(depth: Int) throws {
            try QueueTests.flood(device(DeviceOptions(queueDepth: depth)))
        }

        @Test func chain() throws { try QueueTests.chain(device(DeviceOptions(queueDepth: 2))) }

        @Test func floodWithPollingThread() throws {
            try QueueTests.flood(device(DeviceOptions(queueDepth: 16, sqpoll: true)))
        }

        /// Every file that has descriptors is in the ring's table, also after others were closed for it.
        @Test func filesAreRegistered() throws {
            let device = try device(DeviceOptions(fileCapacity: 8))
            #expect(device.registeredCount == 17)
            for _ in 0..<3 {
                let files = try (0..<20).map { number in
                    try device.open(
                        .segment(SegmentNumber(UInt32(number))), create: (try? device.list().count) == number)
                }
                #expect((0..<8).allSatisfy { device.isRegistered[$0] })
                for file in files { device.close(file) }
                #expect((0..<8).allSatisfy { !device.isRegistered[$0] })
            }
            device.shutDown()
        }

        @Test func errorsAreReported() throws {
            let device = try device()
            let log = CompletionLog()
            log.attach(to: device)
            let file = try device.open(.index, create: true)
            let buffer = AlignedBuffer(byteCount: 4096)
            device.submit([
                Submission(.write, file, offset: 1 << 62, buffer.bytes, tag: 1),
                Submission(.read, file, offset: 4096, buffer.bytes, tag: 2),
                Submission(.sync, file, tag: 3),
                Submission(.write, file, offset: 0, buffer.bytes.part(0, 0), tag: 4),
            ])
            #expect(log.wait(for: 4))
            #expect(log.all[1] == [-Int(EFBIG)])
            #expect(log.all[2] == [0] && log.all[3] == [0] && log.all[4] == [0])
            device.shutDown()
        }

        /// Reads that end early at the end of the file are continued, aligned or not, and end there.
        @Test func shortReads() throws {
            let device = try device()
            let log = CompletionLog()
            log.attach(to: device)
            let file = try device.open(.index, create: true)
            let buffer = AlignedBuffer(byteCount: 16384)
            buffer.bytes.initializeMemory(as: UInt8.self, repeating: 3)
            #expect(device.perform(Submission(.write, file, buffer.bytes.part(0, 5000), tag: 0)).result == 5000)
            let target = AlignedBuffer(byteCount: 16384)
            device.submit([
                Submission(.read, file, target.bytes.part(0, 4096), target.bytes.part(4096, 4096), tag: 1),
                Submission(.read, file, target.bytes.part(8192, 8192), tag: 2),
            ])
            #expect(log.wait(for: 2))
            #expect(log.all[1] == [5000] && log.all[2] == [5000])
            #expect(target.bytes[4999] == 3)
            device.shutDown()
        }

        /// Transfers that end early go on where they ended, aligned or not.
        @Test(arguments: [4096, 512]) func shortTransfers(limit: Int) throws {
            let device = try device(DeviceOptions(queueDepth: 4))
            device.limitTransfers(to: limit)
            let log = CompletionLog()
            log.attach(to: device)
            let file = try device.open(.index, create: true)
            let buffer = AlignedBuffer(byteCount: 65536)
            for index in 0..<8192 { buffer.bytes.store(UInt64(index) &* 0x9E37_79B9, at: index * 8) }
            let target = AlignedBuffer(byteCount: 65536)
            func parts(_ operation: Submission.Operation, _ bytes: UnsafeMutableRawBufferPointer) -> [Submission] {
                (0..<8).map { part in
                    let memory = bytes.part(part * 8192, 8192)
                    return Submission(operation, file, offset: UInt64(part * 8192), memory, tag: UInt64(part))
                }
            }
            device.submit(parts(.writeDurable, buffer.bytes))
            #expect(log.wait(for: 8))
            device.submit(parts(.read, target.bytes))
            #expect(log.wait(for: 16))
            #expect(log.all.count == 8 && log.all.values.allSatisfy { $0 == [8192, 8192] })
            #expect(target.bytes.elementsEqual(buffer.bytes))
            // A host that wants direct transfers of more than 512 bytes has the posix path do them.
            if limit == 4096 { #expect(device.redone == 0) }
            device.shutDown()
        }

        /// io_uring_enter fails in the middle of a flood: everything completes exactly once, with the right bytes.
        @Test(arguments: [1, 16, 256]) func aRingThatBreaksDegradesToPosix(depth: Int) throws {
            let device = try device(DeviceOptions(queueDepth: depth))
            let log = CompletionLog()
            log.attach(to: device)
            let file = try device.open(.index, create: true)
            let count = 2000
            let buffer = AlignedBuffer(byteCount: count * 8)
            for index in 0..<count { buffer.bytes.store(UInt64(index), at: index * 8) }
            for index in 0..<count {
                if index == count / 2 { device.failNextEnter(EPERM) }
                let tag = UInt64(index)
                device.submit([Submission(.write, file, offset: tag * 8, buffer.bytes.part(index * 8, 8), tag: tag)])
            }
            #expect(log.wait(for: count))
            #expect(log.all.count == count && log.all.values.allSatisfy { $0 == [8] })
            #expect(device.degradation != nil && device.engineName != "ring")
            #expect(device.redone >= 1)
            let target = AlignedBuffer(byteCount: count * 8)
            #expect(
                device.perform(Submission(.read, file, target.bytes.part(0, count * 8), tag: 0)).result == count * 8)
            #expect(target.bytes.part(0, count * 8).elementsEqual(buffer.bytes.part(0, count * 8)))
            device.shutDown()
            #expect(log.count == count)
        }

        /// The same with submissions made by completions while the slots are full.
        @Test func breakingUnderAChain() throws {
            let device = try device(DeviceOptions(queueDepth: 2))
            let breaker = try DeviceThread(name: "breaker") {
                usleep(5000)
                device.failNextEnter(EBADF)
            }
            try QueueTests.chain(device)
            breaker.join()
        }

        @Test func shutDownCompletesWhatWasSubmitted() throws {
            let device = try device()
            let log = CompletionLog()
            log.attach(to: device)
            let file = try device.open(.index, create: true)
            let buffer = AlignedBuffer(byteCount: 4096)
            device.submit(
                (0..<200).map { Submission(.writeDurable, file, offset: $0 * 4096, buffer.bytes, tag: $0) })
            device.shutDown()
            #expect(log.count == 200)
        }
    }
#endif
