// Removes staging files that nobody will ever need: their store is gone, or went on without them. Each mount removes
// those of its own user, some days after the mount that made them has ended. docs/decisions/028 has the rule.

import CLinux
import Glibc

/// What has become of the store that a staging file belongs to.
enum StagedStore: Equatable, Sendable {
    /// It is where it was, and may need the file.
    case present
    /// The store has gone on without the file, or another store is in its place.
    case beyond
    /// The store's directory is gone, but its parent directory is there: the store was removed or moved.
    case removed
    /// Its disk or its directory cannot be seen now. It may come back.
    case unseen

    private static let daySeconds: Int64 = 86400

    /// How long the file is kept after its mount has ended; nil where it is kept until the machine restarts.
    var keptSeconds: Int64? {
        switch self {
        case .present: nil
        case .beyond, .removed: Self.daySeconds
        // A disk that was unplugged may come back.
        case .unseen: 7 * Self.daySeconds
        }
    }

    /// Looks for the store of a staging file.
    init(of header: StagingHeader) {
        // Versions that did not write the store's path did not lock the file either. Their mount may still live.
        guard !header.path.isEmpty else {
            self = .present
            return
        }
        let path = HostString(bytes: header.path)
        let directory = path.openDirectory()
        let error = errno
        defer { if directory >= 0 { close(directory) } }
        var status = stat()
        if directory >= 0, fstat(directory, &status) == 0, Self.isOf(status, header) {
            self = Self.isBeyond(directory, header) ? .beyond : .present
            return
        }
        // Only these errors say that the directory is not there. Others say nothing about it.
        let isElsewhere = directory >= 0 || error == ENOENT || error == ENOTDIR
        let above = header.path.prefix(1 + (header.path.lastIndex(of: UInt8(ascii: "/")) ?? 0))
        let parent = try? HostString(bytes: above).status()
        self = isElsewhere && parent.map { UInt64($0.st_dev) } == header.device ? .removed : .unseen
    }

    private static func isOf(_ status: stat, _ header: StagingHeader) -> Bool {
        UInt64(status.st_dev) == header.device && UInt64(status.st_ino) == header.directory
    }

    /// Whether a staging file belongs to the store in a directory.
    static func isIn(_ directory: HostString, _ header: StagingHeader) -> Bool {
        (try? directory.status()).map { isOf($0, header) } ?? false
    }

    /// Whether the superblock of the store in a directory says that this staging is void.
    private static func isBeyond(_ directory: Int32, _ header: StagingHeader) -> Bool {
        guard let file = try? RegularFile.open(HostString(StoreFile.superblock.path), in: directory, O_RDONLY) else {
            return false
        }
        defer { close(file) }
        let block = AlignedBuffer(byteCount: Superblock.slotByteCount)
        var newest: Superblock?
        for offset in Superblock.slotOffsets
        where pread(file, block.bytes.baseAddress, block.bytes.count, off_t(offset)) == block.bytes.count {
            guard let found = try? Superblock(decoding: UnsafeRawBufferPointer(block.bytes)) else { continue }
            if found.generation > newest?.generation ?? 0 { newest = found }
        }
        guard let newest else { return false }
        return newest.uuid != header.uuid || header.epoch <= newest.staging.void
    }
}

/// Removes abandoned staging files.
enum AbandonedStaging {
    /// One mount looks at no more files than this. The next mount looks at the rest.
    private static let fileLimit = 4096

    /// Removes this user's abandoned staging files from a directory: that for shared memory, or a store's own.
    ///
    /// A file is removed only if it certainly is a staging file: a regular file of this user with mode 0600 and one
    /// link, with a whole header, under the name that the header gives it, and not locked by any mount.
    ///
    /// - Parameters:
    ///   - now: the time of day, in seconds.
    ///   - isStore: whether the directory is a store's own.
    ///   - uptime: for how long the machine has run, in seconds. No file counts as older, whatever the clock says.
    /// - Returns: the paths of the files that were removed, with their sizes.
    static func remove(
        in directory: HostString = HostStaging.sharedDirectory, isStore: Bool = false,
        now: Int64 = Timestamp.now().seconds,
        uptime: Int64 = Int64(monotonicNanoseconds() / 1_000_000_000)
    ) -> [(path: HostString, byteCount: Int)] {
        let prefix = isStore ? HostStaging.namePrefixInStore : HostStaging.namePrefix
        guard let names = try? SharedMemory.names(in: directory, prefix: prefix) else { return [] }
        return names.prefix(fileLimit).compactMap { name in
            let path: HostString = "\(directory)/\(name)"
            let byteCount = remove(path, now, uptime) { header in
                guard isStore else {
                    return name == "\(prefix)\(header.uuid.description)-\(header.name)" ? StagedStore(of: header) : nil
                }
                guard name == "\(prefix)\(header.name)" else { return nil }
                // A copied store holds a copy of the file, which belongs to the original.
                return StagedStore.isIn(directory, header) ? StagedStore(of: header) : .unseen
            }
            return byteCount.map { (path, $0) }
        }
    }

    private static func remove(
        _ path: HostString, _ now: Int64, _ uptime: Int64, _ store: (StagingHeader) -> StagedStore?
    ) -> Int? {
        guard let before = try? path.linkStatus(), isOwn(before), let file = try? RegularFile.open(path, O_RDONLY)
        else { return nil }
        // Closing the descriptor gives up the lock.
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0, isOwn(status), status.st_ino == before.st_ino,
            linux_flock(file, Int32(LINUX_LOCK_EXCLUSIVE | LINUX_LOCK_NONBLOCKING)) == 0,
            let header = header(file, Int(status.st_size)), header.owner == UInt64(geteuid())
        else { return nil }
        let age = min(now - Int64(status.st_mtim.tv_sec), uptime)
        guard let kept = store(header)?.keptSeconds, age > kept else { return nil }
        guard let after = try? path.linkStatus(), after.st_ino == status.st_ino, after.st_dev == status.st_dev else {
            return nil
        }
        do throws(Errno) { try path.unlink() } catch { return nil }
        return Int(status.st_size)
    }

    private static func isOwn(_ status: stat) -> Bool {
        status.st_mode & S_IFMT == S_IFREG && status.st_uid == geteuid() && status.st_mode & 0o7777 == 0o600
            && status.st_nlink == 1
    }

    private static func header(_ file: Int32, _ byteCount: Int) -> StagingHeader? {
        let bytes = AlignedBuffer(byteCount: StagingLayout.headerByteCount)
        guard pread(file, bytes.bytes.baseAddress, bytes.bytes.count, 0) == bytes.bytes.count else { return nil }
        return StagingHeader(decodingHeader: UnsafeRawBufferPointer(bytes.bytes), fileByteCount: byteCount)
    }
}
