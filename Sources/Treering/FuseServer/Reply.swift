// The one answer that a request of the kernel gets. FuseServer mints a Reply for each request; every path consumes it.

import CFuse3
import Glibc

/// The duty to answer one request, exactly once: every method that answers consumes it. Dropping it answers EIO and
/// counts as a defect.
///
/// It owns its request, memory and all, until the answer is given. No lock may be held while answering: the kernel may
/// drop its last reference to an inode and come back at once.
struct Reply: ~Copyable {
    private let request: Request
    /// The thread that runs this is the reader that has the request in hand.
    fileprivate(set) var isWithReader = true

    /// For how long the kernel may use what it was told, in seconds: practically for ever, since nothing changes a
    /// store but through it.
    private static let cacheSeconds = 1e9

    /// To be called once for each request, by the callback that libfuse hands it to.
    init(_ handle: fuse_req_t) {
        request = FuseServer.of(handle).transport.request(inHandOf: fuse_req_ctx(handle)!.pointee.pid)
        request.begin(handle)
    }

    deinit { request.replyEnded() }

    /// The request's number.
    var number: UInt64 { request.number }
    /// The kernel sends it again, because a process that is gone has not answered it.
    var isResent: Bool { request.isResent }
    /// The request's opcode as the kernel sent it.
    var opcode: UInt32 { request.opcode }
    /// The request as the kernel sent it: for fields that libfuse does not hand on.
    var rawRequest: UnsafeRawBufferPointer { UnsafeRawBufferPointer(request.bytes) }

    /// The request is going to wait. Any thread may answer it then.
    mutating func park() {
        request.park()
        isWithReader = false
    }
    /// The request waits for other requests of the kernel. They get its memory and its place in the pool.
    borrowing func stepAside() { request.stepAside() }
    /// Ends `stepAside`. Waits for a place in the pool.
    borrowing func comeBack() { request.comeBack() }

    /// Who asks. User and group are known for requests that make an inode. For others they are all ones if idmapped
    /// mounts are allowed. The umask is that of requests that make an inode, 0 if the kernel has applied it already.
    var caller: Caller {
        let context = fuse_req_ctx(request.pending)!
        return Caller(uid: context.pointee.uid, gid: context.pointee.gid, umask: context.pointee.umask)
    }

    /// What the store is to know of the request. `isOnce`: it must not be carried out twice.
    func context(isOnce: Bool) -> RequestContext {
        RequestContext(caller: caller, onceNumber: isOnce ? number : nil)
    }

    var requester: Requester { Requester(pid: request.pid) }

    /// Gives the answer.
    @inline(__always)
    private borrowing func answer<Result>(_ body: (fuse_req_t) -> Result) -> Result {
        if isWithReader { request.freeReader() }
        return request.answer(body)
    }

    consuming func error(_ error: Errno) {
        _ = answer { fuse_reply_err($0, error.rawValue) }
    }

    consuming func success() {
        _ = answer { fuse_reply_err($0, 0) }
    }

    /// For requests that the kernel wants no answer to (forget).
    consuming func none() {
        answer { fuse_reply_none($0) }
    }

    /// An inode that the kernel now knows once more. False when the kernel did not take it (the request was
    /// interrupted): the lookup must be taken back then.
    consuming func entry(_ attributes: Attributes) -> Bool {
        var entry = parameters(attributes)
        return answer { fuse_reply_entry($0, &entry) } == 0
    }

    /// Like `entry`, for a file that is made and opened at once.
    consuming func created(_ attributes: Attributes) -> Bool {
        var entry = parameters(attributes)
        var info = fuse_file_info()
        info.keep_cache = 1
        info.noflush = 1
        return answer { fuse_reply_create($0, &entry, &info) } == 0
    }

    private borrowing func parameters(_ attributes: Attributes) -> fuse_entry_param {
        var entry = fuse_entry_param()
        entry.ino = attributes.inode.rawValue
        // The kernel wants none for the root.
        entry.generation = attributes.inode == .root ? 0 : UInt64(FuseServer.of(request.pending).generation)
        entry.attr = attributes.status
        entry.attr_timeout = Self.cacheSeconds
        entry.entry_timeout = Self.cacheSeconds
        return entry
    }

    /// "There is no such name", which the kernel may remember (an error would not be).
    consuming func missingEntry() {
        var entry = fuse_entry_param()
        entry.entry_timeout = Self.cacheSeconds
        _ = answer { fuse_reply_entry($0, &entry) }
    }

