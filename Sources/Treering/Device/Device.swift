// The one seam for every byte that reaches a disk: data and control. SegmentLog and Index talk to this protocol;
// ring, posix and simulated devices implement it. Nothing here knows what the bytes mean.

/// An open file of a device: an index into its table of files.
struct DeviceFile: Hashable, Sendable {
    let rawValue: Int32
}

/// The room on the host file system below a store, in bytes.
struct HostSpace: Sendable {
    var totalByteCount: UInt64
    var availableByteCount: UInt64
}

/// Access to a store's files. Any thread may make any call.
///
/// Engines retry EINTR and EAGAIN and finish short reads and writes themselves.
protocol Device: AnyObject, Sendable {
    /// Names the engine for logs and `stats` ("ring", "posix", "simulated").
    var engineName: String { get }

    /// Sets the handler of completions, once, before the first `submit`. It is called from any thread, and the device
    /// holds no lock meanwhile. It may submit again.
    func onCompletion(_ handler: @escaping @Sendable (Completion) -> Void)

    /// Hands over operations; returns without waiting for them. Each completes exactly once, in any order.
    /// Waits only when the device's own bounded queue is full.
    func submit(_ submissions: borrowing [Submission])

    /// Does one operation on the calling thread and waits for it; the handler is not told.
    func perform(_ submission: Submission) -> Completion

    /// For an engine without threads of its own (the simulated one): completes one submission on the calling thread.
    /// False when the caller should wait for a completion instead.
    func makeProgress() -> Bool

    /// Completes what was submitted, then ends threads and closes files. No call may follow.
    func shutDown()

    // Control. These wait, and are called by mount, unmount and the background thread, never under a lock.

    /// The store's files by name. Strangers are left out.
    func list() throws(Errno) -> [StoreFile]
    /// Opens a file; `create` makes a new empty one and fails with EEXIST where there is one already.
    func open(_ file: StoreFile, create: Bool) throws(Errno) -> DeviceFile
    /// Closes a file with nothing in flight.
    func close(_ file: DeviceFile)
    /// Exactly these segments stay ready to be written to. Others may have to be opened again, which can fail.
    func keepOpen(_ segments: [DeviceFile])
    func byteCount(of file: DeviceFile) throws(Errno) -> UInt64
    /// Sets the length and reserves the blocks (posix_fallocate; ftruncate when shrinking).
    func resize(_ file: DeviceFile, to byteCount: UInt64) throws(Errno)
    /// Gives blocks back to the host (they read as zeros). ENOTSUP where the host cannot.
    func punch(_ file: DeviceFile, offset: UInt64, byteCount: UInt64) throws(Errno)
    /// The first hole of a file at or after `offset`: a range without blocks on the host. Nil if there is none or the
    /// host cannot tell.
    func hole(in file: DeviceFile, from offset: UInt64) -> Range<UInt64>?
    /// Whether the host copies on write: overwriting then needs new room on the host.
    func isCopiedOnWrite(_ file: DeviceFile) -> Bool
    /// Renames over an existing file. Durable only after `syncDirectories`.
    func rename(_ file: StoreFile, to newName: StoreFile) throws(Errno)
    func unlink(_ file: StoreFile) throws(Errno)
    /// Makes creations, renames and removals durable.
    func syncDirectories() throws(Errno)
    func hostSpace() throws(Errno) -> HostSpace
}

extension Device {
    func makeProgress() -> Bool { false }
    func keepOpen(_ segments: [DeviceFile]) {}
    func isCopiedOnWrite(_ file: DeviceFile) -> Bool { false }
}
