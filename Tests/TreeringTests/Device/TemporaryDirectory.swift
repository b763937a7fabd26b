// A directory of a test, below TMPDIR or /tmp, gone with the object.

import Glibc

/// Made by mkdtemp(3); removed with everything in it.
final class TemporaryDirectory {
    let path: String

    init() {
        let parent = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        var name = Array((parent + "/treering-test-XXXXXX").utf8CString)
        precondition(mkdtemp(&name) != nil)
        path = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { Self.remove(path) }

    private static func remove(_ path: String) {
        if let stream = opendir(path) {
            while let entry = readdir(stream) {
                let start = UnsafeRawPointer(entry) + MemoryLayout<dirent>.offset(of: \.d_name)!
                let name = String(cString: start.assumingMemoryBound(to: CChar.self))
                let child = path + "/" + name
                if name != "." && name != ".." && unlink(child) != 0 { remove(child) }
            }
            closedir(stream)
        }
        rmdir(path)
    }
}
