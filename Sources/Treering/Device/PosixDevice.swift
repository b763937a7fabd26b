// The posix engine: pread, pwrite and fdatasync, on the caller's thread or on a small pool. It works everywhere.

/// A store's directory reached with ordinary system calls.
final class PosixDevice: Device {
    let files: HostFiles
    private let pool: WorkerPool

    var engineName: String { "posix" }

    /// Makes the directory of a store where there is none; durable when it returns.
    static func create(directory: String) throws(Errno) { try HostFiles.create(directory: directory) }

    /// Opens a store's directory. ENOTSUP where `direct=on` cannot be had.
    convenience init(directory: String, options: DeviceOptions = DeviceOptions()) throws(Errno) {
        self.init(try HostFiles(directory: directory, options: options), options)
    }

    init(_ files: HostFiles, _ options: DeviceOptions) {
        self.files = files
        pool = WorkerPool(files, capacity: options.queueDepth, threadCount: options.workerCount)
    }

    func onCompletion(_ handler: @escaping @Sendable (Completion) -> Void) { pool.onCompletion(handler) }
    func submit(_ submissions: borrowing [Submission]) { pool.submit(submissions) }
    func perform(_ submission: Submission) -> Completion { files.perform(submission) }

    func shutDown() {
        pool.finish()
        files.closeAll()
    }

    func list() throws(Errno) -> [StoreFile] { try files.list() }
    func open(_ file: StoreFile, create: Bool) throws(Errno) -> DeviceFile { try files.open(file, create: create) }
    func close(_ file: DeviceFile) { files.close(file) }
    func byteCount(of file: DeviceFile) throws(Errno) -> UInt64 { try files.byteCount(of: file) }
    func resize(_ file: DeviceFile, to byteCount: UInt64) throws(Errno) { try files.resize(file, to: byteCount) }
    func punch(_ file: DeviceFile, offset: UInt64, byteCount: UInt64) throws(Errno) {
        try files.punch(file, offset: offset, byteCount: byteCount)
    }
    func hole(in file: DeviceFile, from offset: UInt64) -> Range<UInt64>? { files.hole(in: file, from: offset) }
    func rename(_ file: StoreFile, to newName: StoreFile) throws(Errno) { try files.rename(file, to: newName) }
    func unlink(_ file: StoreFile) throws(Errno) { try files.unlink(file) }
    func syncDirectories() throws(Errno) { try files.syncDirectories() }
    func hostSpace() throws(Errno) -> HostSpace { try files.hostSpace() }
}
