// Examines a store's directory before anything is opened in it, and locks it.

import CLinux
import Glibc

/// What is at a path that is to be a store.
enum StoreState: Equatable, Sendable {
    /// Nothing is there; the parent directory is not checked.
    case missing
    case empty
    /// Parts of a store, but no superblock.
    case incomplete
    /// A format was interrupted. Nobody can have stored anything yet.
    case unfinished
    case store
    /// Files that are no part of a store; the first few names.
    case foreign([HostString])
}

enum StoreDirectory {
    private static let lockName: HostString = "lock"
    private static let segmentsName: HostString = "segments"
    /// This mark is there while a store is being formatted: from before its first file until its superblock is durable.
    private static let markName: HostString = "formatting"

    /// The path of a typed store: mount(8) may pass "store:/path".
    static func path(ofSource source: HostString) -> HostString {
        source.hasPrefix("store:") ? source.dropFirst("store:".utf8.count) : source
    }

    /// Examines the directory. Throws if the path leads to anything else than a directory or nothing.
    static func state(_ path: HostString) throws(CommandError) -> StoreState {
        let status: stat
        do throws(Errno) { status = try path.status() } catch {
            if error == .noEntry { return .missing }
            throw CommandError("\(path): \(error)")
        }
        guard status.st_mode & S_IFMT == S_IFDIR else { throw CommandError("\(path): is not a directory") }
        let names: [HostString]
        do throws(Errno) { names = try path.names() } catch { throw CommandError("\(path): \(error)") }
        let isMarked = names.contains(markName)
        if names.contains(HostString(StoreFile.superblock.path)), !isMarked || hasSuperblock(path) { return .store }
        let strangers = names.filter { name in
            name != lockName && name != segmentsName && name != markName && !isStaging(name)
                && StoreFile(name) == nil
        }
        // A new file system has this directory; it does not count as foreign.
        let foreign = strangers.filter { $0 != "lost+found" }
        if !foreign.isEmpty { return .foreign(Array(foreign.prefix(3))) }
        if isMarked { return .unfinished }
        let segments = (try? path.appending(segmentsName).names()) ?? []
        let isBare = names.allSatisfy { $0 == lockName || $0 == segmentsName || $0 == "lost+found" } && segments.isEmpty
        return isBare ? .empty : .incomplete
    }

    /// Whether a name is that of a staging file.
    private static func isStaging(_ name: HostString) -> Bool {
        name == "staging"
            || name.hasPrefix("staging-") && UInt64(name.dropFirst("staging-".utf8.count).description, radix: 16) != nil
    }

    /// Whether at least one slot can be read.
    private static func hasSuperblock(_ path: HostString) -> Bool {
        let name = path.appending(HostString(StoreFile.superblock.path))
        guard let descriptor = try? RegularFile.open(name, O_RDONLY) else { return false }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: Superblock.slotByteCount)
        return Superblock.slotOffsets.contains { offset in
            guard pread(descriptor, &bytes, bytes.count, off_t(offset)) == bytes.count else { return false }
            return bytes.withUnsafeBytes { (try? Superblock(decoding: $0)) != nil }
        }
    }

    /// Sets the mark durably, before a store is made here.
    static func beginFormat(_ path: HostString) throws(Errno) {
        close(try RegularFile.open(path.appending(markName), O_WRONLY | O_CREAT, 0o600))
        try sync(path)
    }

    /// Removes the mark durably, after the store is whole and before anything is kept in it: a mark that came back
    /// would make a damaged store count as unfinished.
    static func endFormat(_ path: HostString) throws(Errno) {
        do throws(Errno) { try path.appending(markName).unlink() } catch {
            if error == .noEntry { return }
            throw error
        }
        try sync(path)
    }

    private static func sync(_ path: HostString) throws(Errno) {
        let descriptor = path.openDirectory()
        guard descriptor >= 0 else { throw .last }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw .last }
    }

    /// Removes the files of a store and, with `andDirectory`, the directory itself. Foreign files stay.
    static func clear(_ path: HostString, andDirectory: Bool) {
        let segments = path.appending(segmentsName)
        for name in (try? segments.names()) ?? [] where StoreFile(segmentsName.appending(name)) != nil {
            try? segments.appending(name).unlink()
        }
        try? segments.removeDirectory()
        for name in (try? path.names()) ?? [] where StoreFile(name) != nil { try? path.appending(name).unlink() }
        try? path.appending(markName).unlink()
        if andDirectory {
            try? path.appending(lockName).unlink()
            try? path.removeDirectory()
        }
    }

    /// The error for a directory that must not be touched.
    static func refusal(_ path: HostString, _ names: [HostString]) -> CommandError {
        let list = names.map { "'\($0)'" }.joined(separator: ", ")
        return CommandError(
            "\(path): is neither empty nor a Treering store (it holds \(list)); nothing was changed. "
                + "Name an empty or a new directory.")
    }
}

