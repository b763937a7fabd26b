// The ring engine: one shared io_uring with registered files. Any thread submits under one lock; a completion thread
// reaps and tells the handler. Lone operations (`perform`) stay on the caller's thread, which is faster than a hop.

#if Liburing
    import CUring
    import Glibc
    import Synchronization

    /// A store's directory reached through io_uring.
    ///
    /// Ownership: a slot belongs to the free list, or to the kernel from its submission until its completion is reaped,
    /// and then to the completion thread. `user_data` is the slot's number.
    ///
    /// A ring that breaks (`io_uring_enter` failing with what cannot be retried) is given up for the life of the
    /// device: entries that the kernel has not taken are done again by the posix path; those that it has taken are
    /// waited for, since their memory may still be read or written, and only then done again or completed. Nothing
    /// is lost, and new work goes to the posix path at once.
    ///
    /// COOP_TASKRUN is not used: it delays completions while a submitting thread computes, and another thread waits.
    final class RingDevice: HostEngine {
        /// One operation in flight.
        struct Slot {
            /// The submission as it came, in case it must be done again.
            var original: Submission
            /// What is left of it.
            var rest: Submission
            var doneByteCount: Int
            /// The descriptors of its file. The file is in use as long as the slot is filled.
            var descriptors: HostFiles.Descriptors
        }

        let files: HostFiles
        let pool: WorkerPool
        let ring: Ring
        let depth: Int
        /// Entries of the ring's table of files; 0: none are registered. Entry 0 is the lock.
        let registeredCount: Int
        nonisolated(unsafe) let slots: UnsafeMutablePointer<Slot>
        /// Two vectors for each slot: they must stay in place while the kernel has the slot.
        nonisolated(unsafe) let vectors: UnsafeMutablePointer<iovec>
        /// Whether a place's descriptors are in the ring's table. Changes with nothing in use there.
        nonisolated(unsafe) let isRegistered: UnsafeMutablePointer<Bool>
        /// The submission side of the ring. Taken before `monitor`; held across `io_uring_enter`, never while waiting.
        let submission = Mutex<Void>(())
        /// Guards `state`. Taken last but for the pool's own lock.
        let monitor = Monitor()
        let room: Condition
        let idle: Condition
        nonisolated(unsafe) var state: State
        /// The error number that broke the ring; 0: it works.
        let brokenBy = Atomic<Int32>(0)
        /// Set by a test: what the next `io_uring_enter` is to fail with.
        let injectedError = Atomic<Int32>(0)
        /// The most that one entry transfers; a test lowers it to have transfers end early.
        let transferByteLimit = Atomic<Int>(1 << 30)
        /// Submissions that the posix path did again.
        let redoneCount = Atomic<Int>(0)
        nonisolated(unsafe) var handler: (@Sendable (Completion) -> Void)?
        nonisolated(unsafe) var thread: DeviceThread?

        /// What submitters and the completion thread share besides the ring.
        struct State: ~Copyable {
            var free: [UInt32]
            /// Slots that are taken and whose completion was not told yet. Those being told count.
            var activeCount = 0
            var waiterCount = 0
            /// Submissions of the completion thread that found no slot: it must not wait for itself.
            var overflow: SubmissionQueue
            var isEnding = false
        }

        var engineName: String { brokenBy.load(ordering: .relaxed) == 0 ? "ring" : "ring (broken; posix)" }

        /// Why the ring was given up, for logs and statistics; nil while it works.
        var degradation: String? {
            let error = brokenBy.load(ordering: .relaxed)
            return error == 0 ? nil : "io_uring_enter failed (\(Errno(error))); operations go through the posix engine"
        }

        /// Uses a ring that lacks nothing, or sets one up. Throws the error of io_uring_setup.
        init(_ files: HostFiles, _ options: DeviceOptions, ring given: Ring? = nil) throws(Errno) {
            self.files = files
            if let given {
                ring = given
            } else {
                ring = try Ring(entryCount: options.queueDepth, sqpoll: options.sqpoll)
            }
            depth = min(options.queueDepth, ring.entryCount)
            pool = WorkerPool(files, capacity: options.queueDepth, threadCount: options.workerCount)
            slots = .allocate(capacity: depth)
            vectors = .allocate(capacity: 2 * depth)
            isRegistered = .allocate(capacity: files.table.placeCount)
            isRegistered.initialize(repeating: false, count: files.table.placeCount)
            room = Condition(monitor)
            idle = Condition(monitor)
            state = State(free: (0..<UInt32(depth)).reversed(), overflow: SubmissionQueue(capacity: 64))
            // A broken ring hands submissions to the pool under locks, so at least one thread must exist already.
            guard pool.start(threadCount: 1) else { throw Errno(EAGAIN) }
            var registered = ring.registerSparseFiles(
                min(1 + 2 * files.table.placeCount, files.descriptorLimit, 1 << 20))
            if registered > 0, let lock = options.lockDescriptor, !ring.register([lock], at: 0) {
                io_uring_unregister_files(ring.ring)
                registered = 0
            }
            registeredCount = registered
            thread = try DeviceThread(name: "treering-ring") { [unowned self] in reapUntilTheEnd() }
            files.table.placeChanged = { [unowned self] in register($1, at: $0) }
        }

        deinit {
            precondition(thread == nil, "a ring device must be shut down")
            slots.deallocate()
            vectors.deallocate()
            isRegistered.deallocate()
        }

        /// What a person is told of the ring.
        var explanation: String {
            var text = "\(depth) entries"
            if ring.isReduced { text += " as far as RLIMIT_MEMLOCK allows" }
            text += registeredCount > 0 ? ", registered files" : ", no registered files"
            return ring.isPolledByKernel ? text + ", sqpoll" : text
        }

        func onCompletion(_ handler: @escaping @Sendable (Completion) -> Void) {
            self.handler = handler
            pool.onCompletion(handler)
        }

        func shutDown() {
            while true {
                monitor.withLock {
                    while state.activeCount > 0 || state.overflow.count > 0 { idle.wait() }
                }
                pool.waitUntilIdle()
                let isQuiet = monitor.withLock { state.activeCount == 0 && state.overflow.count == 0 }
                if isQuiet { break }
            }
            monitor.withLock { state.isEnding = true }
            wakeCompletionThread()
            thread?.join()
            thread = nil
            pool.finish()
            files.table.placeChanged = nil
            files.closeAll()
        }

        // MARK: what tests ask for

        /// Submissions that the posix path did again.
        var redone: Int { redoneCount.load(ordering: .relaxed) }
        /// Has the next `io_uring_enter` fail with this error number.
        func failNextEnter(_ error: Int32) { injectedError.store(error, ordering: .relaxed) }
        /// Has no entry transfer more than so many bytes.
        func limitTransfers(to byteCount: Int) { transferByteLimit.store(byteCount, ordering: .relaxed) }

        // MARK: files

        /// Keeps the ring's table of files equal to the table of descriptors.
        private func register(_ descriptors: HostFiles.Descriptors, at place: Int) {
            files.sequentialReads.reset(place)
            let index = registeredIndex(place, direct: false)
            if isRegistered[place] { _ = ring.register([-1, -1], at: index) }
            isRegistered[place] =
                descriptors.isOpen && index + 1 < registeredCount
                && ring.register([descriptors.buffered, descriptors.direct], at: index)
        }

        @inline(__always)
        func registeredIndex(_ place: Int, direct: Bool) -> Int { 1 + 2 * place + (direct ? 1 : 0) }
    }
#endif
