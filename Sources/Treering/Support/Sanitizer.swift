// Help for the thread sanitizer. It does not see memory that passes from thread to thread through the kernel, nor the
// locks of Synchronization. Does nothing unless TREERING_TSAN is defined (Tests/Long/sanitize.sh).

#if TREERING_TSAN
    import Glibc

    @_silgen_name("__tsan_release") private func sanitizerRelease(_ address: UnsafeRawPointer)
    @_silgen_name("__tsan_acquire") private func sanitizerAcquire(_ address: UnsafeRawPointer)

    /// Replaces `Synchronization.Mutex`.
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

/// Marks memory that passes from one thread to another through the kernel.
enum Sanitizer {
    /// Call before the kernel gets the memory at this address.
    @inline(__always)
    static func handOver(_ address: UnsafeRawPointer) {
        #if TREERING_TSAN
            sanitizerRelease(address)
        #endif
    }

    /// Call after the kernel has given it back, on any thread.
    @inline(__always)
    static func takeBack(_ address: UnsafeRawPointer) {
        #if TREERING_TSAN
            sanitizerAcquire(address)
        #endif
    }
}
