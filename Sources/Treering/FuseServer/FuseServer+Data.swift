// File contents: read, write, readlink, fsync, fallocate, copy_file_range, lseek. A write's payload goes from the
// request's memory straight to the volume.

import CFuse3
import Glibc

/// READ.
struct ReadOperation: CoreOperation {
    let inode: InodeNumber
    let offset: UInt64
    let byteCount: Int
    /// False with O_NOATIME, and when the kernel reads for itself (see `OpenFlags.isAccess`).
    let isAccess: Bool

    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> ReadPlan {
        try core.read(inode, at: offset, byteCount, isAccess: isAccess)
    }

    func finish(_ answer: ReadPlan, _ reply: consuming Reply, _ server: FuseServer) {
        server.answer(answer, reply) { plan, reply in reply.bytes(plan.bytes) }
    }
}

/// READLINK.
struct ReadLinkOperation: CoreOperation {
    let inode: InodeNumber

    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> ReadPlan { try core.readLink(inode) }

    func finish(_ answer: ReadPlan, _ reply: consuming Reply, _ server: FuseServer) {
        server.answer(answer, reply) { plan, reply in reply.bytes(plan.bytes) }
    }
}

/// WRITE.
struct WriteOperation: CoreOperation {
    static var isMutation: Bool { true }
    let inode: InodeNumber
    let offset: UInt64
    let payload: UnsafeRawBufferPointer
    let flags: WriteFlags

    /// True when bits of the mode were cleared.
    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> Bool {
        try core.write(inode, at: offset, payload, flags, context)
    }

    func finish(_ answer: Bool, _ reply: consuming Reply, _ server: FuseServer) {
        // Must come before the reply. Otherwise the kernel goes on showing the old mode.
        if answer { server.invalidateAttributes(inode) }
        server.holdBack(payload.count, reply)
        reply.written(payload.count)
    }
}

/// FALLOCATE. The server must clear set-user-ID bits (HANDLE_KILLPRIV_V2). The request does not say whether the caller
/// may keep them: a caller with CAP_FSETID may.
struct AllocateOperation: CoreOperation {
    static var isMutation: Bool { true }
    let inode: InodeNumber
    let mode: AllocateMode
    let offset: UInt64
    let byteCount: UInt64
    let walk = AllocationWalk()

    /// True when bits of the mode were cleared.
    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> Bool {
        try core.allocate(inode, mode, at: offset, byteCount, context, walk)
    }

    func finish(_ answer: Bool, _ reply: consuming Reply, _ server: FuseServer) {
        if answer { server.invalidateAttributes(inode) }
        reply.success()
    }
}

/// COPY_FILE_RANGE.
struct CopyRangeOperation: CoreOperation {
    static var isMutation: Bool { true }
    let source: InodeNumber
    let from: UInt64
    let target: InodeNumber
    let to: UInt64
    let byteCount: UInt64

    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> CopyResult {
        try core.copyRange(source, at: from, target, at: to, byteCount, context)
    }

    func finish(_ answer: CopyResult, _ reply: consuming Reply, _ server: FuseServer) {
        if answer.hasKilledPrivileges { server.invalidateAttributes(target) }
        reply.written(Int(answer.byteCount))
    }
}

/// LSEEK for SEEK_DATA and SEEK_HOLE. A hole may have been written through a mapping, and the kernel asks without
/// writing that back first. So the kernel is made to write it back, and the seek is done again.
struct SeekOperation: CoreOperation {
    let inode: InodeNumber
    let walk: SeekWalk
    /// What was found before the kernel wrote back what it had there.
    var before: SeekResult?

    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> SeekResult {
        try core.seek(inode, walk)
    }

    func finish(_ answer: SeekResult, _ reply: consuming Reply, _ server: FuseServer) {
        if answer.hole.isEmpty || answer == before {
            if let found = answer.offset { reply.offset(found) } else { reply.error(.noAddress) }
            return
        }
        let again = SeekOperation(inode: inode, walk: SeekWalk(walk.target, from: walk.offset), before: answer)
        server.perform(again, after: inode, answer.hole, reply)
    }
}

