// The only way to open a file of a store. Only regular files belong to a store: opening a pipe could wait for ever,
// opening a device could have effects, and a link leads elsewhere.

import CLinux
import Glibc

enum RegularFile {
    /// How often, and after which pause, opening is tried again while another process or an NFS client gives up its
    /// lease of the file.
    private static let leaseTries = 200
    private static let leasePauseMicroseconds: UInt32 = 10_000

    /// openat(2), close-on-exec, without following a link. EINVAL where the name is not that of a regular file.
    static func open(
        _ name: HostString, in directory: Int32 = AT_FDCWD, _ flags: Int32, _ mode: mode_t = 0
    ) throws(Errno) -> Int32 {
        // Opening a device may have effects, so check the type first. Check again after opening, since the file may be
        // exchanged meanwhile.
        var status = stat()
        if name.withCString({ fstatat(directory, $0, &status, AT_SYMLINK_NOFOLLOW) }) == 0, !isRegular(status) {
            throw .invalid
        }
        let access = flags | O_CLOEXEC | O_NOFOLLOW
        var descriptor: Int32 = -1
        for _ in 0..<leaseTries {
            descriptor = name.withCString { openat(directory, $0, access | O_NONBLOCK, mode) }
            if descriptor >= 0 || errno != EWOULDBLOCK { break }
            usleep(leasePauseMicroseconds)
        }
        guard descriptor >= 0 else { throw errno == ELOOP || errno == ENXIO ? .invalid : .last }
        guard fstat(descriptor, &status) == 0, isRegular(status) else {
            close(descriptor)
            throw .invalid
        }
        // With O_NONBLOCK a ring would never wait for the file.
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) & ~O_NONBLOCK)
        return descriptor
    }

    /// Removes anything that is not a regular file from a place where one is to be made. A directory only if it is
    /// empty.
    static func makeWay(_ name: HostString, in directory: Int32) {
        var status = stat()
        guard name.withCString({ fstatat(directory, $0, &status, AT_SYMLINK_NOFOLLOW) }) == 0, !isRegular(status) else {
            return
        }
        let flags = status.st_mode & S_IFMT == S_IFDIR ? AT_REMOVEDIR : 0
        _ = name.withCString { unlinkat(directory, $0, flags) }
    }

    private static func isRegular(_ status: stat) -> Bool { status.st_mode & S_IFMT == S_IFREG }
}
