// Makes the process a daemon. It forks before it starts any thread. The parent waits for the child's report, so the
// shell has its prompt back when the mount is usable or the error was printed.

import CLinux
import Glibc

/// The child's side: reports to the parent that waits.
final class Daemon {
    private var pipe: Int32

    private init(pipe: Int32) { self.pipe = pipe }

    /// Forks. Returns in the child; the parent exits with the code that the child reports.
    static func fork() throws(CommandError) -> Daemon {
        var ends: [Int32] = [-1, -1]
        guard Glibc.pipe(&ends) == 0 else { throw CommandError("a pipe cannot be made: \(Errno.last)", exitCode: 32) }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        let child = linux_fork()
        guard child >= 0 else { throw CommandError("no process can be made: \(Errno.last)", exitCode: 32) }
        if child == 0 {
            close(ends[0])
            return Daemon(pipe: ends[1])
        }
        close(ends[1])
        exit(waitForWord(ends[0], child))
    }

    private static func waitForWord(_ pipe: Int32, _ child: pid_t) -> Int32 {
        var code: UInt8 = 0
        var status: Int32 = 0
        while true {
            let count = read(pipe, &code, 1)
            if count == 1 {
                // After a failure, wait until the child has ended: the store must be free when the prompt is back.
                if code != 0 { while waitpid(child, &status, 0) < 0 && errno == EINTR {} }
                return Int32(code)
            }
            if count < 0 && errno == EINTR { continue }
            break
        }
        while waitpid(child, &status, 0) < 0 && errno == EINTR {}
        let signal = status & 0x7F
        if signal == 0 && status >> 8 != 0 { return status >> 8 & 0xFF }
        let reason = signal == 0 ? "ended" : "was killed by signal \(signal)"
        StandardError.print("treering: the serving process \(reason) before the mount was usable")
        return 32
    }

    /// Reports that the mount is usable. The parent exits, and this process leaves the terminal.
    func succeed() {
        Self.leaveTerminal()
        tell(0)
    }

    /// Call in a child of the forked process: its parent reports, not this process.
    func leaveTellingToParent() {
        if pipe >= 0 { close(pipe) }
        pipe = -1
    }

    static func leaveTerminal() {
        setsid()
        _ = chdir("/")
        let null = HostString("/dev/null").open(O_RDWR)
        if null >= 0 {
            for descriptor in Int32(0)...2 { dup2(null, descriptor) }
            if null > 2 { close(null) }
        }
    }

    /// Reports that the mount has failed. The message must have been printed.
    func fail(_ code: Int32) { tell(UInt8(truncatingIfNeeded: code)) }

    private func tell(_ code: UInt8) {
        guard pipe >= 0 else { return }
        var code = code
        _ = write(pipe, &code, 1)
        close(pipe)
        pipe = -1
    }
}
