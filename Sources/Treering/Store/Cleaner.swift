// Empties segments: repeats in the head of the log what still lives in one, and copies living payload blocks to a segment of their own.
// Works on the housekeeper's thread; Volume+Cleaning.swift decides when, and on which segment.

import Synchronization

/// What the cleaner keeps between segments. Used by one thread, the housekeeper's.
final class Cleaner<D: Device> {
    private let device: D
    /// The segment that takes moved blocks, and where its next run goes. It is sealed when it is full, and at the unmount.
    private var head: (life: SegmentLife, file: DeviceFile, offset: Int)?
    /// A run's header and blocks, written at once.
    private let run = AlignedBuffer(byteCount: RunHeader.byteCount + runBlockLimit * blockByteCount)
    /// What is read of the segment to be emptied.
    private let window = AlignedBuffer(byteCount: windowByteCount)
    /// What is known here holds as long as the core has this index (`Core.adoptCount`).
    private var generation = 0
    /// What was done since the mount; anybody may look. Bytes of records of moves, and of copied blocks with their headers.
    private let isInSegment = Atomic(false)
    private let segmentCount = Atomic(0)
    private let repeatedByteCount = Atomic<UInt64>(0)
    private let copiedByteCount = Atomic<UInt64>(0)
    /// Called between two steps with the time at which the last began, without the lock: others get their turn.
    var pause: (_ start: UInt64) -> Void = { _ in }

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

    /// How much the segment that takes moved blocks has room for.
    func headRoom(_ log: SegmentLog) -> Int { head.map { log.table.segmentByteCount - $0.offset } ?? 0 }

    // MARK: One segment

    /// Runs a step under the lock. What was learnt before the index was replaced counts for nothing: the segment is given up.
    private func step<Result>(
        _ volume: Volume<D>, _ body: (Core) throws(Stop) -> Result
    ) throws(Errno) -> Result {
        let generation = self.generation
        return try volume.runWaiting { (core) throws(Stop) in
            guard core.adoptCount == generation else { throw .failed(.stale) }
            return try body(core)
        }
    }

    /// Moves everything that lives in a sealed segment elsewhere. Nothing is done where that life of it is over.
    func clean(_ life: SegmentLife, of volume: Volume<D>) throws(Errno) {
        isInSegment.store(true, ordering: .relaxed)
        defer { isInSegment.store(false, ordering: .relaxed) }
        let victim = life.number
        let found = volume.state.withLock { state -> (Segment, StoreUUID, Int)? in
            let table = state.core.table
            guard table.isInUse(life), table[victim].isSealed else { return nil }
            table.hold(life)
            if generation != state.core.adoptCount {
                // The log failed and was written again elsewhere: the head is sealed, or free.
                generation = state.core.adoptCount
                head = nil
            }
            return (table[victim], state.superblock.blockUUID, table.segmentByteCount)
        }
        guard let (segment, uuid, segmentByteCount) = found else { return }
        defer { volume.state.withLock { $0.core.table.letGo(of: life) } }
        if segment.role == .hot {
            try cleanLog(victim, segment, uuid, segmentByteCount, volume)
        } else {
            try cleanRuns(victim, segment, uuid, segmentByteCount, volume)
        }
        segmentCount.add(1, ordering: .relaxed)
        let living = volume.state.withLock { state in
            let living = state.core.table[victim].living
            if living > 0 { state.core.table[victim].isStuck = true }
            return living
        }
        if living > 0 {
            volume.log("segment \(victim.rawValue) cannot be cleaned: \(living) bytes in it cannot be moved")
        }
    }

    private func cleanLog(
        _ victim: SegmentNumber, _ segment: Segment, _ uuid: StoreUUID, _ segmentByteCount: Int, _ volume: Volume<D>
    ) throws(Errno) {
        let reader = BatchReader(device: device, uuid: uuid, segmentByteCount: segmentByteCount)
        let end = segment.end == 0 ? segmentByteCount : Int(segment.end)
        var offset = SegmentHeader.byteCount
        var payloads: [PayloadID] = []
        while offset < end {
            let outcome = try reader.batch(
                in: SegmentLife(victim, segment.incarnation), segment.file!, at: offset, verifyPayload: false)
            guard case .batch(let batch) = outcome else {
                // What is damaged here may be whole behind it.
                offset = try reader.candidate(segment.file!, after: offset, end: end)
                continue
            }
            try moveRecords(of: batch, victim, &payloads, volume)
            if payloads.count >= 1024 {
                try moveBlocks(of: payloads, victim, segment.file!, volume)
                payloads.removeAll(keepingCapacity: true)
            }
            if batch.header.endsSegment { break }
            offset += batch.header.byteCount
        }
        try moveBlocks(of: payloads, victim, segment.file!, volume)
    }

