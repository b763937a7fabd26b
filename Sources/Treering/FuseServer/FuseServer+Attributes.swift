// Attributes and extended attributes, and the two virtual ones through which `treering stats` asks a running mount.

import CFuse3
import Glibc

/// GETATTR.
struct AttributesOperation: CoreOperation {
    let inode: InodeNumber

    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> Attributes { try core.attributes(inode) }
    func finish(_ answer: Attributes, _ reply: consuming Reply, _ server: FuseServer) { reply.attributes(answer) }
}

/// STATX.
struct StatxOperation: CoreOperation {
    let inode: InodeNumber

    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> Attributes { try core.attributes(inode) }
    func finish(_ answer: Attributes, _ reply: consuming Reply, _ server: FuseServer) { reply.statx(answer) }
}

/// SETATTR.
struct SetAttributesOperation: CoreOperation {
    static var isMutation: Bool { true }
    let inode: InodeNumber
    let changes: AttributeChanges

    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> Attributes {
        try core.setAttributes(inode, changes, context)
    }

    func finish(_ answer: Attributes, _ reply: consuming Reply, _ server: FuseServer) { reply.attributes(answer) }
}

extension AttributeChanges {
    /// What a SETATTR asks for; `mask` says which fields of `wanted` count.
    init(_ wanted: stat, _ mask: Int32) {
        func has(_ bit: Int32) -> Bool { mask & bit != 0 }
        if has(FUSE_SET_ATTR_MODE) { mode = wanted.st_mode & 0o7777 }
        if has(FUSE_SET_ATTR_UID) { uid = wanted.st_uid }
        if has(FUSE_SET_ATTR_GID) { gid = wanted.st_gid }
        if has(FUSE_SET_ATTR_SIZE) { byteCount = UInt64(bitPattern: Int64(wanted.st_size)) }
        if has(FUSE_SET_ATTR_ATIME_NOW) {
            accessed = .now
        } else if has(FUSE_SET_ATTR_ATIME) {
            accessed = .at(Timestamp(wanted.st_atim))
        }
        if has(FUSE_SET_ATTR_MTIME_NOW) {
            modified = .now
        } else if has(FUSE_SET_ATTR_MTIME) {
            modified = .at(Timestamp(wanted.st_mtim))
        }
        if has(FUSE_SET_ATTR_CTIME) { changed = .at(Timestamp(wanted.st_ctim)) }
    }
}

/// GETXATTR and LISTXATTR; `byteLimit` 0 asks for the length alone.
struct XattrOperation: CoreOperation {
    let inode: InodeNumber
    /// Nil lists the names.
    let name: UnsafeRawBufferPointer?
    let byteLimit: Int
    /// How far listing has come.
    let walk: XattrListWalk?

    init(inode: InodeNumber, name: UnsafeRawBufferPointer?, byteLimit: Int) {
        (self.inode, self.name, self.byteLimit) = (inode, name, byteLimit)
        walk = name == nil ? XattrListWalk() : nil
    }

    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> XattrValue {
        guard let name else { return .bytes(try core.xattrNames(inode, walk!, context)) }
        return try core.xattr(inode, name)
    }

    func finish(_ answer: XattrValue, _ reply: consuming Reply, _ server: FuseServer) {
        let limit = byteLimit
        switch answer {
        case .bytes(let bytes): Self.answer(bytes, limit, reply)
        case .plan(let plan):
            if limit == 0 {
                reply.xattrByteCount(plan.byteCount)
                return server.volume.execute(plan, mayWait: false) { [volume = server.volume] plan, _, _ in
                    volume.recycle(plan)
                }
            }
            server.answer(plan, reply) { plan, reply in
                if plan.byteCount > limit { reply.error(.range) } else { reply.bytes(plan.bytes) }
            }
        }
    }

    static func answer(_ bytes: [UInt8], _ limit: Int, _ reply: consuming Reply) {
        if limit > 0 && bytes.count > limit { return reply.error(.range) }
        if limit == 0 { reply.xattrByteCount(bytes.count) } else { reply.bytes(bytes) }
    }

