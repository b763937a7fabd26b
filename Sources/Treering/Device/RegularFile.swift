// The one way to open a file of a store. What lies there may be anything: a pipe would keep whoever opens it waiting, a device may do
// things, a link leads elsewhere. Only regular files are files of a store.

import CLinux
import Glibc

enum RegularFile {
    /// How often, and after which pause, a file is asked for again that another process or an NFS client is just giving up its lease of.
    private static let leaseTries = 200
    private static let leasePauseMicroseconds: UInt32 = 10_000

    /// openat(2), close-on-exec, without following a link. EINVAL where the name is not that of a regular file.
    static func open(
        _ name: HostString, in directory: Int32 = AT_FDCWD, _ flags: Int32, _ mode: mode_t = 0
    ) throws(Errno) -> Int32 {
        // Opening a device may do something already, so what is there is looked at first; and again, since it may be exchanged meanwhile.
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
        // A ring takes the flag as a wish never to wait.
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) & ~O_NONBLOCK)
        return descriptor
    }

    /// Takes away what is no regular file and stands where one is to be made. A directory only where it is empty.
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
