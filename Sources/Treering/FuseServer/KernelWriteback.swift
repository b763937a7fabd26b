// Has the kernel write back what it holds of a part of a file: what programs have stored through mappings, of which the server
// knows nothing yet.

/// A thread that waits for the kernel. Not one of the transport's: the kernel's WRITEs must find those.
final class KernelWriteback: @unchecked Sendable {
    private struct Item {
        var inode: InodeNumber
        var range: Range<UInt64>
        var done: @Sendable () -> Void
    }

    private let monitor = Monitor()
    private let hasWork: Condition
    // Guarded by `monitor`.
    private var items: [Item] = []
    private var isStopping = false
    private var thread: DeviceThread?

    init() { hasWork = Condition(monitor) }

    /// Calls `done`, on another thread, when the kernel has written back and forgotten this range. False where there are no more threads:
    /// then nothing was begun.
    func begin(
        _ inode: InodeNumber, _ range: Range<UInt64>, through transport: any Transport,
        _ done: @escaping @Sendable () -> Void
    ) -> Bool {
        monitor.withLock {
            if thread == nil {
                do { thread = try DeviceThread(name: "writeback") { [self] in run(transport) } } catch { return false }
            }
            items.append(Item(inode: inode, range: range, done: done))
            hasWork.signal()
            return true
        }
    }

    /// To be called when nobody asks any more.
    func stop() {
        let thread = monitor.withLock {
            isStopping = true
            hasWork.signal()
            return self.thread
        }
        thread?.join()
    }

    private func run(_ transport: any Transport) {
        while true {
            let item = monitor.withLock { () -> Item? in
                while items.isEmpty && !isStopping { hasWork.wait() }
                return items.isEmpty ? nil : items.removeFirst()
            }
            guard let item else { return }
            transport.writeBack(item.inode, item.range)
            item.done()
        }
    }
}
