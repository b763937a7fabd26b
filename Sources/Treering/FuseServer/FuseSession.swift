// A libfuse session: made, mounted, and taken down again. Owned by the command's serving loop.

import CFuse3
import Glibc

/// One mounted FUSE file system.
final class FuseSession: @unchecked Sendable {
    /// libfuse's session, for the transport.
    let handle: OpaquePointer
    private let server: FuseServer
    private let mountPoint: HostString
    private var isMounted = false

    /// Makes a session whose requests the server answers. `mountPoint` is absolute.
    init(_ server: FuseServer, mountPoint: HostString) throws(Errno) {
        self.server = server
        self.mountPoint = mountPoint
        var words: [HostString] = ["treering", "-o", Self.mountOptions(server.options)]
        if server.options.isDebug { words.append("-d") }
        var pointers: [UnsafeMutablePointer<CChar>?] = words.map(\.copy)
        defer { for pointer in pointers { free(pointer) } }
        let count = Int32(words.count)
        var table = server.callbacks()
        let userData = Unmanaged.passUnretained(server).toOpaque()
        let made = pointers.withUnsafeMutableBufferPointer { list -> OpaquePointer? in
            // libfuse copies what it changes (allocated = 0), and frees only its own copy.
            var arguments = fuse_args(argc: count, argv: list.baseAddress, allocated: 0)
            defer { fuse_opt_free_args(&arguments) }
            return fuse_session_new(&arguments, &table, MemoryLayout<fuse_lowlevel_ops>.size, userData)
        }
        guard let made else { throw .invalid }
        handle = made
    }

    deinit {
        // libfuse's requests point to its session.
        precondition(server.liveRequestCount == 0, "a session ends before its requests are answered")
        if isMounted { fuse_session_unmount(handle) }
        fuse_session_destroy(handle)
    }

    /// Mounts. If the mount point is `/dev/fd/N`, goes on with the connection of that descriptor instead. The reason of
    /// a failure is in the log that libfuse writes to.
    func mount() throws(Errno) {
        errno = 0
        guard mountPoint.withCString({ fuse_session_mount(handle, $0) }) == 0 else {
            throw errno > 0 ? .last : .ioError
        }
        isMounted = true
        InitReply.allowsIdmap.store(server.options.idmappedMounts, ordering: .relaxed)
        InitReply.intercept(handle)
    }

    /// The descriptor of /dev/fuse, once it is mounted.
    var descriptor: Int32 { fuse_session_fd(handle) }

    /// Answers an ioctl that `Reply.leaveUnanswered` has left to us, with this text for its argument. Source: `struct
    /// fuse_out_header` and `struct fuse_ioctl_out` in include/uapi/linux/fuse.h.
    func answer(_ number: UInt64, _ text: String) {
        // Room for the end of the text as C has it, in the 512 bytes of the argument.
        let text = text.utf8.prefix(511)
        let headerByteCount = 16
        let controlByteCount = 16
        let byteCount = headerByteCount + controlByteCount + text.count
        var bytes = [UInt8](repeating: 0, count: headerByteCount + controlByteCount) + text
        let written = bytes.withUnsafeMutableBytes { bytes in
            bytes.store(UInt32(byteCount), at: 0)
            bytes.store(number, at: 8)
            return write(descriptor, bytes.baseAddress, bytes.count)
        }
        // ENOENT: whoever asked is gone.
        precondition(written == byteCount || errno == ENOENT || errno == ENODEV, "the kernel refuses an answer")
    }

    /// The mount point is no longer ours: the kernel has unmounted it, or somebody was asked to.
    func forgetMount() { isMounted = false }

    private static func mountOptions(_ options: FuseOptions) -> HostString {
        let name = HostString(
            bytes: options.fsname.bytes.flatMap { ",\\".utf8.contains($0) ? [UInt8(ascii: "\\"), $0] : [$0] })
        let flags = options.mountFlags.map { $0 + "," }.joined()
        return "\(flags)fsname=\(name),subtype=treering"
    }
}

/// Hands libfuse's own messages to a log. Set once per process.
enum FuseLog {
    nonisolated(unsafe) private static var sink = LogSink.none

    /// To be called before any session is made.
    static func send(to log: LogSink) {
        sink = log
        fuse_set_log_func { level, format, arguments in
            guard let format, let arguments else { return }
            var text = [CChar](repeating: 0, count: 1024)
            vsnprintf(&text, text.count, format, arguments)
            var line = HostString(cString: &text).bytes
            while line.last == UInt8(ascii: "\n") { line.removeLast() }
            let shown = HostString(bytes: line).description
            FuseLog.sink.write(LogSink.Level(rawValue: Int32(clamping: level.rawValue)) ?? .info, shown)
        }
    }
}
