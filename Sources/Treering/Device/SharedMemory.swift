// A file mapped into memory, whose contents outlive the process: staging in /dev/shm, or in the store's directory.

import CLinux
import Glibc

/// A mapped file. The mapping ends with the object; the file stays until `unlink`.
final class SharedMemory: @unchecked Sendable {
    let path: HostString
    let bytes: UnsafeMutableRawBufferPointer
    /// Of a file that was made here: holds its lock for as long as the process lives. −1 else.
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
        // Nobody takes it for abandoned.
        do throws(Errno) { try Self.lock(descriptor) } catch { throw fail(error) }
        // Sparse memory would end in SIGBUS when the file system below has no room.
        let result = posix_fallocate(descriptor, 0, byteCount)
        guard result == 0 else { throw fail(Errno(result)) }
        let flags = MAP_SHARED | MAP_POPULATE
        guard let address = mmap(nil, byteCount, PROT_READ | PROT_WRITE, flags, descriptor, 0), address != MAP_FAILED
        else { throw fail(Errno.last) }
        self.descriptor = descriptor
        self.path = path
        bytes = UnsafeMutableRawBufferPointer(start: address, count: byteCount)
    }

    /// Locks a file that was just made. Another mount of this user that looks for abandoned files may hold the lock, for as long as it takes
    /// to see that there is nothing in it.
    static func lock(_ descriptor: Int32, patienceMilliseconds: Int = 10_000) throws(Errno) {
        var left = patienceMilliseconds
        while linux_flock(descriptor, Int32(LINUX_LOCK_EXCLUSIVE | LINUX_LOCK_NONBLOCKING)) != 0 {
            // Where a host has no locks, nobody else has this one.
            guard errno == EWOULDBLOCK || errno == EINTR else { return }
            guard left > 0 else { throw .busy }
            left -= 1
            rest(nanoseconds: 1_000_000)
        }
    }

    /// Maps a file that is there, for reading. Refuses (EPERM) what is not a regular file of this user with mode 0600.
    init(reading path: HostString, byteCountLimit: Int) throws(Errno) {
        // Looked at before it is opened, too: a stranger's fifo, or file with a lease, would keep this process waiting.
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

    /// Made, but not allocated any more: its process died in between.
    static func isEmptyOfThisUser(_ path: HostString) -> Bool {
        guard let status = try? path.linkStatus() else { return false }
        return status.st_mode & S_IFMT == S_IFREG && status.st_uid == geteuid() && status.st_size == 0
    }

    deinit {
        munmap(bytes.baseAddress, bytes.count)
        if descriptor >= 0 { Glibc.close(descriptor) }
    }

    /// Notes in the file's time that its mount lives.
    func touch() { if descriptor >= 0 { futimens(descriptor, nil) } }

    /// Whether the file still has its name.
    var isLinked: Bool { path.exists }

    func unlink() { try? path.unlink() }

    /// The names in a directory that begin with a prefix; none in one that is not there, or not for this user.
    static func names(in directory: HostString, prefix: HostString) throws(Errno) -> [HostString] {
        do throws(Errno) { return try directory.names().filter { $0.hasPrefix(prefix) } } catch {
            if [ENOENT, ENOTDIR, EACCES, EPERM].contains(error.rawValue) { return [] }
            throw error
        }
    }
}
