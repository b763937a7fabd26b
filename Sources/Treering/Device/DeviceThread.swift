// Threads of the device: named, joined, and with every signal blocked, so that signals reach the main thread.

import CLinux
import Glibc

/// A running thread.
struct DeviceThread: @unchecked Sendable {
    private let thread: pthread_t

    /// Starts `body` on a thread of its own; throws EAGAIN where the system has no more threads.
    init(name: StaticString, _ body: @escaping @Sendable () -> Void) throws(Errno) {
        let box = Unmanaged.passRetained(Body(body))
        var everything = sigset_t()
        var before = sigset_t()
        sigfillset(&everything)
        pthread_sigmask(SIG_SETMASK, &everything, &before)
        var thread = pthread_t()
        let result = pthread_create(
            &thread, nil,
            { argument in
                let body = Unmanaged<Body>.fromOpaque(argument!).takeRetainedValue()
                body.run()
                return nil
            }, box.toOpaque())
        pthread_sigmask(SIG_SETMASK, &before, nil)
        guard result == 0 else {
            box.release()
            throw Errno(result)
        }
        self.thread = thread
        name.withUTF8Buffer { text in
            _ = text.withMemoryRebound(to: CChar.self) { pthread_setname_np(thread, $0.baseAddress!) }
        }
    }

    var isCurrent: Bool { pthread_equal(thread, pthread_self()) != 0 }

    func join() { pthread_join(thread, nil) }

    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }
}
