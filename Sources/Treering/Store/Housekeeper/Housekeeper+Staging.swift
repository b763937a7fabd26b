// Replaces the staging of a running mount when somebody has removed its file.

extension Housekeeper {
    /// Goes on in a staging file in the store, since the present one has lost its name. What the present one holds is
    /// made durable in the log first.
    func moveStaging(_ hostStaging: HostStaging) {
        if !isStagingLost {
            log("somebody removed this mount's staging from \(HostStaging.sharedDirectory): it goes on in the store")
        }
        do throws(Errno) {
            try replaceStaging { (geometry, epoch, generation) throws(Errno) in
                let made = try hostStaging.make(geometry, epoch: epoch, generation: generation, inStore: true)
                // The superblock must name the new staging before anything lies in it: a successor trusts only the
                // staging named there.
                var superblock = state.withLock { $0.superblock }
                superblock.stagingIdentity = made.identity
                do throws(Errno) { try writeSuperblock(superblock) } catch {
                    // The next round tries again with another file.
                    made.memory.unlink()
                    throw error
                }
                return hostStaging.use(made)
            }
            isStagingLost = false
        } catch {
            if !isStagingLost && !volume.isOver {
                log("no staging can be made in the store (\(error)): a killed daemon would lose what is not synced")
            }
            isStagingLost = true
        }
    }

    /// Waits until all that staging holds is durable, then goes on in the staging that `make` gives. On failure the log
    /// keeps its present staging.
    func replaceStaging(_ make: (StagingGeometry, MountEpoch, UInt64) throws(Errno) -> Staging) throws(Errno) {
        let (geometry, epoch, generation) = state.withLock { state in
            state.core.log.holdForReplacement()
            return (state.core.log.staging.geometry, state.core.log.epoch, state.superblock.generation)
        }
        var other: Staging?
        defer { volume.change { state, telling in state.core.log.replaceStaging(by: other, telling) } }
        volume.sync(mayWait: true) { _ in }
        try volume.waitForLog { $0.canReplaceStaging }
        other = try make(geometry, epoch, generation)
    }
}
