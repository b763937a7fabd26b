// The answer to INIT on its way to the kernel: libfuse 3.14 cannot say everything that this kernel understands, so the
// missing flags are added to its answer here.

import CFuse3
import Glibc
import Synchronization

/// Writes replies for libfuse, and completes the one to INIT.
enum InitReply {
    /// `unique` of the session's INIT request; 0 while there was none (the kernel starts above that).
    private static let request = Atomic<UInt64>(0)

    private static let initOpcode: UInt32 = 26
    /// Flags of `struct fuse_init_out` that libfuse 3.14 leaves out (include/uapi/linux/fuse.h). FUSE_PARALLEL_DIROPS:
    /// without it, lookups and listings of one directory wait for each other in the kernel. FUSE_HANDLE_KILLPRIV_V2:
    /// without it, the kernel asks for security.capability before every write; with it, clearing suid and sgid is ours.
    private static let addedFlags: UInt32 = 1 << 18 | 1 << 28
    /// FUSE_INIT_EXT: there is a second word of flags.
    private static let extensionFlag: UInt32 = 1 << 30
    /// Of the second word: FUSE_ALLOW_IDMAP.
    private static let idmapFlag: UInt32 = 1 << 8
    /// Of the second word: FUSE_HAS_RESEND.
    private static let resendFlag: UInt32 = 1 << 7
    /// The flags that the kernel offered, both words.
    private static let offered = Atomic<UInt32>(0)
    private static let offeredMore = Atomic<UInt32>(0)
    /// Whether FUSE_ALLOW_IDMAP is to be accepted where it is offered. Set before the session starts.
    static let allowsIdmap = Atomic<Bool>(false)
    /// struct fuse_out_header: len, error, unique. struct fuse_init_out: major, minor, max_readahead, flags.
    private static let uniqueOffset = 8
    private static let flagsOffset = 12
    private static let moreFlagsOffset = 32

    /// A session's INIT and the answer that the kernel was given, as they were sent.
    struct Exchange: Sendable, Equatable {
        var request: [UInt8] = []
        var reply: [UInt8] = []
    }
    /// The one of this process.
    private static let exchange = Mutex(Exchange())
    /// libfuse's answer is not sent, because a process that is gone has answered already.
    private static let isSilent = Atomic<Bool>(false)

    /// Looks at a request before libfuse does. struct fuse_in_header: len, opcode, unique.
    @inline(__always)
    static func note(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.load(4, as: UInt32.self) == initOpcode else { return }
        // struct fuse_init_in: major, minor, max_readahead, flags.
        let flags: UInt32 = bytes.load(40 + 12)
        offered.store(flags, ordering: .relaxed)
        // flags2 follows in longer ones.
        let isLong = flags & extensionFlag != 0 && bytes.load(0, as: UInt32.self) >= 60
        offeredMore.store(isLong ? bytes.load(40 + 16) : 0, ordering: .relaxed)
        exchange.withLock { $0 = Exchange(request: Array(bytes.prefix(Int(bytes.load(0, as: UInt32.self))))) }
        request.store(bytes.load(8), ordering: .relaxed)
    }

    /// Has libfuse write its replies through here.
    static func intercept(_ session: OpaquePointer) {
        var functions = fuse_custom_io()
        functions.writev = { descriptor, vectors, count, _ in
            let isInit = InitReply.complete(vectors!, count)
            if isInit, InitReply.isSilent.load(ordering: .relaxed) {
                return (0..<Int(count)).reduce(0) { $0 + vectors![$1].iov_len }
            }
            return Glibc.writev(descriptor, vectors, count)
        }
        // The transport reads by itself.
        functions.read = { _, _, _, _ in
            errno = ENOSYS
            return -1
        }
        fuse_session_custom_io(session, &functions, fuse_session_fd(session))
    }

    /// What a successor needs to go on with this session. Nil if the kernel does not send requests again (before Linux
    /// 6.9). To be asked after INIT was seen. Another thread may still be answering INIT; this waits for the answer.
    static func exchangeForSuccessor() -> Exchange? {
        guard offeredMore.load(ordering: .relaxed) & resendFlag != 0 else { return nil }
        for _ in 0..<1000 {
            let found = exchange.withLock { $0 }
            if !found.reply.isEmpty { return found }
            usleep(1000)
        }
        return nil
    }

    /// Has libfuse take up a session that a process which is gone began. False if libfuse's answer is no longer the one
    /// that the kernel was given.
    static func resume(_ session: OpaquePointer, _ former: Exchange) -> Bool {
        isSilent.store(true, ordering: .relaxed)
        defer { isSilent.store(false, ordering: .relaxed) }
        former.request.withUnsafeBytes { note($0) }
        var bytes = former.request
        bytes.withUnsafeMutableBytes { bytes in
            var request = fuse_buf()
            request.mem = bytes.baseAddress
            request.size = bytes.count
            fuse_session_process_buf(session, &request)
        }
        return exchange.withLock { $0 == former }
    }

    /// Asks the kernel for what was read and not answered. Source: FUSE_NOTIFY_RESEND in include/uapi/linux/fuse.h.
    static func askAgain(_ session: OpaquePointer) throws(Errno) {
        // struct fuse_out_header: length, code, no request.
        var header: (UInt32, Int32, UInt64) = (16, 7, 0)
        guard write(fuse_session_fd(session), &header, 16) == 16 else { throw .last }
    }

    /// True for the answer to INIT.
    @inline(__always)
    private static func complete(_ vectors: UnsafeMutablePointer<iovec>, _ count: Int32) -> Bool {
        // 0 for a notification.
        let header = UnsafeRawPointer(vectors[0].iov_base!)
        let unique = header.loadUnaligned(fromByteOffset: uniqueOffset, as: UInt64.self)
        guard unique == request.load(ordering: .relaxed), unique != 0 else { return false }
        request.store(0, ordering: .relaxed)
        guard count >= 2, vectors[1].iov_len >= flagsOffset + 4 else { return true }
        let answer = UnsafeMutableRawBufferPointer(start: vectors[1].iov_base, count: vectors[1].iov_len)
        var flags = answer.load(flagsOffset, as: UInt32.self) | addedFlags & offered.load(ordering: .relaxed)
        let more = allowsIdmap.load(ordering: .relaxed) ? idmapFlag & offeredMore.load(ordering: .relaxed) : 0
        if more != 0, answer.count >= moreFlagsOffset + 4 {
            flags |= extensionFlag
            answer.store(answer.load(moreFlagsOffset, as: UInt32.self) | more, at: moreFlagsOffset)
        }
        answer.store(flags, at: flagsOffset)
        exchange.withLock { $0.reply = Array(answer) }
        return true
    }
}
