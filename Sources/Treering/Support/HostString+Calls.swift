// The host's calls that take a path. Only this file calls them (TidyTests checks it), so no path passes through a Swift
// String on its way to the kernel.

import CLinux
import Glibc

extension HostString {
    /// open(2) with O_CLOEXEC: programs that this process starts do not get the descriptor. -1 with errno on failure.
    func open(_ flags: Int32, _ mode: mode_t = 0) -> Int32 { openForPrograms(flags | O_CLOEXEC, mode) }

    /// open(2): programs that this process starts get the descriptor too. -1 with errno on failure.
    func openForPrograms(_ flags: Int32, _ mode: mode_t = 0) -> Int32 {
        withCString { Glibc.open($0, flags, mode) }
    }

    /// A descriptor of a directory, or -1 with errno.
    func openDirectory() -> Int32 { open(O_RDONLY | O_DIRECTORY) }

    /// stat(2): follows symbolic links.
    func status() throws(Errno) -> stat {
        var status = stat()
        guard withCString({ stat($0, &status) }) == 0 else { throw .last }
        return status
    }

    /// lstat(2): of a symbolic link itself.
    func linkStatus() throws(Errno) -> stat {
        var status = stat()
        guard withCString({ lstat($0, &status) }) == 0 else { throw .last }
        return status
    }

    /// statvfs(3).
    func fileSystemStatus() throws(Errno) -> statvfs {
        var figures = statvfs()
        guard withCString({ statvfs($0, &figures) }) == 0 else { throw .last }
        return figures
    }

    /// Whether something has this name; links are followed.
    var exists: Bool { withCString { access($0, F_OK) } == 0 }
    var isExecutable: Bool { withCString { access($0, X_OK) } == 0 }

    func makeDirectory(_ mode: mode_t = 0o700) throws(Errno) {
        guard withCString({ mkdir($0, mode) }) == 0 else { throw .last }
    }

    func unlink() throws(Errno) {
        guard withCString({ Glibc.unlink($0) }) == 0 else { throw .last }
    }

    func removeDirectory() throws(Errno) {
        guard withCString({ rmdir($0) }) == 0 else { throw .last }
    }

    /// mkdtemp(3): makes a directory whose name begins with this path. Nil with errno on failure.
    func makeUniqueDirectory() -> HostString? {
        (self + "XXXXXX").withCString { name in
            // mkdtemp writes the name over the X's.
            mkdtemp(UnsafeMutablePointer(mutating: name)).map { HostString(cString: $0) }
        }
    }

    /// The target of a symbolic link; nil where there is no link.
    func linkTarget() -> HostString? {
        var bytes = [UInt8](repeating: 0, count: Int(PATH_MAX))
        let count = withCString { path in
            bytes.withUnsafeMutableBytes {
                readlink(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
            }
        }
        return count > 0 ? HostString(bytes: bytes.prefix(count)) : nil
    }

    /// realpath(3): the path without symbolic links and dots. Throws if nothing is there.
    func realPath() throws(Errno) -> HostString {
        guard let resolved = withCString({ realpath($0, nil) }) else { throw .last }
        defer { free(resolved) }
        return HostString(cString: resolved)
    }

    /// The names in a directory without "." and "..", sorted.
    func names() throws(Errno) -> [HostString] {
        guard let stream = withCString({ opendir($0) }) else { throw .last }
        return try Self.entries(closing: stream).map(\.name).sorted()
    }

    /// The names in an open directory, each with its type (DT_REG and so on; DT_UNKNOWN where the host does not say).
    /// Closes the directory.
    static func entries(closing stream: OpaquePointer) throws(Errno) -> [(name: HostString, type: UInt8)] {
        defer { closedir(stream) }
        var found: [(HostString, UInt8)] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                if errno != 0 { throw .last }
                return found
            }
            let start = UnsafeRawPointer(entry) + MemoryLayout<dirent>.offset(of: \.d_name)!
            let name = HostString(cString: start.assumingMemoryBound(to: CChar.self))
            if name != "." && name != ".." { found.append((name, entry.pointee.d_type)) }
        }
    }

    /// The contents of a small file; nil where it cannot be read.
    func contents() -> [UInt8]? {
        let descriptor = open(O_RDONLY)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 16 << 10, alignment: 8)
        defer { chunk.deallocate() }
        while true {
            let count = read(descriptor, chunk.baseAddress, chunk.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return count == 0 ? bytes : nil }
            bytes.append(contentsOf: chunk[..<count])
        }
    }

    /// The same as text.
    func text() -> String? { contents().map { String(decoding: $0, as: UTF8.self) } }

    /// Writes a short text to an existing file; false where not all of it was written.
    @discardableResult
    func overwrite(_ text: String) -> Bool {
        let descriptor = open(O_WRONLY)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return write(descriptor, text, text.utf8.count) == text.utf8.count
    }

    /// The value of an extended attribute. Symbolic links are followed.
    func attribute(_ name: String) throws(Errno) -> [UInt8] {
        // The value may grow between the call that asks for its length and the call that reads it.
        for _ in 0..<8 {
            let count = withCString { getxattr($0, name, nil, 0) }
            guard count >= 0 else { throw .last }
            var bytes = [UInt8](repeating: 0, count: count + 1024)
            let filled = withCString { path in
                bytes.withUnsafeMutableBytes { getxattr(path, name, $0.baseAddress, $0.count) }
            }
            if filled >= 0 { return Array(bytes.prefix(filled)) }
            guard errno == ERANGE else { throw .last }
        }
        throw .range
    }

    /// mount(2) with MS_REMOUNT: changes the flags of the mount at this path.
    func remount(_ source: HostString?, _ type: String?, _ flags: UInt) throws(Errno) {
        let result = withCString { path in
            (source ?? "none").withCString { mount($0, path, type, flags | UInt(MS_REMOUNT), nil) }
        }
        guard result == 0 else { throw .last }
    }

    /// umount2(2).
    func unmount(_ flags: Int) throws(Errno) {
        guard withCString({ umount2($0, Int32(flags)) }) == 0 else { throw .last }
    }

    /// Runs the program at this path and waits until it ends. True if its exit code is 0.
    @discardableResult
    func run(_ arguments: [HostString], title: HostString? = nil) -> Bool {
        guard let child = start(arguments, title: title) else { return false }
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0 { if errno != EINTR { return false } }
        return status == 0
    }

    /// The same, but asks `givesUp` again and again meanwhile; `givesUp` must pause. If it says true, the program is
    /// killed and not waited for.
    func run(_ arguments: [HostString], unless givesUp: () -> Bool) -> Bool {
        guard let child = start(arguments) else { return false }
        var status: Int32 = 0
        while true {
            let ended = waitpid(child, &status, WNOHANG)
            if ended == child { return status == 0 }
            if ended < 0 && errno != EINTR { return false }
            if givesUp() {
                kill(child, SIGKILL)
                return false
            }
        }
    }

    /// Starts the program at this path. Its first argument is `title`, or else the path. Nil where it cannot be
    /// started.
    func start(
        _ arguments: [HostString], title: HostString? = nil, _ actions: UnsafePointer<posix_spawn_file_actions_t>? = nil
    ) -> pid_t? {
        var words: [UnsafeMutablePointer<CChar>?] = ([title ?? self] + arguments).map(\.copy) + [nil]
        defer { for word in words { free(word) } }
        var child: pid_t = 0
        return withCString { posix_spawn(&child, $0, actions, nil, &words, environ) } == 0 ? child : nil
    }

    static func + (left: HostString, right: HostString) -> HostString { "\(left)\(right)" }
}
