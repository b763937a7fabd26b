// Punching: large dead pieces of data in sealed segments go back to the host though the segment stays live. Never headers or records;
// only what no superblock slot's index names any more, which no replay of the log reads either, since it lies before every checkpoint.

/// Dead blocks of a segment, until no superblock slot needs them any more.
struct DeadBlocks {
    var segmentID: SegmentID
    /// The first checkpoint that froze them dead.
    var since: CheckpointNumber
    /// In bytes of the segment.
    var ranges: [Range<Int>]
}

/// What the housekeeper remembers of punching between its rounds.
struct Puncher {
    /// False once the host has said that it cannot.
    var isSupported = true
    var waiting: [DeadBlocks] = []
    /// What is known here holds as long as the core has this index (`Core.adoptCount`).
    var generation = 0
}

extension Housekeeper {
    // MARK: When

    /// Looks for dead blocks and punches them as the cleaning policy wants it, a bounded piece at a time; true when more is to be done
    /// soon.
    func punchInBackground(isIdle: Bool) -> Bool {
        guard options.cleaning == .eager || options.cleaning == .auto && isIdle else { return false }
        guard puncher.isSupported, !underWay.contains(.cleaning), !volume.isOver else { return false }
        punchWaiting()
        if findDeadBlocks() { return options.cleaning == .auto }
        if options.cleaning == .auto { freeDeadSegments(punches: true) }
        return false
    }

    /// Punches what has waited long enough.
    func punchWaiting() {
        let older = state.withLock { $0.slots.map(\.checkpoint).min()! }
        forgetIfAdopted()
        let due = puncher.waiting.filter { $0.since <= older }
        puncher.waiting.removeAll { $0.since <= older }
        for dead in due {
            let start = monotonicNanoseconds()
            let (file, isRead) = state.withLock { state -> (DeviceFile?, Bool) in
                guard state.core.table.isInUse(dead.segmentID) else { return (nil, false) }
                let segment = state.core.table[dead.segmentID.number]
                guard segment.isSealed, segment.live > 0 else { return (nil, false) }
                return (segment.file, segment.readerCount > 0)
            }
            // Who reads now may have begun when the blocks lived. Whoever begins later does not ask for them.
            if isRead {
                puncher.waiting.append(dead)
            } else if let file {
                punch(dead.ranges, file)
                pauseCleaning(since: start)
            }
            guard puncher.isSupported else { return }
        }
    }

    private func punch(_ ranges: [Range<Int>], _ file: DeviceFile) {
        for range in ranges {
            precondition(range.lowerBound >= SegmentHeader.byteCount && range.lowerBound % blockByteCount == 0)
            let (start, end) = (UInt64(range.lowerBound), UInt64(range.upperBound))
            if let hole = device.hole(in: file, from: start), hole.lowerBound <= start, hole.upperBound >= end {
                continue
            }
            do throws(Errno) {
                try device.punch(file, offset: start, byteCount: end - start)
                state.withLock { $0.punchedByteCount += end - start }
            } catch {
                if error == .notSupported {
                    puncher.isSupported = false
                    puncher.waiting = []
                    log("the host file system cannot punch: dead data goes back to it by whole segments only")
                } else {
                    log("dead data could not be punched: \(error)")
                }
                return
            }
        }
    }

    /// Since the log was written again elsewhere nothing is known any more.
    private func forgetIfAdopted() {
        let adoptCount = state.withLock { $0.core.adoptCount }
        if puncher.generation != adoptCount {
            let isSupported = puncher.isSupported
            puncher = Puncher()
            puncher.isSupported = isSupported
            puncher.generation = adoptCount
        }
    }

    // MARK: Finding dead blocks

    /// Looks through the segment in which most has died since that was done last; false when none is worth it.
    func findDeadBlocks(in segments: SegmentNumbers = .all) -> Bool {
        guard puncher.isSupported, !volume.isOver else { return false }
        forgetIfAdopted()
        guard let number = state.withLock({ segmentToSearch($0, segments) }) else { return false }
        let start = monotonicNanoseconds()
        let (segmentID, segment, uuid, segmentByteCount) = state.withLock { state in
            let table = state.core.table
            let segmentID = table.id(of: number)
            table.hold(segmentID)
            table[number].liveWhenSearched = table[number].live
            return (segmentID, table[number], state.superblock.blockUUID, table.segmentByteCount)
        }
        defer { state.withLock { $0.core.table.letGo(of: segmentID) } }
        let search = DeadBlockSearch(
            housekeeper: self, segmentID: segmentID, segment: segment, generation: puncher.generation)
        do throws(Errno) {
            if segment.role == .hot {
                try search.batches(BatchReader(device: device, uuid: uuid, segmentByteCount: segmentByteCount))
            } else {
                try search.runs(uuid, segmentByteCount)
            }
        } catch {
            log("segment \(number.rawValue) could not be searched for dead data: \(error)")
            return true
        }
        let ranges = search.ranges(of: options.punchByteCountMinimum)
        if !ranges.isEmpty {
            // What was found dead is dead in the next checkpoint that is frozen.
            let since = state.withLock { $0.core.index.tree.building }
            puncher.waiting.removeAll { $0.segmentID == segmentID }
            puncher.waiting.append(DeadBlocks(segmentID: segmentID, since: since, ranges: ranges))
        }
        pauseCleaning(since: start)
        return true
    }

