// The options of the device that a person may choose (`-o engine=`, `direct=`, `queue_depth=` and so on), with their
// bounds.

/// Whether aligned transfers bypass the page cache.
enum DirectMode: String, Sendable {
    /// Direct where the host accepts it, otherwise buffered without a message.
    case auto
    /// Required: a host that refuses is an error.
    case on
    case off
}

/// How a store's files are reached.
struct DeviceOptions: Sendable {
    /// Open everything for reading only; nothing is created, written or locked.
    var readOnly = false
    var direct = DirectMode.auto
    /// Bound of operations in flight (ring: slots; posix: queue), 1 to 4096.
    var queueDepth = 256
    /// Threads of the posix engine, 1 to 64. They start with the first `submit`.
    var workerCount = 4
    /// How many files may be open at a time. Fewer if the limit of the process is lower.
    var fileCapacity = 4096
    /// Whether a kernel thread picks up the ring's submissions (SQPOLL).
    var sqpoll = false
    /// Whether to busy-wait for completions in the kernel (IOPOLL). Not offered yet.
    var iopoll = false
    /// The store's locked `lock` file. A ring registers it, so that its open file description, and with it the flock,
    /// outlives a killed process until the kernel has drained the process's requests. It stays the caller's to close.
    var lockDescriptor: Int32?

    /// The alignment (of offsets, lengths and addresses) at which direct I/O is tried.
    static let directAlignment = 4096
}

/// Why a device could not be had, in words for a person: what happened, to what, and what to do.
struct DeviceError: Error, Sendable, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
