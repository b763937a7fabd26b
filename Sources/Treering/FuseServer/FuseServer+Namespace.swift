// Names: lookup, make, link, unlink, rename, and the kernel's forgetting of inodes.

import CFuse3
import Glibc

/// LOOKUP. A missing name is answered with an entry without an inode, which the kernel remembers.
struct LookupOperation: CoreOperation {
    let parent: InodeNumber
    let name: UnsafeRawBufferPointer

    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> Attributes? {
        do throws(Stop) {
            return try core.lookup(parent, name)
        } catch {
            if case .failed(.noEntry) = error { return nil }
            throw error
        }
    }

    func finish(_ answer: Attributes?, _ reply: consuming Reply, _ server: FuseServer) {
        guard let answer else { return reply.missingEntry() }
        server.answer(entry: answer, reply)
    }
}

/// MKNOD, MKDIR, SYMLINK.
struct MakeOperation: CoreOperation {
    static var isMutation: Bool { true }
    let parent: InodeNumber
    let name: UnsafeRawBufferPointer
    let new: NewInode
    static var isOnce: Bool { true }
    func repeatedAnswer(_ volume: HostVolume) throws(Stop) -> Attributes {
        try volume.run { (core) throws(Stop) in try core.lookup(parent, name) }
    }

    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> Attributes {
        try core.make(parent, name, new, context)
    }

    func finish(_ answer: Attributes, _ reply: consuming Reply, _ server: FuseServer) {
        server.answer(entry: answer, reply)
    }
}

/// CREATE, with `open=handle`. The kernel sends it for names that do not exist, and holds the directory meanwhile.
struct CreateOperation: CoreOperation {
    static var isMutation: Bool { true }
    let parent: InodeNumber
    let name: UnsafeRawBufferPointer
    let mode: UInt32
    static var isOnce: Bool { true }
    func repeatedAnswer(_ volume: HostVolume) throws(Stop) -> Attributes {
        try volume.run { (core) throws(Stop) in try core.lookup(parent, name) }
    }

    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> Attributes {
        try core.make(parent, name, NewInode(mode: mode), context)
    }

    func finish(_ answer: Attributes, _ reply: consuming Reply, _ server: FuseServer) {
        if !reply.created(answer) { server.volume.forget(answer.inode, 1) }
    }
}

/// TMPFILE. It is answered like CREATE. Without handles the kernel sends no RELEASE for it either.
struct UnnamedOperation: CoreOperation {
    static var isMutation: Bool { true }
    let parent: InodeNumber
    let mode: UInt32

    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> Attributes {
        try core.makeUnnamed(parent, mode, context)
    }

    func finish(_ answer: Attributes, _ reply: consuming Reply, _ server: FuseServer) {
        if !reply.created(answer) { server.volume.forget(answer.inode, 1) }
    }
}

/// LINK. The reply's attributes bring the kernel's link count up to date.
struct LinkOperation: CoreOperation {
    static var isMutation: Bool { true }
    let inode: InodeNumber
    let parent: InodeNumber
    let name: UnsafeRawBufferPointer
    static var isOnce: Bool { true }
    func repeatedAnswer(_ volume: HostVolume) throws(Stop) -> Attributes {
        try volume.run { (core) throws(Stop) in try core.lookup(parent, name) }
    }

    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> Attributes {
        try core.link(inode, parent, name, context)
    }

    func finish(_ answer: Attributes, _ reply: consuming Reply, _ server: FuseServer) {
        server.answer(entry: answer, reply)
    }
}

/// UNLINK and RMDIR.
struct RemoveOperation: CoreOperation {
    static var isMutation: Bool { true }
    let parent: InodeNumber
    let name: UnsafeRawBufferPointer
    let isDirectory: Bool
    static var isOnce: Bool { true }

    func run(_ core: Core, _ context: RequestContext) throws(Stop) {
        if isDirectory {
            try core.removeDirectory(parent, name, context)
        } else {
            try core.unlink(parent, name, context)
        }
    }
}

/// RENAME and RENAME2.
struct RenameOperation: CoreOperation {
    static var isMutation: Bool { true }
    let parent: InodeNumber
    let name: UnsafeRawBufferPointer
    let newParent: InodeNumber
    let newName: UnsafeRawBufferPointer
    let flags: UInt32
    static var isOnce: Bool { true }

    func run(_ core: Core, _ context: RequestContext) throws(Stop) {
        let wanted = RenameFlags(rawValue: flags)
        let known: RenameFlags = [.noReplace, .exchange, .whiteout]
        guard known.isSuperset(of: wanted), !wanted.contains(.exchange) || wanted == .exchange else {
            throw .failed(.invalid)
        }
        try core.rename(parent, name, newParent, newName, wanted, context)
    }
}

extension FuseServer {
    static func addNamespaceCallbacks(_ table: inout fuse_lowlevel_ops) {
        table.lookup = { request, parent, name in
            FuseServer.of(request).perform(
                LookupOperation(parent: InodeNumber(parent), name: FuseServer.bytes(name)), Reply(request!))
        }
        table.forget = { request, inode, count in
            FuseServer.of(request).volume.forget(InodeNumber(inode), count)
            Reply(request!).none()
        }
        table.forget_multi = { request, count, list in
            let volume = FuseServer.of(request).volume
            for one in UnsafeBufferPointer(start: list, count: count) {
                volume.forget(InodeNumber(one.ino), one.nlookup)
            }
            Reply(request!).none()
        }
        table.mknod = { request, parent, name, mode, device in
            FuseServer.make(
                request, parent, name, NewInode(mode: mode, deviceNumber: UInt32(truncatingIfNeeded: device)))
        }
        table.mkdir = { request, parent, name, mode in
            FuseServer.make(request, parent, name, NewInode(mode: mode & 0o7777 | FileType.directory))
        }
        table.symlink = { request, target, parent, name in
            FuseServer.make(
                request, parent, name, NewInode(mode: FileType.symbolicLink | 0o777, target: FuseServer.bytes(target)))
        }
        table.link = { request, inode, parent, name in
            let operation = LinkOperation(
                inode: InodeNumber(inode), parent: InodeNumber(parent), name: FuseServer.bytes(name))
            FuseServer.of(request).perform(operation, Reply(request!))
        }
        table.unlink = { request, parent, name in
            let operation = RemoveOperation(
                parent: InodeNumber(parent), name: FuseServer.bytes(name), isDirectory: false)
            FuseServer.of(request).perform(operation, Reply(request!))
        }
        table.rmdir = { request, parent, name in
            let operation = RemoveOperation(
                parent: InodeNumber(parent), name: FuseServer.bytes(name), isDirectory: true)
            FuseServer.of(request).perform(operation, Reply(request!))
        }
        table.rename = { request, parent, name, newParent, newName, flags in
            let operation = RenameOperation(
                parent: InodeNumber(parent), name: FuseServer.bytes(name), newParent: InodeNumber(newParent),
                newName: FuseServer.bytes(newName), flags: flags)
            FuseServer.of(request).perform(operation, Reply(request!))
        }
    }

    private static func make(
        _ request: fuse_req_t?, _ parent: fuse_ino_t, _ name: UnsafePointer<CChar>?, _ new: NewInode
    ) {
        let operation = MakeOperation(parent: InodeNumber(parent), name: FuseServer.bytes(name), new: new)
        FuseServer.of(request).perform(operation, Reply(request!))
    }
}