    private func segmentToSearch(_ state: VolumeState, _ segments: SegmentNumbers) -> SegmentNumber? {
        let table = state.core.table
        let durable = state.core.log.tracker.durable
        var best: (number: SegmentNumber, dead: Int64)?
        for (index, segment) in table.segments.enumerated() {
            let number = SegmentNumber(UInt32(index))
            guard segment.isSealed, segment.live > 0, segment.lastBatch <= durable, segments.contains(number) else {
                continue
            }
            let dead = (segment.liveWhenSearched ?? Int64(table.segmentByteCount)) - segment.live
            guard dead >= Int64(options.punchByteCountMinimum), dead > best?.dead ?? 0 else { continue }
            best = (number, dead)
        }
        return best?.number
    }
}

/// Finds the blocks of data in a sealed segment that nothing names. A block that is dead stays dead.
private final class DeadBlockSearch<D: Device> {
    let housekeeper: Housekeeper<D>
    let segmentID: SegmentID
    let segment: Segment
    let generation: Int
    /// Offsets in the segment.
    private var dead: Set<Int> = []
    private var live: Set<Int> = []

    init(housekeeper: Housekeeper<D>, segmentID: SegmentID, segment: Segment, generation: Int) {
        self.housekeeper = housekeeper
        self.segmentID = segmentID
        self.segment = segment
        self.generation = generation
    }

    /// In the order of the segment, those of at least `minimum` bytes.
    func ranges(of minimum: Int) -> [Range<Int>] {
        var ranges: [Range<Int>] = []
        for offset in dead.subtracting(live).sorted() {
            if let last = ranges.last, last.upperBound == offset {
                ranges[ranges.count - 1] = last.lowerBound..<offset + blockByteCount
            } else {
                ranges.append(offset..<offset + blockByteCount)
            }
        }
        return ranges.filter { $0.count >= minimum }
    }

    func batches(_ reader: BatchReader<D>) throws(Errno) {
        var cursor = BatchCursor(reader, segmentID, segment.file!, end: segment.end)
        while !cursor.isOver {
            // What is damaged is left as it is, and so is everything behind it.
            guard case .batch(let batch) = try cursor.read() else { return }
            // Where its payloads lie in a repaired batch is not sure enough.
            if !batch.header.isSalvaged { try take(batch) }
            cursor.pass(batch.header)
        }
    }

    private func take(_ batch: FoundBatch) throws(Errno) {
        var payloads: [(id: PayloadID, position: Int, blockCount: Int)] = []
        batch.forEachRecord { record, place in
            record.forEachChange { change, _, _ in
                guard case .payload(let payload) = change, !payload.isInline else { return }
                let position = Int(place.payloadAreaPosition) + Int(payload.position)
                payloads.append((payload.id, position, payload.blockCount))
            }
        }
        try look(at: payloads.map(\.id)) { index, entry in
            let payload = payloads[index]
            let all = (0..<payload.blockCount).map { payload.position + $0 * blockByteCount }
            guard let entry, !entry.isInline, entry.blocksSegment == self.segmentID.number else {
                return (dead: all, live: [])
            }
            guard Int(entry.position) == payload.position else { return (dead: [], live: all) }
            return (dead: all, live: Self.live(entry))
        }
    }

    func runs(_ uuid: StoreUUID, _ segmentByteCount: Int) throws(Errno) {
        let header = AlignedBuffer(byteCount: RunHeader.byteCount)
        var offset = SegmentHeader.byteCount
        while offset < segmentByteCount {
            try housekeeper.device.wait(Submission(.read, segment.file!, offset: UInt64(offset), header.bytes, tag: 0))
            let found = RunHeader.decode(
                UnsafeRawBufferPointer(header.bytes), uuid: uuid, in: segmentID)
            // Behind the last run, or behind a damaged header, where what looks like one may be data.
            guard let found else { return }
            let start = offset + RunHeader.byteCount
            offset = start + found.blockCount * blockByteCount
            let all = stride(from: start, to: min(offset, segmentByteCount), by: blockByteCount)
            dead.formUnion(all)
            try look(at: found.payloads) { _, entry in
                guard let entry, !entry.isInline, entry.blocksSegment == self.segmentID.number else { return ([], []) }
                return ([], Self.live(entry))
            }
        }
    }

    private static func live(_ entry: PayloadEntry) -> [Int] {
        var live: [Int] = []
        entry.forEachStored { index, _, named in if named > 0 { live.append(Int(entry.position(ofStored: index))) } }
        return live
    }

    /// Asks what the index knows of payloads, some under each hold of the lock.
    private func look(
        at payloads: [PayloadID], _ body: (_ index: Int, PayloadEntry?) -> (dead: [Int], live: [Int])
    ) throws(Errno) {
        let generation = self.generation
        var next = 0
        while next < payloads.count {
            let part = next..<min(payloads.count, next + 64)
            let found = try housekeeper.runWaiting { (core) throws(Stop) -> [(dead: [Int], live: [Int])] in
                guard core.adoptCount == generation else { throw .failed(.stale) }
                var found: [(dead: [Int], live: [Int])] = []
                for index in part {
                    let answer = try core.find { () throws(PageMiss) in
                        try core.index.tree.withValue(of: PayloadEntry.key(payloads[index])) { value in
                            body(index, value.flatMap { PayloadEntry(decoding: $0) })
                        }
                    }
                    found.append(answer)
                }
                return found
            }
            for answer in found {
                dead.formUnion(answer.dead)
                live.formUnion(answer.live)
            }
            next = part.upperBound
        }
    }
}
