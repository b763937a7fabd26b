// The table of mounts, from /proc/self/mountinfo (proc(5)).

import Glibc

/// One line of the table of mounts.
struct MountedFileSystem: Equatable, Sendable {
    /// Major and minor number of the file system's device: "0:45".
    var device: String
    var mountPoint: HostString
    var type: String
    var source: HostString
    /// The kernel's flags as words: first those of the mount, then those of the file system.
    var words: [String] = []

    var isTreering: Bool { type == "fuse.treering" }
}

enum MountTable {
    /// All mounts, the later ones on top of the earlier.
    static func all() -> [MountedFileSystem] {
        guard let table = HostString("/proc/self/mountinfo").contents() else { return [] }
        return HostString(bytes: table).split("\n").compactMap(parse)
    }

    /// The topmost mount at exactly this absolute path.
    static func mount(at path: HostString) -> MountedFileSystem? { all().last { $0.mountPoint == path } }

    /// "36 35 98:0 /root /point rw,noatime master:1 - type source options": fields before the dash vary in number.
    static func parse(_ line: HostString) -> MountedFileSystem? {
        let fields = line.split(" ")
        guard let dash = fields.firstIndex(of: "-"), dash >= 6, fields.count > dash + 2 else { return nil }
        return MountedFileSystem(
            device: fields[2].description, mountPoint: unescaped(fields[4]), type: fields[dash + 1].description,
            source: unescaped(fields[dash + 2]),
            words: ([fields[5]] + fields.dropFirst(dash + 3).prefix(1)).flatMap {
                $0.split(",").map(\.description)
            })
    }

    /// Space, tab, newline and backslash are written as \040, \011, \012 and \134.
    private static func unescaped(_ text: HostString) -> HostString {
        var bytes: [UInt8] = []
        var rest = text.bytes[...]
        while let byte = rest.popFirst() {
            let digits = rest.prefix(3)
            if byte == UInt8(ascii: "\\"), digits.count == 3, digits.allSatisfy({ (48...55).contains($0) }) {
                bytes.append(digits.reduce(0) { $0 &* 8 &+ ($1 - 48) })
                rest.removeFirst(3)
            } else {
                bytes.append(byte)
            }
        }
        return HostString(bytes: bytes)
    }
}

/// Small things about files of the host.
enum HostFile {
    /// The real path of something whose last part may be missing.
    static func realPathOfNew(_ path: HostString) throws(Errno) -> HostString {
        do throws(Errno) { return try path.realPath() } catch { if error != .noEntry { throw error } }
        return try realPathOfParent(path.withoutSlashes)
    }

    /// The real path of the parent, with the last part as it is.
    static func realPathOfParent(_ path: HostString) throws(Errno) -> HostString {
        guard let slash = path.bytes.lastIndex(of: UInt8(ascii: "/")) else {
            return try HostString(".").realPath().appending(path)
        }
        let parent = slash == 0 ? "/" : HostString(bytes: path.bytes[..<slash])
        return try parent.realPath().appending(path.dropFirst(slash + 1))
    }

    /// Whether `inner` is `outer` or lies below it; both are real paths.
    static func isPath(_ inner: HostString, within outer: HostString) -> Bool {
        inner == outer || outer == "/" || inner.hasPrefix("\(outer)/")
    }

    /// The first executable of that name in PATH and the system's directories.
    static func executable(_ name: String) -> HostString? {
        let path = (HostString.environment("PATH") ?? "").split(":").filter { !$0.isEmpty }
        let places = path + ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        return places.map { "\($0)/\(name)" }.first(where: \.isExecutable)
    }
}

extension HostString {
    /// The path of a name in this directory.
    func appending(_ name: HostString) -> HostString { self == "/" ? "/\(name)" : "\(self)/\(name)" }

    /// The path without slashes at its end. A path of slashes only becomes "/".
    var withoutSlashes: HostString {
        let end = bytes.lastIndex { $0 != UInt8(ascii: "/") } ?? 0
        return HostString(bytes: bytes.prefix(end + 1))
    }
}
