// The staging of a mount on a real machine: a file in /dev/shm or, where that is impossible, in the store's directory.
// Also finds the staging that killed mounts of the same store left there.

import Glibc

/// The staging of one mount on this machine.
final class HostStaging {
    /// This machine's present boot.
    static func bootID() -> StoreUUID {
        let text = HostString("/proc/sys/kernel/random/boot_id").contents() ?? []
        let digits = text.compactMap { Character(UnicodeScalar($0)).hexDigitValue }.map { UInt64($0) }
        guard digits.count == 32 else { return StoreUUID(high: 0, low: 0) }
        return StoreUUID(
            high: digits[..<16].reduce(0) { $0 << 4 | $1 }, low: digits[16...].reduce(0) { $0 << 4 | $1 })
    }

    /// A random number other than 0, from the kernel.
    static func randomWord() -> UInt64 {
        var generator = SystemRandomNumberGenerator()
        return generator.next() | 1
    }

    let directory: HostString
    private let uuid: StoreUUID
    private let device: UInt64
    private let inode: UInt64
    private let log: @Sendable (String) -> Void
    /// Logs what somebody may lose.
    let warn: @Sendable (String) -> Void
    /// When `touch` last touched the file, in monotonic nanoseconds.
    private var lastTouch: UInt64 = 0
    private(set) var memory: SharedMemory?
    private(set) var identity: UInt64 = 0
    /// The staged records of killed mounts, with the files that hold them.
    private(set) var allStaged: [(tail: StagedRecords, memory: SharedMemory)] = []
    /// The staging files that were found and are not replayed, or cannot be read.
    private(set) var left: [(path: HostString, byteCount: Int)] = []

    static let sharedDirectory: HostString = "/dev/shm"
    static let byteCountLimit = 5 << 30

    /// - Parameter directory: the store's directory.
    init(
        directory: HostString, uuid: StoreUUID, log: @escaping @Sendable (String) -> Void,
        warn: (@Sendable (String) -> Void)? = nil
    ) throws(Errno) {
        self.directory = directory
        self.uuid = uuid
        self.log = log
        self.warn = warn ?? log
        let status = try directory.status()
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
    }

    static let namePrefix: HostString = "treering-"
    static let namePrefixInStore: HostString = "staging-"
    private var prefix: HostString { "\(Self.namePrefix)\(uuid.description)-" }

    /// Finds the staging that killed mounts of this store have left since the machine booted. A file that belongs to
    /// another is left alone and reported. A shortage (memory, descriptors) makes the mount fail: it may pass, and a
    /// mount without the file would lose what it holds.
    func findStaged(isReadOnly: Bool = false) throws(MountError) {
        let places: [HostString]
        do throws(Errno) { places = try Self.candidates(directory, prefix) } catch {
            throw MountError("what killed mounts left in \(Self.sharedDirectory) cannot be listed now", error)
        }
        for path in places {
            let memory: SharedMemory
            if SharedMemory.isEmptyOfThisUser(path) {
                try? path.unlink()
                continue
            }
            do throws(Errno) { memory = try SharedMemory(reading: path, byteCountLimit: Self.byteCountLimit) } catch {
                guard isReadOnly || Self.isStrange(error) else {
                    throw MountError("what a killed mount left in \(path) cannot be read now", error)
                }
                leave(path, Self.owner(of: path) ?? "\(error)", byteCount: 0)
                continue
            }
            let tail = StagedRecords(copying: UnsafeRawBufferPointer(memory.bytes))
            // The header is written first. A file without one holds nothing that was acknowledged.
            if tail == nil, memory.bytes.prefix(StagingLayout.headerByteCount).allSatisfy({ $0 == 0 }) {
                memory.unlink()
                continue
            }
            guard let tail, isOurs(tail.header) else {
                leave(
                    path, "it belongs to another copy of this store or to another boot", byteCount: memory.bytes.count)
                continue
            }
            allStaged.append((tail, memory))
        }
    }

    /// Keeps the staging that is replayed. The rest stays where it is, and is reported.
    func keep(_ choice: StagingChoice) {
        for (tail, reason) in choice.left {
            guard let (_, memory) = allStaged.first(where: { $0.tail === tail }) else { continue }
            leave(memory.path, "\(reason). What it holds and the store does not is lost", byteCount: memory.bytes.count)
        }
        allStaged.removeAll { found in !choice.taken.contains { $0 === found.tail } }
    }

    private func leave(_ path: HostString, _ reason: String, byteCount: Int) {
        warn("left the staging \(path) alone: \(reason)")
        left.append((path, byteCount))
    }

