// Names of extended attributes, and who may use them.

/// Which extended attribute a name means. Source: xattr(7).
enum XattrName {
    case accessList
    case defaultList
    case ordinary

    /// EOPNOTSUPP for namespaces that are not stored, EINVAL for a namespace alone.
    init(_ name: UnsafeRawBufferPointer) throws(Stop) {
        func begins(_ prefix: StaticString) -> Bool {
            let count = prefix.utf8CodeUnitCount
            return name.count >= count
                && UnsafeRawBufferPointer(rebasing: name[..<count]).elementsEqual(
                    UnsafeRawBufferPointer(start: prefix.utf8Start, count: count))
        }
        func isNamed(_ whole: StaticString) -> Bool { name.count == whole.utf8CodeUnitCount && begins(whole) }
        if begins("user.") || begins("trusted.") || begins("security.") {
            if isNamed("user.") || isNamed("trusted.") || isNamed("security.") { throw .failed(.invalid) }
            self = .ordinary
        } else if isNamed(Self.accessListName) {
            self = .accessList
        } else if isNamed(Self.defaultListName) {
            self = .defaultList
        } else {
            throw .failed(.notSupported)
        }
    }

    static let accessListName: StaticString = "system.posix_acl_access"
    static let defaultListName: StaticString = "system.posix_acl_default"

    static func bytes(_ name: StaticString) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
    }

    var flag: InodeFlags {
        switch self {
        case .accessList: return .hasAccessList
        case .defaultList: return .hasDefaultList
        case .ordinary: return []
        }
    }
}
