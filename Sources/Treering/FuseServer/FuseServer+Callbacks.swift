// The table of callbacks that libfuse decodes requests into, and what INIT agrees on with the kernel.
//
// libfuse answers ENOSYS for an operation that is not in the table. The kernel then does without it: it keeps locks by
// itself. ACCESS is in the table and answered ENOSYS too: the kernel checks permissions, by mode and access control
// list.

import CFuse3
import Glibc

/// S_IFMT bits as the protocol has them (the C macros are ambiguous where libfuse is imported too).
enum FileType {
    static let directory: UInt32 = 0o040000
    static let regular: UInt32 = 0o100000
    static let symbolicLink: UInt32 = 0o120000
}

/// OPEN, where the kernel tells of it.
private struct OpenOperation: CoreOperation {
    let inode: InodeNumber
    let writes: Bool
    let appends: Bool
    /// For reading that is somebody's access.
    let isAccess: Bool

    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> Bool {
        try core.checkOpen(inode, writes: writes, appends: appends)
        return isAccess ? try core.isAccessDue(inode) : false
    }

    /// The kernel does not tell of reads from its cache. If the next read must move the access time, the kernel is told
    /// not to keep the cached pages, so that it reads them again.
    func finish(_ answer: Bool, _ reply: consuming Reply, _ server: FuseServer) {
        reply.opened(keepsCache: !answer, cachesDirectory: false)
    }
}

extension FuseServer {
    /// The server that a request belongs to.
    @inline(__always)
    static func of(_ request: fuse_req_t?) -> FuseServer {
        Unmanaged<FuseServer>.fromOpaque(fuse_req_userdata(request)!).takeUnretainedValue()
    }

