// The options of a new store.

import Glibc

/// Choices for a new store.
struct FormatOptions: Sendable {
    /// In bytes; at least 16 MiB and 8 segments. Nil: what the host has free.
    var capacityByteCount: UInt64?
    /// A power of two from 1 MiB to 64 MiB; nil: near a 64th of the capacity.
    var segmentByteCount: Int?
    var uuid = StoreUUID(high: HostStaging.randomWord(), low: HostStaging.randomWord())
    var hashKey = StoreUUID(high: HostStaging.randomWord(), low: HostStaging.randomWord())
    /// Owner of the root directory: who formats.
    var uid = geteuid()
    var gid = getegid()
    var now: @Sendable () -> Timestamp = Timestamp.now

    static let capacityMinimum: UInt64 = 16 << 20
    static let segmentByteCountLimit = 64 << 20

    /// The segment size for a capacity: the power of two near a 64th of it, from 1 MiB to 64 MiB.
    static func segmentByteCount(forCapacity capacity: UInt64) -> Int {
        var size = 1 << 20
        while size < 64 << 20, UInt64(size) * 2 * 64 <= capacity { size *= 2 }
        return size
    }
}
