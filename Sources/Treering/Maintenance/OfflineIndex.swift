// An index that is built offline and may be larger than memory: excess pages go to a file and come back. For rebuilds.
// Nothing here is durable or named by a superblock.

/// Applies records to a new index within bounded memory.
final class OfflineIndex<D: Device> {
    let index: RecordIndex
    let loader: PageLoader<D>
    private let device: D
    private let name: StoreFile

    /// - Parameter file: where pages go. `.newIndex` if the index is to become the store's own, otherwise `.scratch`.
    init(
        _ device: D, uuid: StoreUUID, table: SegmentTable, cacheByteCount: Int, building: CheckpointNumber,
        in file: StoreFile
    ) {
        self.device = device
        name = file
        index = RecordIndex(
            tree: Index(uuid: uuid, cacheLimitByteCount: max(cacheByteCount, 64 << 10), building: building),
            table: table)
        loader = PageLoader(device, nil, index.tree)
        // Only this builder writes these pages, and some entries are incomplete until the end.
        index.tree.checksEntries = false
        loader.fetchForModifications()
    }

    deinit { if name == .scratch, let file = loader.file { device.close(file) } }

    /// The file for pages. It is made when it is first needed.
    func file() throws(Errno) -> DeviceFile {
        if let file = loader.file { return file }
        let file = try device.open(name, create: true)
        loader.file = file
        return file
    }

    func apply(_ record: Record, at place: RecordPlace) throws(MountError) {
        try loader.run { () throws(PageMiss) in try index.touch(record) }
        index.apply(record, at: place)
        try relieve()
    }

    /// Finishes removals and drops dead tombstones.
    func settle() throws(MountError) {
        try index.settle(loader) { () throws(MountError) in try relieve() }
    }

    /// Drops the payloads that nothing references in the end.
    func dropUnreferencedPayloads() throws(MountError) {
        var cursor: IndexKey? = RecordIndex.firstPayload
        while let from = cursor {
            cursor = try loader.run { () throws(PageMiss) in try index.dropUnreferencedPayloads(from: from) }
            try relieve()
        }
    }

    /// Keeps memory bounded: writes changed pages when they are too many, and drops clean ones.
    func relieve() throws(MountError) {
        if index.tree.needsCheckpoint { try spill() }
        index.tree.evict()
    }

    private func spill() throws(MountError) {
        let tree = index.tree
        let root = tree.freeze()
        do throws(Errno) {
            let file = try self.file()
            let needed = UInt64(tree.filePageCount * IndexPage.byteCount)
            if try device.byteCount(of: file) < needed { try device.resize(file, to: needed + needed / 4) }
            while true {
                let pages = tree.nextFrozenPages(max: 64)
                if pages.isEmpty { break }
                for page in pages {
                    try device.wait(Submission(.write, file, offset: page.address.offsetInFile, page.bytes, tag: 0))
                }
            }
        } catch {
            throw MountError("there is no room for a temporary index", error)
        }
        tree.checkpointDurable()
        tree.release(through: root.checkpoint)
    }
}
