// A process that gives the kernel a message which makes it send requests, and waits until those are answered. Nothing
// can end a thread that waits so, not even SIGKILL. In a killed serving process it would keep the store's lock, the
// rings and the connection for ever, because nobody answers. This process holds the connection alone, and ends it when
// the serving process is gone.

import CLinux
import Glibc

/// The serving process's end. Used by one thread at a time.
final class NotifyHelper {
    private let socket: Int32
    private let process: pid_t

    /// The subcommand that this process runs (Command/NotifyHelperCommand.swift).
    static let subcommand = "notify-helper"

    /// Starts the process; nil if that fails. `device`: what the kernel calls the mount. `supervisor`: the process that
    /// holds the connection too and starts a successor; 0 for none.
    init?(connection: Int32, device: String, mountPoint: HostString, supervisor: pid_t) {
        var ends: [Int32] = [-1, -1]
        let kind = Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else { return nil }
        defer { close(ends[1]) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // A descriptor that is duplicated onto itself stays open in the child.
        for descriptor in [ends[1], connection] { posix_spawn_file_actions_adddup2(&actions, descriptor, descriptor) }
        let arguments: [HostString] = [
            "\(Self.subcommand)", "\(ends[1])", "\(connection)", "\(supervisor)", "\(device)", mountPoint,
        ]
        guard let child = HostString("/proc/self/exe").start(arguments, title: "treering", &actions) else {
            close(ends[0])
            return nil
        }
        socket = ends[0]
        process = child
    }

    deinit {
        close(socket)
        while waitpid(process, nil, 0) < 0 && errno == EINTR {}
    }

    /// Has the process give the kernel a message, and waits until the kernel has done what it says. False when the
    /// process is gone.
    func send(_ message: [UInt8]) -> Bool {
        guard linux_send(socket, message, message.count, -1) == 0 else { return false }
        var answer: UInt8 = 0
        while true {
            let count = recv(socket, &answer, 1, 0)
            if count < 0 && errno == EINTR { continue }
            return count == 1
        }
    }
}
