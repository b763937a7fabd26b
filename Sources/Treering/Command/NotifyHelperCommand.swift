// The process behind FuseServer/NotifyHelper.swift. One thread writes messages to the kernel, and may wait there. The
// other notices when the serving process is gone.

import CLinux
import Glibc
import Synchronization

/// A subcommand that only the serving process calls: `notify-helper SOCKET CONNECTION SUPERVISOR DEVICE MOUNTPOINT`.
/// SOCKET and CONNECTION are descriptors; SUPERVISOR is a process, or 0.
enum NotifyHelperCommand {
    private struct Words: Sendable {
        let socket: Int32
        let connection: Int32
    }

    /// Shared by both threads: how many messages were begun, and how many the kernel has taken.
    private final class Progress: Sendable {
        let begun = Atomic<Int>(0)
        let done = Atomic<Int>(0)
        /// The serving process has closed its end, and all its messages are written.
        let isOver = Atomic<Bool>(false)
        var isWaiting: Bool { begun.load(ordering: .acquiring) != done.load(ordering: .acquiring) }
    }

    /// How long the other thread may take to finish by itself, once nobody serves the connection.
    private static let graceMilliseconds: UInt32 = 100

    /// Runs the process to its end. Gives an exit code only if it cannot start.
    static func run(_ typed: [HostString]) -> Int32 {
        guard typed.count == 5, let socket = Int32(typed[0].description), let connection = Int32(typed[1].description),
            let supervisor = Int32(typed[2].description)
        else { return 1 }
        for number in [SIGTERM, SIGINT, SIGHUP, SIGPIPE] { signal(number, SIG_IGN) }
        setsid()
        _ = chdir("/")
        linux_set_name("treering-notify")
        let progress = Progress()
        let words = Words(socket: socket, connection: connection)
        let supervision = supervisor == 0 ? -1 : linux_open_process(supervisor)
        let isAlone = supervisor == 0 || supervision < 0 && errno == ESRCH
        guard (try? DeviceThread(name: "notify") { pass(words, progress) }) != nil else { return 1 }
        // No events are requested; poll(2) reports a hang-up all the same.
        var polled = pollfd(fd: socket, events: 0, revents: 0)
        while poll(&polled, 1, -1) < 0 && errno == EINTR {}
        // The other thread may still have messages to write.
        for _ in 0..<graceMilliseconds where !progress.isOver.load(ordering: .acquiring) { usleep(1000) }
        if !isAlone, !progress.isOver.load(ordering: .acquiring) {
            guard supervision >= 0 else { _exit(0) }
            // A successor will serve the connection, as long as there is a supervisor to start one.
            var polled = pollfd(fd: supervision, events: Int16(POLLIN), revents: 0)
            while !progress.isOver.load(ordering: .acquiring), poll(&polled, 1, 100) <= 0 {}
        }
        // While the kernel handles a message of this connection, the connection exists, and no other can have its
        // number.
        if progress.isWaiting { DeadMount.abort(typed[3].description, at: typed[4]) }
        _exit(0)
    }

    private static func pass(_ words: Words, _ progress: Progress) {
        var bytes = [UInt8](repeating: 0, count: 256)
        while true {
            let count = recv(words.socket, &bytes, bytes.count, 0)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return progress.isOver.store(true, ordering: .releasing) }
            progress.begun.add(1, ordering: .acquiringAndReleasing)
            // Errors are ignored: the kernel refuses, for example, what concerns an inode that it does not hold.
            _ = write(words.connection, bytes, count)
            progress.done.add(1, ordering: .acquiringAndReleasing)
            var answer: UInt8 = 1
            _ = linux_send(words.socket, &answer, 1, -1)
        }
    }
}
