// What libfuse 3.14 does not know. Fields that it does not hand on are read from the request as the kernel sent it.
// Requests that it would refuse are turned into similar ones that it can decode. Layouts: include/uapi/linux/fuse.h.

/// Readers of raw requests. `struct fuse_in_header` takes the first 40 bytes.
enum RawRequest {
    /// FUSE_TMPFILE: open(2) with O_TMPFILE. Its body is CREATE's.
    static let tmpfile: UInt32 = 51
    /// FUSE_STATX. Its body begins like GETATTR's.
    static let statx: UInt32 = 52
    /// `fuse_in_header.pid`.
    static let pidOffset = 32
    /// FUSE_UNIQUE_RESEND: the mark in the number of a request that the kernel sends again.
    static let resendMark: UInt64 = 1 << 63
    private static let getattr: UInt32 = 3
    private static let create: UInt32 = 35

    /// Returns the opcode of a request just read. Replaces it if libfuse must take the request for another one. The
    /// callback that libfuse calls then looks at `Reply.opcode`.
    @inline(__always)
    static func translate(_ request: UnsafeMutableRawBufferPointer) -> UInt32 {
        let opcode: UInt32 = UnsafeRawBufferPointer(request).load(4)
        switch opcode {
        case tmpfile: request.store(create, at: 4)
        case statx: request.store(getattr, at: 4)
        default: break
        }
        return opcode
    }

    /// `fuse_write_in.write_flags` & FUSE_WRITE_KILL_SUIDGID.
    static func writeKillsPrivileges(_ request: UnsafeRawBufferPointer) -> Bool {
        request.count >= 64 && request.load(60, as: UInt32.self) & (1 << 2) != 0
    }

    /// `fuse_setattr_in.valid` & FATTR_KILL_SUIDGID.
    static func setattrKillsPrivileges(_ request: UnsafeRawBufferPointer) -> Bool {
        request.count >= 44 && request.load(40, as: UInt32.self) & 0x800 != 0
    }
}
