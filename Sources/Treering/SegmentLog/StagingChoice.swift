// Decides which staging of killed mounts is replayed: only staging that continues the log. Used by mount, check and
// export.

/// The staged records that were found, divided into those to replay and the rest.
struct StagingChoice {
    /// To be replayed.
    private(set) var taken: [StagedRecords] = []
    /// Not to be replayed, and why.
    private(set) var left: [(tail: StagedRecords, reason: String)] = []

    /// - Parameters:
    ///   - tails: staging of this store on this machine in this boot.
    ///   - next: the sequence that the log's next record gets.
    ///   - last: the epoch of the log's last batch.
    init(_ allStaged: [StagedRecords], _ superblock: Superblock, next: RecordSequence, last: MountEpoch) {
        var passed: [StagedRecords] = []
        for tail in allStaged {
            let header = tail.header
            guard tail.recordCount > 0 else {
                // That mount was killed before its first operation.
                taken.append(tail)
                continue
            }
            if let reason = Self.problem(header, superblock) {
                left.append((tail, reason))
            } else if !tail.continues(next) {
                left.append((tail, "its operations do not continue the log"))
            } else {
                switch superblock.staging.standing(of: header.epoch, next: next, last: last) {
                case .valid: taken.append(tail)
                case .passed: passed.append(tail)
                case .void: left.append((tail, Self.void))
                }
            }
        }
        // Each of these continues the log from the same sequence. So at most one can be replayed, and only if no other
        // staging is.
        passed.sort { $0.header.epoch < $1.header.epoch }
        if firstEpoch == nil, let newest = passed.popLast() { taken.append(newest) }
        left += passed.map { ($0, Self.void) }
    }

    private static let void = "the store was mounted without it and has gone on since"

    private static func problem(_ header: StagingHeader, _ superblock: Superblock) -> String? {
        if header.epoch > superblock.epoch || header.generation > superblock.generation {
            return "it is of a later state of the store than the one that is here"
        }
        let isAnothers = superblock.stagingIdentity != 0 && header.identity != superblock.stagingIdentity
        return header.epoch == superblock.epoch && isAnothers ? "it is not the last mount's" : nil
    }

    /// The lowest epoch of the mounts whose records are replayed; nil if there are none.
    var firstEpoch: MountEpoch? { taken.filter { $0.recordCount > 0 }.map(\.header.epoch).min() }

    /// The highest epoch of all staging that was found, replayed or not.
    var highestEpoch: MountEpoch { (taken + left.map(\.tail)).map(\.header.epoch).max() ?? MountEpoch(0) }

    /// Whether the last mount was killed in this boot and its staging was not found. A mount then goes on without it.
    func misses(_ superblock: Superblock, bootID: StoreUUID) -> Bool {
        !superblock.isClean && superblock.bootID == bootID && superblock.stagingIdentity != 0
            && !taken.contains { $0.header.identity == superblock.stagingIdentity }
    }
}
