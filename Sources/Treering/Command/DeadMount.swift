// Dead mounts: mounts whose serving process is gone. Every access to one gives ENOTCONN, "Transport endpoint is not
// connected".

import CLinux
import Glibc

enum DeadMount {
    /// How many dead mounts may lie on top of each other. Each failed try to mount may have added one.
    private static let depthLimit = 16

    /// Whether the kernel gives this error when nobody serves a mount, or while its process is being ended.
    static func isSign(_ error: Errno) -> Bool { error.rawValue == ENOTCONN || error.rawValue == ECONNABORTED }

    /// Whether the mount at this absolute path has no process any more.
    static func isDead(_ path: HostString) -> Bool {
        do throws(Errno) {
            _ = try path.status()
            // The kernel may answer attributes from its cache, but never the figures of a file system.
            _ = try path.fileSystemStatus()
            return false
        } catch { return isSign(error) }
    }

    /// The absolute path of a mount point that cannot be examined itself. Its parent is a real path without links and
    /// dots.
    static func path(_ typed: HostString) -> HostString? {
        var typed = typed
        // Symbolic links may lead there. The kernel follows 40 at most.
        for _ in 0..<40 {
            guard let path = try? pathOfLast(typed) else { return nil }
            guard let target = path.linkTarget() else { return path }
            typed = target.hasPrefix("/") ? target : "\(path)/../\(target)"
        }
        return nil
    }

    private static func pathOfLast(_ typed: HostString) throws(Errno) -> HostString {
        var trimmed = typed.withoutSlashes
        while trimmed.bytes.suffix(2) == Array("/.".utf8) {
            trimmed = HostString(bytes: trimmed.bytes.dropLast()).withoutSlashes
        }
        return try HostFile.realPathOfParent(trimmed)
    }

    /// Detaches Treering's dead mounts at this absolute path, except the lowest `leaving`. Gives how many it detached.
    /// Live mounts stay.
    @discardableResult
    static func clear(_ path: HostString, leaving: Int = 0) -> Int {
        var count = 0
        while count < depthLimit, isDead(path) {
            let mounts = MountTable.all().filter { $0.mountPoint == path }
            guard let top = mounts.last, top.isTreering, mounts.count > leaving, detach(path) else { break }
            count += 1
        }
        return count
    }

    /// Detaches a mount from the tree at once. Processes with open files there keep them.
    @discardableResult
    static func detach(_ path: HostString) -> Bool {
        if geteuid() == 0, (try? path.unmount(Int(MNT_DETACH))) != nil { return true }
        guard let program = HostFile.executable("fusermount3") else { return false }
        return program.run(["-u", "-q", "-z", "--", path])
    }

    /// Aborts a connection that nobody serves: everybody who waits for it gets an error.
    /// - Parameter device: the mount's device number. The mount must still exist: otherwise another may have the
    /// number.
    static func abort(_ device: String, at mountPoint: HostString) {
        let file = "\(device.split(separator: ":").last ?? "")/abort"
        if HostString("/sys/fs/fuse/connections/\(file)").overwrite("1") { return }
        // If that directory is not mounted, root has two other ways. The first also works for detached mounts.
        let directory = linux_mount_fusectl()
        defer { if directory >= 0 { close(directory) } }
        if directory >= 0, HostString("/proc/self/fd/\(directory)/\(file)").overwrite("1") { return }
        if MountTable.mount(at: mountPoint)?.device == device { try? mountPoint.unmount(Int(MNT_FORCE)) }
    }
}
