// The one answer that a request of the kernel gets. FuseServer mints a Reply for each request; every path consumes it.

import CFuse3
import Glibc
import Synchronization

/// The duty to answer one request, exactly once: each method consumes it. Dropping one answers EIO and counts as a defect.
///
/// No lock may be held while answering: the kernel may drop its last reference to an inode and come back at once.
struct Reply: ~Copyable {
    private let request: fuse_req_t
    /// The request's number, with the kernel's mark where it is sent again; 0 where nobody would need it.
    let number: UInt64

    /// Replies that were dropped unanswered; anything but 0 is an error in FuseServer.
    static let defectCount = Atomic<Int>(0)

    /// For how long the kernel may use what it was told, in seconds: practically for ever, since nothing changes a
    /// store but through it.
    private static let cacheSeconds = 1e9

    init(_ request: fuse_req_t) {
        self.request = request
        let server = FuseServer.of(request)
        number = server.connection == nil ? 0 : RawRequest.number(server.rawRequest)
    }

    deinit {
        Self.defectCount.add(1, ordering: .relaxed)
        fuse_reply_err(request, EIO)
    }

    /// Who asks. User and group are known for requests that make an inode; for others they are all ones where idmapped mounts are
    /// allowed. The umask is that of requests that make an inode, 0 where the kernel has applied it already.
    var caller: Caller {
        let context = fuse_req_ctx(request)!
        return Caller(uid: context.pointee.uid, gid: context.pointee.gid, umask: context.pointee.umask)
    }

    var requester: Requester { Requester(pid: fuse_req_ctx(request)!.pointee.pid) }

    consuming func error(_ error: Errno) {
        fuse_reply_err(request, error.rawValue)
        discard self
    }

    consuming func success() {
        fuse_reply_err(request, 0)
        discard self
    }

    /// For requests that the kernel wants no answer to (forget).
    consuming func none() {
        fuse_reply_none(request)
        discard self
    }

    /// An inode that the kernel now knows once more. False when the kernel did not take it (the request was
    /// interrupted): the lookup must be taken back then.
    consuming func entry(_ attributes: Attributes) -> Bool {
        var entry = parameters(attributes)
        let result = fuse_reply_entry(request, &entry)
        discard self
        return result == 0
    }

    /// The same for a file that is open by being made.
    consuming func created(_ attributes: Attributes) -> Bool {
        var entry = parameters(attributes)
        var info = fuse_file_info()
        info.keep_cache = 1
        info.noflush = 1
        let result = fuse_reply_create(request, &entry, &info)
        discard self
        return result == 0
    }

    private borrowing func parameters(_ attributes: Attributes) -> fuse_entry_param {
        var entry = fuse_entry_param()
        entry.ino = attributes.inode.rawValue
        // The kernel wants none for the root.
        entry.generation = attributes.inode == .root ? 0 : UInt64(FuseServer.of(request).generation)
        entry.attr = attributes.status
        entry.attr_timeout = Self.cacheSeconds
        entry.entry_timeout = Self.cacheSeconds
        return entry
    }

    /// "There is no such name", which the kernel may remember (an error would not be).
    consuming func missingEntry() {
        var entry = fuse_entry_param()
        entry.entry_timeout = Self.cacheSeconds
        fuse_reply_entry(request, &entry)
        discard self
    }

    consuming func attributes(_ attributes: Attributes) {
        var status = attributes.status
        fuse_reply_attr(request, &status, Self.cacheSeconds)
        discard self
    }

    /// What statx(2) shows, the time of birth included, as `struct fuse_statx_out`: 32 bytes about how long it is valid, then
    /// `struct fuse_statx`, laid out like `struct statx`.
    consuming func statx(_ attributes: Attributes) {
        let request = self.request
        _ = withUnsafeTemporaryAllocation(byteCount: 288, alignment: 8) { bytes in
            bytes.zero(0, 288)
            bytes.store(UInt64(Self.cacheSeconds), at: 0)
            StatxLayout.encode(attributes, into: UnsafeMutableRawBufferPointer(rebasing: bytes[32...]))
            return fuse_reply_buf(request, bytes.baseAddress!.assumingMemoryBound(to: CChar.self), 288)
        }
        discard self
    }

