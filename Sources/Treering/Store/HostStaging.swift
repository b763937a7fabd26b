// Where staging lies on a real machine: a file in /dev/shm, or in the store's directory where that cannot be; and what dead
// mounts of the same store left there.

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

    /// Random bytes from the kernel.
    static func randomWord() -> UInt64 {
        var generator = SystemRandomNumberGenerator()
        return generator.next() | 1
    }

    let directory: HostString
    private let uuid: StoreUUID
    private let device: UInt64
    private let inode: UInt64
    private let log: @Sendable (String) -> Void
    /// Says what somebody may lose.
    let warn: @Sendable (String) -> Void
    /// When the staging file was told last that its mount lives.
    private var lastTouch: UInt64 = 0
    private(set) var memory: SharedMemory?
    private(set) var identity: UInt64 = 0
    /// What killed mounts left, and where.
    private(set) var allStaged: [(tail: StagedRecords, memory: SharedMemory)] = []
    /// What of it is not replayed, or cannot be read.
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

    /// Finds what killed mounts of this store left on this machine since it booted. What is another's is left and reported; what the system
    /// does not give now (memory, descriptors) it may give the next time, and a mount would lose what it holds.
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
            // The header is written before anything else: without one, nothing was acknowledged.
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

    /// What is replayed of what was found. The rest stays where it is, and is reported.
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

    /// Why a file in a directory that everybody may write to is not ours, or not there any more.
    private static func isStrange(_ error: Errno) -> Bool {
        [EPERM, EACCES, ELOOP, EINVAL, ENOENT, ENXIO].contains(error.rawValue)
    }

    /// The headers of what dead mounts of a store left on this machine since it booted.
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

    /// A staging file that was made and is not used yet.
    struct Made {
        let identity: UInt64
        let memory: SharedMemory
        let staging: Staging
    }

    /// Makes new staging for a mount: in shared memory, or, where that cannot be or `inStore`, a file in the store.
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

    /// From now on this is the mount's staging.
    func use(_ made: Made) -> Staging {
        memory = made.memory
        identity = made.identity
        return made.staging
    }

    /// What killed mounts left is durable in the log now, up to the record with the sequence `next`.
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

    /// Notes from time to time that the mount lives: how long it has been dead decides when its staging may go.
    func touch() {
        let now = monotonicNanoseconds()
        guard now - lastTouch > 600_000_000_000 else { return }
        lastTouch = now
        memory?.touch()
    }

    /// Somebody removed the file's name (session managers do that at logout): a successor would not find it.
    var hasVanished: Bool { memory.map { !$0.isLinked } ?? false }

    /// The mount has ended cleanly.
    func unlink() { memory?.unlink() }
}
