// Both slots of a store's superblock, as found.

/// What the two slots say.
struct SuperblockPair {
    var slots: [Result<Superblock, Superblock.Refusal>]

    /// Reads both slots. A file cut short counts as damaged.
    static func read<D: Device>(_ device: D) throws(MountError) -> SuperblockPair {
        var slots: [Result<Superblock, Superblock.Refusal>] = []
        do throws(Errno) {
            let file = try device.open(.superblock, create: false)
            defer { device.close(file) }
            let block = AlignedBuffer(byteCount: Superblock.slotByteCount)
            for offset in Superblock.slotOffsets {
                let completion = device.perform(Submission(.read, file, offset: offset, block.bytes, tag: 0))
                if let error = completion.error { throw error }
                let bytes = UnsafeRawBufferPointer(block.bytes).part(0, completion.result)
                do throws(Superblock.Refusal) {
                    slots.append(.success(try Superblock(decoding: bytes)))
                } catch { slots.append(.failure(error)) }
            }
        } catch {
            if error == .noEntry {
                throw MountError(.foreign, "there is no file `superblock`: this is not a treering store")
            }
            throw MountError("the superblock cannot be read", error)
        }
        return SuperblockPair(slots: slots)
    }

    /// The slot to go by, or why there is none.
    func newest() throws(MountError) -> Superblock {
        for case .failure(.newer(let text)) in slots {
            throw MountError(.newer, "this store was made by a newer treering: \(text)")
        }
        let valid = slots.compactMap { try? $0.get() }
        if let best = valid.max(by: { $0.generation < $1.generation }) {
            // Between two writes of another store uuid the older slot has the old one.
            guard valid.allSatisfy({ $0.blockUUID == best.blockUUID }) else {
                throw MountError(.damaged, "the two superblock slots belong to different stores")
            }
            return best
        }
        if slots.allSatisfy({ if case .failure(.foreign) = $0 { true } else { false } }) {
            throw MountError(.foreign, "the file `superblock` does not belong to a treering store")
        }
        throw MountError(
            .damaged,
            "both slots of the superblock are damaged; nothing was changed. `treering check --rebuild-index` cannot help here: keep a copy of the store"
        )
    }

    /// What is wrong with the slot that is not used, if anything.
    var complaint: String? {
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

    /// Generation and checkpoint of each slot; a slot that does not count has zeros, so that it is written next.
    var summary: [(generation: UInt64, checkpoint: CheckpointNumber)] {
        slots.map { slot in
            guard let superblock = try? slot.get() else { return (0, .zero) }
            return (superblock.generation, superblock.checkpoint)
        }
    }
}
