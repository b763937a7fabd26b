// How writers are held back where free segments are few, so that they come down to what the cleaner gains instead of waiting for a whole
// cycle of it when everything is used up: the less room, the longer a write takes (SpaceAccounting.pace).

import Synchronization

/// The pace of a volume's writers. Set by the housekeeper, read with each write.
final class WritePace: Sendable {
    /// Nanoseconds for 4 KiB.
    private let pace = Atomic<Int>(0)
    private let heldNanoseconds = Atomic<UInt64>(0)

    /// What 4 KiB take where no room is left, and the longest that one write is held back, in nanoseconds.
    static let longestPace = 2_000_000
    private static let longestDelay = 20_000_000

    func set(_ nanoseconds: Int) { pace.store(nanoseconds, ordering: .relaxed) }

    /// How long the writer of so many bytes waits for its answer, in nanoseconds.
    func delay(ofByteCount count: Int) -> UInt64 {
        let pace = pace.load(ordering: .relaxed)
        if pace == 0 { return 0 }
        let delay = UInt64(min(Self.longestDelay, pace * max(1, count >> 12)))
        heldNanoseconds.add(delay, ordering: .relaxed)
        return delay
    }

    /// For how long writers have been held back since this was asked last, all together.
    func takeHeldNanoseconds() -> UInt64 { heldNanoseconds.exchange(0, ordering: .relaxed) }
}