    /// Attributes of the root that are not stored and not listed.
    static func virtual(_ name: UnsafeRawBufferPointer, _ volume: HostVolume) -> String? {
        guard name.count >= VirtualXattr.statistics.utf8.count else { return nil }
        if name.elementsEqual(VirtualXattr.statistics.utf8) { return volume.statistics() }
        if name.elementsEqual(VirtualXattr.statisticsPrometheus.utf8) { return volume.statisticsPrometheus() }
        if name.elementsEqual(VirtualXattr.readOnly.utf8) { return volume.isReadOnly ? "1" : "0" }
        if name.elementsEqual(VirtualXattr.options.utf8) { return volume.options.chosenText }
        return nil
    }
}

/// Names of the virtual extended attributes of a mount's root.
enum VirtualXattr {
    /// Statistics as JSON.
    static let statistics = "treering.stats"
    /// Statistics as Prometheus reads them.
    static let statisticsPrometheus = "treering.stats.prometheus"
    /// "1" where nothing can be written, whatever the kernel's flags say.
    static let readOnly = "treering.read_only"
    /// What the mount was made with: a line "name=value" for each option that was chosen.
    static let options = "treering.options"
}

/// SETXATTR.
struct SetXattrOperation: CoreOperation {
    static var isMutation: Bool { true }
    let inode: InodeNumber
    let name: UnsafeRawBufferPointer
    let value: UnsafeRawBufferPointer
    let flags: Int32
    static var isOnce: Bool { true }

    func run(_ core: Core, _ context: RequestContext) throws(Stop) {
        try core.setXattr(inode, name, value, SetXattrFlags(rawValue: flags), context)
    }
}

/// REMOVEXATTR.
struct RemoveXattrOperation: CoreOperation {
    static var isMutation: Bool { true }
    static var isOnce: Bool { true }
    let inode: InodeNumber
    let name: UnsafeRawBufferPointer

    func run(_ core: Core, _ context: RequestContext) throws(Stop) {
        try core.removeXattr(inode, name, context)
    }
}

/// STATFS.
struct StatusOperation: CoreOperation {
    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> FileSystemStatus { core.status() }
    func finish(_ answer: FileSystemStatus, _ reply: consuming Reply, _ server: FuseServer) { reply.status(answer) }
}

extension FuseServer {
    static func addAttributeCallbacks(_ table: inout fuse_lowlevel_ops) {
        table.getattr = { request, inode, _ in
            let server = FuseServer.of(request)
            let reply = Reply(request!)
            if reply.opcode == RawRequest.statx {
                server.perform(StatxOperation(inode: InodeNumber(inode)), reply)
            } else {
                server.perform(AttributesOperation(inode: InodeNumber(inode)), reply)
            }
        }
        table.setattr = { request, inode, wanted, mask, _ in
            let reply = Reply(request!)
            var changes = AttributeChanges(wanted!.pointee, mask)
            changes.killsPrivileges = RawRequest.setattrKillsPrivileges(reply.rawRequest)
            let operation = SetAttributesOperation(inode: InodeNumber(inode), changes: changes)
            FuseServer.of(request).perform(operation, reply)
        }
        table.getxattr = { request, inode, name, byteLimit in
            let server = FuseServer.of(request)
            let reply = Reply(request!)
            let (inode, name) = (InodeNumber(inode), FuseServer.bytes(name))
            if inode == .root, let text = XattrOperation.virtual(name, server.volume) {
                return XattrOperation.answer(Array(text.utf8), byteLimit, reply)
            }
            server.perform(XattrOperation(inode: inode, name: name, byteLimit: byteLimit), reply)
        }
        table.listxattr = { request, inode, byteLimit in
            let operation = XattrOperation(inode: InodeNumber(inode), name: nil, byteLimit: byteLimit)
            FuseServer.of(request).perform(operation, Reply(request!))
        }
        table.setxattr = { request, inode, name, value, byteCount, flags in
            let operation = SetXattrOperation(
                inode: InodeNumber(inode), name: FuseServer.bytes(name),
                value: UnsafeRawBufferPointer(start: value, count: byteCount), flags: flags)
            FuseServer.of(request).perform(operation, Reply(request!))
        }
        table.removexattr = { request, inode, name in
            FuseServer.of(request).perform(
                RemoveXattrOperation(inode: InodeNumber(inode), name: FuseServer.bytes(name)), Reply(request!))
        }
        table.statfs = { request, _ in FuseServer.of(request).perform(StatusOperation(), Reply(request!)) }
    }
}
