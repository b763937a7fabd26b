// A struct of one field for each kind of number on disk, so that the compiler notices when two are swapped. Also the
// values that every layout uses: times, uuids, reports of damage.

/// The unit of alignment of everything that is written: 4 KiB.
let blockByteCount = 4096

/// The highest value of a counter on disk (sequences, epochs, generations, inode numbers). Decoders refuse higher ones,
/// so adding to a counter does not overflow.
let counterLimit = UInt64(Int64.max)

/// An inode number: 64-bit, never reused in the life of a store. 1 is the root.
public struct InodeNumber: Hashable, Comparable, Sendable {
    /// The number as the kernel sees it.
    public let rawValue: UInt64
    /// Wraps a number.
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
    /// Orders by number.
    public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
    static let root = InodeNumber(1)
}

/// The number of a segment: its place in the store's segment table, and its file name.
struct SegmentNumber: Hashable, Comparable, Sendable {
    let rawValue: UInt32
    init(_ rawValue: UInt32) { self.rawValue = rawValue }
    static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

/// A segment in one of its incarnations. A recycled segment has the same number and the next incarnation. Whatever is
/// remembered for longer than one hold of the lock must name its segment by this, not by number alone.
struct SegmentID: Hashable, Sendable {
    let number: SegmentNumber
    let incarnation: UInt32
    init(_ number: SegmentNumber, _ incarnation: UInt32) {
        self.number = number
        self.incarnation = incarnation
    }
}

/// The age of a record: raised by one for each record. The highest sequence wins for each key and each byte range. A
/// change that the cleaner moves keeps its sequence.
struct RecordSequence: Hashable, Comparable, Sendable {
    let rawValue: UInt64
    init(_ rawValue: UInt64) { self.rawValue = rawValue }
    static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
    static let zero = RecordSequence(0)
    var next: RecordSequence { RecordSequence(rawValue + 1) }
}

/// The place of a batch in the log: raised by one for each batch and never used twice. Recovery goes by it.
struct BatchSequence: Hashable, Comparable, Sendable {
    let rawValue: UInt64
    init(_ rawValue: UInt64) { self.rawValue = rawValue }
    static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
    static let zero = BatchSequence(0)
    var next: BatchSequence { BatchSequence(rawValue + 1) }
}

/// The name of a payload: the sequence of the record that brought it. A record brings at most one.
struct PayloadID: Hashable, Sendable {
    let rawValue: UInt64
    init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// The number of a mount in the life of a store, raised durably before the mount writes anything.
struct MountEpoch: Hashable, Comparable, Sendable {
    let rawValue: UInt64
    init(_ rawValue: UInt64) { self.rawValue = rawValue }
    static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

/// The number of a checkpoint, raised by one for each.
struct CheckpointNumber: Hashable, Comparable, Sendable {
    let rawValue: UInt64
    init(_ rawValue: UInt64) { self.rawValue = rawValue }
    static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
    static let zero = CheckpointNumber(0)
    var next: CheckpointNumber { CheckpointNumber(rawValue + 1) }
}

/// The place of an index page in the index file, in pages.
struct PageAddress: Hashable, Comparable, Sendable {
    let rawValue: UInt32
    init(_ rawValue: UInt32) { self.rawValue = rawValue }
    var offsetInFile: UInt64 { UInt64(rawValue) * UInt64(IndexPage.byteCount) }
    static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

/// Sixteen bytes that name a store for ever.
struct StoreUUID: Hashable, Sendable, CustomStringConvertible {
    let high: UInt64
    let low: UInt64

    var description: String {
        func hex(_ value: UInt64, _ digits: Int) -> String {
            let text = String(value, radix: 16)
            return String(repeating: "0", count: digits - text.count) + text
        }
        return [
            hex(high >> 32, 8), hex(high >> 16 & 0xFFFF, 4), hex(high & 0xFFFF, 4),
            hex(low >> 48, 4), hex(low & 0xFFFF_FFFF_FFFF, 12),
        ].joined(separator: "-")
    }
}

/// A point in time as POSIX keeps it.
public struct Timestamp: Hashable, Comparable, Sendable {
    /// Seconds since 1970, negative before.
    public var seconds: Int64
    /// 0 to 999,999,999.
    public var nanoseconds: UInt32
    /// Puts the two together.
    public init(seconds: Int64, nanoseconds: UInt32) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }
    /// Earlier first.
    public static func < (a: Self, b: Self) -> Bool {
        a.seconds != b.seconds ? a.seconds < b.seconds : a.nanoseconds < b.nanoseconds
    }
}

/// Damage found on disk: where and what. It is logged, counted and turned into EIO; it never traps.
struct CorruptionReport: Error, Hashable, Sendable, CustomStringConvertible {
    /// What was being read, for a person ("index page 17", "segment 3, batch at 8192").
    let place: String
    /// What is wrong with it.
    let reason: String
    var description: String { "\(place): \(reason)" }
}
