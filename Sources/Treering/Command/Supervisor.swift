// `treering mount --supervise`: a small parent process that starts the serving process again when it dies. It holds the
// kernel's connection, which a successor takes over, so users of the mount only wait. If that is impossible, the
// successor replaces the dead mount. The supervisor has one thread, touches no store, and ends with the mount. It runs
// in the process that `treering mount` left behind; its children serve.

import CLinux
import Glibc

/// Keeps a mount served.
final class Supervisor {
    private let source: HostString
    private let mountPoint: HostString
    private let log: LogSink
    /// Called in the child: serves to the end of the mount, with the connection to take over or hand over. Gives the
    /// exit code.
    private let serve: Serve
    typealias Serve = (_ start: Start, _ connection: HeldConnection?, _ sender: HandoverSender) -> Int32
    /// How a serving process is to begin.
    struct Start {
        var isFirst: Bool
        /// The mount was begun read-only, and is writable now.
        var hasBecomeWritable: Bool
    }
    /// Called in this process, when the mount is usable for the first time.
    private let onReady: () -> Void

    private var signals: Int32 = -1
    private var title: ProcessTitle?
    /// Whether a signal has asked for the end of the mount.
    private var isStopping = false
    private var isReady = false
    private var hasBecomeWritable = false
    private var policy = RestartPolicy()
    /// The present connection. While this process holds it, only a successor may touch the mount: the kernel keeps all
    /// others waiting.
    private var connection: HeldConnection?

    init(
        source: HostString, mountPoint: HostString, log: LogSink, onReady: @escaping () -> Void, serve: @escaping Serve
    ) {
        self.source = source
        self.mountPoint = mountPoint
        self.log = log
        self.onReady = onReady
        self.serve = serve
    }

    /// How one serving process ended.
    private struct End {
        var wasReady: Bool
        /// The status of waitpid(2).
        var status: Int32
        var signal: Int32 { status & 0x7F }
        var code: Int32 { status >> 8 & 0xFF }
        var words: String { signal == 0 ? "ended with code \(code)" : "was killed by signal \(signal)" }
    }

    /// Supervises until the mount has ended or is given up. Gives the exit code.
    func run() -> Int32 {
        var set = Self.set
        sigprocmask(SIG_BLOCK, &set, nil)
        signals = signalfd(-1, &set, Int32(SFD_CLOEXEC) | Int32(SFD_NONBLOCK))
        guard signals >= 0 else {
            StandardError.print("treering: \(mountPoint): no descriptor for signals can be had: \(Errno.last)")
            return 32
        }
        title = ProcessTitle("treering: supervisor of \(source) on \(mountPoint)")
        linux_set_name("treering-super")
        while true {
            guard let end = serveOnce() else { return 32 }
            if let code = verdict(end) { return code }
            let pause = policy.pauseMilliseconds
            log.warning("\(mountPoint): the serving process \(end.words); it is started again")
            wait(milliseconds: pause)
            if isStopping {
                clear()
                return 0
            }
        }
    }

    /// Decides what follows after a serving process has ended: an exit code to end with, or nil to start another.
    private func verdict(_ end: End) -> Int32? {
        let isRefused =
            end.signal == 0 && end.code == HandoverSender.refusalCode && connection?.state.isInherited == true
        if !isRefused, end.signal == 0 && (end.wasReady || !isReady || isStopping) { return end.code }
        if isStopping {
            clear()
            log.warning("\(mountPoint): the serving process \(end.words) while it unmounted; the next mount recovers")
            return 1
        }
        if !isReady {
            StandardError.print("treering: the serving process \(end.words) before the mount was usable")
            clear()
            return 32
        }
        // After an unmount no new mount is wanted, even if the process died before it had ended cleanly.
        let isOurs = connection.map { $0.canBeTakenOver } ?? false
        if isRefused || !isOurs { letGo() }
        if !isOurs && end.wasReady && !DeadMount.isDead(mountPoint) {
            log.warning("\(mountPoint): the serving process \(end.words) after an unmount; the next mount recovers")
            return 1
        }
        guard policy.mayRestart(at: Self.seconds) else {
            letGo()
            log.error(
                "\(mountPoint): the serving process \(end.words), for the \(policy.countLimit + 1)th time within "
                    + "\(Int(policy.windowSeconds)) s; it is not started again. Find out why, then run `treering mount` again"
            )
            return 1
        }
        return nil
    }

    /// Lets go of the connection and detaches the mount, which is dead then.
    private func clear() {
        letGo()
        DeadMount.clear(mountPoint)
    }

    /// Gives the connection up. The dead process's helper may hold it too. So it is aborted: otherwise those who use
    /// the mount would wait for ever, this process among them.
    private func letGo() {
        if let connection, connection.canBeTakenOver, let device = connection.device {
            DeadMount.abort(device, at: mountPoint)
        }
        connection = nil
    }

    // MARK: One serving process

