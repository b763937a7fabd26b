// `treering check` of a mounted store. The serving process reads and verifies what is live; this process shows its
// progress and its findings.

import CLinux
import Glibc
import Synchronization

/// Set by a signal that asks this command to end.
private let isInterrupted = Atomic(false)

struct ScrubCommand {
    /// Bytes per second.
    static let defaultRate: UInt64 = 64 << 20
    /// fsck(8): canceled by user request.
    private static let cancelledCode: Int32 = 32

    /// The path as it was typed, for messages.
    private let target: HostString
    private let descriptor: Int32
    private let isTerminal = isatty(STDOUT_FILENO) != 0

    /// Verifies the store that is mounted at a path. Gives the exit code of fsck(8).
    static func run(mountPoint: HostString, _ target: HostString, rate: UInt64) throws(CommandError) -> Int32 {
        let descriptor = mountPoint.openDirectory()
        guard descriptor >= 0 else { throw CommandError("\(target): \(Errno.last)") }
        defer { close(descriptor) }
        return try ScrubCommand(target: target, descriptor: descriptor).run(rate: rate)
    }

    private init(target: HostString, descriptor: Int32) {
        self.target = target
        self.descriptor = descriptor
    }

    private struct Progress {
        var state: ScrubStatus.State
        var done: UInt64
        var total: UInt64
        var findings: UInt64
        var kept: UInt64
        var blocks: UInt64
        var nanoseconds: UInt64
        var knownLost: UInt64

        var percent: UInt64 { total == 0 ? 0 : min(100, done * 100 / total) }
        var secondsLeft: UInt64? {
            guard done > 0, nanoseconds > 1_000_000_000, total >= done else { return nil }
            return UInt64(Double(nanoseconds) / 1e9 * Double(total - done) / Double(done))
        }
    }

    private func run(rate: UInt64) throws(CommandError) -> Int32 {
        for number in [SIGINT, SIGTERM, SIGHUP] {
            signal(number) { _ in isInterrupted.store(true, ordering: .relaxed) }
        }
        let token = try begin(rate)
        var shownTenth: UInt64 = 0
        var progress = try self.progress(token)
        while progress.state == .running {
            if isInterrupted.load(ordering: .relaxed) { end(token) }
            usleep(100_000)
            progress = try self.progress(token)
            if isTerminal {
                show("\r\u{1B}[K\(line(progress))")
            } else if progress.percent / 10 > shownTenth, progress.state == .running {
                shownTenth = progress.percent / 10
                show("\(target): \(line(progress))\n")
            }
        }
        if isTerminal { show("\r\u{1B}[K") }
        return try tell(progress, token)
    }

    private func tell(_ progress: Progress, _ token: UInt64) throws(CommandError) -> Int32 {
        for number in 0..<progress.kept { print("\(target): \(try finding(token, number))") }
        if progress.findings > progress.kept { print("\(target): \(progress.findings - progress.kept) more of these") }
        if progress.knownLost > 0 {
            print("\(target): \(progress.knownLost) blocks of data were lost before and give EIO")
        }
        let what = "\(Self.size(progress.done)) read, \(progress.blocks) blocks of data among it"
        switch progress.state {
        case .cancelled, .running:
            print("\(target): ended before it was through: \(what), \(progress.findings) errors")
            return progress.findings > 0 ? Self.cancelledCode | 4 : Self.cancelledCode
        case .abandoned:
            throw CommandError("\(target): the check was given up: this command was silent for too long; \(what)")
        case .failed: throw CommandError("\(target): the check could not go on: the mount was shut down; \(what)")
        case .done: break
        }
        guard progress.findings > 0 else {
            print("\(target): clean: \(what)")
            return 0
        }
        print("\(target): \(progress.findings) errors: \(what)")
        print("\(target): unmounted, `treering check --repair` mends what can be repaired")
        return 4
    }

    // MARK: The serving process

    private func begin(_ rate: UInt64) throws(CommandError) -> UInt64 {
        var numbers: (UInt64, UInt64) = (rate, 0)
        guard ioctl(descriptor, UInt(ScrubControl.begin), &numbers) == 0 else {
            switch errno {
            case EBUSY: throw CommandError("\(target): it is being checked already")
            case ENOTTY:
                throw CommandError("\(target): is served by an older treering, which cannot check a mounted store")
            case EPERM: throw CommandError("\(target): only root and the user who serves the mount may check it")
            default: throw CommandError("\(target): cannot be checked: \(Errno.last)")
            }
        }
        return numbers.0
    }

