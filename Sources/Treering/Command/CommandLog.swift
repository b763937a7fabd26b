// Log lines of a mount: to stderr in the foreground and until the shell has its prompt back, to syslog(3) as a daemon.

import Glibc
import Synchronization

final class CommandLog: Sendable {
    private let isForeground: Bool
    private let isDebug: Bool
    private let isDetached = Atomic<Bool>(false)

    init(isForeground: Bool, isDebug: Bool) {
        self.isForeground = isForeground
        self.isDebug = isDebug
        // openlog keeps the pointer.
        if !isForeground { openlog(HostString("treering").copy, LOG_PID | LOG_CONS, LOG_DAEMON) }
    }

    /// stderr is about to go away.
    func detach() { isDetached.store(true, ordering: .relaxed) }

    var sink: LogSink { LogSink { [self] level, line in take(level, line) } }

    private func take(_ level: LogSink.Level, _ line: String) {
        if level == .debug && !isDebug { return }
        if !isForeground {
            line.withCString { text in withVaList([text]) { vsyslog(level.rawValue, "%s", $0) } }
        }
        // Before the prompt is back a person reads along, who wants to know what went wrong and no more.
        let isForPerson =
            isForeground || (!isDetached.load(ordering: .relaxed) && level.rawValue <= LogSink.Level.warning.rawValue)
        if isForPerson { StandardError.print("treering: " + line) }
    }
}

/// Whole lines to stdout and stderr.
enum StandardError {
    static func print(_ line: String) {
        let text = line + "\n"
        _ =
            text.utf8.withContiguousStorageIfAvailable { write(2, $0.baseAddress, $0.count) }
            ?? write(2, text, text.utf8.count)
    }
}