    consuming func attributes(_ attributes: Attributes) {
        var status = attributes.status
        _ = answer { fuse_reply_attr($0, &status, Self.cacheSeconds) }
    }

    /// What statx(2) shows, the time of birth included, as `struct fuse_statx_out`: 32 bytes about how long it is
    /// valid, then `struct fuse_statx`, laid out like `struct statx`.
    consuming func statx(_ attributes: Attributes) {
        _ = withUnsafeTemporaryAllocation(byteCount: 288, alignment: 8) { bytes in
            bytes.zero(0, 288)
            bytes.store(UInt64(Self.cacheSeconds), at: 0)
            StatxLayout.encode(attributes, into: UnsafeMutableRawBufferPointer(rebasing: bytes[32...]))
            let start = bytes.baseAddress!.assumingMemoryBound(to: CChar.self)
            return answer { fuse_reply_buf($0, start, 288) }
        }
    }

    /// The answer to ioctl(2): what it writes to its argument.
    consuming func control<Word: FixedWidthInteger>(_ words: [Word]) {
        words.withUnsafeBytes { bytes in
            _ = answer { fuse_reply_ioctl($0, 0, bytes.baseAddress, bytes.count) }
        }
    }

    /// Gives no answer: somebody else will, to the number that this returns (`FuseSession.answer`).
    consuming func leaveUnanswered() -> UInt64 {
        let number = request.unique
        answer { fuse_reply_none($0) }
        return number
    }

    /// Data; false when the kernel did not take it.
    @discardableResult
    consuming func bytes(_ bytes: UnsafeRawBufferPointer) -> Bool {
        let start = bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
        return answer { fuse_reply_buf($0, start, bytes.count) } == 0
    }

    consuming func bytes(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { bytes in
            let start = bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
            _ = answer { fuse_reply_buf($0, start, bytes.count) }
        }
    }

    consuming func written(_ byteCount: Int) {
        _ = answer { fuse_reply_write($0, byteCount) }
    }

    /// Where lseek(2) found what it looked for.
    consuming func offset(_ offset: UInt64) {
        _ = answer { fuse_reply_lseek($0, off_t(clamping: offset)) }
    }

    /// How long the value of an extended attribute or the list of names is.
    consuming func xattrByteCount(_ byteCount: Int) {
        _ = answer { fuse_reply_xattr($0, byteCount) }
    }

    /// The answer to open(2) when handles are kept (`open=handle`).
    consuming func opened(keepsCache: Bool, cachesDirectory: Bool) {
        var info = fuse_file_info()
        info.keep_cache = keepsCache ? 1 : 0
        info.cache_readdir = cachesDirectory ? 1 : 0
        info.noflush = 1
        _ = answer { fuse_reply_open($0, &info) }
    }

    consuming func status(_ status: FileSystemStatus) {
        var figures = status.figures
        _ = answer { fuse_reply_statfs($0, &figures) }
    }

    /// Adds one entry to the bytes of a readdir answer; returns the bytes it takes, which may be more than there is
    /// room.
    borrowing func add(_ entry: DirectoryEntry, name: UnsafePointer<CChar>, to room: UnsafeMutableRawBufferPointer)
        -> Int
    {
        var status = stat()
        status.st_ino = UInt(entry.inode.rawValue)
        status.st_mode = entry.type
        return fuse_add_direntry(
            request.pending, room.baseAddress?.assumingMemoryBound(to: CChar.self), room.count, name, &status,
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
            request.pending, room.baseAddress?.assumingMemoryBound(to: CChar.self), room.count, name, &parameters,
            off_t(clamping: entry.cookie))
    }
}

/// A reply on its way through an escaping closure: for requests that wait, never for those answered at once.
final class ParkedReply: @unchecked Sendable {
    private var reply: Reply?

    init(_ reply: consuming Reply) {
        var reply = consume reply
        reply.park()
        self.reply = consume reply
    }

    /// Answers. A second call is a defect. `isWithReader`: the reader has the request in hand still, and runs this.
    func answer(isWithReader: Bool = false, _ body: (consuming Reply) -> Void) {
        guard var taken = reply.take() else { preconditionFailure("a request was about to be answered twice") }
        taken.isWithReader = isWithReader
        body(taken)
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
