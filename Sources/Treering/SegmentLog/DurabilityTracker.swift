// Which batches are durable. It does no I/O: SegmentLog reports completions and asks what to flush.

/// Tracks batches from their submission until they are durable.
///
/// A batch is durable if it was written with DSYNC, or if its write completed before a sync of *its* file was started
/// and that sync completed. The log is durable through N if every batch through N is durable, in whichever file.
struct DurabilityTracker {
    private struct Entry {
        var batch: BatchSequence
        var file: DeviceFile
        var isDurableWrite: Bool
        var isInFlight = true
        var isWritten = false
        var isDurable = false
        /// The sync in flight that will make it durable, or 0.
        var sync: UInt32 = 0
    }

    /// Batches above `durable`, in order.
    private var entries: [Entry] = []
    private var lastSync: UInt32 = 0
    private var syncs: [(id: UInt32, file: DeviceFile)] = []
    /// Files of which a flush has failed. The host may report the error to one flush only, and take the lost pages for
    /// clean. So no other flush of these files counts, not even one that was in flight then.
    private var mistrusted: [DeviceFile] = []
    /// Every batch through this one is durable.
    private(set) var durable: BatchSequence
    /// Every batch through this one is written, perhaps not durably.
    private(set) var written: BatchSequence
    /// The last batch that somebody wants to be durable.
    private(set) var wanted: BatchSequence

    init(through batch: BatchSequence) {
        durable = batch
        written = batch
        wanted = batch
    }

    var undurableCount: Int { entries.count }
    var syncsInFlightCount: Int { syncs.count }
    /// Writes and flushes whose completion was not reported yet.
    var inFlightCount: Int { entries.reduce(0) { $0 + ($1.isInFlight ? 1 : 0) } + syncs.count }

    mutating func submitted(_ batch: BatchSequence, _ file: DeviceFile, isDurableWrite: Bool) {
        precondition(entries.last.map { $0.batch < batch } ?? (durable < batch))
        entries.append(Entry(batch: batch, file: file, isDurableWrite: isDurableWrite))
    }

    mutating func completed(_ batch: BatchSequence) {
        let index = entries.firstIndex { $0.batch == batch }!
        entries[index].isInFlight = false
        entries[index].isWritten = true
        entries[index].isDurable = entries[index].isDurableWrite
        advance()
    }

    /// A write failed: its batch never becomes durable at this place.
    mutating func writeFailed(_ batch: BatchSequence) {
        entries[entries.firstIndex { $0.batch == batch }!].isInFlight = false
    }

    /// A flush failed: the batches that it covered never become durable at their places.
    mutating func syncFailed(_ id: UInt32) {
        guard let index = syncs.firstIndex(where: { $0.id == id }) else { return }
        mistrusted.append(syncs.remove(at: index).file)
    }

    mutating func want(_ batch: BatchSequence) { wanted = max(wanted, batch) }

    /// The files to sync now so that wanted batches become durable. Each gets an id, for `syncCompleted` or
    /// `syncFailed`.
    mutating func syncsToSubmit() -> [(id: UInt32, file: DeviceFile)] {
        var result: [(id: UInt32, file: DeviceFile)] = []
        for index in entries.indices {
            let entry = entries[index]
            if entry.batch > wanted { break }
            guard entry.isWritten, !entry.isDurable, entry.sync == 0 else { continue }
            if let started = result.first(where: { $0.file == entry.file }) {
                entries[index].sync = started.id
                continue
            }
            lastSync &+= 1
            if lastSync == 0 { lastSync = 1 }
            result.append((lastSync, entry.file))
            entries[index].sync = lastSync
        }
        // These syncs also cover the other batches that are already written to these files.
        for index in entries.indices
        where entries[index].isWritten && !entries[index].isDurable && entries[index].sync == 0 {
            if let started = result.first(where: { $0.file == entries[index].file }) {
                entries[index].sync = started.id
            }
        }
        syncs.append(contentsOf: result)
        return result
    }

    mutating func syncCompleted(_ id: UInt32) {
        guard let place = syncs.firstIndex(where: { $0.id == id }) else { return }
        let file = syncs.remove(at: place).file
        guard !mistrusted.contains(file) else { return }
        for index in entries.indices where entries[index].sync == id {
            entries[index].isDurable = true
            entries[index].sync = 0
        }
        advance()
    }

    private mutating func advance() {
        var count = 0
        while count < entries.count, entries[count].isDurable { count += 1 }
        if count > 0 {
            durable = entries[count - 1].batch
            entries.removeFirst(count)
        }
        written = max(written, durable)
        for entry in entries where entry.batch > written {
            guard entry.isWritten else { break }
            written = entry.batch
        }
        precondition(
            durable <= written && entries.first.map { $0.batch > durable } ?? true, "what is durable was written")
    }
}
