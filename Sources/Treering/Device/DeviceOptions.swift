// What a person may choose about the device (`-o engine=`, `direct=`, `queue_depth=` and so on), with its bounds.

/// Whether aligned transfers pass by the page cache.
enum DirectMode: String, Sendable {
    /// Where the host accepts it; buffered elsewhere, without a word.
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
    /// Bound of files open at a time: those used last (DescriptorTable.swift). Fewer where the process may not have so many.
    var fileCapacity = 4096
    /// The ring's submissions are picked up by a kernel thread.
    var sqpoll = false
    /// Busy-waits for completions in the kernel. Not offered yet.
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
