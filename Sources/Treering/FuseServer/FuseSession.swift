// A libfuse session: made, mounted, and taken down again. Owned by the command's serving loop.

import CFuse3
import Glibc

/// One mounted FUSE file system.
final class FuseSession: @unchecked Sendable {
    /// libfuse's session, for the transport.
    let handle: OpaquePointer
    private let server: FuseServer
    private let mountPoint: String
    private var isMounted = false

    /// Makes a session whose requests the server answers. `mountPoint` is absolute.
    init(_ server: FuseServer, mountPoint: String) throws(Errno) {
        self.server = server
        self.mountPoint = mountPoint
        var words = ["treering", "-o", Self.mountOptions(server.options).joined(separator: ",")]
        if server.options.isDebug { words.append("-d") }
        var pointers: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
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

    /// Mounts, or where the mount point is `/dev/fd/N` goes on with the connection that this descriptor is. The reason of a failure
    /// is in the log that libfuse writes to.
    func mount() throws(Errno) {
        errno = 0
        guard fuse_session_mount(handle, mountPoint) == 0 else { throw errno > 0 ? .last : .input }
        isMounted = true
        InitReply.allowsIdmap.store(server.options.idmappedMounts, ordering: .relaxed)
        InitReply.intercept(handle)
    }

    /// Of /dev/fuse, once it is mounted.
    var descriptor: Int32 { fuse_session_fd(handle) }

    /// The mount point is no longer ours: the kernel has unmounted it, or somebody was asked to.
    func forgetMount() { isMounted = false }

    private static func mountOptions(_ options: FuseOptions) -> [String] {
        func escaped(_ text: String) -> String {
            String(text.flatMap { $0 == "," || $0 == "\\" ? ["\\", $0] : [$0] })
        }
        return options.mountFlags + ["fsname=" + escaped(options.fsname), "subtype=treering"]
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
            var line = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            while line.hasSuffix("\n") { line.removeLast() }
            FuseLog.sink.write(LogSink.Level(rawValue: Int32(clamping: level.rawValue)) ?? .info, line)
        }
    }
}
