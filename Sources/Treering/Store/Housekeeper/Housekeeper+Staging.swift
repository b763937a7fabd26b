// Other staging for a mount in use: where somebody has removed the file, it goes on in another.

extension Housekeeper {
    /// Staging has lost its name: goes on in a file in the store. What the old one holds is written before.
    func moveStaging(_ hostStaging: HostStaging) {
        if !isStagingLost {
            log("somebody removed this mount's staging from \(HostStaging.sharedDirectory): it goes on in the store")
        }
        do throws(Errno) {
            try replaceStaging { (geometry, epoch, generation) throws(Errno) in
                let made = try hostStaging.make(geometry, epoch: epoch, generation: generation, inStore: true)
                // Before anything lies in it: a successor believes the staging that the superblock names.
                var superblock = state.withLock { $0.superblock }
                superblock.stagingIdentity = made.identity
                do throws(Errno) { try writeSuperblock(superblock) } catch {
                    // It is tried again with another file.
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

    /// Goes on in other staging when nothing is in the present one that is not durable; in the present one where that fails.
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
