// Gives a store another uuid, so that a copy and its original can be told apart. Blocks keep the uuid that they were
// written with, so this writes only two superblocks, however large the store is.

enum StoreIdentity {
    /// Gives a cleanly unmounted store another uuid. After a power cut the store has the old uuid or the new one, and
    /// is whole.
    @discardableResult
    static func renew<D: Device>(
        _ device: D, to uuid: StoreUUID
    ) throws(MountError) -> (old: StoreUUID, new: StoreUUID) {
        let pair = try SuperblockPair.read(device)
        let old = try pair.newest()
        guard old.isClean else {
            throw MountError(
                .host, "it was not cleanly unmounted: what the last mount left must be taken in first")
        }
        guard old.unknownReadOnlyFeatures == 0 else {
            throw MountError(.newer, "it uses features that this treering may not write to")
        }
        var new = old
        new.ownBlockUUID = old.blockUUID
        new.uuid = uuid
        // Staging that was made under the old uuid does not belong to this store.
        new.bootID = StoreUUID(high: 0, low: 0)
        new.stagingIdentity = 0
        let generations = pair.summary.map(\.generation)
        let first = generations[0] <= generations[1] ? 0 : 1
        do throws(Errno) {
            // After the first write the store has the new uuid. The second write removes the old one from the other
            // slot.
            for slot in [first, 1 - first] {
                new.generation += 1
                try SuperblockPair.write(new, slot: slot, device)
            }
        } catch {
            throw MountError("the superblock cannot be written", error)
        }
        return (old.uuid, new.uuid)
    }
}