    /// A C string without its NUL.
    @inline(__always)
    static func bytes(_ text: UnsafePointer<CChar>?) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: text, count: strlen(text!))
    }

    /// The callbacks. Built here and not in a global: closures of top-level code would be tied to the main actor.
    func callbacks() -> fuse_lowlevel_ops {
        var table = fuse_lowlevel_ops()
        table.`init` = { server, connection in
            Unmanaged<FuseServer>.fromOpaque(server!).takeUnretainedValue().negotiate(&connection!.pointee)
        }
        Self.addNamespaceCallbacks(&table)
        Self.addAttributeCallbacks(&table)
        Self.addDataCallbacks(&table)
        Self.addDirectoryCallbacks(&table)
        Self.addControlCallbacks(&table)
        Self.addOpenCallbacks(&table, keepsHandles: options.open == .handle)
        return table
    }

    /// Opening and closing. Without handles OPEN is answered ENOSYS once, and the kernel never asks again: an open file
    /// lives by its inode's lookup count. CREATE likewise: the kernel then sends MKNOD, and opens without a message.
    /// With handles CREATE does both. FLUSH has nothing to do in either mode. No RELEASE is sent for what was not
    /// opened here.
    private static func addOpenCallbacks(_ table: inout fuse_lowlevel_ops, keepsHandles: Bool) {
        table.create = { request, parent, name, mode, _ in
            let server = FuseServer.of(request)
            let parent = InodeNumber(parent)
            let reply = Reply(request!)
            if reply.opcode == RawRequest.tmpfile {
                server.perform(UnnamedOperation(parent: parent, mode: mode), reply)
            } else if server.options.open == .handle {
                let operation = CreateOperation(
                    parent: parent, name: FuseServer.bytes(name), mode: mode & 0o7777 | FileType.regular)
                server.perform(operation, reply)
            } else {
                reply.error(.notImplemented)
            }
        }
        table.flush = { request, _, _ in Reply(request!).error(.notImplemented) }
        table.access = { request, _, _ in Reply(request!).error(.notImplemented) }
        if keepsHandles {
            table.open = { request, inode, info in
                let flags = info!.pointee.flags
                let operation = OpenOperation(
                    inode: InodeNumber(inode), writes: flags & O_ACCMODE != O_RDONLY, appends: flags & O_APPEND != 0,
                    isAccess: OpenFlags.isAccess(flags))
                FuseServer.of(request).perform(operation, Reply(request!))
            }
            table.opendir = { request, _, _ in Reply(request!).opened(keepsCache: true, cachesDirectory: true) }
            table.release = { request, _, _ in Reply(request!).success() }
            table.releasedir = { request, _, _ in Reply(request!).success() }
        } else {
            table.open = { request, _, _ in Reply(request!).error(.notImplemented) }
            table.opendir = { request, _, _ in Reply(request!).error(.notImplemented) }
        }
    }

    /// INIT: what the kernel offers and what is taken of it.
    private func negotiate(_ connection: inout fuse_conn_info) {
        func want(_ capability: Int32, _ isWanted: Bool = true) {
            let bit = UInt32(capability)
            if isWanted && connection.capable & bit != 0 { connection.want |= bit } else { connection.want &= ~bit }
        }
        // Where OPEN is answered ENOSYS, an O_TRUNC in it would be lost. So the kernel sends a SETATTR instead. With
        // handles it does so too, so that truncation has one path.
        want(FUSE_CAP_ATOMIC_O_TRUNC, false)
        want(FUSE_CAP_NO_OPEN_SUPPORT, options.open == .none)
        want(FUSE_CAP_NO_OPENDIR_SUPPORT, options.open == .none)
        want(FUSE_CAP_ASYNC_READ)
        want(FUSE_CAP_ASYNC_DIO, options.asyncDirect)
        want(FUSE_CAP_PARALLEL_DIROPS)
        // "auto": entries come with attributes at the start of a listing and as long as somebody looks them up.
        want(FUSE_CAP_READDIRPLUS)
        want(FUSE_CAP_READDIRPLUS_AUTO)
        want(FUSE_CAP_CACHE_SYMLINKS)
        // Nobody else changes the store: pages stay valid whatever mtime a GETATTR brings.
        want(FUSE_CAP_AUTO_INVAL_DATA, false)
        want(FUSE_CAP_EXPLICIT_INVAL_DATA)
        want(FUSE_CAP_WRITEBACK_CACHE, options.writebackCache)
        // InitReply sets version 2, which libfuse 3.14 does not know. Version 1 would not spare anything.
        want(FUSE_CAP_HANDLE_KILLPRIV, false)
        want(FUSE_CAP_SPLICE_READ, false)
        want(FUSE_CAP_SPLICE_WRITE, false)
        want(FUSE_CAP_SPLICE_MOVE, false)
        // The kernel keeps locks by itself.
        want(FUSE_CAP_POSIX_LOCKS, false)
        want(FUSE_CAP_FLOCK_LOCKS, false)
        // With access control lists the mode of a new file is decided here, so the umask must come along.
        want(FUSE_CAP_POSIX_ACL, options.accessLists)
        let hasAccessLists = connection.want & UInt32(FUSE_CAP_POSIX_ACL) != 0
        want(FUSE_CAP_DONT_MASK, hasAccessLists)
        volume.useAccessLists(hasAccessLists)
        want(FUSE_CAP_EXPORT_SUPPORT)
        want(FUSE_CAP_IOCTL_DIR)
        connection.max_write = UInt32(volume.maxWriteByteCount)
        connection.max_readahead = UInt32(FuseServer.readAheadByteCount)
        connection.max_background = UInt32(clamping: max(16, min(options.inflightLimit / 2, 4096)))
        connection.congestion_threshold = connection.max_background / 4 * 3
        connection.time_gran = 1
        log.write(
            .debug,
            "FUSE protocol \(connection.proto_major).\(connection.proto_minor), "
                + "capable 0x\(String(connection.capable, radix: 16)), wanted 0x\(String(connection.want, radix: 16))")
        markInitialized()
    }

    /// How far ahead the kernel may read. It takes the smaller of this and the limit of the mount's backing device
    /// information, which only root can raise (see FuseSession).
    static let readAheadByteCount = 4 << 20
}
