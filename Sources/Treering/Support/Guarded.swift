// State that can be reached only under its lock. Used where a whole object graph shares one lock (a volume's core).

#if TREERING_TSAN
    import Glibc
#else
    import Synchronization
#endif

/// Shows that whoever waits for the state is told of the change that is being made. Only `Guarded.change` makes one, so what asks for one
/// cannot be called where nobody would be told.
struct Telling: ~Copyable {
    fileprivate init() {}
}

/// A class instance that is reachable only while its lock is held.
///
/// The instance must not leak out of `withLock`; that is what makes the unchecked conformance true.
final class Guarded<State: AnyObject>: @unchecked Sendable {
    #if TREERING_TSAN
        // The thread sanitizer knows no other lock.
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

    /// The state, for code that runs inside `withLock` of the same guard and was not handed it.
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

    /// Changes what somebody may wait for; `tell` runs afterwards, without the lock.
    @inline(__always)
    func change<Result>(_ body: (State, borrowing Telling) -> Result, tell: () -> Void) -> Result {
        defer { tell() }
        return withLock { state in body(state, Telling()) }
    }
}
