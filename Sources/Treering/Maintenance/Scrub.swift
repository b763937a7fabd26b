// A scrub: reads and verifies everything that lives in a mounted store, beside its normal work. The order: superblock, log (Scrub+Log),
// index and with it the data that payload entries name (Scrub+Index, Scrub+Data), then, only where something was found, the names of what
// it concerns (Scrub+Names).
//
// It holds the lock for no longer than one leaf of the index, has one read in flight, and its memory is bounded. What it reads may move or
// go away meanwhile: a mismatch counts only if the index still names the same place afterwards, with the segment held so that it can
// neither be recycled nor punched, and the same mismatch is read again.

/// Why a scrub does not go on.
enum ScrubStop: Error {
    case ended
    case failed
}

/// One pass over a store. Used by one thread.
final class Scrub<D: Device> {
    let volume: Volume<D>
    let device: D
    /// Called without the lock after each read, with its bytes and the time at which it began; false ends the scrub.
    private let pause: (_ byteCount: Int, _ start: UInt64) -> Bool
    /// Called after a read and before anything is made of it. For tests.
    var afterRead: () -> Void = {}
    /// What is known here of segments and pages holds as long as the core has this index (`Core.adoptCount`).
    private var generation = -1
    var path = ScrubPath()
    let window = AlignedBuffer(byteCount: windowByteCount)
    /// Data that was found damaged, until its names are known; the rest of it is only counted.
    var damaged: [PayloadID: [DamagedBlock]] = [:]
    var damagedCount = 0
    /// Payloads whose entries cannot be true, to be reported.
    var misplaced: [PayloadID] = []
    var misplacedCount = 0
    /// Sealed segments of which a part of the log is lost: what the rest of them brought.
    var lostSources: [SegmentID: Set<RecordSequence>] = [:]
    /// Entries that came from there, by inode.
    var lostEntries: [UInt64: Int] = [:]
    /// How much is read of what, to tell how much is left.
    var estimate = ScrubEstimate()
    /// Pieces that did not match at first, whatever became of them.
    var doubtCount = 0

    static var windowByteCount: Int { 512 << 10 }
    static var damagedLimit: Int { 100_000 }

    struct DamagedBlock: Equatable {
        /// Of the payload; 0 for what is inline.
        var block: Int
        var place: CorruptionReport
    }

    init(_ volume: Volume<D>, pause: @escaping (_ byteCount: Int, _ start: UInt64) -> Bool) {
        self.volume = volume
        self.pause = pause
        device = volume.device
    }

    /// Goes through all of it, and notes in the volume how that ended.
    func run() {
        var end = ScrubStatus.State.done
        do throws(ScrubStop) {
            try begin()
            try verifySuperblock()
            try verifyBitmap()
            try verifyLog()
            try verifyIndexAndData()
            try nameDamage()
        } catch {
            switch error {
            case .failed: end = .failed
            case .ended:
                let isCancelled = volume.state.withLock { $0.scrub?.isCancelled ?? true }
                end = isCancelled ? .cancelled : .abandoned
            }
        }
        path.forget()
        volume.state.withLock { state in
            state.scrub?.doneByteCount = estimate.done
            state.scrub?.totalByteCount = estimate.total
            state.endScrub(end)
        }
    }

    /// What was acknowledged before a scrub begins is on disk when it comes by.
    private func begin() throws(ScrubStop) {
        if !volume.isReadOnly { volume.sync(mayWait: true) { _ in } }
        let live = try locked { state -> (index: UInt64, data: UInt64, segments: UInt64) in
            let table = state.core.table
            let hot = table.segments.reduce(0) { $0 + ($1.state == .inUse && $1.role == .hot ? 1 : 0) }
            return (
                UInt64(state.core.index.tree.usedPageCount * IndexPage.byteCount),
                UInt64(max(0, table.liveByteCount)), UInt64(hot)
            )
        }
        estimate = ScrubEstimate(index: live.index, data: live.data, segmentCount: live.segments)
    }

    // MARK: Steps

    /// Runs a short step under the lock; waits while the log is being written again elsewhere.
    func locked<Result>(_ body: (VolumeState) -> Result) throws(ScrubStop) -> Result {
        while true {
            let result = try volume.state.withLock { (state) throws(ScrubStop) -> Result? in
                if state.core.isShutDown { throw .failed }
                if state.core.log.suspension != nil || state.isRelocating { return nil }
                if generation != state.core.adoptCount {
                    generation = state.core.adoptCount
                    path.forget()
                }
                return body(state)
            }
            if let result { return result }
            guard pause(0, monotonicNanoseconds()) else { throw .ended }
            rest(nanoseconds: 1_000_000)
        }
    }

    /// Tells how far it is, and rests as long as it must.
    func paced(_ byteCount: Int, since start: UInt64) throws(ScrubStop) {
        volume.state.withLock { state in
            state.scrub?.doneByteCount = estimate.done
            state.scrub?.totalByteCount = estimate.total
        }
        guard pause(byteCount, start) else { throw .ended }
    }

