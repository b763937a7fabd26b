// The process behind FuseServer/NotifyHelper.swift: one thread writes to the kernel what it is handed, and may wait there; the other notices that
// the serving process is gone.

import CLinux
import Glibc
import Synchronization

/// A subcommand that only the serving process calls: `notify-helper SOCKET CONNECTION SUPERVISOR DEVICE MOUNTPOINT`, the first two
/// descriptors, the third a process or 0.
enum NotifyHelperCommand {
    private struct Words: Sendable {
        let socket: Int32
        let connection: Int32
    }

    /// What its two threads share: how many messages it has begun to write, and how many the kernel is done with.
    private final class Progress: Sendable {
        let begun = Atomic<Int>(0)
        let done = Atomic<Int>(0)
        /// Nothing more comes.
        let isOver = Atomic<Bool>(false)
        var isWaiting: Bool { begun.load(ordering: .acquiring) != done.load(ordering: .acquiring) }
    }

    /// How long the kernel may take, once nobody serves the connection, for what it does by itself.
    private static let graceMilliseconds: UInt32 = 100

    /// What the process does, from its arguments to its end. Gives the exit code.
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
        // Events are not asked for; a hang-up is told all the same.
        var polled = pollfd(fd: socket, events: 0, revents: 0)
        while poll(&polled, 1, -1) < 0 && errno == EINTR {}
        // The other thread may have a message yet that was sent before.
        for _ in 0..<graceMilliseconds where !progress.isOver.load(ordering: .acquiring) { usleep(1000) }
        if !isAlone, !progress.isOver.load(ordering: .acquiring) {
            guard supervision >= 0 else { _exit(0) }
            // A successor answers, as long as somebody starts one.
            var polled = pollfd(fd: supervision, events: Int16(POLLIN), revents: 0)
            while !progress.isOver.load(ordering: .acquiring), poll(&polled, 1, 100) <= 0 {}
        }
        // As long as the kernel is in a message of this connection, the connection is there, and its number is nobody else's.
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
            // The kernel's refusals (nothing of that inode is in its memory) are answers as well.
            _ = write(words.connection, bytes, count)
            progress.done.add(1, ordering: .acquiringAndReleasing)
            var answer: UInt8 = 1
            _ = linux_send(words.socket, &answer, 1, -1)
        }
    }
}
