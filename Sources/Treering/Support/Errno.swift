// POSIX error numbers as a typed, unboxed Swift error. Every layer uses it.

import Glibc

/// A positive POSIX error number, thrown as `throws(Errno)`. Source: errno(3).
public struct Errno: Error, Equatable, Hashable, Sendable, CustomStringConvertible {
    /// The number, always positive.
    public let rawValue: Int32

    /// Wraps a positive error number.
    public init(_ rawValue: Int32) {
        assert(rawValue > 0)
        self.rawValue = rawValue
    }

    /// What the last failed call of this thread left in `errno`.
    static var last: Errno { Errno(ofHost: errno) }

    /// An error of the host. EDQUOT (a quota is used up) becomes ENOSPC: both pass, and neither is a device that fails.
    init(ofHost number: Int32) { self.init(number == EDQUOT ? ENOSPC : number) }

    /// Whether the host lacks room, descriptors or memory. These may come free again, so the caller tries again later.
    /// The device has not failed.
    var isShortage: Bool {
        switch rawValue {
        case ENOSPC, EMFILE, ENFILE, ENOMEM: true
        default: false
        }
    }

    /// The text of strerror(3).
    public var description: String { String(cString: strerror(rawValue)) }

    static let noEntry = Errno(ENOENT)
    static let exists = Errno(EEXIST)
    static let ioError = Errno(EIO)
    static let notDirectory = Errno(ENOTDIR)
    static let isDirectory = Errno(EISDIR)
    static let notEmpty = Errno(ENOTEMPTY)
    static let invalid = Errno(EINVAL)
    static let noSpace = Errno(ENOSPC)
    static let nameTooLong = Errno(ENAMETOOLONG)
    static let tooManyLinks = Errno(EMLINK)
    static let notPermitted = Errno(EPERM)
    static let accessDenied = Errno(EACCES)
    static let stale = Errno(ESTALE)
    static let fileTooBig = Errno(EFBIG)
    static let readOnly = Errno(EROFS)
    static let notSupported = Errno(ENOTSUP)
    static let noData = Errno(ENODATA)
    static let range = Errno(ERANGE)
    static let tooBig = Errno(E2BIG)
    static let busy = Errno(EBUSY)
    static let notTypewriter = Errno(ENOTTY)
    static let badAddress = Errno(EFAULT)
    static let notImplemented = Errno(ENOSYS)
    static let noDevice = Errno(ENODEV)
    static let noAddress = Errno(ENXIO)
}