    /// The answer to ioctl(2): what it writes to its argument.
    consuming func control<Word: FixedWidthInteger>(_ words: [Word]) {
        let request = self.request
        _ = words.withUnsafeBytes { fuse_reply_ioctl(request, 0, $0.baseAddress, $0.count) }
        discard self
    }

    /// Data; false when the kernel did not take it.
    @discardableResult
    consuming func bytes(_ bytes: UnsafeRawBufferPointer) -> Bool {
        let result = fuse_reply_buf(request, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count)
        discard self
        return result == 0
    }

    consuming func bytes(_ bytes: [UInt8]) {
        let request = self.request
        _ = bytes.withUnsafeBytes {
            fuse_reply_buf(request, $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
        }
        discard self
    }

    consuming func written(_ byteCount: Int) {
        fuse_reply_write(request, byteCount)
        discard self
    }

    /// Where lseek(2) found what it looked for.
    consuming func offset(_ offset: UInt64) {
        fuse_reply_lseek(request, off_t(clamping: offset))
        discard self
    }

    /// How long the value of an extended attribute or the list of names is.
    consuming func xattrByteCount(_ byteCount: Int) {
        fuse_reply_xattr(request, byteCount)
        discard self
    }

    /// The answer to open(2) when handles are kept (`open=handle`).
    consuming func opened(keepsCache: Bool, cachesDirectory: Bool) {
        var info = fuse_file_info()
        info.keep_cache = keepsCache ? 1 : 0
        info.cache_readdir = cachesDirectory ? 1 : 0
        info.noflush = 1
        fuse_reply_open(request, &info)
        discard self
    }

    consuming func status(_ status: FileSystemStatus) {
        var answer = status.figures
        fuse_reply_statfs(request, &answer)
        discard self
    }

    /// Adds one entry to the bytes of a readdir answer; returns the bytes it takes, which may be more than there is room.
    borrowing func add(_ entry: DirectoryEntry, name: UnsafePointer<CChar>, to room: UnsafeMutableRawBufferPointer)
        -> Int
    {
        var status = stat()
        status.st_ino = UInt(entry.inode.rawValue)
        status.st_mode = entry.type
        return fuse_add_direntry(
            request, room.baseAddress?.assumingMemoryBound(to: CChar.self), room.count, name, &status,
            off_t(clamping: entry.cookie))
    }

    /// The same for readdirplus. `isKnown` is false for "." and "..", whose inodes the kernel does not take.
    borrowing func add(
        _ entry: DirectoryEntry, _ attributes: Attributes, isKnown: Bool, name: UnsafePointer<CChar>,
        to room: UnsafeMutableRawBufferPointer
    ) -> Int {
        var parameters = self.parameters(attributes)
        if !isKnown { parameters.ino = 0 }
        return fuse_add_direntry_plus(
            request, room.baseAddress?.assumingMemoryBound(to: CChar.self), room.count, name, &parameters,
            off_t(clamping: entry.cookie))
    }
}

/// A reply on its way through an escaping closure: for requests that wait, never for those answered at once. It keeps
/// the request's memory too, which bounds how many wait and tells the transport when none is left.
final class ParkedReply: @unchecked Sendable {
    private var reply: Reply?
    private var memory: RequestMemory?

    init(_ reply: consuming Reply, _ memory: RequestMemory?) {
        self.reply = consume reply
        self.memory = memory
    }

    /// Answers. A second call is a defect.
    func answer(_ body: (consuming Reply) -> Void) {
        guard let taken = reply.take() else { preconditionFailure("a request was about to be answered twice") }
        body(taken)
        memory = nil
    }

