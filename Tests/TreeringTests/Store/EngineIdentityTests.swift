// One script of operations from one seed, on both engines: the stores must be the same byte for byte, and each engine
// must read what the other wrote.

import Glibc
import Testing

@testable import Treering

@Suite struct EngineIdentityTests {
    private static let uuid = StoreUUID(high: 11, low: 12)

    private static func now() -> Timestamp { Timestamp(seconds: 1_700_000_000, nanoseconds: 1) }

    private static func directory() throws -> TemporaryDirectory {
        let directory = TemporaryDirectory()
        try HostDevice.create(directory: directory.path)
        return directory
    }

    /// Formats a store and runs the script; every sync is waited for, so that nothing depends on timing.
    private static func run(_ path: HostString, _ engine: EngineChoice, seed: UInt64) throws {
        let device = try HostDevice.open(directory: path, engine: engine)
        var format = FormatOptions(capacityByteCount: 32 << 20)
        format.uuid = uuid
        format.hashKey = uuid
        format.now = now
        try HostVolume.format(device, format)
        let volume = try HostVolume.mount(device, VolumeOptions(), now: now) { _ in }
        var state = seed
        func random(_ bound: UInt64) -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (state >> 33) % bound
        }
        var files: [(name: String, inode: InodeNumber)] = []
        for step in 0..<400 {
            switch random(5) {
            case 0, 1:
                let name = "file\(step)"
                let made = try Array(name.utf8).withUnsafeBytes { bytes in
                    try volume.perform { (core) throws(Stop) in
                        let context = RequestContext.by(Caller(uid: 0, gid: 0, umask: 0))
                        return try core.make(.root, bytes, NewInode(mode: 0o100644), context)
                    }
                }
                files.append((name, made.inode))
            case 2, 3:
                guard !files.isEmpty else { continue }
                let inode = files[Int(random(UInt64(files.count)))].inode
                let data = [UInt8](repeating: UInt8(truncatingIfNeeded: step), count: Int(random(40_000)) + 1)
                let offset = random(100_000)
                _ = try data.withUnsafeBytes { bytes in
                    try volume.perform { (core) throws(Stop) in try core.write(inode, at: offset, bytes, [], .nobody) }
                }
            default:
                guard files.count > 3 else { continue }
                let victim = files.remove(at: Int(random(UInt64(files.count))))
                try Array(victim.name.utf8).withUnsafeBytes { bytes in
                    try volume.perform { (core) throws(Stop) in try core.unlink(.root, bytes, .nobody) }
                }
            }
            if step % 20 == 0 { try volume.syncAndWait() }
        }
        try volume.unmount()
    }

    private static func contents(_ path: HostString) throws -> [HostString: [UInt8]] {
        var result: [HostString: [UInt8]] = [:]
        for name in try SharedMemory.names(in: "\(path)/segments", prefix: "0") {
            result[name] = HostString("\(path)/segments/\(name)").contents()
        }
        return result
    }

    @Test(arguments: [1 as UInt64, 2, 3])
    func bothEnginesLeaveTheSameSegments(seed: UInt64) throws {
        guard EngineProbe().ring.reason == nil else { return }
        let directories = (try Self.directory(), try Self.directory())
        defer { withExtendedLifetime(directories) {} }
        let (first, second) = (directories.0.path, directories.1.path)
        try Self.run(first, .ring, seed: seed)
        try Self.run(second, .posix, seed: seed)
        let left = try Self.contents(first)
        let right = try Self.contents(second)
        #expect(left.count > 1)
        #expect(left.keys.sorted() == right.keys.sorted())
        for (name, bytes) in left {
            let other = right[name] ?? []
            let place = zip(bytes, other).enumerated().first { $0.element.0 != $0.element.1 }?.offset
            let isSame = other == bytes
            #expect(isSame, "segment \(name), seed \(seed), first difference at \(place ?? -1)")
        }
        // Each engine reads what the other wrote.
        for (path, engine) in [(first, EngineChoice.posix), (second, .ring)] {
            let device = try HostDevice.open(directory: path, engine: engine)
            #expect(try Checker.check(device, readsData: true).problems == [])
            device.shutDown()
        }
    }
}
