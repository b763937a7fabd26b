// The lock of a store: one process at a time writes to it.

import CLinux
import Glibc

/// The lock of a store: an exclusive flock(2) on its file `lock`, which names the owner. It is released with this
/// object. After the end of the process the kernel releases it, once the process's I/O has drained.
final class StoreLock: @unchecked Sendable {
    /// For the device: its ring registers the descriptor, so that the lock outlives the requests of a killed process.
    let descriptor: Int32

    private static let patienceMilliseconds = 5000
    private static let pauseMilliseconds = 20

    /// Takes the lock. Waits some seconds for a process that is just ending.
    init(_ directory: HostString) throws(CommandError) {
        var waited = 0
        while true {
            let descriptor = try Self.open(directory)
            if linux_flock(descriptor, Int32(LINUX_LOCK_EXCLUSIVE | LINUX_LOCK_NONBLOCKING)) == 0 {
                if Self.isCurrent(descriptor, directory) {
                    self.descriptor = descriptor
                    break
                }
                close(descriptor)
                continue
            }
            let error = errno
            let owner = Self.owner(descriptor)
            close(descriptor)
            guard error == EWOULDBLOCK || error == EINTR else {
                throw CommandError("\(directory)/lock: cannot be locked: \(Errno(error))")
            }
            guard waited < Self.patienceMilliseconds else {
                throw CommandError("\(directory): is in use by \(owner); unmount it there first")
            }
            usleep(UInt32(Self.pauseMilliseconds * 1000))
            waited += Self.pauseMilliseconds
        }
        writeOwner()
    }

    /// Whether some process holds a store's lock at this moment.
    static func isHeld(_ directory: HostString) -> Bool {
        guard let descriptor = try? RegularFile.open("\(directory)/lock", O_RDONLY) else { return false }
        defer { close(descriptor) }
        return linux_flock(descriptor, Int32(LINUX_LOCK_EXCLUSIVE | LINUX_LOCK_NONBLOCKING)) != 0
            && errno == EWOULDBLOCK
    }

    private static func open(_ directory: HostString) throws(CommandError) -> Int32 {
        let path: HostString = "\(directory)/lock"
        do throws(Errno) {
            do throws(Errno) { return try RegularFile.open(path, O_RDWR | O_CREAT, 0o600) } catch {
                // On a read-only host an existing lock file will do, or else the directory itself.
                guard error == .readOnly else { throw error }
            }
            do throws(Errno) { return try RegularFile.open(path, O_RDONLY) } catch {
                guard error == .noEntry else { throw error }
            }
            let descriptor = directory.openDirectory()
            guard descriptor >= 0 else { throw .last }
            return descriptor
        } catch {
            if error == .invalid { throw CommandError("\(path): is not a regular file; remove it") }
            throw CommandError("\(path): cannot be opened: \(error)")
        }
    }

    /// Whether the locked file still is the store's lock file. It may have been removed while this process waited.
    private static func isCurrent(_ descriptor: Int32, _ directory: HostString) -> Bool {
        var held = stat()
        guard fstat(descriptor, &held) == 0 else { return false }
        if held.st_mode & 0o170000 == 0o040000 { return true }
        guard let named = try? HostString("\(directory)/lock").status() else { return false }
        return named.st_ino == held.st_ino && named.st_dev == held.st_dev
    }

    deinit { close(descriptor) }

    private func writeOwner() {
        let text = "\(getpid())\n"
        guard ftruncate(descriptor, 0) == 0 else { return }
        pwrite(descriptor, text, text.utf8.count, 0)
    }

    /// Whether the process that holds a store's lock has a supervisor.
    static func isSupervised(_ directory: HostString) -> Bool {
        let digits = (directory + "/lock").contents() ?? []
        guard let pid = Int32(String(decoding: digits.prefix { (48...57).contains($0) }, as: UTF8.self)),
            let status = HostString("/proc/\(pid)/status").contents()
        else { return false }
        let lines = String(decoding: status, as: UTF8.self).split(separator: "\n")
        let words = lines.first { $0.hasPrefix("PPid:") }?.split(separator: "\t") ?? []
        guard let parent = words.last.map(String.init) else { return false }
        let name = HostString("/proc/\(parent)/comm").contents() ?? []
        return String(decoding: name, as: UTF8.self).hasPrefix("treering-super")
    }

    private static func owner(_ descriptor: Int32) -> String {
        var bytes = [UInt8](repeating: 0, count: 32)
        let count = pread(descriptor, &bytes, bytes.count, 0)
        let digits = String(decoding: bytes.prefix(max(0, count)).prefix { (48...57).contains($0) }, as: UTF8.self)
        guard let pid = Int32(digits) else { return "another process" }
        let words = (HostString("/proc/\(pid)/cmdline").contents() ?? []).split(separator: 0)
        let command = words.map { HostString(bytes: $0).description }.joined(separator: " ")
        return command.isEmpty ? "process \(pid)" : "process \(pid) (\(command))"
    }
}
