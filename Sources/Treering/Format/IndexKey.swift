// The key of every index entry: 24 bytes, ordered as three unsigned words.

/// What an index entry is about. The number orders the entries of one object and is on disk.
enum EntryKind: UInt8, CaseIterable {
    case inode = 1
    case dirent = 2
    case xattr = 3
    case extent = 4
    case payload = 16
    case usage = 17
    case orphan = 18
    /// A pending removal: a range of a file, or a whole inode, that is gone but has entries in the index still.
    case removal = 19
    /// In the space of tombstones: hides older extents of a range. Other tombstones have the kind of the entry that
    /// they hide.
    case rangeTombstone = 20
}

/// The part of the key space an entry lies in. On disk.
enum KeySpace: UInt8, CaseIterable {
    /// Inodes and what belongs to them; the object is the inode number.
    case tree = 1
    /// Payload entries; the object is the payload id.
    case payloads = 2
    /// Segment usage; the object is the segment number.
    case usage = 3
    /// Orphans; the object is the inode number.
    case orphans = 4
    /// Tombstones; the object is the inode number whose entries they hide.
    case tombstones = 5
    /// Pending removals; the object is the inode number, the subkey the sequence of the record.
    case removals = 6
}

/// The key of an index entry.
///
/// Entries order by (word 0, word 1, word 2).
struct IndexKey: Hashable, Comparable, Sendable, StoredValue, LaidOut {
    struct Layout: DiskLayout {
        let word0 = Field<UInt64>(
            0, "word 0", "bits 63-56 space, 55-32 tree id (0; room for snapshots), 31-0 upper half of the object",
            as: .hexadecimal)
        let word1 = Field<UInt64>(
            8, "word 1", "bits 63-32 lower half of the object, 31-24 kind, 23-0 birth epoch (0; room for snapshots)",
            as: .hexadecimal)
        let word2 = Field<UInt64>(
            16, "word 2", "subkey: cookie of a dirent or xattr, file offset of an extent, else 0", as: .hexadecimal)
        static let byteCount = 24
    }

    static let layout = Layout()

    var word0: UInt64
    var word1: UInt64
    var word2: UInt64

    init(word0: UInt64, word1: UInt64, word2: UInt64) {
        self.word0 = word0
        self.word1 = word1
        self.word2 = word2
    }

    init(space: KeySpace, object: UInt64, kind: UInt8, subkey: UInt64) {
        word0 = UInt64(space.rawValue) << 56 | object >> 32
        word1 = object << 32 | UInt64(kind) << 24
        word2 = subkey
    }

    init(space: KeySpace, object: UInt64, kind: EntryKind, subkey: UInt64) {
        self.init(space: space, object: object, kind: kind.rawValue, subkey: subkey)
    }

    static let min = IndexKey(word0: 0, word1: 0, word2: 0)
    static let max = IndexKey(word0: .max, word1: .max, word2: .max)

    var space: KeySpace? { KeySpace(rawValue: UInt8(truncatingIfNeeded: word0 >> 56)) }
    var object: UInt64 { word0 << 32 | word1 >> 32 }
    var kind: EntryKind? { EntryKind(rawValue: rawKind) }
    var rawKind: UInt8 { UInt8(truncatingIfNeeded: word1 >> 24) }
    var subkey: UInt64 { word2 }

    @inline(__always)
    static func < (a: IndexKey, b: IndexKey) -> Bool {
        if a.word0 != b.word0 { return a.word0 < b.word0 }
        if a.word1 != b.word1 { return a.word1 < b.word1 }
        return a.word2 < b.word2
    }

    /// The next possible key; nil for the greatest.
    var successor: IndexKey? {
        var key = self
        key.word2 &+= 1
        if key.word2 == 0 {
            key.word1 &+= 1
            if key.word1 == 0 { key.word0 &+= 1 }
        }
        return key == .min ? nil : key
    }

    @inline(__always)
    init(at place: UnsafeRawPointer) {
        word0 = place[Self.layout.word0]
        word1 = place[Self.layout.word1]
        word2 = place[Self.layout.word2]
    }

    @inline(__always)
    func store(at place: UnsafeMutableRawPointer) {
        place[Self.layout.word0] = word0
        place[Self.layout.word1] = word1
        place[Self.layout.word2] = word2
    }
}

extension IndexKey: CustomStringConvertible {
    /// The key for a person: "tree 17, extent 4096".
    var description: String {
        "\(space.map { "\($0)" } ?? "space \(word0 >> 56)") \(object), \(kind.map { "\($0)" } ?? "kind \(rawKind)") \(subkey)"
    }
}
