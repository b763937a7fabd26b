// Finds out whether the files of a directory can be read and written without the page cache: asks statx if the host
// tells, and tries it on a nameless file if that is possible.

import CLinux
import Glibc

/// What the host said about direct I/O.
struct DirectSupport: Sendable {
    let isUsable: Bool
    /// For a person: why it is not usable, or what was found.
    let explanation: String

    static let switchedOff = DirectSupport(false, "switched off (direct=off)")

    private init(_ isUsable: Bool, _ explanation: String) {
        self.isUsable = isUsable
        self.explanation = explanation
    }

    /// Asks the host, then writes and reads one block of a nameless file. A read-only store cannot be tried and is
    /// assumed to have direct I/O; a transfer that the host then refuses goes through the page cache.
    init(_ directory: Int32, isReadOnly: Bool) {
        if isReadOnly {
            self.init(true, "not tried on a read-only store")
            return
        }
        let descriptor = Self.namelessFile(directory)
        guard descriptor >= 0 else {
            self.init(false, "a file cannot be opened with O_DIRECT: \(Errno.last)")
            return
        }
        defer { Glibc.close(descriptor) }
        var memory: UInt32 = 0
        var offset: UInt32 = 0
        let isTold = linux_direct_alignment(descriptor, &memory, &offset) == 0
        let limit = DeviceOptions.directAlignment
        if isTold && (memory == 0 || offset == 0) {
            self.init(false, "the host says that it has none")
        } else if isTold && (Int(memory) > limit || Int(offset) > limit) {
            self.init(
                false,
                "the host needs an alignment of \(max(memory, offset)) bytes, more than \(limit)")
        } else if let error = Self.trial(descriptor) {
            self.init(false, "a trial failed: \(error)")
        } else if isTold {
            self.init(true, "memory aligned to \(memory), offsets to \(offset) bytes")
        } else {
            self.init(true, "works with blocks of \(limit) bytes")
        }
    }

    private static func namelessFile(_ directory: Int32) -> Int32 {
        let descriptor = openat(directory, ".", O_RDWR | O_CLOEXEC | linux_o_tmpfile | linux_o_direct, 0o600)
        if descriptor >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT) { return descriptor }
        // An old or unusual host without O_TMPFILE.
        let name = ".probe-\(getpid())"
        let named = openat(
            directory, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW | linux_o_direct, 0o600)
        let error = errno
        unlinkat(directory, name, 0)
        errno = error
        return named
    }

    private static func trial(_ descriptor: Int32) -> Errno? {
        let count = DeviceOptions.directAlignment
        let memory = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: count)
        defer { memory.deallocate() }
        memory.initializeMemory(as: UInt8.self, repeating: 0x5A, count: count)
        guard pwrite(descriptor, memory, count, 0) == count else { return errno == 0 ? .ioError : .last }
        guard pread(descriptor, memory, count, 0) == count else { return errno == 0 ? .ioError : .last }
        return nil
    }
}