    /// Reads from a segment while it is in this incarnation, and held so that it stays in it. Nil where that is over.
    func holding<Result>(
        _ segmentID: SegmentID, _ body: (DeviceFile) -> Result
    ) throws(ScrubStop) -> Result? {
        let file = try locked { state -> DeviceFile? in
            let table = state.core.table
            guard table.isInUse(segmentID), !table[segmentID.number].isBeingReset,
                let file = table[segmentID.number].file
            else {
                return nil
            }
            table.hold(segmentID)
            state.beginScrubRead()
            return file
        }
        guard let file else { return nil }
        let result = body(file)
        afterRead()
        volume.change { state, telling in
            state.core.table.letGo(of: segmentID)
            state.endScrubRead(telling)
        }
        return result
    }

    func report(_ finding: Finding) {
        volume.state.withLock { state in
            state.scrub?.add(finding)
            let file = finding.inode.map { "inode \($0): " } ?? ""
            state.core.report(
                CorruptionReport(place: file + finding.place, reason: finding.reason + " (seen by a scrub)"))
        }
        volume.log("scrub: \(finding)")
    }

    // MARK: Superblock and bitmap

    /// Either slot must be whole, and not older than what was written there.
    private func verifySuperblock() throws(ScrubStop) {
        var problem: String?
        // A slot may be half written at the moment at which it is read.
        for _ in 0..<4 {
            let (known, superblock) = try locked { ($0.slots.map(\.generation), $0.superblock) }
            let start = monotonicNanoseconds()
            problem = problemOfSuperblock(known, superblock)
            try paced(2 * Superblock.slotByteCount, since: start)
            if problem == nil { return }
            rest(nanoseconds: 20_000_000)
        }
        report(
            Finding(
                place: "superblock", reason: problem!,
                effect: "nothing is lost; the next checkpoint, or a repair, writes it anew"))
    }

    private func problemOfSuperblock(_ known: [UInt64], _ superblock: Superblock) -> String? {
        let pair: SuperblockPair
        do { pair = try SuperblockPair.read(device) } catch { return "it cannot be read: \(error)" }
        for (number, slot) in pair.slots.enumerated() {
            switch slot {
            case .success(let found):
                if found.blockUUID != superblock.blockUUID { return "slot \(number) belongs to another store" }
                if found.generation < known[number] { return "slot \(number) holds less than was written there" }
            case .failure(let refusal):
                // What a power cut tore stays so until somebody writes.
                if volume.isReadOnly, !superblock.isClean, known[number] == 0 { continue }
                switch refusal {
                case .damaged(let text): return "slot \(number) is damaged (\(text))"
                case .foreign: return "slot \(number) is not a superblock"
                case .newer(let text): return "slot \(number): \(text)"
                }
            }
        }
        return nil
    }

    /// The bitmap of the checkpoint that counts; it is read only by the next mount.
    private func verifyBitmap() throws(ScrubStop) {
        for attempt in 0..<8 {
            let (before, file) = try locked { ($0.slots.map(\.checkpoint).max()!, $0.indexFile) }
            guard let superblock = try? SuperblockPair.read(device).newest() else { return }
            let start = monotonicNanoseconds()
            let (byteCount, damage) = readBitmap(superblock, file)
            if attempt == 0 { estimate.index.add(UInt64(byteCount)) }
            try paced(byteCount, since: start)
            guard let damage else { return }
            // Its pages are used again when later checkpoints are in both slots.
            let isSame = try locked { $0.slots.map(\.checkpoint).max()! == before }
            guard isSame, attempt > 0 else { continue }
            return report(
                Finding(
                    place: "index", reason: damage,
                    effect:
                        "nothing is lost: the next checkpoint writes another one, without which a repair has to make the index anew"
                ))
        }
    }

    private func readBitmap(_ superblock: Superblock, _ file: DeviceFile) -> (byteCount: Int, damage: String?) {
        do throws(MountError) {
            let load = try PageLoader(device: device, file: file).bitmap(superblock.indexRoot, superblock.blockUUID)
            return (load.pages.count * IndexPage.byteCount, nil)
        } catch { return (IndexPage.byteCount, error.description) }
    }
}

/// How much is to be read, and how much has been.
struct ScrubEstimate {
    struct Part {
        var done: UInt64 = 0
        /// As was thought in the beginning.
        var expected: UInt64 = 0
        var isOver = false

        mutating func add(_ byteCount: UInt64) { done += byteCount }
        var total: UInt64 { isOver ? done : max(done, expected) }
    }

    var index = Part()
    var data = Part()
    var log = Part()

    init() {}

    /// What the records of a segment take is not known before; a small part of it.
    init(index: UInt64, data: UInt64, segmentCount: UInt64) {
        self.index.expected = index
        self.data.expected = data
        log.expected = segmentCount * (64 << 10)
    }

    var done: UInt64 { index.done + data.done + log.done }
    var total: UInt64 { index.total + data.total + log.total }
}
