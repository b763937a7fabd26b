// The cleaner's steps to empty a segment: it writes the live entries again at the head of the log, and copies live
// payload blocks to a cold segment. It knows the core (under its lock) and the device, but not its callers:
// Housekeeper+Emptying.swift takes the steps in turn; Housekeeper+Cleaning.swift decides when, and on which segment.

import Synchronization

/// The state that the cleaner keeps between segments. Only the housekeeper's thread uses it.
final class Cleaner<D: Device> {
    private let device: D
    /// The cold segment that takes moved blocks, and the place of its next run. It is sealed when it is full, and at
    /// the unmount.
    private var head: Head?
    struct Head {
        var segmentID: SegmentID
        var file: DeviceFile
        var offset: Int
    }

    /// A segment that is being emptied. The cleaner holds its incarnation, so it stays in use.
    struct Victim {
        var segmentID: SegmentID
        var segment: Segment
        var uuid: StoreUUID
        var segmentByteCount: Int
        var number: SegmentNumber { segmentID.number }
        var file: DeviceFile { segment.file! }
    }

    /// A run's header and blocks. They are written at once.
    private let run = AlignedBuffer(byteCount: RunHeader.byteCount + runBlockLimit * blockByteCount)
    /// The blocks that are read of the segment to be emptied.
    private let window = AlignedBuffer(byteCount: windowByteCount)
    /// The index that this state belongs to (`Core.adoptCount`). When the core adopts another index, the state is void.
    private(set) var generation = 0
    /// Statistics since the mount; any thread may read them. `repeatedByteCount`: bytes of records of moves.
    /// `copiedByteCount`: bytes of copied blocks with their headers.
    let isInSegment = Atomic(false)
    let segmentCount = Atomic(0)
    private let repeatedByteCount = Atomic<UInt64>(0)
    private let copiedByteCount = Atomic<UInt64>(0)
    private static var runBlockLimit: Int { 256 }
    private static var windowByteCount: Int { 1 << 20 }
    /// A record of moves ends when it is longer than this.
    private static var recordByteCountLimit: Int { 8 << 10 }

    init(device: D) { self.device = device }

    var isWorking: Bool { isInSegment.load(ordering: .relaxed) }
    var cleanedSegmentCount: Int { segmentCount.load(ordering: .relaxed) }
    var movedRecordByteCount: UInt64 { repeatedByteCount.load(ordering: .relaxed) }
    var movedBlockByteCount: UInt64 { copiedByteCount.load(ordering: .relaxed) }
    var movedByteCount: UInt64 { movedRecordByteCount + movedBlockByteCount }

    /// The file of the segment that takes moved blocks.
    func headFile(_ adoptCount: Int) -> DeviceFile? { adoptCount == generation ? head?.file : nil }

    /// How many bytes the cleaner's head has room for.
    func headRoom(_ log: SegmentLog) -> Int { head.map { log.table.segmentByteCount - $0.offset } ?? 0 }

    // MARK: A segment

    /// Takes hold of a sealed segment to empty it. Nil where that incarnation has ended. Forgets the cleaner's head if
    /// the index was replaced since.
    func begin(_ segmentID: SegmentID, uuid: StoreUUID, _ core: Core) -> Victim? {
        let table = core.table
        guard table.isInUse(segmentID), table[segmentID.number].isSealed else { return nil }
        table.hold(segmentID)
        if generation != core.adoptCount {
            // The log was relocated. The cleaner's head is sealed now, or free.
            generation = core.adoptCount
            head = nil
        }
        return Victim(
            segmentID: segmentID, segment: table[segmentID.number], uuid: uuid, segmentByteCount: table.segmentByteCount
        )
    }

    /// Lets go of a segment after all its batches were gone through. Gives how many bytes are still live in it: these
    /// could not be moved.
    func end(_ victim: Victim, _ core: Core) -> Int64 {
        segmentCount.add(1, ordering: .relaxed)
        let live = core.table[victim.number].live
        if live > 0 { core.table[victim.number].isStuck = true }
        return live
    }

    // MARK: Entries

