// On whose behalf an operation runs.

/// The identity on whose behalf an operation runs.
struct Caller: Sendable {
    var uid: UInt32
    var gid: UInt32
    var umask: UInt32
    /// Groups and privileges. The kernel does not send them, so an operation that needs them throws `Blocker.identity`.
    var identity: Identity?

    /// Whether S_ISGID may stay on an inode: on a file that its group cannot execute, and at a change of mode. Source:
    /// the kernel's setattr_should_drop_sgid.
    func keepsSetGroupID(of inode: InodeRecord) throws(Stop) -> Bool {
        guard let identity else { throw .blocked(.identity) }
        return identity.keepsSetGroupID || gid == inode.gid || identity.groups.contains(inode.gid)
    }
}

/// Groups and privileges of a process.
struct Identity: Sendable {
    /// The fsgid and the supplementary groups.
    var groups: Set<UInt32> = []
    /// CAP_FSETID.
    var keepsSetGroupID = false
    /// CAP_SYS_ADMIN.
    var isAdministrator = false

    static let privileged = Identity(keepsSetGroupID: true, isAdministrator: true)
}
