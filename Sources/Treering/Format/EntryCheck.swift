// Checks of index entries and changes that come from disk. A record is checked when it is read, an index page when it
// is taken into memory. After that, code may count with the numbers in them without fear of an overflow.

extension InodeNumber {
    /// 0 is no inode. The number must be below the limit, so that the next number is possible too.
    var isPossible: Bool { rawValue > 0 && rawValue < counterLimit }
}

extension RecordSequence {
    var isPossible: Bool { rawValue <= counterLimit }
}

extension BatchSequence {
    var isPossible: Bool { rawValue <= counterLimit }
}

extension InodeRecord {
    /// The most links of an inode. A directory has one for each directory in it.
    static let linkCountLimit = UInt32(Int32.max)
    /// The longest target of a symbolic link: PATH_MAX.
    static let targetByteCountLimit: UInt64 = 4096

    /// The types of mode bits (S_IFMT >> 12): pipe, character device, directory, block device, file, symbolic link,
    /// socket.
    static func isType(_ type: UInt32) -> Bool { type < 16 && 0b1_0101_0101_0110 >> type & 1 != 0 }

    private var sizeLimit: UInt64 {
        mode & 0o170000 == 0o120000 ? Self.targetByteCountLimit : UInt64(Int64.max)
    }

    /// Whether an inode can have these values.
    var isPossible: Bool {
        inode.isPossible && Self.isType(mode >> 12) && linkCount <= Self.linkCountLimit && size <= sizeLimit
            && parent.rawValue < counterLimit && since.isPossible
    }

    /// Why `isPossible` is false, for a person.
    var problem: String {
        if !inode.isPossible { return "its number is \(inode.rawValue)" }
        if !Self.isType(mode >> 12) { return "its mode is 0\(String(mode, radix: 8))" }
        if linkCount > Self.linkCountLimit { return "it has \(linkCount) links" }
        if size > sizeLimit { return "its size is \(size)" }
        return parent.rawValue < counterLimit ? "it is since \(since.rawValue)" : "its parent is \(parent.rawValue)"
    }
}

/// Names and cookies of directory entries and extended attributes.
enum NameCheck {
    /// 1 and 2 are the cookies of "." and "..".
    static func isPossible(cookie: UInt64) -> Bool { cookie > 2 && cookie <= UInt64(Int64.max) }

    /// A name that a directory can have.
    static func isName(_ name: UnsafeRawBufferPointer) -> Bool {
        guard name.count > 0, name.count <= 255 else { return false }
        for byte in name where byte == 0 || byte == UInt8(ascii: "/") { return false }
        return !isDots(name)
    }

    /// "." or "..".
    static func isDots(_ name: UnsafeRawBufferPointer) -> Bool {
        name.count <= 2 && name.allSatisfy { $0 == UInt8(ascii: ".") }
    }

    /// A name that an attribute can have.
    static func isAttribute(_ name: UnsafeRawBufferPointer) -> Bool { name.count > 0 && !name.contains(0) }
}

extension IndexKey {
    /// Why an entry with this key and value is impossible; nil where it is possible. Unknown spaces and kinds are
    /// accepted.
    func problem(_ value: UnsafeRawBufferPointer) -> String? {
        guard let space, let kind else { return nil }
        let inode = InodeNumber(object)
        switch (space, kind) {
        case (.tree, .inode):
            guard value.count == InodeEntry.byteCount, inode.isPossible else { return "malformed" }
            guard let entry = InodeEntry(inode: inode, decoding: value) else {
                return InodeRecord(inode: inode, decoding: value.part(InodeEntry.layout.record)).problem
            }
            guard entry.derived <= InodeEntry.derivedLimit(entry.record.mode) else {
                return "it has \(entry.derived) bytes or entries"
            }
            return Self.problem(entry.origin)
        case (.tree, .dirent):
            guard inode.isPossible, NameCheck.isPossible(cookie: subkey), let entry = DirentEntry(decoding: value),
                NameCheck.isName(entry.name)
            else { return "malformed" }
            return Self.problem(entry.origin)
        case (.tree, .xattr):
            guard inode.isPossible, NameCheck.isPossible(cookie: subkey), let entry = XattrEntry(decoding: value),
                NameCheck.isAttribute(entry.name)
            else { return "malformed" }
            return Self.problem(entry.origin)
        case (.tree, .extent):
            guard inode.isPossible, let entry = ExtentEntry(decoding: value), subkey <= UInt64(Int64.max),
                UInt64(entry.length) <= UInt64(Int64.max) - subkey
            else { return "malformed" }
            return Self.problem(entry.origin)
        case (.payloads, .payload):
            // The id of a payload is the sequence of the record that brought it. A move keeps both.
            guard object > 0, let entry = PayloadEntry(decoding: value), entry.origin.sequence.rawValue == object else {
                return "malformed"
            }
            return Self.problem(entry.origin)
        case (.usage, .usage):
            return object <= UInt64(UInt32.max) && UsageEntry(decoding: value) != nil ? nil : "malformed"
        case (.orphans, .orphan):
            guard inode.isPossible, value.count == Origin.byteCount else { return "malformed" }
            return Self.problem(Origin(decoding: value))
        case (.tombstones, _):
            guard inode.isPossible, let entry = TombstoneEntry(decoding: value),
                kind != .rangeTombstone || entry.from < entry.to
            else { return "malformed" }
            return Self.problem(entry.origin)
        case (.removals, .removal):
            guard inode.isPossible, subkey <= counterLimit, RemovalEntry(decoding: value) != nil else {
                return "malformed"
            }
            return nil
        default: return nil
        }
    }

    private static func problem(_ origin: Origin) -> String? {
        origin.sequence.isPossible ? nil : "its record is \(origin.sequence.rawValue)"
    }
}
