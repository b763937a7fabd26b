// The process behind FuseServer/NotifyHelper.swift: one thread writes to the kernel what it is handed, and may wait there; the other notices that
// the serving process is gone.

import CLinux
import Glibc
import Synchronization

/// A subcommand that only the serving process calls: `notify-helper SOCKET CONNECTION end|leave MOUNTPOINT`, the first two descriptors.
enum NotifyHelperCommand {
    private struct Words: Sendable {
        let socket: Int32
        let connection: Int32
    }

    /// What its two threads share: how many messages it has begun to write, and how many the kernel is done with.
    private final class Progress: Sendable {
        let begun = Atomic<Int>(0)
        let done = Atomic<Int>(0)
        var isWaiting: Bool { begun.load(ordering: .acquiring) != done.load(ordering: .acquiring) }
    }

    /// How long the kernel may take, once nobody serves the connection, for what it does by itself.
    private static let graceMilliseconds: UInt32 = 100

    /// What the process does, from its arguments to its end. Gives the exit code.
    static func run(_ typed: [String]) -> Int32 {
        guard typed.count == 4, let socket = Int32(typed[0]), let connection = Int32(typed[1]) else { return 1 }
        for number in [SIGTERM, SIGINT, SIGHUP, SIGPIPE] { signal(number, SIG_IGN) }
        setsid()
        _ = chdir("/")
        linux_set_name("treering-notify")
        let progress = Progress()
        let words = Words(socket: socket, connection: connection)
        guard (try? DeviceThread(name: "notify") { pass(words, progress) }) != nil else { return 1 }
        // Events are not asked for; a hang-up is told all the same.
        var polled = pollfd(fd: socket, events: 0, revents: 0)
        while poll(&polled, 1, -1) < 0 && errno == EINTR {}
        guard typed[2] == "end", progress.isWaiting else { _exit(0) }
        // As long as the kernel is in a message of this connection, the connection is there, and its number is nobody else's.
        let device = MountTable.mount(at: typed[3]).flatMap { $0.isTreering ? $0.device : nil }
        usleep(graceMilliseconds * 1000)
        if let device, progress.isWaiting { end(device, at: typed[3]) }
        _exit(0)
    }

    private static func pass(_ words: Words, _ progress: Progress) {
        var bytes = [UInt8](repeating: 0, count: 256)
        while true {
            let count = recv(words.socket, &bytes, bytes.count, 0)
            if count < 0 && errno == EINTR { continue }
            // The other thread notices too.
            guard count > 0 else { return }
            progress.begun.add(1, ordering: .acquiringAndReleasing)
            // The kernel's refusals (nothing of that inode is in its memory) are answers as well.
            _ = write(words.connection, bytes, count)
            progress.done.add(1, ordering: .acquiringAndReleasing)
            var answer: UInt8 = 1
            _ = linux_send(words.socket, &answer, 1, -1)
        }
    }

    /// Ends the kernel's side of a connection that nobody serves: everybody who waits for it gets an error.
    private static func end(_ device: String, at mountPoint: String) {
        let number = device.split(separator: ":").last ?? ""
        if HostFile.write("1", to: "/sys/fs/fuse/connections/\(number)/abort") { return }
        // Where that directory is not mounted, root has this way.
        if MountTable.mount(at: mountPoint)?.device == device { umount2(mountPoint, Int32(MNT_FORCE)) }
    }
}