    /// The index entries that a batch's records have made: candidates for moving, each once. With each come the inline
    /// bytes that the record has of its payload.
    static func candidates(of batch: FoundBatch) -> [Item] {
        var items: [Item] = []
        var seen: Set<RecordIndex.Candidate> = []
        batch.forEachRecord { record, _ in
            RecordIndex.forEachCandidate(record) { candidate, inline in
                if seen.insert(candidate).inserted { items.append((candidate, inline)) }
            }
        }
        return items
    }

    typealias Item = (candidate: RecordIndex.Candidate, inline: UnsafeRawBufferPointer)

    /// How far a batch's items have been moved.
    struct Progress {
        var next = 0
        var cursor: IndexKey?
    }

    /// Writes one record of moves: the live entries of `items` from `start` on, as many as fit. Gives where to go on.
    /// Stops at an inode with unfinished removals and gives it as `leaving`; the caller must finish these first.
    /// Otherwise the copy of a removed entry would lie behind its tombstone and be live again.
    func moveEntries(
        _ items: [Item], from start: Progress, of victim: SegmentNumber, _ core: Core
    ) throws(Stop) -> Moved {
        let moved = try core.commitUnlessEmpty(.recovery, .nobody) { (writer) throws(Stop) in
            try writeMoves(of: items, from: start, of: victim, core, to: &writer)
        }
        repeatedByteCount.add(UInt64(moved.byteCount), ordering: .relaxed)
        return moved
    }

    typealias Moved = (reached: Progress, payloads: [PayloadID], byteCount: Int, leaving: InodeNumber?)

    private func writeMoves(
        of items: [Item], from start: Progress, of victim: SegmentNumber, _ core: Core, to writer: inout RecordWriter
    ) throws(Stop) -> Moved {
        var (next, cursor) = (start.next, start.cursor)
        var payloads: [PayloadID] = []
        var written: Set<IndexKey> = []
        var leaving: InodeNumber?
        while next < items.count, writer.byteCount < Self.recordByteCountLimit {
            let item = items[next]
            let rest = RecordIndex.Candidate(first: cursor ?? item.candidate.first, last: item.candidate.last)
            // The extent of an unfinished replacement is not in the tree yet.
            if core.index.replacementCount > 0, rest.first.space == .tree, rest.first.kind == .extent,
                core.index.removals[InodeNumber(rest.first.object)] != nil
            {
                leaving = InodeNumber(rest.first.object)
                break
            }
            guard let key = try core.find({ () throws(PageMiss) in try core.index.live(in: rest, from: victim) })
            else {
                next += 1
                cursor = nil
                continue
            }
            if key.space == .tree || key.space == .tombstones, core.index.removals[InodeNumber(key.object)] != nil {
                leaving = InodeNumber(key.object)
                break
            }
            cursor = key.successor ?? .max
            if cursor! > item.candidate.last {
                next += 1
                cursor = nil
            }
            guard written.insert(key).inserted else { continue }
            if key.space == .payloads {
                if try core.find({ () throws(PageMiss) in try core.index.hasBlocks(key, in: victim) }) {
                    payloads.append(PayloadID(key.object))
                    continue
                }
                guard try core.find({ () throws(PageMiss) in try core.index.isInline(key, item.inline.count) }) else {
                    continue
                }
            }
            try core.find { () throws(PageMiss) in
                try core.index.writeMove(of: key, inline: item.inline, into: &writer)
            }
        }
        let byteCount = writer.isEmpty ? 0 : writer.byteCount
        return (Progress(next: next, cursor: cursor), payloads, byteCount, leaving)
    }

    // MARK: Blocks

    /// A payload, and those of its stored blocks that were live when they were copied.
    struct Copied {
        var payload: PayloadID
        var position: UInt32
        var blocks: [(index: Int, block: Int)]
        var checksums: [UInt32]
        /// Where its blocks begin in the run, counted in blocks.
        var start: Int
    }

