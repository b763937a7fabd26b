// A lock with conditions, for the few places where a thread waits for room or for work. Synchronization.Mutex cannot
// wait; all other locks use that.

import Glibc

/// A mutex at a stable address.
final class Monitor: @unchecked Sendable {
    fileprivate let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)

    init() {
        mutex.initialize(to: pthread_mutex_t())
        precondition(pthread_mutex_init(mutex, nil) == 0)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
    }

    @inline(__always)
    func withLock<Result>(_ body: () -> Result) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return body()
    }
}

/// Something that a thread waits for with its monitor's lock held.
final class Condition: @unchecked Sendable {
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private let monitor: Monitor

    init(_ monitor: Monitor) {
        self.monitor = monitor
        condition.initialize(to: pthread_cond_t())
        var attributes = pthread_condattr_t()
        precondition(pthread_condattr_init(&attributes) == 0)
        // The time of day may be set back during a wait.
        precondition(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0)
        precondition(pthread_cond_init(condition, &attributes) == 0)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(condition)
        condition.deallocate()
    }

    /// Gives up the lock, waits, and takes it again. It may wake without a cause, so check the condition in a loop.
    func wait() { pthread_cond_wait(condition, monitor.mutex) }
    /// Waits as `wait` does, but no longer than this.
    func wait(nanoseconds: UInt64) {
        let end = monotonicNanoseconds() &+ nanoseconds
        var deadline = timespec(tv_sec: Int(end / 1_000_000_000), tv_nsec: Int(end % 1_000_000_000))
        pthread_cond_timedwait(condition, monitor.mutex, &deadline)
    }

    func signal() { pthread_cond_signal(condition) }
    func broadcast() { pthread_cond_broadcast(condition) }
}
