// A scrub reads and verifies everything that is live in a mounted store, beside its normal work. The order: superblock,
// log (Scrub+Log), index and the data that payload entries name (Scrub+Index, Scrub+Data). Where something was found,
// it then looks for the files that it concerns (Scrub+Names).
//
// It holds the lock for one leaf of the index at most, has one read in flight, and uses bounded memory. What it reads
// may move or go away meanwhile. So a mismatch counts only if the index still names the same place afterwards, and a
// second read, with the segment held against recycling and punching, gives the same mismatch.

/// Why a scrub stops: it was ended, or it cannot go on.
enum ScrubStop: Error {
    case ended
    case failed
}

/// One pass over a store. Only one thread uses it.
final class Scrub<D: Device> {
    let volume: Volume<D>
    let device: D
    /// Called after each read, without the lock, with the byte count and the time at which the read began. False ends
    /// the scrub.
    private let pause: (_ byteCount: Int, _ start: UInt64) -> Bool
    /// For tests: called after a read, before its bytes are checked.
    var afterRead: () -> Void = {}
    /// The index that `path` belongs to (`Core.adoptCount`). When the core adopts another, `path` is void.
    private var generation = -1
    var path = ScrubPath()
    let window = AlignedBuffer(byteCount: windowByteCount)
    /// Damaged data, for which `nameDamage` finds the files. Blocks beyond `damagedLimit` are only counted.
    var damaged: [PayloadID: [DamagedBlock]] = [:]
    var damagedCount = 0
    /// Payloads whose entries name an impossible place. They are still to be reported.
    var misplaced: [PayloadID] = []
    var misplacedCount = 0
    /// Sealed segments that have lost a part of the log, with the records that are left in each.
    var lostSources: [SegmentID: Set<RecordSequence>] = [:]
    /// How many entries came from lost parts of the log, by inode.
    var lostEntries: [UInt64: Int] = [:]
    /// How much was read of each part, to tell how much is left.
    var estimate = ScrubEstimate()
    /// How many pieces did not match at first, whatever became of them.
    var doubtCount = 0

    static var windowByteCount: Int { 512 << 10 }
    static var damagedLimit: Int { 100_000 }

    struct DamagedBlock: Equatable {
        /// The block's number in the payload; 0 for inline bytes.
        var block: Int
        var place: CorruptionReport
    }

    init(_ volume: Volume<D>, pause: @escaping (_ byteCount: Int, _ start: UInt64) -> Bool) {
        self.volume = volume
        self.pause = pause
        device = volume.device
    }

    /// Runs the whole scrub, and notes in the volume how it ended.
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

    /// Syncs first, so that what was acknowledged before is on disk when the scrub reads it. Then estimates the work.
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

    /// Runs a short step under the lock. Waits while the log is suspended.
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

    /// Publishes the progress, then rests as long as the pace demands.
    func paced(_ byteCount: Int, since start: UInt64) throws(ScrubStop) {
        volume.state.withLock { state in
            state.scrub?.doneByteCount = estimate.done
            state.scrub?.totalByteCount = estimate.total
        }
        guard pause(byteCount, start) else { throw .ended }
    }

    /// Reads from a segment while it is held in this incarnation. Nil if that incarnation has ended.
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

    /// Checks that both slots are whole, and not older than what was written there.
    private func verifySuperblock() throws(ScrubStop) {
        var problem: String?
        // A slot may just be being written when it is read, so this tries again.
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
                // A slot that a power cut has torn stays torn until something is written.
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

    /// Checks the bitmap of the newest checkpoint. Only the next mount would read it.
    private func verifyBitmap() throws(ScrubStop) {
        for attempt in 0..<8 {
            let (before, file) = try locked { ($0.slots.map(\.checkpoint).max()!, $0.indexFile) }
            guard let superblock = try? SuperblockPair.read(device).newest() else { return }
            let start = monotonicNanoseconds()
            let (byteCount, damage) = readBitmap(superblock, file)
            if attempt == 0 { estimate.index.add(UInt64(byteCount)) }
            try paced(byteCount, since: start)
            guard let damage else { return }
            // Its pages may be used again once both slots have later checkpoints.
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
            let load = try device.bitmap(of: superblock.indexRoot, superblock.blockUUID, in: file)
            return (load.pages.count * IndexPage.byteCount, nil)
        } catch { return (IndexPage.byteCount, error.description) }
    }
}

/// How many bytes are to be read, and how many were.
struct ScrubEstimate {
    struct Part {
        var done: UInt64 = 0
        /// The estimate at the beginning.
        var expected: UInt64 = 0
        var isOver = false

        mutating func add(_ byteCount: UInt64) { done += byteCount }
        var total: UInt64 { isOver ? done : max(done, expected) }
    }

    var index = Part()
    var data = Part()
    var log = Part()

    init() {}

    /// How much the records of a segment take is not known before; 64 KiB are assumed.
    init(index: UInt64, data: UInt64, segmentCount: UInt64) {
        self.index.expected = index
        self.data.expected = data
        log.expected = segmentCount * (64 << 10)
    }

    var done: UInt64 { index.done + data.done + log.done }
    var total: UInt64 { index.total + data.total + log.total }
}
