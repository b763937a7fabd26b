// An index that is built offline and may be larger than memory: excess pages go to a file and come back. For rebuilds.
// Nothing here is durable or named by a superblock.

/// Applies records to a new index within bounded memory.
final class OfflineIndex<D: Device> {
    let index: RecordIndex
    private let device: D
    private let name: StoreFile
    private var openFile: DeviceFile?
    private var failure: MountError?

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
        // Only this builder writes these pages, and some entries are incomplete until the end.
        index.tree.checksEntries = false
        index.tree.fetchNow = { [unowned self] miss in self.fetchNow(miss) }
    }

    deinit { if name == .scratch, let openFile { device.close(openFile) } }

    /// The file for pages. It is made when it is first needed.
    func file() throws(Errno) -> DeviceFile {
        if let openFile { return openFile }
        let file = try device.open(name, create: true)
        openFile = file
        return file
    }

    /// Runs a query, fetching the pages that it misses.
    func run<Result>(_ body: () throws(PageMiss) -> Result) throws(MountError) -> Result {
        let file: DeviceFile
        do throws(PageMiss) { return try body() } catch {
            guard let openFile else { preconditionFailure("a page is missing, though none was written") }
            file = openFile
        }
        return try PageLoader(device: device, file: file).run(index.tree, body)
    }

    func apply(_ record: Record, at place: RecordPlace) throws(MountError) {
        try run { () throws(PageMiss) in try index.touch(record) }
        index.apply(record, at: place)
        try relieve()
    }

    /// Finishes removals and drops dead tombstones.
    func settle() throws(MountError) {
        while try run({ () throws(PageMiss) in try index.continueRemovals() }) { try relieve() }
        var cursor: IndexKey? = RecordIndex.firstTombstone
        while let from = cursor {
            cursor = try run { () throws(PageMiss) in try index.sweepTombstones(from: from) }
            try relieve()
        }
    }

    /// Drops the payloads that nothing references in the end.
    func dropUnreferencedPayloads() throws(MountError) {
        var cursor: IndexKey? = RecordIndex.firstPayload
        while let from = cursor {
            cursor = try run { () throws(PageMiss) in try index.dropUnreferencedPayloads(from: from) }
            try relieve()
        }
    }

    /// Keeps memory bounded: writes changed pages when they are too many, and drops clean ones.
    func relieve() throws(MountError) {
        if let failure { throw failure }
        if index.tree.needsCheckpoint { try spill() }
        index.tree.evict()
    }

    /// Reads a page back from the file.
    func fetch(_ miss: PageMiss) throws(MountError) {
        guard let openFile else { preconditionFailure("a page is missing, though none was written") }
        try PageLoader(device: device, file: openFile).fetch(miss, into: index.tree)
    }

    private func fetchNow(_ miss: PageMiss) -> Bool {
        guard openFile != nil, failure == nil else { return false }
        do throws(MountError) {
            try fetch(miss)
            return true
        } catch {
            failure = error
            return false
        }
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
                    try device.wait(Submission(.write, file, offset: page.offsetInFile, page.bytes, tag: 0))
                }
            }
        } catch {
            throw MountError("there is no room for a temporary index", error)
        }
        tree.checkpointDurable()
        tree.release(through: root.checkpoint)
    }
}
