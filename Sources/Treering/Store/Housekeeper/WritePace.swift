// Holds writers back when free segments are few: the less room, the longer each write takes (SpaceAccounting.pace).
// Writers thus slow down to what the cleaner gains, instead of using up everything and waiting for a whole cycle of
// cleaning.

import Synchronization

/// The pace of a volume's writers. The housekeeper sets it; each write reads it.
final class WritePace: Sendable {
    /// How long a write is held back for each 4 KiB, in nanoseconds.
    private let pace = Atomic<Int>(0)
    private let heldNanoseconds = Atomic<UInt64>(0)

    /// The pace where no room is left, and the longest that one write is held back. Both in nanoseconds.
    static let longestPace = 2_000_000
    private static let longestDelay = 20_000_000

    func set(_ nanoseconds: Int) { pace.store(nanoseconds, ordering: .relaxed) }

    /// How long the answer to a write of `count` bytes is held back, in nanoseconds.
    func delay(ofByteCount count: Int) -> UInt64 {
        let pace = pace.load(ordering: .relaxed)
        if pace == 0 { return 0 }
        let delay = UInt64(min(Self.longestDelay, pace * max(1, count >> 12)))
        heldNanoseconds.add(delay, ordering: .relaxed)
        return delay
    }

    /// For how long all writers together have been held back since the last call, in nanoseconds.
    func takeHeldNanoseconds() -> UInt64 { heldNanoseconds.exchange(0, ordering: .relaxed) }
}
