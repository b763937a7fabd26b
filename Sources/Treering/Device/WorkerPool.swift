// A bounded queue of submissions and the few threads that perform them with ordinary system calls: the asynchronous
// half of the posix engine, and what a broken ring hands its work to.

import Glibc

/// Threads start with the first submission and end at `finish`.
///
/// Ownership: a queued submission belongs to the queue until a thread takes it out, then to that thread until its
/// completion has been told.
final class WorkerPool: @unchecked Sendable {
    private let files: HostFiles
    private let capacity: Int
    private let threadCount: Int
    private let monitor = Monitor()
    private let work: Condition
    private let room: Condition
    private let idle: Condition
    // Under the monitor's lock; the handler is set once before the first submission.
    private var queue: SubmissionQueue
    private var busyCount = 0
    private var threads: [DeviceThread] = []
    private var isFinishing = false
    private var handler: (@Sendable (Completion) -> Void)?

    init(_ files: HostFiles, capacity: Int, threadCount: Int) {
        self.files = files
        self.capacity = max(1, capacity)
        self.threadCount = min(max(1, threadCount), 64)
        work = Condition(monitor)
        room = Condition(monitor)
        idle = Condition(monitor)
        queue = SubmissionQueue(capacity: self.capacity)
    }

    func onCompletion(_ handler: @escaping @Sendable (Completion) -> Void) {
        monitor.withLock { self.handler = handler }
    }

    /// Queues submissions. Waits for room, unless the caller is a completion handler of this pool.
    func submit(_ submissions: borrowing [Submission]) {
        let isQueued = monitor.withLock {
            precondition(!isFinishing, "a submission after the end of the device")
            guard startWithLock(threadCount) else { return false }
            for index in submissions.indices {
                while queue.count >= capacity && !isOwnThread { room.wait() }
                queue.append(submissions[index])
                work.signal()
            }
            return true
        }
        if isQueued { return }
        for index in submissions.indices { handler?(files.perform(submissions[index])) }
    }

    /// Queues one submission even if the queue is full. For a thread that must not wait: the ring's completion thread,
    /// whose slots bound what it hands over.
    func submitWithoutWaiting(_ submission: Submission) {
        let isQueued = monitor.withLock {
            guard startWithLock(threadCount) else { return false }
            queue.append(submission)
            work.signal()
            return true
        }
        if !isQueued { handler?(files.perform(submission)) }
    }

    /// Waits until everything queued has completed and been told.
    func waitUntilIdle() {
        monitor.withLock {
            while queue.count > 0 || busyCount > 0 { idle.wait() }
        }
    }

    /// Waits until everything queued has completed, then ends the threads.
    func finish() {
        let ending = monitor.withLock {
            while queue.count > 0 || busyCount > 0 { idle.wait() }
            isFinishing = true
            work.broadcast()
            defer { threads = [] }
            return threads
        }
        for thread in ending { thread.join() }
    }

    private var isOwnThread: Bool { threads.contains { $0.isCurrent } }

    /// Starts threads before the first submission asks for them; false where the system gives none.
    func start(threadCount: Int) -> Bool { monitor.withLock { startWithLock(threadCount) } }

    /// Starts threads. One is enough to go on. False if the system gives none: then the caller does the work.
    private func startWithLock(_ wanted: Int) -> Bool {
        while threads.count < wanted,
            let thread = try? DeviceThread(name: "treering-posix", { [unowned self] in run() })
        {
            threads.append(thread)
        }
        return !threads.isEmpty
    }

    private func run() {
        while true {
            let next: Submission? = monitor.withLock {
                while queue.count == 0 && !isFinishing { work.wait() }
                guard let next = queue.popFirst() else { return nil }
                busyCount += 1
                room.signal()
                return next
            }
            guard let next else { return }
            let completion = files.perform(next)
            handler?(completion)
            monitor.withLock {
                busyCount -= 1
                if busyCount == 0 && queue.count == 0 { idle.broadcast() }
            }
        }
    }
}
