// Pages of an index for callers that may wait and have the index to themselves: recovery, check, repair, export, dump.
//
// In a mounted store others run while a page is read, and may miss the same one. There `VolumeState` keeps the fetches,
// no lock is held while one is read, and damage is reported instead of thrown. A request is parked for its page
// (`Volume.park`), and `Housekeeper.runWaiting` is the way of those who may wait.

/// Fetches the pages of one index, waiting for each. It is of use as long as its index lives.
final class PageLoader<D: Device> {
    private let device: D
    private unowned let tree: Index
    /// Where the pages lie; nil as long as none was written.
    var file: DeviceFile?

    init(_ device: D, _ file: DeviceFile?, _ tree: Index) {
        (self.device, self.file, self.tree) = (device, file, tree)
    }

    /// Runs a query until it misses no page any more.
    func run<Result>(_ body: () throws(PageMiss) -> Result) throws(MountError) -> Result {
        var pages: [HeldPage] = []
        defer { pages.letGo(butLast: 0) }
        while true {
            do throws(PageMiss) { return try body() } catch {
                try fetch(error)
                if let page = HeldPage(tree, error.address) { pages.append(page) }
            }
        }
    }

    /// Calls `body` for each entry of one key space, in order. Drops pages between leaves.
    func forEach(_ space: KeySpace, _ body: (IndexKey, UnsafeRawBufferPointer) -> Void) throws(MountError) {
        var cursor: IndexKey? = IndexKey(space: space, object: 0, kind: 0, subkey: 0)
        let last = IndexKey(space: space, object: .max, kind: UInt8.max, subkey: .max)
        while let start = cursor {
            cursor = try run { () throws(PageMiss) -> IndexKey? in
                // `body` is called only when no page can be missing any more, so no entry is given twice.
                guard let first = try tree.next(atOrAfter: start), first.key <= last else { return nil }
                let page = try tree.leaf(for: first.key).page
                var key = first.key
                for position in page.leafPosition(of: first.key)..<page.count {
                    key = page.leafKey(position)
                    if key > last { return nil }
                    body(key, UnsafeRawBufferPointer(page.value(position)))
                }
                return key.successor
            }
            tree.evict()
        }
    }

    /// Has the index itself fetch a page that a modification needs and nobody touched.
    func fetchForModifications() {
        tree.fetchNow = { [self] miss in
            do throws(MountError) { try fetch(miss) } catch { return false }
            return true
        }
    }

    private func fetch(_ miss: PageMiss) throws(MountError) {
        guard let file else { preconditionFailure("a page is missing, though none was written") }
        let fetch = tree.beginFetch(miss)
        let completion = device.perform(
            Submission(.read, file, offset: miss.address.offsetInFile, fetch.buffer, tag: 0))
        guard completion.result == fetch.buffer.count else {
            tree.cancelFetch(fetch)
            let reason = completion.error.map { "\($0)" } ?? "the file ends before it"
            throw MountError(.damaged, "index page \(miss.address.rawValue) cannot be read: \(reason)")
        }
        do throws(CorruptionReport) { try tree.install(fetch) } catch {
            throw MountError(.damaged, "\(error); `treering check --repair` makes a new index from the log")
        }
    }
}

extension Device {
    /// Reads pages of an index file; gives the error where that fails.
    func pages(of file: DeviceFile) -> IndexVerifier.Reader {
        { [self] address, buffer in
            let completion = perform(Submission(.read, file, offset: address.offsetInFile, buffer, tag: 0))
            return completion.error ?? (completion.result == buffer.count ? nil : .ioError)
        }
    }

    /// Reads the bitmap of a checkpoint's index.
    func bitmap(of root: IndexRoot, _ uuid: StoreUUID, in file: DeviceFile) throws(MountError) -> BitmapLoad {
        var load = BitmapLoad(root: root, uuid: uuid)
        let buffer = AlignedBuffer(byteCount: IndexPage.byteCount)
        let read = pages(of: file)
        while let next = load.next {
            if read(next.address, buffer.bytes) != nil {
                throw MountError(.damaged, "bitmap page \(next.address.rawValue) of the index cannot be read")
            }
            do throws(CorruptionReport) { try load.add(buffer.bytes) } catch {
                throw MountError(.damaged, error.description)
            }
        }
        return load
    }
}
