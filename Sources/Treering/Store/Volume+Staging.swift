// What a mount does about staging: it chooses among what killed mounts left, makes its own, and replays what continues
// the log.

extension Volume {
    /// Decides which staging of killed mounts is replayed. Warns of what is lost if the mount goes on.
    static func chooseStaging(
        _ given: [StagedRecords], _ host: HostStaging?, _ recovery: Recovery<D>, isReadOnly: Bool
    ) throws(MountError) -> StagingChoice {
        if !isReadOnly { try host?.findStaged() }
        let choice = recovery.choose(given + (host?.allStaged.map(\.tail) ?? []))
        host?.keep(choice)
        for (tail, reason) in choice.left where given.contains(where: { $0 === tail }) {
            recovery.log("left the staging of mount \(tail.header.epoch.rawValue) alone: \(reason)")
        }
        guard choice.misses(recovery.superblock, bootID: HostStaging.bootID()) else { return choice }
        let warn = host?.warn ?? recovery.log
        if isReadOnly {
            warn(
                "the last mount was killed: what it acknowledged and had only in staging is shown when the store is mounted for writing"
            )
        } else {
            warn(
                "the last mount was killed and its staging is not here, though the machine was not restarted: another user's, in another container, or removed. The store goes on without it, and what that mount acknowledged and did not sync is lost"
            )
        }
        return choice
    }

    /// Raises the epoch durably. From here on the store is not clean, and the superblock says whether this mount passes
    /// over staging.
    func begin(
        _ epoch: MountEpoch, _ staging: HostStaging?, _ choice: StagingChoice, _ recovery: Recovery<D>
    ) throws(Errno) {
        var superblock = state.withLock { $0.superblock }
        superblock.staging.begin(
            epoch, next: recovery.nextSequence, last: recovery.lastBatchEpoch, with: choice.firstEpoch,
            passesOver: choice.misses(superblock, bootID: HostStaging.bootID()))
        superblock.epoch = epoch
        superblock.isClean = false
        superblock.bootID = staging == nil ? StoreUUID(high: 0, low: 0) : HostStaging.bootID()
        superblock.stagingIdentity = staging?.identity ?? 0
        try housekeeper.writeSuperblock(superblock)
    }

    static func makeStaging(
        _ given: Staging?, _ geometry: StagingGeometry, _ epoch: MountEpoch, _ recovery: Recovery<D>,
        _ host: HostStaging?
    ) throws(MountError) -> Staging {
        guard let host else { return given ?? Staging(geometry: geometry) }
        do throws(Errno) {
            return host.use(try host.make(geometry, epoch: epoch, generation: recovery.superblock.generation))
        } catch {
            throw MountError("staging cannot be made", error)
        }
    }

    /// Appends again what killed mounts had acknowledged and not written, makes it durable, and drops their staging.
    func replay(_ choice: StagingChoice, _ revised: RevisedLog, _ host: HostStaging?) throws(Errno) {
        let allStaged = choice.taken
        guard !allStaged.isEmpty else { return }
        var count = 0
        // A record that is appended again keeps its sequence. So nothing else may be appended meanwhile, not even by
        // the cleaner.
        guard housekeeper.begin(.cleaning) else { preconditionFailure("nothing is cleaned before a mount has begun") }
        defer { housekeeper.end(.cleaning) }
        while true {
            let sequence = state.withLock { $0.core.log.nextSequence }
            guard let (record, payload) = allStaged.lazy.compactMap({ $0.record(sequence) }).first else { break }
            try perform { (core) throws(Stop) in try core.append(again: record, payload, in: revised) }
            count += 1
        }
        let next = state.withLock { $0.core.log.nextSequence }
        if count > 0 { log("recovered \(count) operations from the staging of the last mount") }
        if allStaged.contains(where: { $0.highestSequence >= next }) {
            log("the staging of the last mount holds operations that are damaged; they and those after them are lost")
        }
        try syncAndWait()
        if choice.firstEpoch != nil {
            var superblock = state.withLock { $0.superblock }
            superblock.staging.tookIn(superblock.epoch, next: next)
            try housekeeper.writeSuperblock(superblock)
        }
        host?.dropStaged(before: next)
    }
}
