// State that is reached under its lock. Used where many objects share one lock (the core of a volume).

#if TREERING_TSAN
    import Glibc
#else
    import Synchronization
#endif

/// A proof that the waiting threads and operations will be told of a change.
///
/// Only `Guarded.change` makes one. A function that changes what somebody waits for takes one as an argument; so it
/// cannot be called where nobody would be told.
struct Telling: ~Copyable {
    fileprivate init() {}
}

/// A class instance and the lock that guards it.
///
/// The instance must not leave `withLock`. The conformance to Sendable is unchecked and relies on this.
final class Guarded<State: AnyObject>: @unchecked Sendable {
    #if TREERING_TSAN
        // The thread sanitizer understands no other lock.
        private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    #else
        private let mutex = Mutex<Void>(())
    #endif
    private let state: State

    init(_ state: State) {
        self.state = state
        #if TREERING_TSAN
            mutex.initialize(to: pthread_mutex_t())
        #endif
    }

    /// The state, for code that runs inside `withLock` of the same guard but did not get the state as an argument.
    var heldState: State { state }

    /// Runs `body` with the lock held. Never wait for I/O nor reply to a request inside.
    @inline(__always)
    func withLock<Result, Failure: Error>(_ body: (State) throws(Failure) -> Result) throws(Failure) -> Result {
        #if TREERING_TSAN
            pthread_mutex_lock(mutex)
            defer { pthread_mutex_unlock(mutex) }
        #else
            mutex._unsafeLock()
            defer { mutex._unsafeUnlock() }
        #endif
        return try body(state)
    }

    /// Runs `body` with the lock held, to change what somebody may wait for. `tell` runs after the lock is released.
    @inline(__always)
    func change<Result>(_ body: (State, borrowing Telling) -> Result, tell: () -> Void) -> Result {
        defer { tell() }
        return withLock { state in body(state, Telling()) }
    }
}