    /// The reply, to be looked at while it waits.
    func withReply<Result, Failure: Error>(_ body: (borrowing Reply) throws(Failure) -> Result) throws(Failure)
        -> Result
    {
        guard reply != nil else { preconditionFailure("a request was answered before it was done") }
        return try body(reply!)
    }
}

extension Attributes {
    /// What stat(2) shows. Sizes of blocks are those of the store, so that programs write whole ones.
    var status: stat {
        var status = stat()
        status.st_ino = UInt(inode.rawValue)
        status.st_mode = mode
        status.st_nlink = UInt(linkCount)
        status.st_uid = uid
        status.st_gid = gid
        status.st_rdev = dev_t(kernelEncoding: deviceNumber)
        status.st_size = Int(clamping: byteCount)
        status.st_blksize = Int(FileSystemStatus.blockByteCount)
        status.st_blocks = Int(blockCount)
        status.st_atim = timespec(accessed)
        status.st_mtim = timespec(modified)
        status.st_ctim = timespec(changed)
        return status
    }
}

extension FileSystemStatus {
    /// What statvfs(3) shows.
    var figures: statvfs {
        var figures = statvfs()
        let block = Self.blockByteCount
        figures.f_bsize = UInt(block)
        figures.f_frsize = UInt(block)
        figures.f_blocks = UInt(totalByteCount / block)
        figures.f_bfree = UInt(freeByteCount / block)
        figures.f_bavail = UInt(availableByteCount / block)
        figures.f_files = UInt(inodeCount)
        figures.f_ffree = UInt(freeInodeCount)
        figures.f_favail = UInt(freeInodeCount)
        figures.f_namemax = UInt(Self.nameByteCountLimit)
        return figures
    }
}

extension timespec {
    init(_ time: Timestamp) { self.init(tv_sec: Int(time.seconds), tv_nsec: Int(time.nanoseconds)) }
}

extension Timestamp {
    init(_ time: timespec) { self.init(seconds: Int64(time.tv_sec), nanoseconds: UInt32(time.tv_nsec)) }
}

extension dev_t {
    /// libfuse hands the 32-bit number of the kernel's protocol through as it is, both ways.
    init(kernelEncoding number: UInt32) { self = dev_t(number) }
}

/// `struct fuse_statx` (include/uapi/linux/fuse.h).
enum StatxLayout {
    /// STATX_BASIC_STATS and STATX_BTIME.
    private static let mask: UInt32 = 0x7FF | 0x800
    /// STATX_ATTR_IMMUTABLE, _APPEND, _NODUMP have the numbers of the flags.
    private static let attributes: InodeFlags = [.immutable, .appendOnly, .noDump]

    static func encode(_ attributes: Attributes, into bytes: UnsafeMutableRawBufferPointer) {
        bytes.store(mask, at: 0)
        bytes.store(UInt32(FileSystemStatus.blockByteCount), at: 4)
        bytes.store(UInt64(attributes.flags.intersection(Self.attributes).rawValue), at: 8)
        bytes.store(attributes.linkCount, at: 16)
        bytes.store(attributes.uid, at: 20)
        bytes.store(attributes.gid, at: 24)
        bytes.store(UInt16(truncatingIfNeeded: attributes.mode), at: 28)
        bytes.store(attributes.inode.rawValue, at: 32)
        bytes.store(attributes.byteCount, at: 40)
        bytes.store(attributes.blockCount, at: 48)
        bytes.store(UInt64(Self.attributes.rawValue), at: 56)
        let times = [attributes.accessed, attributes.born, attributes.changed, attributes.modified]
        for (index, time) in times.enumerated() {
            bytes.store(time.seconds, at: 64 + index * 16)
            bytes.store(time.nanoseconds, at: 72 + index * 16)
        }
        // The kernel's 32-bit encoding of device numbers (new_encode_dev).
        let device = attributes.deviceNumber
        bytes.store(device >> 8 & 0xFFF, at: 128)
        bytes.store(device & 0xFF | device >> 12 & 0xFFF00, at: 132)
    }
}
