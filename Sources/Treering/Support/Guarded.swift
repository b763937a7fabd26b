// State that can be reached only under its lock. Used where a whole object graph shares one lock (a volume's core).

import Synchronization

/// A class instance that is reachable only while its lock is held.
///
/// The instance must not leak out of `withLock`; that is what makes the unchecked conformance true.
final class Guarded<State: AnyObject>: @unchecked Sendable {
    private let mutex = Mutex<Void>(())
    private let state: State

    init(_ state: State) { self.state = state }

    /// The state, for code that runs inside `withLock` of the same guard and was not handed it.
    var heldState: State { state }

    /// Runs `body` with the lock held. Never wait for I/O nor reply to a request inside.
    @inline(__always)
    func withLock<Result, Failure: Error>(_ body: (State) throws(Failure) -> Result) throws(Failure) -> Result {
        mutex._unsafeLock()
        defer { mutex._unsafeUnlock() }
        return try body(state)
    }
}
