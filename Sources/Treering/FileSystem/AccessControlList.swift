// POSIX access control lists as values: what acl(5) says about their form, modes and inheritance. Core+AccessControl
// stores them.

/// An access control list in the form of the extended attributes system.posix_acl_access and system.posix_acl_default.
///
///     offset size field
///          0    4 version (2)
///          4    8 each entry: tag 2, permissions 2, uid or gid 4 (all ones where the tag takes none)
///
/// Source: acl(5), include/uapi/linux/posix_acl_xattr.h. Entries come in the order of their tags.
struct AccessControlList: Equatable {
    enum Tag: UInt16 {
        case owner = 0x01
        case user = 0x02
        case owningGroup = 0x04
        case group = 0x08
        case mask = 0x10
        case other = 0x20
    }

    struct Entry: Equatable {
        var tag: Tag
        /// rwx as in a mode.
        var permissions: UInt16
        var id: UInt32
    }

    private(set) var entries: [Entry]

    /// More entries do not fit in an inline attribute. (ext4 has room for about 500.)
    static let entryCountLimit = (XattrEntry.inlineByteCountLimit - 4) / 8

    /// The list that `bytes` hold, nil where they are malformed or it is no valid list.
    init?(decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= 4, (bytes.count - 4) % 8 == 0, bytes.load(0, as: UInt32.self) == 2 else { return nil }
        entries = []
        for offset in stride(from: 4, to: bytes.count, by: 8) {
            let permissions: UInt16 = bytes.load(offset + 2)
            guard let tag = Tag(rawValue: bytes.load(offset)), permissions <= 7 else { return nil }
            entries.append(Entry(tag: tag, permissions: permissions, id: bytes.load(offset + 4)))
        }
        guard isValid else { return nil }
    }

    var bytes: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 4 + entries.count * 8) { buffer, count in
            let memory = UnsafeMutableRawBufferPointer(buffer)
            memory.store(2 as UInt32, at: 0)
            for (index, entry) in entries.enumerated() {
                memory.store(entry.tag.rawValue, at: 4 + index * 8)
                memory.store(entry.permissions, at: 6 + index * 8)
                memory.store(entry.id, at: 8 + index * 8)
            }
            count = memory.count
        }
    }

    /// One entry each for owner, owning group and others; a mask where users or groups are named; tags in order.
    private var isValid: Bool {
        func count(_ tag: Tag) -> Int { entries.reduce(0) { $0 + ($1.tag == tag ? 1 : 0) } }
        let isOrdered = zip(entries, entries.dropFirst()).allSatisfy { $0.tag.rawValue <= $1.tag.rawValue }
        let needsMask = count(.user) > 0 || count(.group) > 0
        return isOrdered && count(.owner) == 1 && count(.owningGroup) == 1 && count(.other) == 1 && count(.mask) <= 1
            && (!needsMask || count(.mask) == 1)
    }

    private func permissions(_ tag: Tag) -> UInt32? { entries.first { $0.tag == tag }.map { UInt32($0.permissions) } }

    private mutating func set(_ tag: Tag, _ permissions: UInt32) {
        for index in entries.indices where entries[index].tag == tag {
            entries[index].permissions = UInt16(truncatingIfNeeded: permissions & 7)
        }
    }

    /// Whether the nine permission bits say all that the list says.
    var isMode: Bool { entries.count == 3 }

    /// The nine permission bits that go with the list: where there is a mask, it is what stat shows of the group.
    var modeBits: UInt32 {
        permissions(.owner)! << 6 | (permissions(.mask) ?? permissions(.owningGroup)!) << 3 | permissions(.other)!
    }

    /// chmod(2) of a file that has this list.
    mutating func takeMode(_ mode: UInt32) {
        set(.owner, mode >> 6)
        set(permissions(.mask) == nil ? .owningGroup : .mask, mode >> 3)
        set(.other, mode)
    }

    /// The access list of a new file in a directory with this default list. It allows no more than `mode`. Source:
    /// acl(5), "Object creation and default ACLs".
    func inherited(mode: UInt32) -> AccessControlList {
        var list = self
        list.takeMode(modeBits & mode)
        return list
    }
}
