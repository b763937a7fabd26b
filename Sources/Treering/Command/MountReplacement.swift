// Replacing a dead mount by a new one.

import CLinux
import Glibc

/// Replaces a dead mount by a new one. At no moment is the directory below them visible: a program would write into it,
/// past the mount. So the new mount is made in a directory of its own, moved beneath the dead one, and the dead one is
/// detached.
struct MountReplacement {
    /// Where the caller must mount.
    let directory: HostString
    private let mountPoint: HostString
    private static let prefix: HostString = "/tmp/treering-mount."

    /// The caller must hold the store's lock. Nil if there is no dead mount, or no right to do this: for users other
    /// than root the directory is visible for about a millisecond.
    init?(_ mountPoint: HostString, source: HostString) {
        guard geteuid() == 0, DeadMount.isDead(mountPoint) else { return nil }
        // Remove what a predecessor left that died half-way. Nobody else can mount this store.
        for mounted in MountTable.all() where mounted.isTreering && mounted.source == source {
            guard mounted.mountPoint.hasPrefix(Self.prefix), DeadMount.clear(mounted.mountPoint) > 0 else { continue }
            try? mounted.mountPoint.removeDirectory()
        }
        guard let made = Self.prefix.makeUniqueDirectory() else { return nil }
        directory = made
        self.mountPoint = mountPoint
    }

    /// Moves the new mount from `directory` to its place.
    func finish() throws(Errno) {
        defer { cancel() }
        DeadMount.clear(mountPoint, leaving: 1)
        if move(isBeneath: true) {
            // Detach only once, and do not look: nobody serves the new mount yet, so a look would wait.
            DeadMount.detach(mountPoint)
            return
        }
        // Linux before 6.5 cannot move a mount beneath another.
        DeadMount.clear(mountPoint)
        guard move(isBeneath: false) else { throw .last }
    }

    private func move(isBeneath: Bool) -> Bool {
        directory.withCString { from in mountPoint.withCString { linux_move_mount(from, $0, isBeneath ? 1 : 0) } } == 0
    }

    /// Removes the temporary mount and its directory.
    func cancel() {
        try? directory.unmount(Int(MNT_DETACH))
        try? directory.removeDirectory()
    }
}