    /// What to say of a file that belongs to another user.
    private static func owner(of path: HostString) -> String? {
        guard let status = try? path.linkStatus(), status.st_uid != geteuid() else { return nil }
        return "it belongs to user \(status.st_uid), and is read by a mount of that user only"
    }

    /// Whether an error says that the file is not ours, or not there any more. Everybody may write to the shared
    /// directory.
    private static func isStrange(_ error: Errno) -> Bool {
        [EPERM, EACCES, ELOOP, EINVAL, ENOENT, ENXIO].contains(error.rawValue)
    }

    /// The headers of the staging that killed mounts of a store have left since the machine booted.
    static func headers(directory: HostString, uuid: StoreUUID) -> [StagingHeader] {
        guard let staging = try? HostStaging(directory: directory, uuid: uuid, log: { _ in }) else { return [] }
        return ((try? candidates(directory, staging.prefix)) ?? []).compactMap { path in
            guard let memory = try? SharedMemory(reading: path, byteCountLimit: byteCountLimit),
                let header = StagingHeader(decoding: UnsafeRawBufferPointer(memory.bytes)), staging.isOurs(header)
            else { return nil }
            return header
        }
    }

    private static func candidates(_ directory: HostString, _ prefix: HostString) throws(Errno) -> [HostString] {
        try SharedMemory.names(in: sharedDirectory, prefix: prefix).map { "\(sharedDirectory)/\($0)" }
            + SharedMemory.names(in: directory, prefix: namePrefixInStore).map { "\(directory)/\($0)" }
    }

    private func isOurs(_ header: StagingHeader) -> Bool {
        header.uuid == uuid && header.device == device && header.directory == inode && header.bootID == Self.bootID()
            && header.owner == UInt64(geteuid())
    }

    /// A new staging file that the mount does not use yet.
    struct Made {
        let identity: UInt64
        let memory: SharedMemory
        let staging: Staging
    }

    /// Makes new staging for a mount: in shared memory, or as a file in the store if that fails or with `inStore`.
    func make(
        _ geometry: StagingGeometry, epoch: MountEpoch, generation: UInt64, inStore: Bool = false
    ) throws(Errno) -> Made {
        let identity = Self.randomWord()
        let name = String(identity, radix: 16)
        var memory: SharedMemory
        do throws(Errno) {
            if inStore { throw .noEntry }
            memory = try SharedMemory(
                creating: "\(Self.sharedDirectory)/\(prefix)\(name)", byteCount: geometry.byteCount)
        } catch {
            if !inStore { log("staging is a file in the store: \(Self.sharedDirectory) cannot hold it (\(error))") }
            memory = try SharedMemory(
                creating: "\(directory)/\(Self.namePrefixInStore)\(name)", byteCount: geometry.byteCount)
        }
        StagingHeader(
            uuid: uuid, epoch: epoch, generation: generation, device: device, directory: inode, bootID: Self.bootID(),
            owner: UInt64(geteuid()), identity: identity, geometry: geometry,
            path: (try? directory.realPath())?.bytes ?? []
        ).encode(into: memory.bytes)
        return Made(
            identity: identity, memory: memory,
            staging: Staging(geometry: geometry, memory: memory.bytes, owner: memory))
    }

    /// Makes this the mount's staging from now on.
    func use(_ made: Made) -> Staging {
        memory = made.memory
        identity = made.identity
        return made.staging
    }

    /// Removes the staging of killed mounts, after its records before `next` have become durable in the log. Staging
    /// with later records is left and reported.
    func dropStaged(before next: RecordSequence) {
        for (tail, memory) in allStaged {
            if tail.highestSequence < next {
                memory.unlink()
            } else {
                leave(memory.path, "some of its operations are damaged", byteCount: memory.bytes.count)
            }
        }
        allStaged.removeAll()
    }

    /// Touches the staging file every 10 minutes, to show that its mount lives. How long a mount has been dead decides
    /// when its staging may be removed.
    func touch() {
        let now = monotonicNanoseconds()
        guard now - lastTouch > 600_000_000_000 else { return }
        lastTouch = now
        memory?.touch()
    }

    /// Whether somebody has removed the file's name, as session managers do at logout. A successor would not find the
    /// file.
    var hasVanished: Bool { memory.map { !$0.isLinked } ?? false }

    /// Removes the staging file, when it must not be found again: after a clean unmount, or a shut-down that discards
    /// it.
    func unlink() { memory?.unlink() }
}
