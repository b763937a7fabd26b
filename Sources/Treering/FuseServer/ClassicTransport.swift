// Requests from /dev/fuse, read by a few threads that block there. Each has libfuse decode what it read in place; a
// request that must wait keeps its memory, and the reader takes another one.
//
// The loop reads the descriptor itself instead of calling fuse_session_receive_buf: that function would own and
// allocate the memory, and prints to stderr where it should not.

import CFuse3
import Glibc
import Synchronization

/// What one reader thread has in hand. Used by its own thread only.
private final class Reader: @unchecked Sendable {
    unowned let transport: ClassicTransport
    let number: Int32
    /// The request that it reads or that libfuse handles.
    var request: Request?
    init(_ transport: ClassicTransport, _ number: Int32) {
        self.transport = transport
        self.number = number
    }
}

/// The transport over /dev/fuse.
final class ClassicTransport: Transport {
    private nonisolated(unsafe) let session: OpaquePointer
    /// Set once, by `init`.
    private nonisolated(unsafe) var readers: [Reader] = []
    private let pool: RequestPool
    private let mountPoint: HostString
    /// The process that has a successor go on when this one is killed; 0 for none.
    private let supervisor: pid_t
    /// What the kernel calls the mount ("0:45"); nil until that is known.
    let device = Mutex<String?>(nil)
    /// Used only by the thread that calls `writeBack`.
    private nonisolated(unsafe) var helper: (isTried: Bool, process: NotifyHelper?) = (false, nil)
    /// Told once, by the last reader to leave.
    private let onEnd: @Sendable () -> Void
    private let runningCount = Atomic<Int>(0)
    private let isStopping = Atomic<Bool>(false)
    private let threads = Mutex<[Thread]>([])
    private struct Thread: @unchecked Sendable { let handle: pthread_t }

    /// Interrupts a read(2) that must end; its handler does nothing.
    private static let wakeSignal = SIGUSR2

    /// Reads from a mounted session. At most `requestLimit` requests, payloads up to `payloadByteCount`, are under way.
    init(
        session: OpaquePointer, mountPoint: HostString, readerCount: Int, requestLimit: Int, payloadByteCount: Int,
        supervisor: pid_t, onEnd: @escaping @Sendable () -> Void
    ) {
        self.session = session
        self.mountPoint = mountPoint
        self.supervisor = supervisor
        // One place more than there are readers: while all of them wait for the kernel, a request that comes back finds
        // a place.
        pool = RequestPool(
            payloadByteCount: payloadByteCount, placeLimit: max(requestLimit, readerCount + 1),
            isResident: supervisor != 0)
        self.onEnd = onEnd
        readers = (0..<readerCount).map { Reader(self, Int32($0)) }
    }

    var hasIdleReader: Bool { pool.hasIdleReader }

    func request(inHandOf reader: Int32) -> Request {
        guard let request = readers[Int(reader)].request else { preconditionFailure("a reader has no request in hand") }
        return request
    }

    /// Requests that are read and not answered, and those being read.
    var liveRequestCount: Int { pool.liveCount }

    func invalidateAttributes(_ inode: InodeNumber) {
        // A negative offset leaves the cached pages alone.
        _ = fuse_lowlevel_notify_inval_inode(session, inode.rawValue, -1, 0)
    }

    func writeBack(_ inode: InodeNumber, _ range: Range<UInt64>) {
        if !helper.isTried, let device = device.withLock({ $0 }) {
            helper = (
                true,
                NotifyHelper(
                    connection: fuse_session_fd(session), device: device, mountPoint: mountPoint,
                    supervisor: supervisor)
            )
        }
        if let process = helper.process {
            if process.send(Self.invalidation(inode, range)) { return }
            helper.process = nil
        }
        _ = fuse_lowlevel_notify_inval_inode(session, inode.rawValue, off_t(range.lowerBound), off_t(range.count))
    }

    /// `struct fuse_out_header` and `struct fuse_notify_inval_inode_out` (include/uapi/linux/fuse.h).
    private static func invalidation(_ inode: InodeNumber, _ range: Range<UInt64>) -> [UInt8] {
        let byteCount: UInt64 = 40
        let code: UInt64 = 2
        let words = [byteCount | code << 32, 0, inode.rawValue, range.lowerBound, UInt64(range.count)]
        return words.flatMap { word in withUnsafeBytes(of: word) { Array($0) } }
    }

    func start() throws(Errno) {
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { _ in }
        sigaction(Self.wakeSignal, &action, nil)
        for reader in readers {
            runningCount.add(1, ordering: .acquiringAndReleasing)
            let argument = Unmanaged.passRetained(reader).toOpaque()
            var thread = pthread_t()
            let result = pthread_create(&thread, nil, { ClassicTransport.run($0!) }, argument)
            guard result == 0 else {
                runningCount.subtract(1, ordering: .acquiringAndReleasing)
                Unmanaged<Reader>.fromOpaque(argument).release()
                // Fewer readers than asked for will do, but not none.
                if reader.number == 0 { throw Errno(result) }
                break
            }
            threads.withLock { $0.append(Thread(handle: thread)) }
        }
    }

    var isOver: Bool { runningCount.load(ordering: .acquiring) == 0 }

    func stop() {
        isStopping.store(true, ordering: .releasing)
        pool.close()
        // A signal that arrives just before read(2) is lost, so ask until all have left.
        while !isOver {
            threads.withLock { threads in
                for thread in threads { pthread_kill(thread.handle, Self.wakeSignal) }
            }
            usleep(5_000)
        }
    }

    /// Waits for the threads, and for every request that is still waiting to be answered. To be called when `isOver`.
    func join() {
        let all = threads.withLock { threads in
            defer { threads.removeAll() }
            return threads
        }
        for thread in all { pthread_join(thread.handle, nil) }
        pool.waitUntilNoneLives()
    }

    private static func run(_ argument: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer? {
        let reader = Unmanaged<Reader>.fromOpaque(argument).takeRetainedValue()
        let transport = reader.transport
        transport.serve(reader)
        reader.request = nil
        if transport.runningCount.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 {
            transport.pool.close()
            transport.onEnd()
        }
        return nil
    }

    private func serve(_ reader: Reader) {
        let descriptor = fuse_session_fd(session)
        var request = fuse_buf()
        pool.readerBegins()
        defer { pool.readerEnds() }
        while !isStopping.load(ordering: .acquiring) {
            guard let taken = reader.request ?? pool.take() else { return }
            reader.request = taken
            let byteCount = read(descriptor, taken.bytes.baseAddress!, taken.bytes.count)
            let error = errno
            guard byteCount > 0 else {
                // ENOENT: the request was interrupted before it could be read. ENODEV: unmounted or aborted.
                if byteCount < 0 && (error == EINTR || error == ENOENT || error == EAGAIN) { continue }
                // A reader that waits for a place would not notice that there is nothing more to read.
                if byteCount == 0 || error == ENODEV { pool.close() }
                return
            }
            taken.accept(readBy: reader.number)
            request.mem = taken.bytes.baseAddress
            request.size = byteCount
            fuse_session_process_buf(session, &request)
            taken.freeReader()
            if taken.isParked { reader.request = nil }
        }
    }

}
