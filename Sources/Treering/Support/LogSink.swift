// Messages for a person. Every layer may log; Command decides whether the lines go to stderr or to syslog.

/// A place for log lines. Cheap to copy; may be called from any thread.
struct LogSink: Sendable {
    /// How much a line matters; the values are those of syslog(3).
    enum Level: Int32, Sendable {
        case error = 3
        case warning = 4
        case notice = 5
        case info = 6
        case debug = 7
    }

    /// Takes one line without its newline.
    let write: @Sendable (Level, String) -> Void

    func error(_ line: String) { write(.error, line) }
    func warning(_ line: String) { write(.warning, line) }
    func notice(_ line: String) { write(.notice, line) }
    func info(_ line: String) { write(.info, line) }

    /// Drops everything.
    static let none = LogSink { _, _ in }
}
