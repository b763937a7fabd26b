// What is mounted where, from /proc/self/mountinfo (proc(5)).

import Glibc

/// One line of the table of mounts.
struct MountedFileSystem: Equatable, Sendable {
    /// Major and minor number of the file system's device: "0:45".
    var device: String
    var mountPoint: String
    var type: String
    var source: String
    /// The kernel's flags as words: those of the mount, then those of the file system.
    var words: [String] = []

    var isTreering: Bool { type == "fuse.treering" }
}

enum MountTable {
    /// All mounts, the later ones on top of the earlier.
    static func all() -> [MountedFileSystem] {
        guard let text = HostFile.text("/proc/self/mountinfo") else { return [] }
        return text.split(separator: "\n").compactMap { parse(String($0)) }
    }

    /// The topmost mount at exactly this absolute path.
    static func mount(at path: String) -> MountedFileSystem? { all().last { $0.mountPoint == path } }

    /// "36 35 98:0 /root /point rw,noatime master:1 - type source options": fields before the dash vary in number.
    static func parse(_ line: String) -> MountedFileSystem? {
        let fields = line.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
        guard let dash = fields.firstIndex(of: "-"), dash >= 6, fields.count > dash + 2 else { return nil }
        return MountedFileSystem(
            device: fields[2], mountPoint: unescaped(fields[4]), type: fields[dash + 1],
            source: unescaped(fields[dash + 2]),
            words: ([fields[5]] + fields.dropFirst(dash + 3).prefix(1)).flatMap {
                $0.split(separator: ",").map(String.init)
            })
    }

    /// Space, tab, newline and backslash are written as \040, \011, \012 and \134.
    private static func unescaped(_ text: String) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            let digits = rest.prefix(3)
            if byte == UInt8(ascii: "\\"), digits.count == 3, digits.allSatisfy({ (48...55).contains($0) }) {
                bytes.append(digits.reduce(0) { $0 &* 8 &+ ($1 - 48) })
                rest.removeFirst(3)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// Small things about files of the host.
enum HostFile {
    /// The contents of a small file, nil where it cannot be read.
    static func text(_ path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 8)
        defer { chunk.deallocate() }
        while true {
            let count = read(descriptor, chunk.baseAddress, chunk.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return count == 0 ? String(decoding: bytes, as: UTF8.self) : nil }
            bytes.append(contentsOf: chunk[..<count])
        }
    }

    /// Writes all of a short text to a file that is there; false where that fails.
    @discardableResult
    static func write(_ text: String, to path: String) -> Bool {
        let descriptor = open(path, O_WRONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return Glibc.write(descriptor, text, text.utf8.count) == text.utf8.count
    }

    /// Runs a program to its end; whether it succeeded.
    @discardableResult
    static func run(_ program: String, _ arguments: [String]) -> Bool {
        var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var child: pid_t = 0
        guard posix_spawn(&child, program, nil, nil, &words, environ) == 0 else { return false }
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0 { if errno != EINTR { return false } }
        return status == 0
    }

    /// The path without links and dots; throws where it does not lead anywhere.
    static func realPath(_ path: String) throws(Errno) -> String {
        guard let resolved = realpath(path, nil) else { throw .last }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    /// Like `realPath`, but the last part may be missing.
    static func realPathOfNew(_ path: String) throws(Errno) -> String {
        do throws(Errno) { return try realPath(path) } catch { if error != .noEntry { throw error } }
        var trimmed = Substring(path)
        while trimmed.count > 1 && trimmed.hasSuffix("/") { trimmed.removeLast() }
        guard let slash = trimmed.lastIndex(of: "/") else { return try realPath(".") + "/" + trimmed }
        let parent = try realPath(slash == trimmed.startIndex ? "/" : String(trimmed[..<slash]))
        return (parent == "/" ? "" : parent) + trimmed[slash...]
    }

    /// The names in a directory without "." and "..", sorted.
    static func names(in path: String) throws(Errno) -> [String] {
        guard let directory = opendir(path) else { throw .last }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// Whether `inner` is `outer` or lies below it; both are real paths.
    static func isPath(_ inner: String, within outer: String) -> Bool {
        inner == outer || outer == "/" || inner.hasPrefix(outer + "/")
    }

    /// The first executable of that name in PATH and the system's directories.
    static func executable(_ name: String) -> String? {
        let path = getenv("PATH").map { String(cString: $0) } ?? ""
        let places = path.split(separator: ":").map(String.init) + ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        return places.map { $0 + "/" + name }.first { access($0, X_OK) == 0 }
    }
}
