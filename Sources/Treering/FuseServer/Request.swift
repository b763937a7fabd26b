// One request of the kernel from its reading to its answer, and the bounded pool that requests come from.

import CFuse3
import CLinux
import Glibc
import Synchronization

/// A request: the memory that it was read to (names and payload point into it), and libfuse's handle to answer it.
///
/// A reader makes it known to libfuse. The `Reply` that a callback mints then owns it, wherever that goes. So whoever
/// holds the reply holds the memory. When the last owner lets go, the memory and the request's place in the pool are
/// free again.
final class Request: @unchecked Sendable {
    /// What was read. The payload of a WRITE in it is aligned to a page. Empty once the request has stepped aside.
    private(set) var bytes: UnsafeMutableRawBufferPointer
    /// The kernel's number of the request, as it was read.
    private(set) var unique: UInt64 = 0
    /// The number without the mark: the same each time the kernel sends the request.
    var number: UInt64 { unique & ~RawRequest.resendMark }
    /// The kernel sends it again, because a process that is gone has not answered it.
    var isResent: Bool { unique & RawRequest.resendMark != 0 }
    /// The opcode as the kernel sent it (see `RawRequest.translate`).
    private(set) var opcode: UInt32 = 0
    /// The thread that made the request, as this process sees it.
    private(set) var pid: pid_t = 0
    /// It waits, or has waited: the reader that read it must not use its memory again.
    private(set) var isParked = false
    /// Its reader has it in hand and counts as busy. Used on that reader's thread only.
    private var occupiesReader = false
    /// Set from the minting of its reply until the answer.
    private var handle: fuse_req_t?
    private let pool: RequestPool
    private var hasPlace = true

    /// Replies that were dropped unanswered; anything but 0 is an error in FuseServer.
    static let defectCount = Atomic<Int>(0)

    fileprivate init(_ bytes: UnsafeMutableRawBufferPointer, _ pool: RequestPool) {
        self.bytes = bytes
        self.pool = pool
    }

    deinit {
        precondition(handle == nil, "a request's memory was let go before the answer")
        pool.end(bytes, hasPlace: hasPlace)
    }

    // MARK: For its reader

    /// Notes what was just read, and makes it ready for libfuse. `Transport.request(inHandOf:)` finds the request by
    /// `reader`, which takes the place of the process number, the only field that libfuse hands on and has no use for.
    @inline(__always)
    func accept(readBy reader: Int32) {
        precondition(handle == nil && !isParked, "a request was read to the memory of one that is not answered")
        InitReply.note(UnsafeRawBufferPointer(bytes))
        let words = UnsafeRawBufferPointer(bytes)
        unique = words.load(8)
        pid = words.load(RawRequest.pidOffset)
        opcode = RawRequest.translate(bytes)
        bytes.store(reader, at: RawRequest.pidOffset)
        occupiesReader = true
        pool.idleReaderCount.subtract(1, ordering: .relaxed)
    }

    /// Its reader counts as idle from now on: it is about to answer, or it is done. To be called on that reader's
    /// thread.
    @inline(__always)
    func freeReader() {
        guard occupiesReader else { return }
        occupiesReader = false
        pool.idleReaderCount.add(1, ordering: .relaxed)
    }

    // MARK: For its reply

    func begin(_ handle: fuse_req_t) {
        precondition(self.handle == nil, "a request has two replies")
        self.handle = handle
    }

    /// What libfuse knows it by, for everything but the answer.
    var pending: fuse_req_t {
        guard let handle else { preconditionFailure("a request was used after its answer") }
        return handle
    }

    /// Answers it, once.
    @inline(__always)
    func answer<Result>(_ body: (fuse_req_t) -> Result) -> Result {
        let handle = pending
        self.handle = nil
        return body(handle)
    }

    /// Its reply is gone. If nobody has answered, the kernel must not wait for ever.
    @inline(__always)
    func replyEnded() {
        guard handle != nil else { return }
        Self.defectCount.add(1, ordering: .relaxed)
        _ = answer { fuse_reply_err($0, EIO) }
    }

    /// It is going to wait, perhaps to be answered by another thread. The first call comes from the thread of its
    /// reader.
    func park() { if !isParked { isParked = true } }

    /// It waits for other requests of the kernel: they get its memory and its place. Nothing may point into its memory
    /// any more.
    func stepAside() {
        park()
        let bytes = self.bytes
        self.bytes = UnsafeMutableRawBufferPointer(start: nil, count: 0)
        hasPlace = false
        pool.stepAside(bytes)
    }

    /// The requests that it waited for are answered. Waits for a place.
    func comeBack() {
        pool.comeBack()
        hasPlace = true
    }
}

