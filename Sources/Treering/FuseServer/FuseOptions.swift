// What a person may choose about a mount's FUSE side.

/// Whether the kernel tells of opening and closing files.
enum OpenMode: String, Sendable, CaseIterable {
    /// It does not: open and close cost nothing.
    case none
    /// It does: two more messages for each file opened.
    case handle
}

/// How requests come in.
enum TransportChoice: String, Sendable, CaseIterable {
    case auto
    case classic
    case uring
}

/// Options of the FUSE session and its transport.
struct FuseOptions: Sendable {
    var transport = TransportChoice.auto
    /// Threads that read requests, 1 to 64.
    var readerCount = 4
    /// Requests being handled or waiting, at most.
    var inflightLimit = 1024
    var open = OpenMode.none
    var writebackCache = false
    /// Asynchronous direct reads and writes run while their thread does something else. Linux does not drop pages that
    /// others have cached during such a write (docs/posix.md).
    var asyncDirect = true
    /// POSIX access control lists. The kernel then checks permissions whatever else is said.
    var accessLists = true
    /// Mounts with ids mapped (mount_setattr(2)). The kernel takes it only where it checks permissions.
    var idmappedMounts = true
    /// What /proc/mounts shows as the source.
    var fsname: HostString = ""
    /// Options for the kernel and libfuse as they are ("ro", "allow_other", "noexec").
    var mountFlags: [String] = []
    /// Flags of mount(2) that libfuse does not know. Root sets them once the store is mounted.
    var mountBits: UInt = 0
    /// libfuse logs each request and reply.
    var isDebug = false
}
