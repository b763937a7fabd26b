// The choice of an engine and the sentences that explain it.

import Glibc
import Testing

@testable import Treering

@Suite struct EngineProbeTests {
    @Test func probeSpeaks() {
        let directory = TemporaryDirectory()
        let probe = EngineProbe(directory: directory.path)
        #expect(probe.kernel.hasPrefix("Linux "))
        #expect(probe.lines.count == 5)
        #expect(probe.lines[1].hasPrefix("io_uring: ") && probe.lines[3].hasPrefix("direct I/O: "))
        let nowhere = EngineProbe(directory: directory.path + "/nowhere")
        #expect(nowhere.direct?.isUsable == false)
    }

    @Test func refusalsNameTheirReason() {
        #expect(
            EngineProbe.refusal(Errno(EPERM), disabled: 2)
                == "io_uring_setup refused with EPERM (kernel.io_uring_disabled=2)")
        #expect(EngineProbe.refusal(Errno(EPERM), disabled: 0).contains("seccomp"))
        #expect(EngineProbe.refusal(Errno(ENOSYS), disabled: nil).contains("without io_uring"))
        #expect(EngineProbe.refusal(Errno(ENOMEM), disabled: 0).contains("RLIMIT_MEMLOCK"))
    }

    /// The ring where it can be had, posix with a reason where it cannot: a working device either way.
    @Test func autoWorksAndSaysWhy() throws {
        let directory = TemporaryDirectory()
        try HostDevice.create(directory: directory.path)
        let device = try HostDevice.open(directory: directory.path)
        #expect(device.sentence.hasPrefix(EngineProbe(directory: directory.path).kernel))
        switch device.engineName {
        case "ring":
            #expect(device.sentence.contains(": engine ring (io_uring: ") && device.sentence.contains(" entries"))
        default:
            #expect(device.engineName == "posix")
            #expect(device.sentence.contains(": engine posix ("))
        }
        #expect(device.degradation == nil)
        let file = try device.open(.index, create: true)
        let buffer = AlignedBuffer(byteCount: 4096)
        #expect(device.perform(Submission(.writeDurable, file, buffer.bytes, tag: 0)).result == 4096)
        device.shutDown()
    }

    @Test func wrongOptionsAreNamed() throws {
        let directory = TemporaryDirectory()
        try HostDevice.create(directory: directory.path)
        func message(_ engine: EngineChoice, _ options: DeviceOptions) -> String {
            do throws(DeviceError) {
                try HostDevice.open(directory: directory.path, engine: engine, options: options).shutDown()
                return ""
            } catch {
                return error.description
            }
        }
        #expect(message(.auto, DeviceOptions(iopoll: true)).hasPrefix("iopoll: not offered yet"))
        #expect(message(.posix, DeviceOptions(sqpoll: true)).hasPrefix("sqpoll: needs a ring"))
        #expect(message(.auto, DeviceOptions(queueDepth: 0)).hasPrefix("queue_depth=0"))
        #expect(message(.auto, DeviceOptions(queueDepth: 100_000)).hasPrefix("queue_depth=100000"))
        #expect(message(.posix, DeviceOptions()) == "")
        #if !Liburing
            #expect(message(.ring, DeviceOptions()).contains("built without io_uring"))
        #endif
    }

    @Test func missingStoreIsNamed() {
        #expect(throws: DeviceError.self) { try HostDevice.open(directory: "/nowhere/at/all") }
    }
}

extension EngineProbe {
    /// A ring can be had, and memory may be locked for the many that tests hold at a time.
    static var ringIsTestable: Bool {
        let probe = EngineProbe()
        return probe.ring.reason == nil && (geteuid() == 0 || probe.memoryLockByteCount ?? .max >= 4 << 20)
    }
}
