// Both slots of a store's superblock, as they were found.

/// What the two slots say.
struct SuperblockPair {
    var slots: [Result<Superblock, Superblock.Refusal>]

    /// Set where neither slot is whole and the first of `slots` is what the rest of the store says.
    private(set) var derived: DerivedSuperblock?
    private var missing: String?

    /// Reads both slots. A slot beyond the end of the file counts as damaged; a missing file counts as foreign.
    static func read<D: Device>(_ device: D, open file: DeviceFile? = nil) throws(MountError) -> SuperblockPair {
        try read(device, .superblock, Superblock.slotOffsets, open: file)
    }

    /// Reads the copies of both slots.
    static func readCopies<D: Device>(_ device: D) throws(MountError) -> SuperblockPair {
        try read(device, .index, Superblock.copyOffsets)
    }

    private static func read<D: Device>(
        _ device: D, _ name: StoreFile, _ offsets: [UInt64], open: DeviceFile? = nil
    ) throws(MountError) -> SuperblockPair {
        var slots: [Result<Superblock, Superblock.Refusal>] = []
        do throws(Errno) {
            let opened = open == nil ? try device.open(name, create: false) : nil
            defer { if let opened { device.close(opened) } }
            guard let file = open ?? opened else { throw .noEntry }
            let block = AlignedBuffer(byteCount: Superblock.slotByteCount)
            for offset in offsets {
                let completion = device.perform(Submission(.read, file, offset: offset, block.bytes, tag: 0))
                if let error = completion.error { throw error }
                let bytes = UnsafeRawBufferPointer(block.bytes).part(0, completion.result)
                do throws(Superblock.Refusal) {
                    slots.append(.success(try Superblock(decoding: bytes)))
                } catch { slots.append(.failure(error)) }
            }
        } catch {
            // EINVAL: what has its name is not a regular file.
            if error == .noEntry || error == .invalid {
                let missing = error == .noEntry ? "the file is not there" : "it is not a regular file"
                return SuperblockPair(slots: [.failure(.foreign), .failure(.foreign)], missing: missing)
            }
            throw MountError("the superblock cannot be read", error)
        }
        return SuperblockPair(slots: slots)
    }

    /// For tools that only read a store. Where neither slot is whole, a superblock derived from the rest of the store
    /// takes the place of the first.
    static func readOrDerive<D: Device>(
        _ device: D, staging: (StoreUUID) -> [StagingHeader] = { _ in [] }
    ) throws(MountError) -> SuperblockPair {
        var pair = try read(device)
        guard pair.isLost else { return pair }
        var derived = try SuperblockDerivation.derive(device, staging: staging)
        derived.loss = pair.loss
        pair.slots[0] = .success(derived.superblock)
        pair.derived = derived
        return pair
    }

    /// Why there is no slot to go by.
    private var loss: String {
        if let missing { return missing }
        let reasons = slots.map { slot -> String in
            if case .failure(.damaged(let text)) = slot { text } else { "no superblock" }
        }
        return "no slot of it is whole (slot 0: \(reasons[0]); slot 1: \(reasons[1]))"
    }

    /// Neither slot is whole, and none is of a version that this program does not know.
    var isLost: Bool {
        slots.allSatisfy {
            switch $0 {
            case .success, .failure(.newer): false
            case .failure(.damaged), .failure(.foreign): true
            }
        }
    }

    /// The superblock to use, or why there is none.
    func newest() throws(MountError) -> Superblock {
        for case .failure(.newer(let text)) in slots {
            throw MountError(.newer, "this store was made by a newer treering: \(text)")
        }
        let valid = slots.compactMap { try? $0.get() }
        if let best = valid.max(by: { $0.generation < $1.generation }) {
            // While the uuid of a store is changed, the older slot still has the old uuid. So block uuids are compared.
            guard valid.allSatisfy({ $0.blockUUID == best.blockUUID }) else {
                throw MountError(.damaged, "the two superblock slots belong to different stores")
            }
            return best
        }
        throw MountError(
            .damaged,
            "no slot of the superblock is whole; nothing was changed. `treering check --repair` makes a new superblock from the rest of the store"
        )
    }

    /// What is wrong with the other slot, if anything. For a person.
    var complaint: String? {
        guard derived == nil else { return nil }
        for (index, slot) in slots.enumerated() {
            switch slot {
            case .failure(.damaged(let text)):
                return "superblock slot \(index) is damaged (\(text)); going by the other one"
            case .failure(.foreign): return "superblock slot \(index) is not a superblock; going by the other one"
            default: continue
            }
        }
        return nil
    }

    /// Generation and checkpoint of each slot. A slot that is not whole has zeros, so that it is written next.
    var summary: [(generation: UInt64, checkpoint: CheckpointNumber)] {
        slots.map { slot in
            guard let superblock = try? slot.get() else { return (0, .zero) }
            return (superblock.generation, superblock.checkpoint)
        }
    }
}
