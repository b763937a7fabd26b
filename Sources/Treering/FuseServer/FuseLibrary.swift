// Facts about libfuse for `probe` and `--version`.

import CFuse3

enum FuseLibrary {
    /// The version that runs, not the one built against.
    static var version: String { String(cString: fuse_pkgversion()) }
}
