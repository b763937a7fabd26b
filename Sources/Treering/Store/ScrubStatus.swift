// The state of a scrub as others see it: what was asked, how far it is, what it found. It lies under the volume's lock.
// The scrub writes it; control calls and `stats` read it.

/// The running scrub, or the last one of a mount.
struct ScrubStatus: Sendable {
    enum State: UInt64, Sendable {
        case running = 0
        /// It went through to the end.
        case done = 1
        /// Somebody cancelled it, or the mount ended.
        case cancelled = 2
        /// The command that began it was silent for too long.
        case abandoned = 3
        /// It could not go on: the mount was shut down.
        case failed = 4
    }

    /// Whoever knows the token may ask for progress and cancel the scrub.
    let token: UInt64
    /// Bytes that it reads per second; 0 for no limit.
    let rate: UInt64
    var state = State.running
    /// Somebody has asked it to end.
    var isCancelled = false
    /// When its command was last heard from, in monotonic nanoseconds.
    var heard: UInt64
    let begun: UInt64
    var ended: UInt64 = 0
    /// The time of day at its end.
    var endedSeconds: Int64 = 0
    /// Bytes that were read and verified, and the total as far as it is known.
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
    /// A command that is silent for this long counts as dead.
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

    /// For `stats`: 0 none has ended yet, 1 nothing wrong, 2 damage found, 3 ended early.
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