    /// Chooses the payloads of the next run: as many as the rest of the head holds. If the head holds fewer than 16
    /// blocks, that is hardly worth a write, so the run is planned for a new head.
    func planRun(
        _ payloads: [PayloadID], from first: Int, of victim: SegmentNumber, _ core: Core
    ) throws(Stop) -> (copied: [Copied], reached: Int) {
        let room = headRoom(core.log) / blockByteCount - 1
        let blockLimit = room >= 16 ? min(room, Self.runBlockLimit) : Self.runBlockLimit
        var copied: [Copied] = []
        var blockCount = 0
        var next = first
        while next < payloads.count, copied.count < RunHeader.payloadCountLimit {
            let id = payloads[next]
            let found = try core.find { () throws(PageMiss) in
                try core.index.tree.withValue(of: PayloadEntry.key(id)) { value -> Copied? in
                    guard let entry = value.flatMap({ PayloadEntry(decoding: $0) }), !entry.isInline,
                        entry.blocksSegment == victim
                    else { return nil }
                    var found = Copied(
                        payload: id, position: entry.position, blocks: [], checksums: [], start: blockCount)
                    entry.forEachStored { index, block, named in
                        if named == 0 { return }
                        found.blocks.append((index, block))
                        found.checksums.append(entry.checksum(ofStored: index))
                    }
                    return found
                }
            }
            // Only a hostile store has a payload without any live block.
            if let found, !found.blocks.isEmpty, !copied.contains(where: { $0.payload == id }) {
                if blockCount + found.blocks.count > blockLimit, blockCount > 0 || blockLimit == Self.runBlockLimit {
                    break
                }
                blockCount += found.blocks.count
                copied.append(found)
            }
            next += 1
        }
        return (copied, next)
    }

    /// Reads the blocks of a run into `run`. Gives the damage it finds. A damaged block is copied as it is, with its
    /// old checksum: reading it keeps failing.
    func read(_ copied: [Copied], of victim: Victim) throws(Errno) -> [CorruptionReport] {
        var damages: [CorruptionReport] = []
        var pieces: [(source: Int, target: Int, checksum: UInt32)] = []
        for payload in copied {
            for (place, block) in payload.blocks.enumerated() {
                pieces.append(
                    (
                        Int(payload.position) + block.index * blockByteCount,
                        RunHeader.byteCount + (payload.start + place) * blockByteCount, payload.checksums[place]
                    ))
            }
        }
        pieces.sort { $0.source < $1.source }
        var first = 0
        while first < pieces.count {
            let start = pieces[first].source
            var end = first + 1
            // One read covers short gaps between pieces.
            while end < pieces.count, pieces[end].source - pieces[end - 1].source <= 64 << 10,
                pieces[end].source + blockByteCount - start <= Self.windowByteCount
            {
                end += 1
            }
            let bytes = window.bytes.part(0, pieces[end - 1].source + blockByteCount - start)
            try device.wait(Submission(.read, victim.file, offset: UInt64(start), bytes, tag: 0))
            for piece in pieces[first..<end] {
                let block = UnsafeRawBufferPointer(bytes).part(piece.source - start, blockByteCount)
                if Checksum.crc32c(block) != piece.checksum {
                    let place = "segment \(victim.number.rawValue) at \(piece.source)"
                    damages.append(
                        CorruptionReport(place: place, reason: "the checksum does not match (seen by the cleaner)"))
                }
                run.bytes.copy(block, to: piece.target)
            }
            first = end
        }
        return damages
    }

    /// Writes a run to the cleaner's head, durably. Gives where it lies. After a failure nothing names the run, and the
    /// caller must seal the head: nothing is written to a place where writing has failed.
    func writeRun(_ copied: [Copied], uuid: StoreUUID) throws(Errno) -> (segmentID: SegmentID, position: Int) {
        let blockCount = Self.blockCount(of: copied)
        let byteCount = RunHeader.byteCount + blockCount * blockByteCount
        guard let head else { preconditionFailure("a run is written to a segment that was opened for it") }
        RunHeader.encode(copied.map(\.payload), blockCount: blockCount, uuid: uuid, in: head.segmentID, into: run.bytes)
        let bytes = run.bytes.part(0, byteCount)
        try device.wait(Submission(.write, head.file, offset: UInt64(head.offset), bytes, tag: 0))
        try device.wait(Submission(.sync, head.file, tag: 0))
        self.head!.offset = head.offset + byteCount
        copiedByteCount.add(UInt64(byteCount), ordering: .relaxed)
        return (head.segmentID, head.offset + RunHeader.byteCount)
    }

    private static func blockCount(of copied: [Copied]) -> Int { copied.reduce(0) { $0 + $1.blocks.count } }

