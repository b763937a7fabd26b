// File contents: read, write, readlink, fsync. A write's payload goes from the request's memory straight to the volume.

import CFuse3
import Glibc

/// READ.
struct ReadOperation: Operation {
    let inode: InodeNumber
    let offset: UInt64
    let byteCount: Int
    /// Not with O_NOATIME.
    let isAccess: Bool

    func run(_ volume: HostVolume, _ reply: borrowing Reply) throws(Stop) -> ReadPlan {
        try volume.read(inode, at: offset, byteCount, isAccess: isAccess)
    }

    func finish(_ answer: ReadPlan, _ reply: consuming Reply, _ server: FuseServer) {
        server.answer(answer, reply) { plan, reply in reply.bytes(plan.bytes) }
    }
}

/// READLINK.
struct ReadLinkOperation: Operation {
    let inode: InodeNumber

    func run(_ volume: HostVolume, _ reply: borrowing Reply) throws(Stop) -> ReadPlan { try volume.readLink(inode) }

    func finish(_ answer: ReadPlan, _ reply: consuming Reply, _ server: FuseServer) {
        server.answer(answer, reply) { plan, reply in reply.bytes(plan.bytes) }
    }
}

/// WRITE.
struct WriteOperation: Operation {
    static var isMutation: Bool { true }
    let inode: InodeNumber
    let offset: UInt64
    let payload: UnsafeRawBufferPointer
    let flags: WriteFlags

    /// True when bits of the mode were cleared.
    func run(_ volume: HostVolume, _ reply: borrowing Reply) throws(Stop) -> Bool {
        try reply.asCaller { (caller) throws(Stop) in try volume.write(inode, at: offset, payload, flags, caller) }
    }

    func finish(_ answer: Bool, _ reply: consuming Reply, _ server: FuseServer) {
        // Before the reply, or the kernel goes on showing the old mode.
        if answer { server.invalidateAttributes(inode) }
        reply.written(payload.count)
    }
}

extension FuseServer {
    static func addDataCallbacks(_ table: inout fuse_lowlevel_ops) {
        table.read = { request, inode, byteCount, offset, info in
            let operation = ReadOperation(
                inode: InodeNumber(inode), offset: UInt64(bitPattern: Int64(offset)), byteCount: byteCount,
                isAccess: info.map { $0.pointee.flags & OpenFlags.noAccessTime == 0 } ?? true)
            FuseServer.of(request).perform(operation, Reply(request!))
        }
        table.write = { request, inode, payload, byteCount, offset, info in
            let server = FuseServer.of(request)
            let operation = WriteOperation(
                inode: InodeNumber(inode), offset: UInt64(bitPattern: Int64(offset)),
                payload: UnsafeRawBufferPointer(start: payload, count: byteCount),
                flags: server.writeFlags(info))
            server.perform(operation, Reply(request!))
        }
        table.readlink = { request, inode in
            FuseServer.of(request).perform(ReadLinkOperation(inode: InodeNumber(inode)), Reply(request!))
        }
        // Everything answered so far becomes durable, whichever file or directory is named.
        table.fsync = { request, _, _, _ in FuseServer.of(request).sync(Reply(request!)) }
        table.fsyncdir = { request, _, _, _ in FuseServer.of(request).sync(Reply(request!)) }
    }

    /// How the kernel wants this thread's WRITE to be taken.
    private func writeFlags(_ info: UnsafeMutablePointer<fuse_file_info>?) -> WriteFlags {
        var flags: WriteFlags = RawRequest.writeKillsPrivileges(rawRequest) ? .killsPrivileges : []
        // Written back from the kernel's cache, which keeps the times where it collects writes.
        let isFromCache = info?.pointee.writepage == 1
        if options.writebackCache && isFromCache { flags.insert(.keepsTimes) }
        if isFromCache || (info?.pointee.flags ?? 0) & O_APPEND != 0 { flags.insert(.appends) }
        return flags
    }

    private func sync(_ reply: consuming Reply) {
        let parked = park(reply)
        volume.sync(mayWait: transport.mayWait) { errno in
            parked.answer { reply in
                if let errno { reply.error(errno) } else { reply.success() }
            }
        }
    }
}
