// ioctl(2) on files and directories of the mount: flags of chattr(1), trimming, resizing, shutting down. Source:
// ioctl_iflags(2), include/uapi/linux/fs.h. The kernel decides who may set flags. Trimming, resizing and shutting down
// are for administrators and for the user who serves the mount.

import CFuse3
import Glibc

/// Numbers of the ioctls that are answered; others are ENOTTY.
enum Control {
    static let getFlags: UInt32 = 0x8008_6601
    static let setFlags: UInt32 = 0x4008_6602
    static let getExtendedFlags: UInt32 = 0x801C_581F
    static let setExtendedFlags: UInt32 = 0x401C_5820
    static let getVersion: UInt32 = 0x8008_7601
    /// FITRIM. Its `struct fstrim_range`: start, length, least length (8 each).
    static let trim: UInt32 = 0xC018_5879
    /// `_IOWR(0xE7, 1, u64[2])`, our own. In: the wanted capacity in bytes. Out: the capacity that there is and 0; or 0
    /// and the least that would do, if the wanted one is too small.
    static let resize: UInt32 = 0xC010_E701
    /// `_IOR(0xE7, 7, u8[512])`, our own: a mount that was begun read-only opens its store for writing. Out: why that is
    /// impossible, as text; nothing if it was done. EBUSY if the store would show something else then, so that it must
    /// be mounted anew. EROFS if a failure has made the mount read-only.
    static let becomeWritable: UInt32 = 0x8200_E707
    /// `_IOWR(0xE7, 8, u64[3])`, our own, of a regular file. In: an offset. Out: where to go on (all ones at the end of
    /// the file), how many pieces were joined, and how many bytes of the log that took.
    static let defragment: UInt32 = 0xC018_E708
    /// _IOR('X', 125, u32), as on ext4 and XFS. By its number it takes no argument, so the kernel does not send it
    /// along: it is read from the caller's memory.
    static let shutDown: UInt32 = 0x8004_587D
}

/// `struct fsxattr`: flags, extent size, number of extents, project, copy-on-write extent size (4 each), 8 zeros.
private enum ExtendedFlags {
    static let byteCount = 28
    private static let pairs: [(UInt32, InodeFlags)] = [
        (0x08, .immutable), (0x10, .appendOnly), (0x40, .noAccessTime), (0x80, .noDump),
    ]

    static func encode(_ flags: InodeFlags) -> UInt32 {
        pairs.reduce(0) { flags.contains($1.1) ? $0 | $1.0 : $0 }
    }

    /// Nil if something is asked for that does not exist here: projects, extent sizes, other flags.
    static func decode(_ bytes: UnsafeRawBufferPointer) -> InodeFlags? {
        let wanted: UInt32 = bytes.load(0)
        let known = pairs.reduce(0) { $0 | $1.0 }
        guard wanted & ~known == 0, [4, 12, 16].allSatisfy({ bytes.load($0, as: UInt32.self) == 0 }) else { return nil }
        return pairs.reduce(into: InodeFlags()) { if wanted & $1.0 != 0 { $0.insert($1.1) } }
    }
}

/// FS_IOC_GETFLAGS and FS_IOC_FSGETXATTR.
private struct GetFlagsOperation: CoreOperation {
    let inode: InodeNumber
    let isExtended: Bool

    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> InodeFlags {
        try core.inodeFlags(inode)
    }

    func finish(_ answer: InodeFlags, _ reply: consuming Reply, _ server: FuseServer) {
        guard isExtended else { return reply.control([answer.rawValue]) }
        var words = [UInt32](repeating: 0, count: ExtendedFlags.byteCount / 4)
        words[0] = ExtendedFlags.encode(answer)
        reply.control(words)
    }
}

/// FS_IOC_SETFLAGS and FS_IOC_FSSETXATTR.
private struct SetFlagsOperation: CoreOperation {
    static var isMutation: Bool { true }
    let inode: InodeNumber
    let flags: InodeFlags

    func run(_ core: Core, _ context: RequestContext) throws(Stop) {
        try core.setInodeFlags(inode, flags, context)
    }

    func finish(_ answer: Void, _ reply: consuming Reply, _ server: FuseServer) {
        // The time of the change is another now.
        server.invalidateAttributes(inode)
        reply.control([] as [UInt32])
    }
}

/// Asks whether the file may be defragmented, and has it done.
private struct DefragmentOperation: CoreOperation {
    let inode: InodeNumber
    let from: UInt64
    /// Who must own the file; nil: it does not matter.
    let user: UInt32?

    func run(_ core: Core, _ context: RequestContext) throws(Stop) {
        let record = try core.inode(inode).record
        guard record.isRegular else { throw .failed(record.isDirectory ? .isDirectory : .invalid) }
        guard user == nil || user == record.uid else { throw .failed(.notPermitted) }
        if core.isReadOnly { throw .failed(.readOnly) }
    }

    func finish(_ answer: Void, _ reply: consuming Reply, _ server: FuseServer) {
        let parked = ParkedReply(reply)
        server.volume.housekeeper.defragment(inode, from: from) { answer in
            parked.answer { reply in
                switch answer {
                case .done(let next, let pieceCount, let byteCount):
                    reply.control([next ?? .max, pieceCount, byteCount])
                case .failed(let errno): reply.error(errno)
                }
            }
        }
    }
}

