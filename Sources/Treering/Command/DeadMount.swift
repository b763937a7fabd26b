// Mounts that were left behind by a process that is gone: every access to one gives ENOTCONN, "Transport endpoint is not connected".

import CLinux
import Glibc

enum DeadMount {
    /// How many may lie upon each other: each failed attempt of somebody else's may have added one.
    private static let depthLimit = 16

    /// What the kernel answers when nobody serves a mount, and while its process is being taken down.
    static func isSign(_ error: Errno) -> Bool { error.rawValue == ENOTCONN || error.rawValue == ECONNABORTED }

    /// Whether what is mounted at this absolute path has no process any more.
    static func isDead(_ path: String) -> Bool {
        var status = stat()
        // Attributes may be answered from the kernel's memory; the figures of a file system never are.
        var figures = statvfs()
        if stat(path, &status) != 0 { return isSign(.last) }
        return statvfs(path, &figures) != 0 && isSign(.last)
    }

    /// The absolute path of a mount point that cannot be looked at itself, without links and dots in what leads to it.
    static func path(_ typed: String) -> String? {
        var typed = typed
        // A symbolic link may lead there; as many as the kernel follows.
        for _ in 0..<40 {
            guard let path = try? pathOfLast(typed) else { return nil }
            var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
            let count = readlink(path, &bytes, bytes.count)
            if count <= 0 { return path }
            let target = String(decoding: bytes.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
            typed = target.hasPrefix("/") ? target : path + "/../" + target
        }
        return nil
    }

    private static func pathOfLast(_ typed: String) throws(Errno) -> String {
        var trimmed = Substring(typed)
        while trimmed.count > 1 && (trimmed.hasSuffix("/") || trimmed.hasSuffix("/.")) { trimmed.removeLast() }
        guard let slash = trimmed.lastIndex(of: "/") else { return try HostFile.realPath(".") + "/" + trimmed }
        let parent = try HostFile.realPath(slash == trimmed.startIndex ? "/" : String(trimmed[..<slash]))
        return (parent == "/" ? "" : parent) + trimmed[slash...]
    }

    /// Takes away the dead mounts of ours at this absolute path but for so many; gives how many there were. What lives stays.
    @discardableResult
    static func clear(_ path: String, leaving: Int = 0) -> Int {
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
    static func detach(_ path: String) -> Bool {
        if geteuid() == 0, umount2(path, Int32(MNT_DETACH)) == 0 { return true }
        guard let program = HostFile.executable("fusermount3") else { return false }
        return HostFile.run(program, ["-u", "-q", "-z", "--", path])
    }

    /// Ends the kernel's side of a connection that nobody serves: everybody who waits for it gets an error.
    /// - Parameter device: what the kernel calls the mount, which must be there still: else it may be another's.
    static func abort(_ device: String, at mountPoint: String) {
        let file = "\(device.split(separator: ":").last ?? "")/abort"
        if HostFile.write("1", to: "/sys/fs/fuse/connections/\(file)") { return }
        // Where that directory is not mounted, root has these ways; the first knows mounts that are off the tree, too.
        let directory = linux_mount_fusectl()
        defer { if directory >= 0 { close(directory) } }
        if directory >= 0, HostFile.write("1", to: "/proc/self/fd/\(directory)/\(file)") { return }
        if MountTable.mount(at: mountPoint)?.device == device { umount2(mountPoint, Int32(MNT_FORCE)) }
    }
}

/// Puts a new mount in the place of a dead one without a moment in which the directory below them can be had: a program would write
/// past the mount. The new one is mounted in a directory of its own, pushed below the dead one, and the dead one is taken away.
struct MountReplacement {
    /// Where to mount.
    let directory: String
    private let mountPoint: String
    private static let prefix = "/tmp/treering-mount."

    /// To be called by whoever holds the store's lock. Nil where there is nothing dead or no right to do it (other users than root have that moment, of a millisecond or so).
    init?(_ mountPoint: String, source: String) {
        guard geteuid() == 0, DeadMount.isDead(mountPoint) else { return nil }
        // Predecessors that died on the way: nobody else mounts this store.
        for mounted in MountTable.all() where mounted.isTreering && mounted.source == source {
            guard mounted.mountPoint.hasPrefix(Self.prefix), DeadMount.clear(mounted.mountPoint) > 0 else { continue }
            rmdir(mounted.mountPoint)
        }
        var template = Array((Self.prefix + "XXXXXX").utf8CString)
        guard let made = mkdtemp(&template) else { return nil }
        directory = String(cString: made)
        self.mountPoint = mountPoint
    }

    /// The new one is mounted in `directory`: brings it to its place.
    func finish() throws(Errno) {
        defer { cancel() }
        DeadMount.clear(mountPoint, leaving: 1)
        if linux_move_mount(directory, mountPoint, 1) == 0 {
            // Once, and without a look: the new mount is not served yet, and would keep whoever asks it waiting.
            DeadMount.detach(mountPoint)
            return
        }
        // Before Linux 6.5 there is no below.
        DeadMount.clear(mountPoint)
        guard linux_move_mount(directory, mountPoint, 0) == 0 else { throw .last }
    }

    /// Takes away what was only on the way.
    func cancel() {
        umount2(directory, Int32(MNT_DETACH))
        rmdir(directory)
    }
}
