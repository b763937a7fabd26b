// Memory for requests is bounded, comes back, and is where it should be.

import Glibc
import Synchronization
import Testing

@testable import Treering

@Suite struct RequestPoolTests {
    @Test func payloadsAreAligned() {
        let pool = RequestPool(payloadByteCount: 1 << 20, countLimit: 4)
        let memory = pool.take()!
        #expect((UInt(bitPattern: memory.bytes.baseAddress!) + 80) % 4096 == 0)
        // fs/fuse/dev.c: a read must have room for the headers and max_write.
        #expect(memory.bytes.count >= 80 + 1 << 20)
    }

    @Test func takersWaitForWhatComesBack() {
        let pool = RequestPool(payloadByteCount: 4096, countLimit: 2)
        var held = [pool.take()!, pool.take()!]
        let waiter = Waiter { _ = pool.take() }
        usleep(20_000)
        #expect(!waiter.isDone)
        held.removeLast()
        waiter.join()
        held.removeAll()
        pool.waitUntilAllReturned()
    }

    @Test func closingWakesTakers() {
        let pool = RequestPool(payloadByteCount: 4096, countLimit: 1)
        let held = pool.take()
        let waiter = Waiter { #expect(pool.take() == nil) }
        pool.close()
        waiter.join()
        withExtendedLifetime(held) {}
    }
}

/// A thread that does one thing.
private final class Waiter: @unchecked Sendable {
    private var thread = pthread_t()
    private let done = Atomic<Bool>(false)
    private let body: @Sendable () -> Void
    var isDone: Bool { done.load(ordering: .acquiring) }

    init(_ body: @escaping @Sendable () -> Void) {
        self.body = body
        pthread_create(
            &thread, nil,
            { argument in
                let waiter = Unmanaged<Waiter>.fromOpaque(argument!).takeRetainedValue()
                waiter.body()
                waiter.done.store(true, ordering: .releasing)
                return nil
            }, Unmanaged.passRetained(self).toOpaque())
    }

    func join() { pthread_join(thread, nil) }
}
