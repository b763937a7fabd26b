// What stat(2) tells of an inode.

import Glibc

/// What stat(2) tells of an inode, and what the index keeps of it.
struct Attributes: Hashable, Sendable {
    var inode: InodeNumber
    /// Type (S_IFMT) and permission bits.
    var mode: UInt32
    var linkCount: UInt32
    var uid: UInt32
    var gid: UInt32
    /// Device number of a special file, as the kernel's 32-bit encoding.
    var deviceNumber: UInt32
    /// In bytes; for a directory the number of its entries (without "." and "..") times 32.
    var byteCount: UInt64
    /// Bytes of all extents, the reserved ones included.
    var storedByteCount: UInt64
    /// `storedByteCount` in the unit of st_blocks: 512 bytes, rounded up.
    var blockCount: UInt64 { storedByteCount / 512 + (storedByteCount % 512 == 0 ? 0 : 1) }
    var accessed: Timestamp
    var modified: Timestamp
    var changed: Timestamp
    var born: Timestamp
    /// Those of chattr(1).
    var flags: InodeFlags = []

    var type: UInt32 { mode & UInt32(S_IFMT) }
    var isDirectory: Bool { type == UInt32(S_IFDIR) }
    var isRegular: Bool { type == UInt32(S_IFREG) }
    var isSymbolicLink: Bool { type == UInt32(S_IFLNK) }
}

extension Attributes {
    init(_ entry: InodeEntry) {
        let record = entry.record
        self.init(
            inode: record.inode, mode: record.mode, linkCount: record.linkCount, uid: record.uid, gid: record.gid,
            deviceNumber: record.deviceNumber, byteCount: record.size, storedByteCount: entry.derived,
            accessed: record.accessed, modified: record.modified, changed: record.changed, born: record.born,
            flags: record.inodeFlags.intersection(.settable))
        if isDirectory {
            byteCount = min(entry.derived, InodeEntry.derivedLimit(mode)) * 32
            storedByteCount = 0
        }
    }
}
