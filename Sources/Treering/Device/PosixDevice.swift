// The posix engine: pread, pwrite and fdatasync, on the caller's thread or on a small pool. It works everywhere.

/// A store's directory reached with ordinary system calls.
final class PosixDevice: HostEngine {
    let files: HostFiles
    private let pool: WorkerPool

    var engineName: String { "posix" }

    /// Makes the directory of a store where there is none; durable when it returns.
    static func create(directory: HostString) throws(Errno) { try HostFiles.create(directory: directory) }

    /// Opens a store's directory. ENOTSUP where `direct=on` cannot be had.
    convenience init(directory: HostString, options: DeviceOptions = DeviceOptions()) throws(Errno) {
        self.init(try HostFiles(directory: directory, options: options), options)
    }

    init(_ files: HostFiles, _ options: DeviceOptions) {
        self.files = files
        pool = WorkerPool(files, capacity: options.queueDepth, threadCount: options.workerCount)
    }

    func onCompletion(_ handler: @escaping @Sendable (Completion) -> Void) { pool.onCompletion(handler) }
    func submit(_ submissions: borrowing [Submission]) { pool.submit(submissions) }

    func shutDown() {
        pool.finish()
        files.closeAll()
    }
}