    private func cleanRuns(
        _ victim: SegmentNumber, _ segment: Segment, _ uuid: StoreUUID, _ segmentByteCount: Int, _ volume: Volume<D>
    ) throws(Errno) {
        let header = AlignedBuffer(byteCount: RunHeader.byteCount)
        var offset = SegmentHeader.byteCount
        var payloads: [PayloadID] = []
        while offset < segmentByteCount {
            try device.wait(Submission(.read, segment.file!, offset: UInt64(offset), header.bytes, tag: 0))
            let found = RunHeader.decode(
                UnsafeRawBufferPointer(header.bytes), uuid: uuid, in: SegmentLife(victim, segment.incarnation))
            if let found { payloads.append(contentsOf: found.payloads) }
            // Behind a header that cannot be read the next one is looked for block by block.
            offset += RunHeader.byteCount + (found?.blockCount ?? 0) * blockByteCount
            if payloads.count >= 1024 || offset >= segmentByteCount {
                try moveBlocks(of: payloads, victim, segment.file!, volume)
                payloads.removeAll(keepingCapacity: true)
            }
            if volume.state.withLock({ $0.core.table[victim].living == 0 }) { return }
        }
    }

    // MARK: Entries

    /// Moves the entries that a batch's records established and that still stand; gives the payloads whose blocks are to follow.
    private func moveRecords(
        of batch: FoundBatch, _ victim: SegmentNumber, _ payloads: inout [PayloadID], _ volume: Volume<D>
    ) throws(Errno) {
        var items: [(candidate: RecordIndex.Candidate, inline: UnsafeRawBufferPointer)] = []
        var seen: Set<RecordIndex.Candidate> = []
        batch.forEachRecord { record, _ in
            RecordIndex.forEachCandidate(record) { candidate, inline in
                if seen.insert(candidate).inserted { items.append((candidate, inline)) }
            }
        }
        var next = 0
        var cursor: IndexKey?
        while next < items.count {
            let start = (next, cursor)
            let time = monotonicNanoseconds()
            let (reached, found, byteCount, leaving) = try step(volume) { (core) throws(Stop) in
                try core.commitUnlessEmpty(.recovery, .nobody) { (writer) throws(Stop) in
                    try Self.moveEntries(items, from: start, victim, core, &writer)
                }
            }
            (next, cursor) = reached
            if let leaving { try volume.finishRemovals(of: leaving) }
            payloads.append(contentsOf: found)
            repeatedByteCount.add(UInt64(byteCount), ordering: .relaxed)
            if byteCount > 0 { pause(time) }
        }
    }