extension FuseServer {
    static func addControlCallbacks(_ table: inout fuse_lowlevel_ops) {
        table.ioctl = { request, inode, command, argument, _, _, bytes, byteCount, _ in
            FuseServer.of(request).control(
                InodeNumber(inode), UInt32(command), argument, UnsafeRawBufferPointer(start: bytes, count: byteCount),
                Reply(request!))
        }
    }

    private func control(
        _ inode: InodeNumber, _ command: UInt32, _ argument: UnsafeMutableRawPointer?, _ bytes: UnsafeRawBufferPointer,
        _ reply: consuming Reply
    ) {
        switch command {
        case Control.getFlags: perform(GetFlagsOperation(inode: inode, isExtended: false), reply)
        case Control.getExtendedFlags: perform(GetFlagsOperation(inode: inode, isExtended: true), reply)
        case Control.setFlags where bytes.count >= 4:
            perform(SetFlagsOperation(inode: inode, flags: InodeFlags(rawValue: bytes.load(0))), reply)
        case Control.setExtendedFlags where bytes.count >= ExtendedFlags.byteCount:
            guard let flags = ExtendedFlags.decode(bytes) else { return reply.error(.notSupported) }
            perform(SetFlagsOperation(inode: inode, flags: flags), reply)
        case Control.getVersion: reply.control([generation])
        case Control.trim where bytes.count >= 24: trim(bytes, reply)
        case Control.resize where bytes.count >= 16: resize(bytes, reply)
        case Control.becomeWritable: becomeWritable(reply)
        case Control.defragment where bytes.count >= 24: defragment(inode, from: bytes.load(0), reply)
        case Control.shutDown: shutDown(argument, reply)
        default: scrubControl(command, bytes, reply)
        }
    }

    /// The length comes back as how much was trimmed. For administrators and for the user who serves the mount.
    private func trim(_ bytes: UnsafeRawBufferPointer, _ reply: consuming Reply) {
        let requester = reply.requester
        guard requester.identity.isAdministrator || requester.isServer else { return reply.error(.notPermitted) }
        guard !volume.isReadOnly else { return reply.error(.readOnly) }
        let start: UInt64 = bytes.load(0)
        let least: UInt64 = bytes.load(16)
        guard let segments = volume.housekeeper.segmentsToTrim(from: start, byteCount: bytes.load(8), least: least)
        else {
            return reply.error(.invalid)
        }
        let parked = ParkedReply(reply)
        volume.housekeeper.trim(segments) { byteCount in
            parked.answer { reply in reply.control([start, byteCount, least]) }
        }
    }

    /// For administrators and for the user who serves the mount.
    private func resize(_ bytes: UnsafeRawBufferPointer, _ reply: consuming Reply) {
        let requester = reply.requester
        guard requester.identity.isAdministrator || requester.isServer else { return reply.error(.notPermitted) }
        let parked = ParkedReply(reply)
        volume.housekeeper.resize(to: bytes.load(0)) { answer in
            parked.answer { reply in
                switch answer {
                case .done(let capacity): reply.control([capacity, 0])
                case .tooSmall(let least): reply.control([0, least])
                case .failed(let errno): reply.error(errno)
                }
            }
        }
    }

    /// For administrators, for the user who serves the mount, and for the file's owner.
    private func defragment(_ inode: InodeNumber, from: UInt64, _ reply: consuming Reply) {
        let requester = reply.requester
        if !requester.identity.isAdministrator, !requester.isServer {
            perform(DefragmentOperation(inode: inode, from: from, user: requester.user ?? .max), reply)
        } else {
            perform(DefragmentOperation(inode: inode, from: from, user: nil), reply)
        }
    }

    /// For administrators and for the user who serves the mount. The answer comes from `MountService`, which serves
    /// nobody while it opens the store anew.
    private func becomeWritable(_ reply: consuming Reply) {
        let requester = reply.requester
        guard requester.identity.isAdministrator || requester.isServer else { return reply.error(.notPermitted) }
        guard volume.isReadOnly else { return reply.control([] as [UInt8]) }
        guard volume.options.isReadOnly else { return reply.error(.readOnly) }
        guard !volume.isBehindStaging, asksToBecomeWritable.withLock({ $0 == nil }) else { return reply.error(.busy) }
        let number = reply.leaveUnanswered()
        asksToBecomeWritable.withLock { $0 = number }
        onNews()
    }

    /// For administrators and for the user who serves the mount, who can end it anyway.
    private func shutDown(_ argument: UnsafeMutableRawPointer?, _ reply: consuming Reply) {
        let requester = reply.requester
        guard requester.identity.isAdministrator || requester.isServer else { return reply.error(.notPermitted) }
        guard let word = requester.word(at: UInt(bitPattern: argument)) else { return reply.error(.badAddress) }
        guard let mode = HostVolume.ShutDownMode(rawValue: word) else { return reply.error(.invalid) }
        let mayWait = mayWait(reply)
        let parked = ParkedReply(reply)
        volume.shutDown(mode, mayWait: mayWait) { errno in
            parked.answer { reply in
                if let errno { return reply.error(errno) }
                reply.control([] as [UInt32])
            }
        }
    }
}

/// Flags of open(2) that Glibc leaves out without _GNU_SOURCE.
enum OpenFlags {
    static let noAccessTime: Int32 = 0o1000000

    /// Whether a READ through a descriptor with these flags is somebody's access. Through one that is open for writing
    /// alone the kernel reads for itself: the rest of a page that its writeback cache holds in part.
    static func isAccess(_ flags: Int32) -> Bool {
        flags & noAccessTime == 0 && flags & O_ACCMODE != O_WRONLY
    }
}
