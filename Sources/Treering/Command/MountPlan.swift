// Checks everything that can be wrong with a mount, before anything is created or changed.

import Glibc

/// A store and a mount point that fit together.
struct MountPlan: Sendable {
    /// As typed, to be shown in /proc/mounts.
    var source: HostString
    /// Real path; the last part may not exist yet.
    var store: HostString
    var state: StoreState
    /// Real path.
    var mountPoint: HostString

    init(source: HostString, mountPoint typed: HostString, isReadOnly: Bool) throws(CommandError) {
        self.source = source
        let path = StoreDirectory.path(ofSource: source)
        mountPoint = try Self.checkedMountPoint(typed)
        do throws(Errno) {
            store = try HostFile.realPathOfNew(path)
        } catch {
            throw CommandError("\(path): \(error)" + (error == .noEntry ? " (its parent directory must exist)" : ""))
        }
        state = try StoreDirectory.state(store)
        if case .foreign(let names) = state { throw StoreDirectory.refusal(path, names) }
        if state == .incomplete {
            throw CommandError(
                "\(path): holds parts of a store but no superblock, and is left as it is. "
                    + "`treering check --repair \(path)` makes a new one from them. If formatting was interrupted, run `treering format --force \(path)`; that deletes what is there."
            )
        }
        if isReadOnly && state != .store { throw CommandError("\(path): holds no store, and -o ro does not make one") }
        try checkNesting(path, typed)
        try checkNotMounted(typed)
        try Self.checkFuse()
    }

    private static func checkedMountPoint(_ typed: HostString) throws(CommandError) -> HostString {
        let real: HostString
        do throws(Errno) {
            real = try typed.realPath()
        } catch {
            if error == .noEntry {
                throw CommandError("\(typed): there is no such directory to mount on; make it with `mkdir -p`")
            }
            return try deadMountPoint(typed, error)
        }
        let status: stat
        do throws(Errno) { status = try real.status() } catch { return try deadMountPoint(typed, error) }
        guard status.st_mode & S_IFMT == S_IFDIR else {
            throw CommandError("\(typed): is not a directory, so nothing can be mounted on it")
        }
        return real
    }

    /// A dead mount of Treering is no obstacle: the new mount will replace it.
    private static func deadMountPoint(_ typed: HostString, _ error: Errno) throws(CommandError) -> HostString {
        guard DeadMount.isSign(error), let path = DeadMount.path(typed), let mounted = MountTable.mount(at: path) else {
            throw CommandError("\(typed): \(error)")
        }
        guard mounted.isTreering else {
            throw CommandError(
                "\(typed): a \(mounted.type) file system whose process is gone is mounted there; "
                    + "run `fusermount3 -u \(typed)`")
        }
        return path
    }

    private func checkNesting(_ path: HostString, _ typed: HostString) throws(CommandError) {
        if HostFile.isPath(mountPoint, within: store) {
            throw CommandError("\(typed): lies in the store \(path); the mount point must be outside of it")
        }
        if HostFile.isPath(store, within: mountPoint) {
            throw CommandError(
                "\(path): lies in the mount point \(typed), which would hide it; the store must be outside of it")
        }
    }

    private func checkNotMounted(_ typed: HostString) throws(CommandError) {
        if let mounted = MountTable.mount(at: mountPoint), mounted.isTreering, !DeadMount.isDead(mountPoint) {
            throw CommandError(
                "\(typed): \(mounted.source) is mounted there already; run `fusermount3 -u \(typed)` first",
                exitCode: 32)
        }
    }

    private static func checkFuse() throws(CommandError) {
        let descriptor = HostString("/dev/fuse").open(O_RDWR)
        guard descriptor >= 0 else {
            switch errno {
            case ENOENT, ENODEV, ENXIO:
                throw CommandError(
                    "/dev/fuse: is not there; load the module with `modprobe fuse` (in a container, pass the device in)"
                )
            case EACCES, EPERM:
                throw CommandError(
                    "/dev/fuse: may not be opened by this user; root can allow it with `chmod 666 /dev/fuse`")
            default: throw CommandError("/dev/fuse: \(Errno.last)")
            }
        }
        close(descriptor)
        if geteuid() != 0 && HostFile.executable("fusermount3") == nil {
            throw CommandError(
                "fusermount3: is not installed, and only root can mount without it; run `apt-get install fuse3`")
        }
    }
}
