// The device of a mounted store: ring or posix behind one concrete type, chosen at mount with a reason for people.

import Glibc

/// `engine=` of a mount.
enum EngineChoice: String, Sendable, CaseIterable {
    /// The ring where the kernel allows it, posix elsewhere.
    case auto
    case ring
    case posix
}

/// An engine over the host's files. By default `HostFiles` does everything except `submit`.
protocol HostEngine: Device {
    var files: HostFiles { get }
    /// Why the engine has changed since it was set up; nil if it has not.
    var degradation: String? { get }
}

extension HostEngine {
    var degradation: String? { nil }

    func perform(_ submission: Submission) -> Completion { files.perform(submission) }
    func list() throws(Errno) -> [StoreFile] { try files.list() }
    func open(_ file: StoreFile, create: Bool) throws(Errno) -> DeviceFile { try files.open(file, create: create) }
    func close(_ file: DeviceFile) { files.close(file) }
    func keepOpen(_ segments: [DeviceFile]) { files.table.keepOpen(segments) }
    func byteCount(of file: DeviceFile) throws(Errno) -> UInt64 { try files.byteCount(of: file) }
    func resize(_ file: DeviceFile, to byteCount: UInt64) throws(Errno) { try files.resize(file, to: byteCount) }
    func punch(_ file: DeviceFile, offset: UInt64, byteCount: UInt64) throws(Errno) {
        try files.punch(file, offset: offset, byteCount: byteCount)
    }
    func hole(in file: DeviceFile, from offset: UInt64) -> Range<UInt64>? { files.hole(in: file, from: offset) }
    func isCopiedOnWrite(_ file: DeviceFile) -> Bool { files.isCopiedOnWrite(file) }
    func rename(_ file: StoreFile, to newName: StoreFile) throws(Errno) { try files.rename(file, to: newName) }
    func unlink(_ file: StoreFile) throws(Errno) { try files.unlink(file) }
    func syncDirectories() throws(Errno) { try files.syncDirectories() }
    func hostSpace() throws(Errno) -> HostSpace { try files.hostSpace() }
}

/// A store's directory through whichever engine was chosen; generic code specialises on this one type.
final class HostDevice: HostEngine {
    let engine: any HostEngine
    let files: HostFiles
    /// For example "Linux 6.18.44: engine ring (io_uring: 256 entries, registered files; direct I/O: …)" or
    /// "Linux 6.18.44: engine posix (io_uring_setup refused with EPERM (kernel.io_uring_disabled=2); …)".
    let sentence: String
    /// Device and inode number of the store's directory.
    let directoryNumbers: (device: UInt64, inode: UInt64)

    /// Makes the directory of a store where there is none; durable when it returns.
    static func create(directory: HostString) throws(Errno) { try HostFiles.create(directory: directory) }

    /// Opens a store's directory with the engine asked for, or the best that this kernel allows. The process must not
    /// fork afterwards: a ring and its threads belong to the process that set them up.
    static func open(
        directory: HostString, engine: EngineChoice = .auto, options: DeviceOptions = DeviceOptions()
    ) throws(DeviceError) -> HostDevice {
        try check(options, engine)
        let files: HostFiles
        do throws(Errno) {
            files = try HostFiles(directory: directory, options: options)
        } catch {
            if error == .notSupported {
                throw DeviceError("\(directory): direct=on cannot be had here; use direct=auto or direct=off")
            }
            throw DeviceError("\(directory): \(error)")
        }
        if files.lacksDescriptors {
            throw DeviceError(
                "no more than \(files.descriptorLimit) files may be open (ulimit -n), and a mount needs \(files.leastDescriptorCount): raise the limit of open files (RLIMIT_NOFILE)"
            )
        }
        return try HostDevice(files, engine, options)
    }

    private init(_ files: HostFiles, _ choice: EngineChoice, _ options: DeviceOptions) throws(DeviceError) {
        self.files = files
        var status = stat()
        fstat(files.directory, &status)
        directoryNumbers = (UInt64(status.st_dev), UInt64(status.st_ino))
        let kernel = EngineProbe.kernelName()
        var direct = "direct I/O: \(files.direct.isUsable ? "" : "no, ")\(files.direct.explanation)"
        if files.table.placeCount < options.fileCapacity {
            direct +=
                "; no more than \(files.table.placeCount) segments open at a time, since RLIMIT_NOFILE is \(files.descriptorLimit)"
        }
        let reason: String
        if choice == .posix {
            reason = "as asked"
        } else {
            #if Liburing
                switch Self.ring(files, options) {
                case .success(let device):
                    engine = device
                    sentence = "\(kernel): engine ring (io_uring: \(device.explanation); \(direct))"
                    return
                case .failure(let error):
                    reason = error.description
                }
            #else
                reason = EngineProbe.RingOutcome.notBuilt.reason ?? ""
            #endif
            if choice == .ring {
                throw DeviceError("\(kernel): engine=ring cannot be had: \(reason); use engine=auto or engine=posix")
            }
        }
        engine = PosixDevice(files, options)
        sentence = "\(kernel): engine posix (\(reason); \(direct))"
    }

    #if Liburing
        /// The ring engine, or why it cannot be had. One ring is set up, not one to ask and one to use: the memory of
        /// the first would still be counted against RLIMIT_MEMLOCK when the second is made.
        private static func ring(_ files: HostFiles, _ options: DeviceOptions) -> Result<RingDevice, DeviceError> {
            do throws(Errno) {
                let ring = try Ring(entryCount: options.queueDepth, sqpoll: options.sqpoll)
                let missing = ring.missing
                if let reason = EngineProbe.RingOutcome.missing(missing).reason, !missing.isEmpty {
                    return .failure(DeviceError(reason))
                }
                return .success(try RingDevice(files, options, ring: ring))
            } catch {
                return .failure(DeviceError(EngineProbe.refusal(error)))
            }
        }
    #endif

    /// Refuses options out of bounds and combinations that no kernel has.
    private static func check(_ options: DeviceOptions, _ engine: EngineChoice) throws(DeviceError) {
        if !(1...4096).contains(options.queueDepth) {
            throw DeviceError("queue_depth=\(options.queueDepth): must be between 1 and 4096")
        }
        if options.iopoll {
            throw DeviceError("iopoll: not offered yet; leave the option out")
        }
        if options.sqpoll && engine == .posix {
            throw DeviceError("sqpoll: needs a ring, but engine=posix has none")
        }
    }

    /// Why `sentence` is not true any more; nil while it is.
    var degradation: String? { engine.degradation }
    var engineName: String { engine.engineName }

    func onCompletion(_ handler: @escaping @Sendable (Completion) -> Void) { engine.onCompletion(handler) }
    func submit(_ submissions: borrowing [Submission]) { engine.submit(submissions) }
    func shutDown() { engine.shutDown() }
    func open(_ file: StoreFile, create: Bool) throws(Errno) -> DeviceFile { try engine.open(file, create: create) }
    func close(_ file: DeviceFile) { engine.close(file) }
}
