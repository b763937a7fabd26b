// What the thread sanitizer must be told or shown: it sees neither what the kernel hands from thread to thread nor the locks of
// Synchronization. Built only with TREERING_TSAN (Tests/Long/sanitize.sh).

#if TREERING_TSAN
    import Glibc

    @_silgen_name("__tsan_release") private func sanitizerRelease(_ address: UnsafeRawPointer)
    @_silgen_name("__tsan_acquire") private func sanitizerAcquire(_ address: UnsafeRawPointer)

    /// Takes the place of `Synchronization.Mutex`.
    struct Mutex<Value>: ~Copyable, @unchecked Sendable {
        private final class Box {
            var value: Value
            let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
            init(_ value: Value) {
                self.value = value
                mutex.initialize(to: pthread_mutex_t())
            }
            deinit { mutex.deallocate() }
        }

        private let box: Box
        init(_ value: Value) { box = Box(value) }

        borrowing func withLock<Result, Failure: Error>(
            _ body: (inout Value) throws(Failure) -> Result
        ) throws(Failure) -> Result {
            pthread_mutex_lock(box.mutex)
            defer { pthread_mutex_unlock(box.mutex) }
            return try body(&box.value)
        }
    }
#endif

/// What the kernel carries from one thread to another.
enum Sanitizer {
    /// Before the kernel is given what lies at this address.
    @inline(__always)
    static func handOver(_ address: UnsafeRawPointer) {
        #if TREERING_TSAN
            sanitizerRelease(address)
        #endif
    }

    /// After it came back, on whichever thread.
    @inline(__always)
    static func takeBack(_ address: UnsafeRawPointer) {
        #if TREERING_TSAN
            sanitizerAcquire(address)
        #endif
    }
}
