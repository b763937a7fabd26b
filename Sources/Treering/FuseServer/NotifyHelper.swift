// A process that tells the kernel what makes it send requests, and waits until they are answered. Nothing can end a thread that waits so, not
// even SIGKILL: in the serving process, once killed, it would keep the store's lock, the rings and the connection for ever, waiting for answers
// that nobody gives. This one holds the connection alone, and ends it when the serving process is gone.

import CLinux
import Glibc
import Synchronization

/// The serving process's end. Used by one thread at a time.
final class NotifyHelper {
    private let socket: Int32
    private let process: pid_t

    /// The hidden subcommand.
    static let subcommand = "notify-helper"

    /// Starts the process; nil where that cannot be. `endsConnection`: no successor goes on with the connection.
    init?(connection: Int32, mountPoint: String, endsConnection: Bool) {
        var ends: [Int32] = [-1, -1]
        let kind = Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else { return nil }
        defer { close(ends[1]) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // Onto itself: it is then not closed.
        for descriptor in [ends[1], connection] { posix_spawn_file_actions_adddup2(&actions, descriptor, descriptor) }
        let arguments = [
            "treering", Self.subcommand, "\(ends[1])", "\(connection)", endsConnection ? "end" : "leave", mountPoint,
        ]
        var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var child: pid_t = 0
        guard posix_spawn(&child, "/proc/self/exe", &actions, nil, &words, environ) == 0 else {
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

    /// Hands over a message as the kernel takes it, and waits until it has done what it says. False when the process is gone.
    func send(_ message: [UInt8]) -> Bool {
        guard linux_send(socket, message, message.count, -1) == 0 else { return false }
        var answer: UInt8 = 0
        while true {
            let count = recv(socket, &answer, 1, 0)
            if count < 0 && errno == EINTR { continue }
            return count == 1
        }
    }

    // MARK: The process

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
