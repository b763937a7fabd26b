// Ends a simulation that hangs, saying where: a deadlock on a device without threads would wait for ever.

import Glibc
import Synchronization

@testable import Treering

/// Aborts the process when nobody has called `alive` for a while.
final class Watchdog: Sendable {
    private let text = Mutex("")
    private let beats = Atomic<Int>(0)
    private let isOver = Atomic<Bool>(false)

    init(secondCount: Int = 60) throws {
        _ = try DeviceThread(name: "watchdog") { [self] in
            var seen = -1
            var stillCount = 0
            while !isOver.load(ordering: .relaxed) {
                usleep(250_000)
                let now = beats.load(ordering: .relaxed)
                stillCount = now == seen ? stillCount + 1 : 0
                seen = now
                guard stillCount > secondCount * 4 else { continue }
                let line = "the simulation hangs: \(text.withLock { $0 })\n"
                _ = line.withCString { write(2, $0, strlen($0)) }
                abort()
            }
        }
    }

    func alive(_ description: @autoclosure () -> String) {
        if beats.add(1, ordering: .relaxed).newValue % 64 == 1 {
            let description = description()
            text.withLock { $0 = description }
        }
    }

    func stop() { isOver.store(true, ordering: .relaxed) }
}

/// Numbers that a test takes from the environment.
enum Environment {
    static func number(_ name: String) -> UInt64? { getenv(name).flatMap { UInt64(String(cString: $0)) } }

    /// `debug` in a debug build, `release` in a release build, unless the environment says otherwise.
    static func count(_ name: String, debug: Int, release: Int) -> Int {
        if let given = number(name) { return Int(given) }
        #if DEBUG
            return debug
        #else
            return release
        #endif
    }

    /// Written at once: a trap would lose what is buffered.
    static func note(_ text: String) {
        _ = "\(text)\n".withCString { write(2, $0, strlen($0)) }
    }
}
