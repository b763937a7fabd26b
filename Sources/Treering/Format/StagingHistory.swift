// Whose staging continues the log. A killed mount leaves records in staging that are not in the log yet; once the store has gone on without
// them, they must never be replayed. The superblock keeps this; Volume+Mount goes by it.

/// What a superblock says of the staging that killed mounts have left.
///
/// Each mount notes here, in the superblock that raises the epoch, which staging it goes on with and which it passes over: staging of
/// another user, or in another container's `/dev/shm`, is not seen by a mount that cannot read it. What was passed over is void as soon as
/// the log has another record in the place of its first. As long as it has none (a mount that failed, or only looked), the next mount that
/// finds that staging can still take it in.
struct StagingHistory: Equatable, Sendable {
    /// Staging of mounts through this epoch is void. Zero where the superblock was written by a version that did not note it.
    var void = MountEpoch(0)
    /// That of mounts through this epoch was passed over: it is void if the log has gone on beyond `next`.
    var passed = MountEpoch(0)
    /// The sequence that the next record would have got when that was noted.
    var next = RecordSequence.zero
    /// How many killed mounts were passed over within the boot in which they died, since formatting: each may have acknowledged operations
    /// that the store does not have.
    var passedCount: UInt64 = 0
    /// That of the mount of this epoch had been passed over and is being taken in after all, from the mount that noted this until it is
    /// durable in the log. Zero: none. What else was passed over by then continues the log no more.
    var taking = MountEpoch(0)

    /// Whether every superblock since this was first noted was written by a version that knows of it.
    var isKnown: Bool { void.rawValue > 0 }

    /// How a mount's staging stands to a log whose next record gets the sequence `next`, and whose last batch is of the epoch `last`.
    func standing(of epoch: MountEpoch, next: RecordSequence, last: MountEpoch) -> StagingStanding {
        var known = self
        known.settle(last: last, next: next)
        return known.standing(of: epoch, next: next)
    }

    private func standing(of epoch: MountEpoch, next: RecordSequence) -> StagingStanding {
        if epoch > passed || epoch == taking { return .valid }
        return epoch > void && next == self.next ? .passed : .void
    }

    /// Where it is not known: only staging of the last batch's mount, or of a later one, can continue the log.
    mutating func settle(last: MountEpoch, next: RecordSequence) {
        guard !isKnown else { return }
        // No mount has the first epoch: that is the formatting.
        void = MountEpoch(max(2, last.rawValue) - 1)
        passed = void
        self.next = next
    }

    /// A mount of an epoch begins where the next record gets the sequence `next`, with the staging of mounts since `first`; nil: with none.
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

    /// What a mount of an epoch found in staging is durable in the log: that staging has nothing more to say.
    mutating func tookIn(_ epoch: MountEpoch, next: RecordSequence) {
        void = max(void, MountEpoch(epoch.rawValue - 1))
        passed = void
        taking = MountEpoch(0)
        self.next = next
    }
}

/// How staging stands to a log.
enum StagingStanding {
    /// It continues the log.
    case valid
    /// A later mount went on without it, but has added nothing: it continues the log still, unless other staging does.
    case passed
    /// The log has gone on without it.
    case void
}