/// The lock of a store: an exclusive flock(2) on its file `lock`, which names the owner. It is released with this
/// object. After the end of the process the kernel releases it, once the process's I/O has drained.
final class StoreLock: @unchecked Sendable {
    /// For the device: its ring registers the descriptor, so that the lock outlives the requests of a killed process.
    let descriptor: Int32

    private static let patienceMilliseconds = 5000
    private static let pauseMilliseconds = 20

    /// Takes the lock. Waits some seconds for a process that is just ending.
    init(_ directory: HostString) throws(CommandError) {
        var waited = 0
        while true {
            let descriptor = try Self.open(directory)
            if linux_flock(descriptor, Int32(LINUX_LOCK_EXCLUSIVE | LINUX_LOCK_NONBLOCKING)) == 0 {
                if Self.isCurrent(descriptor, directory) {
                    self.descriptor = descriptor
                    break
                }
                close(descriptor)
                continue
            }
            let error = errno
            let owner = Self.owner(descriptor)
            close(descriptor)
            guard error == EWOULDBLOCK || error == EINTR else {
                throw CommandError("\(directory)/lock: cannot be locked: \(Errno(error))")
            }
            guard waited < Self.patienceMilliseconds else {
                throw CommandError("\(directory): is in use by \(owner); unmount it there first")
            }
            usleep(UInt32(Self.pauseMilliseconds * 1000))
            waited += Self.pauseMilliseconds
        }
        writeOwner()
    }

    /// Whether some process holds a store's lock at this moment.
    static func isHeld(_ directory: HostString) -> Bool {
        guard let descriptor = try? RegularFile.open("\(directory)/lock", O_RDONLY) else { return false }
        defer { close(descriptor) }
        return linux_flock(descriptor, Int32(LINUX_LOCK_EXCLUSIVE | LINUX_LOCK_NONBLOCKING)) != 0
            && errno == EWOULDBLOCK
    }

    private static func open(_ directory: HostString) throws(CommandError) -> Int32 {
        let path: HostString = "\(directory)/lock"
        do throws(Errno) {
            do throws(Errno) { return try RegularFile.open(path, O_RDWR | O_CREAT, 0o600) } catch {
                // On a read-only host an existing lock file will do, or else the directory itself.
                guard error == .readOnly else { throw error }
            }
            do throws(Errno) { return try RegularFile.open(path, O_RDONLY) } catch {
                guard error == .noEntry else { throw error }
            }
            let descriptor = directory.openDirectory()
            guard descriptor >= 0 else { throw .last }
            return descriptor
        } catch {
            if error == .invalid { throw CommandError("\(path): is not a regular file; remove it") }
            throw CommandError("\(path): cannot be opened: \(error)")
        }
    }

    /// Whether the locked file still is the store's lock file. It may have been removed while this process waited.
    private static func isCurrent(_ descriptor: Int32, _ directory: HostString) -> Bool {
        var held = stat()
        guard fstat(descriptor, &held) == 0 else { return false }
        if held.st_mode & 0o170000 == 0o040000 { return true }
        guard let named = try? HostString("\(directory)/lock").status() else { return false }
        return named.st_ino == held.st_ino && named.st_dev == held.st_dev
    }

    deinit { close(descriptor) }

    private func writeOwner() {
        let text = "\(getpid())\n"
        guard ftruncate(descriptor, 0) == 0 else { return }
        pwrite(descriptor, text, text.utf8.count, 0)
    }

    /// Whether the process that holds a store's lock has a supervisor.
    static func isSupervised(_ directory: HostString) -> Bool {
        let digits = (directory + "/lock").contents() ?? []
        guard let pid = Int32(String(decoding: digits.prefix { (48...57).contains($0) }, as: UTF8.self)),
            let status = HostString("/proc/\(pid)/status").contents()
        else { return false }
        let lines = String(decoding: status, as: UTF8.self).split(separator: "\n")
        let words = lines.first { $0.hasPrefix("PPid:") }?.split(separator: "\t") ?? []
        guard let parent = words.last.map(String.init) else { return false }
        let name = HostString("/proc/\(parent)/comm").contents() ?? []
        return String(decoding: name, as: UTF8.self).hasPrefix("treering-super")
    }

    private static func owner(_ descriptor: Int32) -> String {
        var bytes = [UInt8](repeating: 0, count: 32)
        let count = pread(descriptor, &bytes, bytes.count, 0)
        let digits = String(decoding: bytes.prefix(max(0, count)).prefix { (48...57).contains($0) }, as: UTF8.self)
        guard let pid = Int32(digits) else { return "another process" }
        let words = (HostString("/proc/\(pid)/cmdline").contents() ?? []).split(separator: 0)
        let command = words.map { HostString(bytes: $0).description }.joined(separator: " ")
        return command.isEmpty ? "process \(pid)" : "process \(pid) (\(command))"
    }
}
