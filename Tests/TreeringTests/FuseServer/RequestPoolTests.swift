// Requests are bounded and counted until nobody holds them; their memory is where it should be.

import Glibc
import Synchronization
import Testing

@testable import Treering

@Suite struct RequestPoolTests {
    @Test func payloadsAreAligned() {
        let pool = RequestPool(payloadByteCount: 1 << 20, placeLimit: 4)
        let memory = pool.take()!
        #expect((UInt(bitPattern: memory.bytes.baseAddress!) + 80) % 4096 == 0)
        // fs/fuse/dev.c: a read must have room for the headers and max_write.
        #expect(memory.bytes.count >= 80 + 1 << 20)
    }

    @Test func takersWaitForWhatComesBack() {
        let pool = RequestPool(payloadByteCount: 4096, placeLimit: 2)
        var held = [pool.take()!, pool.take()!]
        let waiter = Waiter { _ = pool.take() }
        usleep(20_000)
        #expect(!waiter.isDone)
        held.removeLast()
        waiter.join()
        held.removeAll()
        pool.waitUntilNoneLives()
    }

    @Test func closingWakesTakers() {
        let pool = RequestPool(payloadByteCount: 4096, placeLimit: 1)
        let held = pool.take()
        let waiter = Waiter { #expect(pool.take() == nil) }
        pool.close()
        waiter.join()
        withExtendedLifetime(held) {}
    }

    /// What waits for other requests of the kernel lets them have its memory and its place, and is counted all the same.
    @Test func whatStepsAsideIsStillCounted() {
        let pool = RequestPool(payloadByteCount: 4096, placeLimit: 1)
        var first: Request? = pool.take()!
        first!.stepAside()
        #expect(first!.bytes.isEmpty && pool.liveCount == 1)
        var second: Request? = pool.take()!
        #expect(pool.liveCount == 2)
        var returning: Waiter? = Waiter { [first = first!] in first.comeBack() }
        usleep(20_000)
        #expect(!returning!.isDone)
        second = nil
        returning!.join()
        returning = nil
        #expect(pool.liveCount == 1 && second == nil)
        let taker = Waiter { #expect(pool.take() != nil) }
        usleep(20_000)
        #expect(!taker.isDone)
        first = nil
        taker.join()
        pool.waitUntilNoneLives()
    }

    @Test func closingLetsWhatSteppedAsideComeBack() {
        let pool = RequestPool(payloadByteCount: 4096, placeLimit: 1)
        let first = pool.take()!
        first.stepAside()
        let second = pool.take()
        let returning = Waiter { first.comeBack() }
        pool.close()
        returning.join()
        withExtendedLifetime(second) {}
    }

    /// Whether a reader may wait depends on whether another one is there for the next request: one that answers is.
    @Test func aReaderIsIdleUnlessItHasARequestInHand() {
        let pool = RequestPool(payloadByteCount: 4096, placeLimit: 1)
        #expect(!pool.hasIdleReader)
        pool.readerBegins()
        #expect(pool.hasIdleReader)
        let request = pool.take()!
        request.bytes.zero(0, 40)
        request.accept(readBy: 0)
        #expect(!pool.hasIdleReader)
        request.freeReader()
        request.freeReader()
        #expect(pool.hasIdleReader)
        pool.readerEnds()
        #expect(!pool.hasIdleReader)
    }

    /// The reader's number takes the place of the process number, the only field that libfuse hands on and has no use for.
    @Test func readersAreNamedInTheRequest() {
        let pool = RequestPool(payloadByteCount: 4096, placeLimit: 1)
        let request = pool.take()!
        // struct fuse_in_header: length, opcode (STATX), unique, inode, uid, gid, pid.
        request.bytes.store(UInt32(40), at: 0)
        request.bytes.store(RawRequest.statx, at: 4)
        request.bytes.store(UInt64(1) << 63 | 12, at: 8)
        request.bytes.store(Int32(4711), at: 32)
        request.accept(readBy: 3)
        #expect(request.isResent && request.number == 12 && request.opcode == RawRequest.statx && request.pid == 4711)
        #expect(UnsafeRawBufferPointer(request.bytes).load(32, as: Int32.self) == 3)
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