    /// One record of moves: what lives of `items` from a place on, as much as fits. Gives where to go on, and before that the inode whose
    /// removals must be finished: a copy of what is removed already would lie behind its tombstone, and come back to life.
    private static func moveEntries(
        _ items: [(candidate: RecordIndex.Candidate, inline: UnsafeRawBufferPointer)], from start: (Int, IndexKey?),
        _ victim: SegmentNumber, _ core: Core, _ writer: inout RecordWriter
    ) throws(Stop) -> (reached: (Int, IndexKey?), payloads: [PayloadID], byteCount: Int, leaving: InodeNumber?) {
        var (next, cursor) = start
        var payloads: [PayloadID] = []
        var written: Set<IndexKey> = []
        var leaving: InodeNumber?
        while next < items.count, writer.byteCount < recordByteCountLimit {
            let item = items[next]
            let rest = RecordIndex.Candidate(first: cursor ?? item.candidate.first, last: item.candidate.last)
            // An extent that replaces others in steps is not in the tree yet.
            if core.index.replacementCount > 0, rest.first.space == .tree, rest.first.kind == .extent,
                core.index.removals[InodeNumber(rest.first.object)] != nil
            {
                leaving = InodeNumber(rest.first.object)
                break
            }
            guard let key = try core.find({ () throws(PageMiss) in try core.index.living(in: rest, from: victim) })
            else {
                next += 1
                cursor = nil
                continue
            }
            if key.space == .tree || key.space == .tombstones, core.index.removals[InodeNumber(key.object)] != nil {
                leaving = InodeNumber(key.object)
                break
            }
            cursor = key.next
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
        return ((next, cursor), payloads, writer.isEmpty ? 0 : writer.byteCount, leaving)
    }

    // MARK: Blocks

    /// A payload and those of its stored blocks that lived when they were copied.
    private struct Copied {
        var payload: PayloadID
        var position: UInt32
        var blocks: [(index: Int, block: Int)]
        var checksums: [UInt32]
        /// Where its blocks begin in the run, in blocks.
        var start: Int
    }

    /// Copies the living blocks of payloads out of a segment, a run at a time.
    private func moveBlocks(
        of payloads: [PayloadID], _ victim: SegmentNumber, _ file: DeviceFile, _ volume: Volume<D>
    ) throws(Errno) {
        let segmentByteCount = volume.state.withLock { $0.core.table.segmentByteCount }
        var next = 0
        while next < payloads.count {
            let first = next
            let time = monotonicNanoseconds()
            // A run is as long as the rest of the head, unless that is hardly worth a write.
            let room = head.map { (segmentByteCount - $0.offset) / blockByteCount - 1 } ?? 0
            let limit = room >= 16 ? min(room, Self.runBlockLimit) : Self.runBlockLimit
            let (copied, reached) = try step(volume) { (core) throws(Stop) in
                try Self.planRun(payloads, from: first, victim, limit, core)
            }
            next = reached
            if copied.isEmpty { continue }
            try read(copied, victim, file, volume)
            let place = try writeRun(copied, volume)
            try commit(copied, victim, place, volume)
            pause(time)
        }
    }

    private static func planRun(
        _ payloads: [PayloadID], from first: Int, _ victim: SegmentNumber, _ blockLimit: Int, _ core: Core
    ) throws(Stop) -> (copied: [Copied], reached: Int) {
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
            if let found, !copied.contains(where: { $0.payload == id }) {
                if blockCount + found.blocks.count > blockLimit, blockCount > 0 || blockLimit == runBlockLimit { break }
                blockCount += found.blocks.count
                copied.append(found)
            }
            next += 1
        }
        return (copied, next)
    }

