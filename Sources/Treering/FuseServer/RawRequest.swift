// Fields of requests that libfuse 3.14 does not hand on, read from the request as the kernel sent it.
// Layouts: include/uapi/linux/fuse.h.

/// Readers of raw requests. `struct fuse_in_header` takes the first 40 bytes.
enum RawRequest {
    /// `fuse_write_in.write_flags` & FUSE_WRITE_KILL_SUIDGID.
    static func writeKillsPrivileges(_ request: UnsafeRawBufferPointer) -> Bool {
        request.count >= 64 && request.load(60, as: UInt32.self) & (1 << 2) != 0
    }

    /// `fuse_setattr_in.valid` & FATTR_KILL_SUIDGID.
    static func setattrKillsPrivileges(_ request: UnsafeRawBufferPointer) -> Bool {
        request.count >= 44 && request.load(40, as: UInt32.self) & 0x800 != 0
    }
}