    /// Whether the head has room for a run.
    func hasRoom(for copied: [Copied], _ log: SegmentLog) -> Bool {
        headRoom(log) >= RunHeader.byteCount + Self.blockCount(of: copied) * blockByteCount
    }

    /// Opens a prepared segment as the cleaner's head. Gives the header that the caller must write; nil where no
    /// segment is prepared. The head before must be sealed.
    func openHead(uuid: StoreUUID, _ core: Core) -> (header: SegmentHeader, file: DeviceFile)? {
        precondition(head == nil)
        guard core.adoptCount == generation,
            let number = core.table.openHead(.cold, firstBatch: core.log.lastBatch.next, epoch: core.log.epoch)
        else { return nil }
        let segment = core.table[number]
        head = Head(
            segmentID: SegmentID(number, segment.incarnation), file: segment.file!, offset: SegmentHeader.byteCount)
        let header = SegmentHeader(
            state: .inUse, role: .cold, uuid: uuid, number: number, incarnation: segment.incarnation,
            epoch: segment.epoch, firstBatch: segment.firstBatch, segmentByteCount: UInt32(core.table.segmentByteCount))
        return (header, segment.file!)
    }

    /// Seals the cleaner's head. Nothing more is written to it.
    func seal(_ core: Core) {
        guard let head else { return }
        self.head = nil
        guard core.adoptCount == generation else { return }
        precondition(core.table.isInUse(head.segmentID), "the cleaner's segment was taken from it")
        core.table.seal(head.segmentID.number, lastBatch: max(core.log.lastBatch, BatchSequence(1)))
    }

    /// Writes a record that says where a run's payloads lie now: those that still lay in the old place, as many as fit
    /// into one record. Gives where to go on.
    func commit(
        _ copied: [Copied], from first: Int, of victim: SegmentNumber, at place: (segmentID: SegmentID, position: Int),
        _ core: Core
    ) throws(Stop) -> Int {
        let (next, byteCount) = try core.commitUnlessEmpty(.recovery, .nobody) { (writer) throws(Stop) in
            let next = try writeMoves(of: copied, from: first, of: victim, to: place, core, &writer)
            return (next, writer.isEmpty ? 0 : writer.byteCount)
        }
        repeatedByteCount.add(UInt64(byteCount), ordering: .relaxed)
        return next
    }

    private func writeMoves(
        of copied: [Copied], from first: Int, of victim: SegmentNumber, to place: (segmentID: SegmentID, position: Int),
        _ core: Core, _ writer: inout RecordWriter
    ) throws(Stop) -> Int {
        var next = first
        while next < copied.count, writer.byteCount < Self.recordByteCountLimit {
            let one = copied[next]
            let position = UInt32(place.position + one.start * blockByteCount)
            try core.find { () throws(PageMiss) in
                try core.index.tree.withValue(of: PayloadEntry.key(one.payload)) { value in
                    guard let entry = value.flatMap({ PayloadEntry(decoding: $0) }),
                        entry.blocksSegment == victim, entry.position == one.position
                    else { return }
                    writer.move(entry.origin.sequence, word: MovedChange.word(place.segmentID)) {
                        $0.payload(
                            one.payload, entry, blocks: one.blocks, position: position,
                            inline: UnsafeRawBufferPointer(start: nil, count: 0))
                    }
                }
            }
            next += 1
        }
        return next
    }
}

extension RecordIndex {
    /// Whether a payload's blocks lie in a segment.
    fileprivate func hasBlocks(_ key: IndexKey, in segment: SegmentNumber) throws(PageMiss) -> Bool {
        try tree.withValue(of: key) { value in
            guard let entry = value.flatMap({ PayloadEntry(decoding: $0) }) else { return false }
            return !entry.isInline && entry.blocksSegment == segment
        }
    }

    /// Whether a payload can be moved with inline bytes of this count: it lies in blocks, or has the same length.
    fileprivate func isInline(_ key: IndexKey, _ byteCount: Int) throws(PageMiss) -> Bool {
        try tree.withValue(of: key) { value in
            guard let entry = value.flatMap({ PayloadEntry(decoding: $0) }) else { return false }
            return !entry.isInline || Int(entry.length) == byteCount
        }
    }
}
