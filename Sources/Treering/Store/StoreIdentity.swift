// Another uuid for a store: for a copy, so that the two are told apart. The blocks keep the one that they were written with, so this is two
// superblocks, however large the store is.

enum StoreIdentity {
    /// Gives a store that was cleanly unmounted another uuid. A power cut leaves it with the old one or the new one, and whole.
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
        // Whatever staging the old name left anywhere is not this store's.
        new.bootID = StoreUUID(high: 0, low: 0)
        new.stagingIdentity = 0
        let generations = pair.summary.map(\.generation)
        let first = generations[0] <= generations[1] ? 0 : 1
        do throws(Errno) {
            // From the first of the two on, the store has the new name; the other one makes the old name go.
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
