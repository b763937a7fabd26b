// A scrub as others see it: what it was asked, how far it is, what it found. Lies under the volume's lock; the scrub writes it, and the
// control calls and `stats` read it.

/// A scrub that runs, or the last one of a mount.
struct ScrubStatus: Sendable {
    enum State: UInt64, Sendable {
        case running = 0
        /// It went through to the end.
        case done = 1
        /// Somebody asked for its end, or the mount came to its own.
        case cancelled = 2
        /// The command that began it was not heard from any more.
        case abandoned = 3
        /// It could not go on: the mount was shut down.
        case failed = 4
    }

    /// Who knows it may ask for progress, and end it.
    let token: UInt64
    /// Bytes per second read for it, 0 for no limit.
    let rate: UInt64
    var state = State.running
    /// Somebody wants it to end.
    var isCancelled = false
    /// When its command was heard from last, in monotonic nanoseconds.
    var heard: UInt64
    let begun: UInt64
    var ended: UInt64 = 0
    /// The time of day at its end.
    var endedSeconds: Int64 = 0
    /// Bytes read and verified, and how many there are in all as far as is known.
    var doneByteCount: UInt64 = 0
    var totalByteCount: UInt64 = 0
    /// Blocks of data that were verified.
    var blockCount: UInt64 = 0
    /// Blocks that an earlier repair has marked as lost.
    var knownLostCount: UInt64 = 0
    var findingCount: UInt64 = 0
    /// The first of them.
    var findings: [Finding] = []

    static let findingLimit = 1000
    /// A command that is silent for so long is taken for dead.
    static let patienceNanoseconds: UInt64 = 10_000_000_000

    init(token: UInt64, rate: UInt64, now: UInt64) {
        self.token = token
        self.rate = rate
        heard = now
        begun = now
    }

    mutating func add(_ finding: Finding) {
        findingCount += 1
        if findings.count < Self.findingLimit { findings.append(finding) }
    }

    /// For `stats`: 0 none yet, 1 nothing wrong, 2 damage, 3 did not come to its end.
    var result: UInt64 {
        switch state {
        case .running: return 0
        case .done: return findingCount == 0 ? 1 : 2
        default: return 3
        }
    }
}

extension VolumeState {
    func endScrub(_ how: ScrubStatus.State) {
        scrub?.ended = monotonicNanoseconds()
        scrub?.endedSeconds = timeOfDay().seconds
        scrub?.state = how
    }
}
