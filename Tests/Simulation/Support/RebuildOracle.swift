// The strongest oracle: an index rebuilt from the segments alone equals the live one, and a check of the store finds nothing.

@testable import Treering

enum RebuildOracle {
    /// Differences between the live index of a volume and one rebuilt from its segments.
    static func differences(_ volume: Volume<SimulatedDevice>) throws -> [String] {
        try volume.syncAndWait()
        volume.device.drain()
        let state = volume.state.heldState
        let table = state.core.table
        let reader = BatchReader(
            device: volume.device, uuid: state.core.log.uuid, segmentByteCount: table.segmentByteCount)
        var sources: [RebuiltIndex<SimulatedDevice>.Source] = []
        for index in table.segments.indices where table.segments[index].state == .inUse {
            let number = SegmentNumber(UInt32(index))
            guard let file = table[number].file, let header = try reader.segmentHeader(number, file),
                header.state == .inUse, header.incarnation == table[number].incarnation
            else { continue }
            sources.append(.init(number: number, header: header, file: file, lastBatch: table[number].lastBatch))
        }
        let rebuild = try RebuiltIndex(
            volume.device, reader, sources, uuid: state.core.log.uuid, segmentCountLimit: table.segments.count,
            through: state.core.log.position)
        let loader = PageLoader(volume.device, state.indexFile, state.core.index.tree)
        try state.core.index.settle(loader)
        var found = rebuild.problems.map(\.description)
        found += try rebuild.differences(from: state.core.index, loader).map(\.description)
        if rebuild.nextSequence > state.core.log.nextSequence {
            found.append("the log has later records than the mount knows")
        }
        if rebuild.nextInode > state.core.log.nextInode {
            found.append("the log has a higher next inode than the mount")
        }
        state.core.index.tree.evict()
        return found
    }

    /// What `treering check` finds on a copy of the device as it is now.
    static func problems(_ device: SimulatedDevice, seed: UInt64 = 0) throws -> [String] {
        let copy = device.snapshotAfterKill(seed: seed)
        return try Checker.check(copy, readsData: true, indexCacheByteCount: 1 << 20).problems.map(\.description)
    }
}
