// A directory of a test, below TMPDIR or /tmp, gone with the object.

import Glibc

@testable import Treering

/// Made by mkdtemp(3); removed with everything in it.
final class TemporaryDirectory {
    let path: HostString

    init() {
        let parent = HostString.environment("TMPDIR") ?? "/tmp"
        path = HostString("\(parent)/treering-test-").makeUniqueDirectory()!
    }

    deinit { Self.remove(path) }

    private static func remove(_ path: HostString) {
        for name in (try? path.names()) ?? [] {
            let child: HostString = "\(path)/\(name)"
            do { try child.unlink() } catch { remove(child) }
        }
        try? path.removeDirectory()
    }
}
