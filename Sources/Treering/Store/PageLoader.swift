// Loads pages of the index for callers that may wait: recovery, check, repair, export.

/// Brings index pages into memory on demand, waiting for each.
struct PageLoader<D: Device> {
    let device: D
    let file: DeviceFile

    /// Runs a query until it misses no page any more.
    func run<Result>(_ tree: Index, _ body: () throws(PageMiss) -> Result) throws(MountError) -> Result {
        var pins: [PagePin] = []
        defer { for pin in pins { tree.unpin(pin) } }
        while true {
            do throws(PageMiss) { return try body() } catch {
                try fetch(error, into: tree)
                if let pin = tree.pin(error.address) { pins.append(pin) }
            }
        }
    }

    /// Reads one page and installs it in the index.
    func fetch(_ miss: PageMiss, into tree: Index) throws(MountError) {
        let fetch = tree.beginFetch(miss)
        let completion = device.perform(Submission(.read, file, offset: miss.offsetInFile, fetch.buffer, tag: 0))
        guard completion.result == fetch.buffer.count else {
            tree.cancelFetch(fetch)
            let reason = completion.error.map { "\($0)" } ?? "the file ends before it"
            throw MountError(.damaged, "index page \(miss.address.rawValue) cannot be read: \(reason)")
        }
        do throws(CorruptionReport) { try tree.install(fetch) } catch {
            throw MountError(.damaged, "\(error); `treering check --repair` makes a new index from the log")
        }
    }

    /// Reads the bitmap of a checkpoint's index.
    func bitmap(_ root: IndexRoot, _ uuid: StoreUUID) throws(MountError) -> BitmapLoad {
        var load = BitmapLoad(root: root, uuid: uuid)
        let buffer = AlignedBuffer(byteCount: IndexPage.byteCount)
        while let next = load.next {
            let offset = UInt64(next.address.rawValue) * UInt64(IndexPage.byteCount)
            let completion = device.perform(Submission(.read, file, offset: offset, buffer.bytes, tag: 0))
            guard completion.result == buffer.bytes.count else {
                throw MountError(.damaged, "bitmap page \(next.address.rawValue) of the index cannot be read")
            }
            do throws(CorruptionReport) { try load.add(buffer.bytes) } catch {
                throw MountError(.damaged, error.description)
            }
        }
        return load
    }
}
