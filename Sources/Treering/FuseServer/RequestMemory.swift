// Memory for requests read from /dev/fuse: one piece for each reader and one for each request that waits. Bounded.

import CLinux
import Glibc

/// The memory of one request, given back to its pool when the last one who holds it lets go.
final class RequestMemory: @unchecked Sendable {
    /// Where a request is read to. The payload of a WRITE in it is aligned to a page.
    let bytes: UnsafeMutableRawBufferPointer
    private let pool: RequestPool

    fileprivate init(_ bytes: UnsafeMutableRawBufferPointer, _ pool: RequestPool) {
        self.bytes = bytes
        self.pool = pool
    }

    deinit { pool.give(bytes) }
}

/// All memory for requests. A reader that finds none left waits: the kernel then holds further requests back.
final class RequestPool: @unchecked Sendable {
    /// sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in): what precedes a payload.
    private static let writeHeaderByteCount = 80
    private static let pageByteCount = 4096
    /// Pieces kept for the next request; what is beyond that goes back to the system, since each may hold a megabyte.
    private static let keptCount = 16

    private let byteCount: Int
    private let countLimit: Int
    /// Populated at once: a process that is killed while the kernel copies a request to a page that is not there makes the request fail,
    /// and nobody could take it over.
    private let isResident: Bool
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let returned = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var free: [UnsafeMutableRawBufferPointer] = []
    private var takenCount = 0
    private var isClosed = false

    /// Memory for requests with payloads up to `payloadByteCount`, at most `countLimit` at a time.
    init(payloadByteCount: Int, countLimit: Int, isResident: Bool = false) {
        self.isResident = isResident
        // The largest request that is not a WRITE is a SETXATTR (64 KiB, a name and a header).
        byteCount = max(payloadByteCount, 128 << 10) + 2 * Self.pageByteCount
        self.countLimit = countLimit
        free.reserveCapacity(Self.keptCount)
        mutex.initialize(to: pthread_mutex_t())
        returned.initialize(to: pthread_cond_t())
        precondition(pthread_mutex_init(mutex, nil) == 0 && pthread_cond_init(returned, nil) == 0)
    }

    deinit {
        for bytes in free { Self.release(bytes) }
        pthread_cond_destroy(returned)
        pthread_mutex_destroy(mutex)
        returned.deallocate()
        mutex.deallocate()
    }

    /// Memory for one request, waiting for some to come back; nil once the pool is closed.
    func take() -> RequestMemory? {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while takenCount >= countLimit && !isClosed { pthread_cond_wait(returned, mutex) }
        if isClosed { return nil }
        takenCount += 1
        return RequestMemory(free.popLast() ?? allocate(), self)
    }

    /// Wakes readers that wait: no more requests are wanted.
    func close() {
        pthread_mutex_lock(mutex)
        isClosed = true
        pthread_cond_broadcast(returned)
        pthread_mutex_unlock(mutex)
    }

    /// Waits until every piece has come back, that is until every request that waited was answered.
    func waitUntilAllReturned() {
        pthread_mutex_lock(mutex)
        while takenCount > 0 { pthread_cond_wait(returned, mutex) }
        pthread_mutex_unlock(mutex)
    }

    fileprivate func give(_ bytes: UnsafeMutableRawBufferPointer) {
        pthread_mutex_lock(mutex)
        takenCount -= 1
        let isKept = free.count < Self.keptCount
        if isKept { free.append(bytes) }
        pthread_cond_broadcast(returned)
        pthread_mutex_unlock(mutex)
        if !isKept { Self.release(bytes) }
    }

    private func allocate() -> UnsafeMutableRawBufferPointer {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: Self.pageByteCount)
        // Linux 5.14; without it the pages come one by one.
        if isResident { madvise(memory.baseAddress!, memory.count, Int32(LINUX_MADVISE_POPULATE_WRITE)) }
        let lead = Self.pageByteCount - Self.writeHeaderByteCount
        return UnsafeMutableRawBufferPointer(rebasing: memory[lead...])
    }

    private static func release(_ bytes: UnsafeMutableRawBufferPointer) {
        (bytes.baseAddress! - (pageByteCount - writeHeaderByteCount)).deallocate()
    }
}