    /// Reads the blocks of a run into it. What is damaged is copied as it is: its checksum goes with it, and reading it goes on to fail.
    private func read(
        _ copied: [Copied], _ victim: SegmentNumber, _ file: DeviceFile, _ volume: Volume<D>
    ) throws(Errno) {
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
            // Short gaps are read over.
            while end < pieces.count, pieces[end].source - pieces[end - 1].source <= 64 << 10,
                pieces[end].source + blockByteCount - start <= Self.windowByteCount
            {
                end += 1
            }
            let bytes = window.bytes.part(0, pieces[end - 1].source + blockByteCount - start)
            try device.wait(Submission(.read, file, offset: UInt64(start), bytes, tag: 0))
            for piece in pieces[first..<end] {
                let block = UnsafeRawBufferPointer(bytes).part(piece.source - start, blockByteCount)
                if Checksum.crc32c(block) != piece.checksum {
                    let place = "segment \(victim.rawValue) at \(piece.source)"
                    let report = CorruptionReport(
                        place: place, reason: "the checksum does not match (seen by the cleaner)")
                    volume.state.withLock { $0.core.report(report) }
                }
                run.bytes.copy(block, to: piece.target)
            }
            first = end
        }
    }

    /// Writes a run to the cleaner's segment, durably; gives where it lies.
    private func writeRun(
        _ copied: [Copied], _ volume: Volume<D>
    ) throws(Errno) -> (life: SegmentLife, position: Int) {
        let blockCount = copied.reduce(0) { $0 + $1.blocks.count }
        let byteCount = RunHeader.byteCount + blockCount * blockByteCount
        let head = try openHead(for: byteCount, volume)
        let uuid = volume.state.withLock { $0.superblock.blockUUID }
        RunHeader.encode(
            copied.map(\.payload), blockCount: blockCount, uuid: uuid, in: head.life, into: run.bytes)
        do throws(Errno) {
            let bytes = run.bytes.part(0, byteCount)
            try device.wait(Submission(.write, head.file, offset: UInt64(head.offset), bytes, tag: 0))
            try device.wait(Submission(.sync, head.file, tag: 0))
        } catch {
            // Nothing names the run, and nothing more goes to where writing has failed.
            seal(volume)
            throw error
        }
        self.head!.offset = head.offset + byteCount
        copiedByteCount.add(UInt64(byteCount), ordering: .relaxed)
        return (head.life, head.offset + RunHeader.byteCount)
    }

    private func openHead(
        for byteCount: Int, _ volume: Volume<D>
    ) throws(Errno) -> (life: SegmentLife, file: DeviceFile, offset: Int) {
        let segmentByteCount = volume.state.withLock { $0.core.table.segmentByteCount }
        if let head {
            if head.offset + byteCount <= segmentByteCount { return head }
            seal(volume)
        }
        if volume.state.withLock({ $0.core.table.pool.isEmpty }) { volume.prepareSegment() }
        let opened = volume.state.withLock { state -> (SegmentNumber, Segment, SegmentHeader)? in
            let core = state.core
            guard core.adoptCount == generation,
                let number = core.table.openHead(
                    .cold, firstBatch: core.log.lastBatch.next, epoch: core.log.epoch)
            else { return nil }
            let segment = core.table[number]
            let header = SegmentHeader(
                state: .inUse, role: .cold, uuid: state.superblock.blockUUID, number: number,
                incarnation: segment.incarnation, epoch: segment.epoch, firstBatch: segment.firstBatch,
                segmentByteCount: UInt32(segmentByteCount))
            return (number, segment, header)
        }
        guard let (number, segment, header) = opened else { throw .noSpace }
        head = (SegmentLife(number, segment.incarnation), segment.file!, SegmentHeader.byteCount)
        let block = AlignedBuffer(byteCount: SegmentHeader.byteCount)
        header.encode(into: block.bytes)
        do throws(Errno) {
            try device.wait(Submission(.write, segment.file!, offset: 0, block.bytes, tag: 0))
        } catch {
            seal(volume)
            throw error
        }
        return head!
    }

    /// Nothing more is written to the cleaner's segment.
    func seal(_ volume: Volume<D>) {
        guard let head else { return }
        self.head = nil
        volume.state.withLock { state in
            guard state.core.adoptCount == generation else { return }
            precondition(state.core.table.isInUse(head.life), "the cleaner's segment was taken from it")
            state.core.table.seal(head.life.number, lastBatch: max(state.core.log.lastBatch, BatchSequence(1)))
        }
    }

    /// Tells the log where a run's payloads lie now: those that still lay in the old place.
    private func commit(
        _ copied: [Copied], _ victim: SegmentNumber, _ place: (life: SegmentLife, position: Int), _ volume: Volume<D>
    ) throws(Errno) {
        var next = 0
        while next < copied.count {
            let rest = copied[next...]
            let byteCount: Int
            (next, byteCount) = try step(volume) { (core) throws(Stop) in
                try core.commitUnlessEmpty(.recovery, .nobody) { (writer) throws(Stop) in
                    let next = try Self.moveCopied(rest, victim, place, core, &writer)
                    return (next, writer.isEmpty ? 0 : writer.byteCount)
                }
            }
            repeatedByteCount.add(UInt64(byteCount), ordering: .relaxed)
        }
    }

    /// One record's part of that; gives where to go on.
    private static func moveCopied(
        _ copied: ArraySlice<Copied>, _ victim: SegmentNumber, _ place: (life: SegmentLife, position: Int),
        _ core: Core, _ writer: inout RecordWriter
    ) throws(Stop) -> Int {
        for (index, one) in zip(copied.indices, copied) {
            guard writer.byteCount < recordByteCountLimit else { return index }
            let position = UInt32(place.position + one.start * blockByteCount)
            try core.find { () throws(PageMiss) in
                try core.index.tree.withValue(of: PayloadEntry.key(one.payload)) { value in
                    guard let entry = value.flatMap({ PayloadEntry(decoding: $0) }),
                        entry.blocksSegment == victim, entry.position == one.position
                    else { return }
                    writer.move(entry.origin.sequence, word: MovedChange.word(place.life)) {
                        $0.payload(
                            one.payload, entry, blocks: one.blocks, position: position,
                            inline: UnsafeRawBufferPointer(start: nil, count: 0))
                    }
                }
            }
        }
        return copied.endIndex
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

    /// Whether a payload can be moved with inline bytes of this count: it is in blocks, or as long.
    fileprivate func isInline(_ key: IndexKey, _ byteCount: Int) throws(PageMiss) -> Bool {
        try tree.withValue(of: key) { value in
            guard let entry = value.flatMap({ PayloadEntry(decoding: $0) }) else { return false }
            return !entry.isInline || Int(entry.length) == byteCount
        }
    }
}
