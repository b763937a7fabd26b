// Mounts that were left behind by a process that is gone: every access to one gives ENOTCONN, "Transport endpoint is not connected".

import CLinux
import Glibc

enum DeadMount {
    /// How many may lie upon each other: each failed attempt of somebody else's may have added one.
    private static let depthLimit = 16

    /// What the kernel answers when nobody serves a mount, and while its process is being taken down.
    static func isSign(_ error: Errno) -> Bool { error.rawValue == ENOTCONN || error.rawValue == ECONNABORTED }

    /// Whether what is mounted at this absolute path has no process any more.
    static func isDead(_ path: HostString) -> Bool {
        do throws(Errno) {
            _ = try path.status()
            // Attributes may be answered from the kernel's memory; the figures of a file system never are.
            _ = try path.fileSystemStatus()
            return false
        } catch { return isSign(error) }
    }

    /// The absolute path of a mount point that cannot be looked at itself, without links and dots in what leads to it.
    static func path(_ typed: HostString) -> HostString? {
        var typed = typed
        // A symbolic link may lead there; as many as the kernel follows.
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

    /// Takes away the dead mounts of ours at this absolute path but for so many; gives how many there were. What is live stays.
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

    /// Takes a mount off the tree at once; who has files open there keeps them.
    @discardableResult
    static func detach(_ path: HostString) -> Bool {
        if geteuid() == 0, (try? path.unmount(Int(MNT_DETACH))) != nil { return true }
        guard let program = HostFile.executable("fusermount3") else { return false }
        return program.run(["-u", "-q", "-z", "--", path])
    }

    /// Ends the kernel's side of a connection that nobody serves: everybody who waits for it gets an error.
    /// - Parameter device: what the kernel calls the mount, which must be there still: else it may be another's.
    static func abort(_ device: String, at mountPoint: HostString) {
        let file = "\(device.split(separator: ":").last ?? "")/abort"
        if HostString("/sys/fs/fuse/connections/\(file)").overwrite("1") { return }
        // Where that directory is not mounted, root has these ways; the first knows mounts that are off the tree, too.
        let directory = linux_mount_fusectl()
        defer { if directory >= 0 { close(directory) } }
        if directory >= 0, HostString("/proc/self/fd/\(directory)/\(file)").overwrite("1") { return }
        if MountTable.mount(at: mountPoint)?.device == device { try? mountPoint.unmount(Int(MNT_FORCE)) }
    }
}

/// Puts a new mount in the place of a dead one without a moment in which the directory below them can be had: a program would write
/// past the mount. The new one is mounted in a directory of its own, pushed below the dead one, and the dead one is taken away.
struct MountReplacement {
    /// Where to mount.
    let directory: HostString
    private let mountPoint: HostString
    private static let prefix: HostString = "/tmp/treering-mount."

    /// To be called by whoever holds the store's lock. Nil where there is nothing dead or no right to do it (other users than root have that moment, of a millisecond or so).
    init?(_ mountPoint: HostString, source: HostString) {
        guard geteuid() == 0, DeadMount.isDead(mountPoint) else { return nil }
        // Predecessors that died on the way: nobody else mounts this store.
        for mounted in MountTable.all() where mounted.isTreering && mounted.source == source {
            guard mounted.mountPoint.hasPrefix(Self.prefix), DeadMount.clear(mounted.mountPoint) > 0 else { continue }
            try? mounted.mountPoint.removeDirectory()
        }
        guard let made = Self.prefix.makeUniqueDirectory() else { return nil }
        directory = made
        self.mountPoint = mountPoint
    }

    /// The new one is mounted in `directory`: brings it to its place.
    func finish() throws(Errno) {
        defer { cancel() }
        DeadMount.clear(mountPoint, leaving: 1)
        if move(isBeneath: true) {
            // Once, and without a look: the new mount is not served yet, and would keep whoever asks it waiting.
            DeadMount.detach(mountPoint)
            return
        }
        // Before Linux 6.5 there is no below.
        DeadMount.clear(mountPoint)
        guard move(isBeneath: false) else { throw .last }
    }

    private func move(isBeneath: Bool) -> Bool {
        directory.withCString { from in mountPoint.withCString { linux_move_mount(from, $0, isBeneath ? 1 : 0) } } == 0
    }

    /// Takes away what was only on the way.
    func cancel() {
        try? directory.unmount(Int(MNT_DETACH))
        try? directory.removeDirectory()
    }
}
