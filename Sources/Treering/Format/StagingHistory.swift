// Which staging continues the log. A killed mount leaves records in staging that are not in the log yet. Once the log
// has gone on without them, they must never be replayed. The superblock keeps this history; each mount decides by it
// (StagingChoice) and adds to it (Volume+Staging.swift).

/// What a superblock says of the staging that killed mounts have left.
///
/// Each mount notes here, in the superblock that raises the epoch, which staging it takes in and which it passes over.
/// A mount passes over staging that it cannot see: that of another user, or in the `/dev/shm` of another container.
/// Such staging is void as soon as the log has another record with the sequence of its first one. Until then (the mount
/// failed, or wrote nothing) a later mount that sees it may take it in.
struct StagingHistory: Equatable, Sendable {
    /// Staging of mounts through this epoch is void. Zero: the superblock was written by a version without this
    /// history.
    var void = MountEpoch(0)
    /// Staging of later mounts, through this epoch, was passed over. It is void if the next record does not get the
    /// sequence `next`.
    var passed = MountEpoch(0)
    /// The sequence that the next record would have got when `passed` was noted.
    var next = RecordSequence.zero
    /// How many killed mounts were passed over in the boot in which they died, since formatting. Each may have
    /// acknowledged operations that the store has lost.
    var passedCount: UInt64 = 0
    /// Staging of the mount of this epoch was passed over and is now being taken in, until it is durable in the log.
    /// Zero: none. Other staging that was passed over is not taken in any more.
    var taking = MountEpoch(0)

    /// Whether the superblock was written by a version that has this history.
    var isKnown: Bool { void.rawValue > 0 }

    /// Whether the staging of the mount of `epoch` continues the log. `next` is the sequence of the log's next record,
    /// `last` the epoch of its last batch.
    func standing(of epoch: MountEpoch, next: RecordSequence, last: MountEpoch) -> StagingStanding {
        var known = self
        known.settle(last: last, next: next)
        return known.standing(of: epoch, next: next)
    }

    private func standing(of epoch: MountEpoch, next: RecordSequence) -> StagingStanding {
        if epoch > passed || epoch == taking { return .valid }
        return epoch > void && next == self.next ? .passed : .void
    }

    /// Fills in an unknown history: only staging of the mount of the last batch, or of a later mount, can continue the
    /// log.
    mutating func settle(last: MountEpoch, next: RecordSequence) {
        guard !isKnown else { return }
        // The first epoch is the formatting. No mount has it.
        void = MountEpoch(max(2, last.rawValue) - 1)
        passed = void
        self.next = next
    }

    /// Notes that the mount of `epoch` begins. `next` is the sequence of its next record. It takes in the staging of
    /// mounts since `first`; nil: none. `isMissing`: the last mount was killed in this boot and its staging was not
    /// found.
    mutating func begin(
        _ epoch: MountEpoch, next: RecordSequence, last: MountEpoch, with first: MountEpoch?, passesOver isMissing: Bool
    ) {
        settle(last: last, next: next)
        if next != self.next { void = passed }
        let wasPassed = first.map { $0 <= passed } ?? false
        taking = wasPassed ? first! : MountEpoch(0)
        passed = max(passed, MountEpoch(max(1, min(wasPassed ? epoch : first ?? epoch, epoch).rawValue) - 1))
        self.next = next
        if isMissing { passedCount += 1 }
    }

    /// Notes that all the staging that the mount of `epoch` took in is durable in the log. The staging of earlier
    /// mounts is void from now on.
    mutating func tookIn(_ epoch: MountEpoch, next: RecordSequence) {
        void = max(void, MountEpoch(epoch.rawValue - 1))
        passed = void
        taking = MountEpoch(0)
        self.next = next
    }
}

/// Whether staging continues the log.
enum StagingStanding {
    /// It continues the log.
    case valid
    /// A later mount passed it over but appended nothing. It continues the log unless other staging does.
    case passed
    /// The log has gone on without it.
    case void
}