    private func serveOnce() -> End? {
        guard let (receiver, sender, senderSocket) = HandoverReceiver.pair() else { return cannotStart() }
        if let connection {
            connection.state.isInherited = true
        } else {
            // If there is no memory for it, no successor can take over.
            connection = (try? ConnectionState()).map { HeldConnection($0) }
        }
        let child = linux_fork()
        guard child >= 0 else {
            close(senderSocket)
            return cannotStart()
        }
        if child == 0 { becomeServer(sender) }
        close(senderSocket)
        return watch(child, receiver)
    }

    private func cannotStart() -> End? {
        StandardError.print("treering: \(mountPoint): no process can be made: \(Errno.last)")
        return nil
    }

    /// Runs in the child.
    private func becomeServer(_ sender: HandoverSender) -> Never {
        // In a session of its own: a terminal's signals reach only the supervisor, which then asks this process to
        // unmount.
        setsid()
        close(signals)
        // Signals that ask for the end stay blocked until the process can handle them. A process that is just starting
        // then unmounts.
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, SIGCHLD)
        sigprocmask(SIG_UNBLOCK, &set, nil)
        title?.restore()
        linux_set_name("treering")
        exit(serve(Start(isFirst: !isReady, hasBecomeWritable: hasBecomeWritable), connection, sender))
    }

    private func watch(_ child: pid_t, _ receiver: HandoverReceiver) -> End {
        var end = End(wasReady: false, status: 0)
        while true {
            var polled = [
                pollfd(fd: signals, events: Int16(POLLIN), revents: 0),
                pollfd(fd: receiver.isOpen ? receiver.socket : -1, events: Int16(POLLIN), revents: 0),
            ]
            if poll(&polled, 2, -1) < 0 && errno != EINTR { usleep(10_000) }
            let isOver = takeSignals(child, &end.status)
            receiver.receive(into: connection)
            if receiver.isWritable { hasBecomeWritable = true }
            if receiver.isReady {
                end.wasReady = true
                if !isReady {
                    isReady = true
                    onReady()
                }
            }
            if isOver { return end }
        }
    }

    /// Passes signals that ask for the end on to the child. True when the child has ended.
    private func takeSignals(_ child: pid_t?, _ status: inout Int32) -> Bool {
        var information = signalfd_siginfo()
        while read(signals, &information, MemoryLayout<signalfd_siginfo>.size) > 0 {
            if information.ssi_signo == UInt32(SIGCHLD) { continue }
            isStopping = true
            if let child { kill(child, SIGTERM) }
        }
        // One signal may stand for several ended children, and a child may have ended before; so ask in any case.
        guard let child else { return false }
        return waitpid(child, &status, WNOHANG) == child
    }

    private func wait(milliseconds: Int) {
        let end = Self.seconds + Double(milliseconds) / 1000
        var status: Int32 = 0
        while !isStopping {
            let left = Int32((end - Self.seconds) * 1000)
            if left <= 0 { return }
            var polled = [pollfd(fd: signals, events: Int16(POLLIN), revents: 0)]
            poll(&polled, 1, left)
            _ = takeSignals(nil, &status)
        }
    }

    private static var set: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGTERM, SIGINT, SIGHUP, SIGCHLD] { sigaddset(&set, number) }
        return set
    }

    private static var seconds: Double { Double(monotonicNanoseconds()) / 1e9 }
}

/// When to start a process again that keeps dying: at first at once, then after pauses that double, then no more.
struct RestartPolicy {
    let countLimit = 10
    let windowSeconds = 60.0
    private let freeCount = 3
    private let firstPauseMilliseconds = 50
    private var deaths: [Double] = []

    /// Notes a death. False when there were too many.
    mutating func mayRestart(at seconds: Double) -> Bool {
        deaths.removeAll { $0 <= seconds - windowSeconds }
        deaths.append(seconds)
        return deaths.count <= countLimit
    }

    /// How long to wait after the last death, in milliseconds.
    var pauseMilliseconds: Int {
        deaths.count <= freeCount ? 0 : firstPauseMilliseconds << min(5, deaths.count - freeCount - 1)
    }
}

/// The title of this process in ps(1): the memory of its arguments.
struct ProcessTitle {
    private let place: UnsafeMutableRawBufferPointer
    private let original: [UInt8]

    /// Replaces the title, as far as there is room. Nil if that is impossible.
    init?(_ text: HostString) {
        // Fields 48 and 49 of proc(5) tell where the arguments begin and end. The second field may hold blanks and
        // brackets.
        guard let stat = HostString("/proc/self/stat").text(), let bracket = stat.lastIndex(of: ")") else { return nil }
        let fields = stat[stat.index(after: bracket)...].split(separator: " ")
        guard fields.count > 46, let start = UInt(fields[45]), let end = UInt(fields[46]), end > start + 1,
            let pointer = UnsafeMutableRawPointer(bitPattern: start)
        else { return nil }
        place = UnsafeMutableRawBufferPointer(start: pointer, count: Int(end - start))
        original = Array(place)
        var bytes = Array(text.bytes.prefix(place.count - 1))
        bytes += [UInt8](repeating: 0, count: place.count - bytes.count)
        place.copyBytes(from: bytes)
    }

    /// Restores the title. For a child, which is not the supervisor.
    func restore() { place.copyBytes(from: original) }
}
