// Log lines of a mount. In the foreground they go to stderr; as a daemon to syslog(3), and warnings also to stderr
// until the shell has its prompt back.

import Glibc
import Synchronization

final class CommandLog: Sendable {
    private let isForeground: Bool
    private let isDebug: Bool
    private let isDetached = Atomic<Bool>(false)

    init(isForeground: Bool, isDebug: Bool) {
        self.isForeground = isForeground
        self.isDebug = isDebug
        // openlog(3) keeps the pointer, so the copy is never freed.
        if !isForeground { openlog(HostString("treering").copy, LOG_PID | LOG_CONS, LOG_DAEMON) }
    }

    /// Call when stderr is about to be closed: no line goes there any more.
    func detach() { isDetached.store(true, ordering: .relaxed) }

    var sink: LogSink { LogSink { [self] level, line in take(level, line) } }

    private func take(_ level: LogSink.Level, _ line: String) {
        if level == .debug && !isDebug { return }
        if !isForeground {
            line.withCString { text in withVaList([text]) { vsyslog(level.rawValue, "%s", $0) } }
        }
        // Until the prompt is back a person reads stderr, and wants to see only what went wrong.
        let isForPerson =
            isForeground || (!isDetached.load(ordering: .relaxed) && level.rawValue <= LogSink.Level.warning.rawValue)
        if isForPerson { StandardError.print("treering: " + line) }
    }
}

/// Prints whole lines to stderr.
enum StandardError {
    static func print(_ line: String) {
        let text = line + "\n"
        _ =
            text.utf8.withContiguousStorageIfAvailable { write(2, $0.baseAddress, $0.count) }
            ?? write(2, text, text.utf8.count)
    }
}