extension FuseServer {
    static func addDataCallbacks(_ table: inout fuse_lowlevel_ops) {
        table.read = { request, inode, byteCount, offset, info in
            let operation = ReadOperation(
                inode: InodeNumber(inode), offset: UInt64(bitPattern: Int64(offset)), byteCount: byteCount,
                isAccess: info.map { OpenFlags.isAccess($0.pointee.flags) } ?? true)
            FuseServer.of(request).perform(operation, Reply(request!))
        }
        table.write = { request, inode, payload, byteCount, offset, info in
            let server = FuseServer.of(request)
            let reply = Reply(request!)
            let operation = WriteOperation(
                inode: InodeNumber(inode), offset: UInt64(bitPattern: Int64(offset)),
                payload: UnsafeRawBufferPointer(start: payload, count: byteCount),
                flags: server.writeFlags(reply, info))
            server.perform(operation, reply)
        }
        table.readlink = { request, inode in
            FuseServer.of(request).perform(ReadLinkOperation(inode: InodeNumber(inode)), Reply(request!))
        }
        addRangeCallbacks(&table)
        // Everything answered so far becomes durable, whichever file or directory is named.
        table.fsync = { request, _, _, _ in FuseServer.of(request).sync(Reply(request!)) }
        table.fsyncdir = { request, _, _, _ in FuseServer.of(request).sync(Reply(request!)) }
    }

    /// What one COPY_FILE_RANGE may bring: its answer counts in 32 bits.
    private static let copyByteCountLimit = 1 << 31

    private static func addRangeCallbacks(_ table: inout fuse_lowlevel_ops) {
        table.fallocate = { request, inode, mode, offset, byteCount, _ in
            let operation = AllocateOperation(
                inode: InodeNumber(inode), mode: AllocateMode(rawValue: mode), offset: UInt64(offset),
                byteCount: UInt64(byteCount))
            FuseServer.of(request).perform(operation, Reply(request!))
        }
        table.copy_file_range = { request, source, from, _, target, to, _, byteCount, flags in
            guard flags == 0, from >= 0, to >= 0 else { return Reply(request!).error(.invalid) }
            let operation = CopyRangeOperation(
                source: InodeNumber(source), from: UInt64(from), target: InodeNumber(target), to: UInt64(to),
                byteCount: UInt64(min(byteCount, FuseServer.copyByteCountLimit)))
            FuseServer.of(request).perform(operation, Reply(request!))
        }
        table.lseek = { request, inode, offset, whence, _ in
            let server = FuseServer.of(request)
            // The kernel asks without writing its cache back first. What was just written would look like a hole, and a
            // copy of the file would lose it. After ENOSYS the kernel takes everything for data.
            guard !server.options.writebackCache else { return Reply(request!).error(.notImplemented) }
            guard let target = SeekTarget(rawValue: whence) else { return Reply(request!).error(.invalid) }
            guard offset >= 0 else { return Reply(request!).error(.noAddress) }
            let operation = SeekOperation(inode: InodeNumber(inode), walk: SeekWalk(target, from: UInt64(offset)))
            server.perform(operation, Reply(request!))
        }
    }

    /// How the kernel wants a WRITE to be taken.
    private func writeFlags(_ reply: borrowing Reply, _ info: UnsafeMutablePointer<fuse_file_info>?) -> WriteFlags {
        var flags: WriteFlags = RawRequest.writeKillsPrivileges(reply.rawRequest) ? .killsPrivileges : []
        // The bytes come from the kernel's cache. With the writeback cache the kernel keeps the times too.
        let isFromCache = info?.pointee.writepage == 1
        if options.writebackCache && isFromCache { flags.insert(.keepsTimes) }
        if isFromCache || (info?.pointee.flags ?? 0) & O_APPEND != 0 { flags.insert(.appends) }
        return flags
    }

    private func sync(_ reply: consuming Reply) {
        let mayWait = mayWait(reply)
        let parked = ParkedReply(reply)
        volume.sync(mayWait: mayWait, isRequest: true) { errno in
            parked.answer { reply in
                if let errno { reply.error(errno) } else { reply.success() }
            }
        }
    }
}