    private func progress(_ token: UInt64) throws(CommandError) -> Progress {
        var words = [UInt64](repeating: 0, count: ScrubControl.progressWordCount)
        words[0] = token
        while ioctl(descriptor, UInt(ScrubControl.progress), &words) != 0 {
            if errno == EINTR { continue }
            guard errno == ENODATA else { throw CommandError("\(target): the check was cut off: \(Errno.last)") }
            throw CommandError("\(target): the check was cut off: another process serves the mount now")
        }
        guard let state = ScrubStatus.State(rawValue: words[0]) else {
            throw CommandError("\(target): is served by another version of treering")
        }
        return Progress(
            state: state, done: words[1], total: words[2], findings: words[3], kept: words[4], blocks: words[5],
            nanoseconds: words[6], knownLost: words[7])
    }

    private func finding(_ token: UInt64, _ number: UInt64) throws(CommandError) -> String {
        var bytes = [UInt8](repeating: 0, count: ScrubControl.findingByteCount)
        bytes.withUnsafeMutableBytes {
            $0.store(token, at: 0)
            $0.store(number, at: 8)
        }
        guard ioctl(descriptor, UInt(ScrubControl.finding), &bytes) == 0 else {
            throw CommandError("\(target): what was found cannot be had: \(Errno.last)")
        }
        let count = bytes.withUnsafeBytes { Int(clamping: $0.load(0, as: UInt64.self)) }
        return String(decoding: bytes.dropFirst(8).prefix(count), as: UTF8.self)
    }

    private func end(_ token: UInt64) {
        var number = token
        _ = ioctl(descriptor, UInt(ScrubControl.end), &number)
    }

    // MARK: In words

    private func show(_ text: String) {
        print(text, terminator: "")
        fflush(nil)
    }

    private func line(_ progress: Progress) -> String {
        let left = progress.secondsLeft.map { ", \(Self.time($0)) left" } ?? ""
        let found = progress.findings > 0 ? ", \(progress.findings) errors" : ""
        return "\(progress.percent) % of \(Self.size(progress.total))\(left)\(found)"
    }

    private static func size(_ byteCount: UInt64) -> String {
        byteCount < 10 << 20 ? "\(byteCount >> 10) KiB" : "\(byteCount >> 20) MiB"
    }

    private static func time(_ seconds: UInt64) -> String {
        if seconds < 60 { return "\(seconds) s" }
        let minutes = seconds / 60
        return minutes < 60 ? "\(minutes) min" : "\(minutes / 60) h \(minutes % 60) min"
    }
}

extension MountedStore {
    /// The mount point of a store; nil if it is not mounted, or this process cannot see the mount.
    static func mountPoint(ofStore path: HostString) -> HostString? {
        guard StoreLock.isHeld(path), let status = try? path.status() else { return nil }
        let mounts = MountTable.all().reversed().filter(\.isTreering)
        // Whether a mount's source is this store; nil if the source does not tell.
        func isNamed(_ mount: MountedFileSystem) -> Bool? {
            let source = StoreDirectory.path(ofSource: mount.source)
            guard let found = try? source.status() else { return nil }
            if found.st_dev == status.st_dev, found.st_ino == status.st_ino { return true }
            return StoreLock.isHeld(source) ? false : nil
        }
        // Mounts with this source come first. A mount of another store in use is not asked: it may never answer.
        for mount in mounts.filter({ isNamed($0) == true }) + mounts.filter({ isNamed($0) == nil }) {
            let descriptor = mount.mountPoint.openDirectory()
            guard descriptor >= 0 else { continue }
            defer { close(descriptor) }
            var numbers: (UInt64, UInt64) = (0, 0)
            guard ioctl(descriptor, UInt(ScrubControl.identity), &numbers) == 0 else { continue }
            if numbers == (UInt64(status.st_dev), UInt64(status.st_ino)) { return mount.mountPoint }
        }
        return nil
    }
}
