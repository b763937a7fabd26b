// The answer to INIT on its way to the kernel: libfuse 3.14 cannot say everything that this kernel understands, so the missing flags
// are added to its answer here.

import CFuse3
import Glibc
import Synchronization

/// Writes replies for libfuse, and completes the one to INIT.
enum InitReply {
    /// `unique` of the session's INIT request; 0 while there was none (the kernel starts above that).
    private static let request = Atomic<UInt64>(0)

    private static let initOpcode: UInt32 = 26
    /// Flags of `struct fuse_init_out` that libfuse 3.14 leaves out (include/uapi/linux/fuse.h). FUSE_PARALLEL_DIROPS: without it,
    /// lookups and listings of one directory wait for each other in the kernel. FUSE_HANDLE_KILLPRIV_V2: without it, the kernel
    /// asks for security.capability before every write; with it, clearing suid and sgid is ours.
    private static let addedFlags: UInt32 = 1 << 18 | 1 << 28
    /// The flags that the kernel offered.
    private static let offered = Atomic<UInt32>(0)
    /// struct fuse_out_header: len, error, unique. struct fuse_init_out: major, minor, max_readahead, flags.
    private static let uniqueOffset = 8
    private static let flagsOffset = 12

    /// Looks at a request before libfuse does. struct fuse_in_header: len, opcode, unique.
    @inline(__always)
    static func note(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.load(4, as: UInt32.self) == initOpcode else { return }
        // struct fuse_init_in: major, minor, max_readahead, flags.
        offered.store(bytes.load(40 + 12), ordering: .relaxed)
        request.store(bytes.load(8), ordering: .relaxed)
    }

    /// Has libfuse write its replies through here.
    static func intercept(_ session: OpaquePointer) {
        var functions = fuse_custom_io()
        functions.writev = { descriptor, vectors, count, _ in
            InitReply.complete(vectors!, count)
            return Glibc.writev(descriptor, vectors, count)
        }
        // The transport reads by itself.
        functions.read = { _, _, _, _ in
            errno = ENOSYS
            return -1
        }
        fuse_session_custom_io(session, &functions, fuse_session_fd(session))
    }

    @inline(__always)
    private static func complete(_ vectors: UnsafeMutablePointer<iovec>, _ count: Int32) {
        let unique = UnsafeRawPointer(vectors[0].iov_base!).loadUnaligned(fromByteOffset: uniqueOffset, as: UInt64.self)
        guard unique == request.load(ordering: .relaxed), unique != 0 else { return }
        request.store(0, ordering: .relaxed)
        guard count >= 2, vectors[1].iov_len >= flagsOffset + 4 else { return }
        let answer = UnsafeMutableRawBufferPointer(start: vectors[1].iov_base, count: vectors[1].iov_len)
        answer.store(
            answer.load(flagsOffset, as: UInt32.self) | addedFlags & offered.load(ordering: .relaxed), at: flagsOffset)
    }
}