/// The memory for all requests. A reader that finds none left waits: the kernel then holds further requests back.
final class RequestPool: @unchecked Sendable {
    /// sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in): what precedes a payload.
    private static let writeHeaderByteCount = 80
    private static let pageByteCount = 4096
    /// Pieces kept for the next request; what is beyond that goes back to the system, since each may hold a megabyte.
    private static let keptCount = 16

    private let byteCount: Int
    private let placeLimit: Int
    /// Whether memory is populated at once. If the process is killed while the kernel copies a request to a missing
    /// page, the request fails, and no successor can take it over.
    private let isResident: Bool
    /// Readers that have no unanswered request. One that has just answered counts. It will soon read again, though the
    /// client that it woke may have taken its processor.
    fileprivate let idleReaderCount = Atomic<Int>(0)
    private let monitor = Monitor()
    private let changed: Condition
    // Guarded by `monitor`.
    private var free: [UnsafeMutableRawBufferPointer] = []
    private var placeCount = 0
    private var requestCount = 0
    private var isClosed = false

    /// Memory for requests with payloads up to `payloadByteCount`, at most `placeLimit` at a time.
    init(payloadByteCount: Int, placeLimit: Int, isResident: Bool = false) {
        self.isResident = isResident
        // The largest request that is not a WRITE is a SETXATTR (64 KiB, a name and a header).
        byteCount = max(payloadByteCount, 128 << 10) + 2 * Self.pageByteCount
        self.placeLimit = placeLimit
        changed = Condition(monitor)
        free.reserveCapacity(Self.keptCount)
    }

    deinit { for bytes in free { Self.release(bytes) } }

    /// A thread begins to read requests.
    func readerBegins() { idleReaderCount.add(1, ordering: .relaxed) }

    /// It reads no more.
    func readerEnds() { idleReaderCount.subtract(1, ordering: .relaxed) }

    var hasIdleReader: Bool { idleReaderCount.load(ordering: .relaxed) > 0 }

    /// Requests that live: read or being read, and not let go since.
    var liveCount: Int { monitor.withLock { requestCount } }

    /// Memory for one request, waiting for a place; nil once the pool is closed.
    func take() -> Request? {
        monitor.withLock {
            while placeCount >= placeLimit && !isClosed { changed.wait() }
            if isClosed { return nil }
            placeCount += 1
            requestCount += 1
            return Request(free.popLast() ?? allocate(), self)
        }
    }

    /// Wakes whoever waits for a place: no more requests are wanted, and those that live may all go on.
    func close() {
        monitor.withLock {
            isClosed = true
            changed.broadcast()
        }
    }

    /// Waits until no request lives, that is until every one that waited was answered. To be called when nobody reads
    /// any more.
    func waitUntilNoneLives() {
        monitor.withLock { while requestCount > 0 { changed.wait() } }
    }

    fileprivate func stepAside(_ bytes: UnsafeMutableRawBufferPointer) {
        let surplus = monitor.withLock {
            placeCount -= 1
            changed.broadcast()
            return keep(bytes)
        }
        if let surplus { Self.release(surplus) }
    }

    fileprivate func comeBack() {
        monitor.withLock {
            while placeCount >= placeLimit && !isClosed { changed.wait() }
            placeCount += 1
        }
    }

    fileprivate func end(_ bytes: UnsafeMutableRawBufferPointer, hasPlace: Bool) {
        let surplus = monitor.withLock {
            if hasPlace { placeCount -= 1 }
            requestCount -= 1
            changed.broadcast()
            return keep(bytes)
        }
        if let surplus { Self.release(surplus) }
    }

    /// Keeps memory for the next request; gives it back where there is enough. With the lock held.
    private func keep(_ bytes: UnsafeMutableRawBufferPointer) -> UnsafeMutableRawBufferPointer? {
        if bytes.isEmpty { return nil }
        if free.count >= Self.keptCount { return bytes }
        free.append(bytes)
        return nil
    }

    private func allocate() -> UnsafeMutableRawBufferPointer {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: Self.pageByteCount)
        // From Linux 5.14 on. Before that the pages come one by one.
        if isResident { madvise(memory.baseAddress!, memory.count, Int32(LINUX_MADVISE_POPULATE_WRITE)) }
        let lead = Self.pageByteCount - Self.writeHeaderByteCount
        return UnsafeMutableRawBufferPointer(rebasing: memory[lead...])
    }

    private static func release(_ bytes: UnsafeMutableRawBufferPointer) {
        (bytes.baseAddress! - (pageByteCount - writeHeaderByteCount)).deallocate()
    }
}
