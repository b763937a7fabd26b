// Has the kernel write back what it holds of a part of a file: what programs have stored through mappings, of which the
// server knows nothing yet.

/// A thread that waits for the kernel. It is none of the transport's, because those must be free for the kernel's
/// WRITEs.
final class KernelWriteback: @unchecked Sendable {
    private struct Item {
        var inode: InodeNumber
        var range: Range<UInt64>
        var done: @Sendable (_ isWhole: Bool) -> Void
    }

    private let monitor = Monitor()
    private let hasWork: Condition
    // Guarded by `monitor`.
    /// No more than there are threads of programs that look for holes: each waits for its answer.
    private var items: [Item] = []
    /// The inode that is being written back, and whether a WRITE of it has failed meanwhile.
    private var current: InodeNumber?
    private var hasFailed = false
    private var isStopping = false
    private var thread: DeviceThread?

    init() { hasWork = Condition(monitor) }

    /// Calls `done`, on another thread, when the kernel has written back and forgotten this range. `isWhole`:
    /// everything got into the store. Returns false, and begins nothing, if no thread can be had.
    func begin(
        _ inode: InodeNumber, _ range: Range<UInt64>, through transport: any Transport,
        _ done: @escaping @Sendable (_ isWhole: Bool) -> Void
    ) -> Bool {
        monitor.withLock {
            if isStopping { return false }
            if thread == nil {
                do { thread = try DeviceThread(name: "writeback") { [self] in run(transport) } } catch { return false }
            }
            items.append(Item(inode: inode, range: range, done: done))
            hasWork.signal()
            return true
        }
    }

    /// A WRITE has failed. The kernel does not tell the thread that waits for the writeback.
    func noteFailedWrite(_ inode: InodeNumber) {
        monitor.withLock { if current == inode { hasFailed = true } }
    }

    /// Finishes what was begun, and begins nothing more. To be called while the transport still serves, or after the
    /// kernel has ended the connection: somebody must take what the kernel writes back.
    func stop() {
        let thread = monitor.withLock { () -> DeviceThread? in
            isStopping = true
            hasWork.signal()
            return self.thread.take()
        }
        thread?.join()
    }

    private func run(_ transport: any Transport) {
        while true {
            let item = monitor.withLock { () -> Item? in
                while items.isEmpty && !isStopping { hasWork.wait() }
                guard !items.isEmpty else { return nil }
                let item = items.removeFirst()
                (current, hasFailed) = (item.inode, false)
                return item
            }
            guard let item else { return }
            transport.writeBack(item.inode, item.range)
            let isWhole = monitor.withLock { () -> Bool in
                current = nil
                return !hasFailed
            }
            item.done(isWhole)
        }
    }
}
