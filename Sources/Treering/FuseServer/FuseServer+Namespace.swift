// Names: lookup, make, link, unlink, rename, and the kernel's forgetting of inodes.

import CFuse3
import Glibc

/// LOOKUP. A name that is not there is told as an entry without an inode, which the kernel remembers.
struct LookupOperation: Operation {
    let parent: InodeNumber
    let name: UnsafeRawBufferPointer

    func run(_ volume: HostVolume, _ reply: borrowing Reply) throws(Stop) -> Attributes? {
        do throws(Stop) {
            return try volume.lookup(parent, name)
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
struct MakeOperation: Operation {
    static var isMutation: Bool { true }
    let parent: InodeNumber
    let name: UnsafeRawBufferPointer
    let new: NewInode
    static var isOnce: Bool { true }
    func repeatedAnswer(_ volume: HostVolume) throws(Stop) -> Attributes { try volume.lookup(parent, name) }

    func run(_ volume: HostVolume, _ reply: borrowing Reply) throws(Stop) -> Attributes {
        try volume.make(parent, name, new, reply.caller, for: reply.number)
    }

    func finish(_ answer: Attributes, _ reply: consuming Reply, _ server: FuseServer) {
        server.answer(entry: answer, reply)
    }
}

/// CREATE, where the kernel tells of opening: it asks for names that are not there, and holds the directory meanwhile.
struct CreateOperation: Operation {
    static var isMutation: Bool { true }
    let parent: InodeNumber
    let name: UnsafeRawBufferPointer
    let mode: UInt32
    static var isOnce: Bool { true }
    func repeatedAnswer(_ volume: HostVolume) throws(Stop) -> Attributes { try volume.lookup(parent, name) }

    func run(_ volume: HostVolume, _ reply: borrowing Reply) throws(Stop) -> Attributes {
        try volume.make(parent, name, NewInode(mode: mode), reply.caller, for: reply.number)
    }

    func finish(_ answer: Attributes, _ reply: consuming Reply, _ server: FuseServer) {
        if !reply.created(answer) { server.volume.forget(answer.inode, 1) }
    }
}

/// TMPFILE. The answer is CREATE's; where the kernel is not told of open files it asks for no RELEASE either.
struct UnnamedOperation: Operation {
    static var isMutation: Bool { true }
    let parent: InodeNumber
    let mode: UInt32

    func run(_ volume: HostVolume, _ reply: borrowing Reply) throws(Stop) -> Attributes {
        try volume.makeUnnamed(parent, mode, reply.caller)
    }

    func finish(_ answer: Attributes, _ reply: consuming Reply, _ server: FuseServer) {
        if !reply.created(answer) { server.volume.forget(answer.inode, 1) }
    }
}

/// LINK. The reply's attributes bring the kernel's link count up to date.
struct LinkOperation: Operation {
    static var isMutation: Bool { true }
    let inode: InodeNumber
    let parent: InodeNumber
    let name: UnsafeRawBufferPointer
    static var isOnce: Bool { true }
    func repeatedAnswer(_ volume: HostVolume) throws(Stop) -> Attributes { try volume.lookup(parent, name) }

    func run(_ volume: HostVolume, _ reply: borrowing Reply) throws(Stop) -> Attributes {
        try volume.link(inode, parent, name, for: reply.number)
    }

    func finish(_ answer: Attributes, _ reply: consuming Reply, _ server: FuseServer) {
        server.answer(entry: answer, reply)
    }
}

/// UNLINK and RMDIR.
struct RemoveOperation: Operation {
    static var isMutation: Bool { true }
    let parent: InodeNumber
    let name: UnsafeRawBufferPointer
    let isDirectory: Bool
    static var isOnce: Bool { true }

    func run(_ volume: HostVolume, _ reply: borrowing Reply) throws(Stop) {
        if isDirectory {
            try volume.removeDirectory(parent, name, for: reply.number)
        } else {
            try volume.unlink(parent, name, for: reply.number)
        }
    }
}

/// RENAME and RENAME2.
struct RenameOperation: Operation {
    static var isMutation: Bool { true }
    let parent: InodeNumber
    let name: UnsafeRawBufferPointer
    let newParent: InodeNumber
    let newName: UnsafeRawBufferPointer
    let flags: UInt32
    static var isOnce: Bool { true }

    func run(_ volume: HostVolume, _ reply: borrowing Reply) throws(Stop) {
        let wanted = RenameFlags(rawValue: flags)
        let known: RenameFlags = [.noReplace, .exchange, .whiteout]
        guard known.isSuperset(of: wanted), !wanted.contains(.exchange) || wanted == .exchange else {
            throw .failed(.invalid)
        }
        try volume.rename(parent, name, newParent, newName, wanted, reply.caller, for: reply.number)
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
