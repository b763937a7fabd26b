// A file mapped into memory, whose contents outlive the process: staging in /dev/shm, or in the store's directory.

import CLinux
import Glibc

/// A mapped file. The mapping ends with the object; the file stays until `unlink`.
final class SharedMemory: @unchecked Sendable {
    let path: HostString
    let bytes: UnsafeMutableRawBufferPointer
    /// The descriptor of a file that was made here. It holds the file's lock as long as the object lives. −1 for other
    /// files.
    private let descriptor: Int32

    /// Makes a new file with all of its blocks, readable and writable by its owner alone, and maps it.
    init(creating path: HostString, byteCount: Int) throws(Errno) {
        let descriptor = path.open(O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw Errno.last }
        func fail(_ error: Errno) -> Errno {
            try? path.unlink()
            Glibc.close(descriptor)
            return error
        }
        // With the lock, no other mount takes the file for abandoned.
        do throws(Errno) { try Self.lock(descriptor) } catch { throw fail(error) }
        // Without its blocks, a write to the memory could end in SIGBUS when the file system is full.
        let result = posix_fallocate(descriptor, 0, byteCount)
        guard result == 0 else { throw fail(Errno(result)) }
        let flags = MAP_SHARED | MAP_POPULATE
        guard let address = mmap(nil, byteCount, PROT_READ | PROT_WRITE, flags, descriptor, 0), address != MAP_FAILED
        else { throw fail(Errno.last) }
        self.descriptor = descriptor
        self.path = path
        bytes = UnsafeMutableRawBufferPointer(start: address, count: byteCount)
    }

    /// Locks a file that was just made. Another mount that looks for abandoned files may hold the lock for a moment.
    static func lock(_ descriptor: Int32, patienceMilliseconds: Int = 10_000) throws(Errno) {
        var left = patienceMilliseconds
        while linux_flock(descriptor, Int32(LINUX_LOCK_EXCLUSIVE | LINUX_LOCK_NONBLOCKING)) != 0 {
            // If the host has no locks, nobody else holds this one.
            guard errno == EWOULDBLOCK || errno == EINTR else { return }
            guard left > 0 else { throw .busy }
            left -= 1
            rest(nanoseconds: 1_000_000)
        }
    }

    /// Maps an existing file for reading. EPERM unless it is a regular file of this user that nobody else may access.
    init(reading path: HostString, byteCountLimit: Int) throws(Errno) {
        // Check before opening, too: a stranger's pipe, or a file with a lease, would keep this process waiting.
        var status = try path.linkStatus()
        guard Self.isOwn(status) else { throw .notPermitted }
        let descriptor = try RegularFile.open(path, O_RDONLY)
        defer { Glibc.close(descriptor) }
        guard fstat(descriptor, &status) == 0 else { throw Errno.last }
        guard Self.isOwn(status) else { throw .notPermitted }
        guard status.st_size > 0, status.st_size <= byteCountLimit else { throw .invalid }
        guard let address = mmap(nil, status.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0), address != MAP_FAILED
        else {
            throw Errno.last
        }
        self.descriptor = -1
        self.path = path
        bytes = UnsafeMutableRawBufferPointer(start: address, count: status.st_size)
    }

    private static func isOwn(_ status: stat) -> Bool {
        status.st_mode & S_IFMT == S_IFREG && status.st_uid == geteuid() && status.st_mode & 0o077 == 0
    }

    /// Whether this user's process made the file and died before it gave it a size.
    static func isEmptyOfThisUser(_ path: HostString) -> Bool {
        guard let status = try? path.linkStatus() else { return false }
        return status.st_mode & S_IFMT == S_IFREG && status.st_uid == geteuid() && status.st_size == 0
    }

    deinit {
        munmap(bytes.baseAddress, bytes.count)
        if descriptor >= 0 { Glibc.close(descriptor) }
    }

    /// Sets the file's time, to show that its mount lives.
    func touch() { if descriptor >= 0 { futimens(descriptor, nil) } }

    /// Whether the file still has its name.
    var isLinked: Bool { path.exists }

    func unlink() { try? path.unlink() }

    /// The names in a directory that begin with a prefix. None if the directory is missing or this user may not read
    /// it.
    static func names(in directory: HostString, prefix: HostString) throws(Errno) -> [HostString] {
        do throws(Errno) { return try directory.names().filter { $0.hasPrefix(prefix) } } catch {
            if [ENOENT, ENOTDIR, EACCES, EPERM].contains(error.rawValue) { return [] }
            throw error
        }
    }
}
