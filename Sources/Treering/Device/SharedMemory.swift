// A file mapped into memory, whose contents outlive the process: staging in /dev/shm, or in the store's directory.

import CLinux
import Glibc

/// A mapped file. The mapping ends with the object; the file stays until `unlink`.
final class SharedMemory: @unchecked Sendable {
    let path: String
    let bytes: UnsafeMutableRawBufferPointer
    /// Of a file that was made here: holds its lock for as long as the process lives. −1 else.
    private let descriptor: Int32

    /// Makes a new file with all of its blocks, readable and writable by its owner alone, and maps it.
    init(creating path: String, byteCount: Int) throws(Errno) {
        let descriptor = Glibc.open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw Errno.last }
        func fail(_ error: Errno) -> Errno {
            Glibc.unlink(path)
            Glibc.close(descriptor)
            return error
        }
        // Nobody takes it for abandoned.
        _ = linux_flock(descriptor, Int32(LINUX_LOCK_EXCLUSIVE | LINUX_LOCK_NONBLOCKING))
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

    /// Maps a file that is there, for reading. Refuses (EPERM) what is not a regular file of this user with mode 0600.
    init(reading path: String, byteCountLimit: Int) throws(Errno) {
        // Looked at before it is opened, too: a stranger's fifo, or file with a lease, would keep this process waiting.
        var status = stat()
        guard lstat(path, &status) == 0 else { throw Errno.last }
        guard Self.isOwn(status) else { throw .notPermitted }
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else { throw Errno.last }
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
    static func isEmptyOfThisUser(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG && status.st_uid == geteuid()
            && status.st_size == 0
    }

    deinit {
        munmap(bytes.baseAddress, bytes.count)
        if descriptor >= 0 { Glibc.close(descriptor) }
    }

    /// Notes in the file's time that its mount lives.
    func touch() { if descriptor >= 0 { futimens(descriptor, nil) } }

    /// Whether the file still has its name.
    var isLinked: Bool { access(path, F_OK) == 0 }

    func unlink() { Glibc.unlink(path) }

    /// The names in a directory that begin with a prefix; none in one that is not there, or not for this user.
    static func names(in directory: String, prefix: String) throws(Errno) -> [String] {
        guard let stream = opendir(directory) else {
            if [ENOENT, ENOTDIR, EACCES, EPERM].contains(errno) { return [] }
            throw .last
        }
        defer { closedir(stream) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                if errno != 0 { throw .last }
                break
            }
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                String(cString: UnsafeRawPointer(pointer).assumingMemoryBound(to: CChar.self))
            }
            if name.hasPrefix(prefix) { names.append(name) }
        }
        return names.sorted()
    }
}
