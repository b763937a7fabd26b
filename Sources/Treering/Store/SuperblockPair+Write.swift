// Writes a superblock into a slot and its copy.

extension SuperblockPair {
    /// Writes a superblock durably into the slot's copy, then into the slot. So the copies name only what is as
    /// mountable as what the slots name.
    static func write<D: Device>(
        _ superblock: Superblock, slot: Int, _ device: D, copyFile: DeviceFile?, _ file: DeviceFile
    ) throws(Errno) {
        if let copyFile { try put(superblock, copyFile, Superblock.copyOffsets[slot], device) }
        try put(superblock, file, Superblock.slotOffsets[slot], device)
        try device.wait(Submission(.sync, file, tag: 0))
    }

    /// The same for a store that is not mounted.
    static func write<D: Device>(_ superblock: Superblock, slot: Int, _ device: D) throws(Errno) {
        var copyFile: DeviceFile?
        do throws(Errno) { copyFile = try device.open(.index, create: false) } catch {
            // Without an index file there is no copy to write.
            guard error == .noEntry else { throw error }
        }
        defer { if let copyFile { device.close(copyFile) } }
        let file = try device.open(.superblock, create: false)
        defer { device.close(file) }
        try write(superblock, slot: slot, device, copyFile: copyFile, file)
    }

    private static func put<D: Device>(
        _ superblock: Superblock, _ file: DeviceFile, _ offset: UInt64, _ device: D
    ) throws(Errno) {
        let block = AlignedBuffer(byteCount: Superblock.slotByteCount)
        superblock.encode(into: block.bytes)
        try device.wait(Submission(.writeDurable, file, offset: offset, block.bytes, tag: 0))
    }

    /// Makes both slots anew, where neither is whole. The copies stay as they are, since the superblock may come from
    /// them.
    static func renewSlots<D: Device>(_ superblock: Superblock, _ device: D) throws(Errno) {
        let isThere = try device.list().contains(.superblock)
        let file = try device.open(.superblock, create: !isThere)
        defer { device.close(file) }
        try device.resize(file, to: Superblock.fileByteCount)
        var superblock = superblock
        for offset in Superblock.slotOffsets {
            try put(superblock, file, offset, device)
            try device.wait(Submission(.sync, file, tag: 0))
            superblock.generation += 1
        }
        try device.syncDirectories()
    }
}
