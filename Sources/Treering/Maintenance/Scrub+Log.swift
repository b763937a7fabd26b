// The log of a scrub: the header of each segment in use, and every batch in it that was written when the scrub came by: its header and its
// records. Their data is read by the index, since dead blocks may have been punched.

extension Scrub {
    /// A segment as it is at the moment.
    private struct Walked {
        var segmentID: SegmentID
        var file: DeviceFile
        var role: SegmentHeader.Role
        var isSealed: Bool
        var firstBatch: BatchSequence
        /// The last batch that must be there.
        var lastBatch: BatchSequence
        /// Where its header declares its end, else 0.
        var end: UInt32
    }

    func verifyLog() throws(ScrubStop) {
        var number: UInt32 = 0
        while try locked({ Int(number) < $0.core.table.segments.count }) {
            try verify(SegmentNumber(number))
            number += 1
        }
        estimate.log.isOver = true
    }

    private func verify(_ number: SegmentNumber) throws(ScrubStop) {
        let (found, uuid, size) = try locked {
            (self.segment(number, $0.core), $0.core.log.uuid, $0.core.table.segmentByteCount)
        }
        guard let segment = found else { return }
        let reader = BatchReader(device: device, uuid: uuid, segmentByteCount: size)
        try verifyHeader(segment, reader)
        guard segment.role == .hot else { return }
        let damage = try walk(segment, reader)
        guard !damage.isEmpty else { return }
        for (range, reason) in damage {
            report(
                Finding(
                    place: "segment \(number.rawValue) at \(range.lowerBound)..<\(range.upperBound)", reason: reason,
                    effect:
                        "the index remembers what it made; a repair, of the store unmounted, writes that to the log again"
                ))
        }
        // What the cleaner repeats in the head keeps its old sequence: only of a segment that is closed is it known what came from where.
        if segment.isSealed { try noteSource(segment, reader) }
    }

    private func segment(_ number: SegmentNumber, _ core: Core) -> Walked? {
        guard core.table.contains(number) else { return nil }
        let segment = core.table[number]
        // What holds nothing is recycled soon. The header of a segment is there before anything live names it.
        guard segment.state == .inUse, segment.live > 0, let file = segment.file else { return nil }
        let written = core.log.tracker.written
        let last = segment.isSealed ? min(segment.lastBatch, written) : written
        guard segment.role == .cold || segment.firstBatch <= last else { return nil }
        return Walked(
            segmentID: core.table.id(of: number), file: file, role: segment.role, isSealed: segment.isSealed,
            firstBatch: segment.firstBatch, lastBatch: last, end: segment.end)
    }

    // MARK: Header

    private func verifyHeader(_ segment: Walked, _ reader: BatchReader<D>) throws(ScrubStop) {
        var problem: String?
        for _ in 0..<2 {
            let start = monotonicNanoseconds()
            let read = try holding(segment.segmentID) { file in
                Self.problem(ofHeader: segment, reader, file)
            }
            estimate.log.add(UInt64(SegmentHeader.byteCount))
            try paced(SegmentHeader.byteCount, since: start)
            guard let read else { return }
            problem = read
            if problem == nil { return }
        }
        guard let problem, try isStill(segment) else { return }
        report(
            Finding(
                place: "segment \(segment.segmentID.number.rawValue), its header", reason: problem,
                effect: "nothing is lost; a repair writes it anew"))
    }

    private static func problem(ofHeader segment: Walked, _ reader: BatchReader<D>, _ file: DeviceFile) -> String? {
        do throws(SegmentProblem) {
            guard let header = try reader.segmentHeader(segment.segmentID.number, file) else {
                return "it is not there"
            }
            guard header.state == .inUse, header.segmentID == segment.segmentID, header.role == segment.role else {
                return "it is that of an earlier incarnation"
            }
            return nil
        } catch {
            switch error {
            case .unreadable(let errno): return "it cannot be read: \(errno)"
            case .damaged(let report): return report.reason
            }
        }
    }

    private func isStill(_ segment: Walked) throws(ScrubStop) -> Bool {
        try locked { state in
            self.segment(segment.segmentID.number, state.core)?.segmentID == segment.segmentID
        }
    }

    // MARK: Batches

    /// Follows the batches from the first through the last; gives what lies between whole ones and is not one. Whole batches go to `onBatch`.
    private func walk(
        _ segment: Walked, _ reader: BatchReader<D>, onBatch: (FoundBatch) -> Void = { _ in }
    ) throws(ScrubStop) -> [(range: Range<Int>, reason: String)] {
        var damage: [(range: Range<Int>, reason: String)] = []
        var cursor = BatchCursor(reader, segment.segmentID, segment.file, end: segment.end)
        var last: BatchSequence?
        reader.firstReadByteCount = 16 << 10
        while !cursor.isOver, last.map({ $0 < segment.lastBatch }) ?? true {
            switch try read(cursor, segment, reader, onBatch) {
            case .whole(let header):
                last = header.sequence
                cursor.pass(header)
                // About as much as the last one had.
                reader.firstReadByteCount = min(64 << 10, max(8 << 10, header.payloadAreaOffset))
            case .broken(let reason):
                let start = cursor.offset
                let isFollowed = try skipDamage(&cursor, segment, reader)
                if try !isStill(segment) { return [] }
                damage.append((start..<(isFollowed ? cursor.offset : cursor.end), reason))
                if !isFollowed { return damage }
            case .over: return []
            }
        }
        return damage
    }

    private enum Found {
        case whole(BatchHeader)
        case broken(String)
        /// The segment is not in that life any more.
        case over
    }

    /// What is at a place where a batch must be. Damage is read twice. The segment is held for each read.
    private func read(
        _ cursor: BatchCursor<D>, _ segment: Walked, _ reader: BatchReader<D>,
        _ onBatch: (FoundBatch) -> Void = { _ in }
    ) throws(ScrubStop) -> Found {
        var found = Found.over
        for _ in 0..<2 {
            let start = monotonicNanoseconds()
            let read = try holding(segment.segmentID) { _ -> Found in
                do throws(Errno) {
                    switch try cursor.read() {
                    case .batch(let batch):
                        onBatch(batch)
                        return .whole(batch.header)
                    case .broken(_, let reason): return .broken(reason)
                    case .nothing: return .broken("no batch of the log is there, where one was written")
                    }
                } catch { return .broken("it cannot be read: \(error)") }
            }
            guard let read else { return .over }
            found = read
            var byteCount = reader.firstReadByteCount
            if case .whole(let header) = read { byteCount = header.payloadAreaOffset }
            estimate.log.add(UInt64(byteCount))
            try paced(byteCount, since: start)
            if case .whole = read { return read }
        }
        return found
    }

    /// Moves to the next place at which a whole batch of this life begins; false where there is none.
    private func skipDamage(
        _ cursor: inout BatchCursor<D>, _ segment: Walked, _ reader: BatchReader<D>
    ) throws(ScrubStop) -> Bool {
        while true {
            let start = monotonicNanoseconds()
            let from = cursor.offset
            let isRead = try holding(segment.segmentID) { _ in (try? cursor.skip()) != nil }
            guard isRead == true, !cursor.isOver else { return false }
            try paced(cursor.offset - from, since: start)
            if case .whole = try read(cursor, segment, reader) { return true }
        }
    }

    // MARK: What came from where

    /// Remembers what the whole batches of a segment brought, so that entries from the others can be told.
    private static var lostSequenceLimit: Int { 1 << 21 }

    private func noteSource(_ segment: Walked, _ reader: BatchReader<D>) throws(ScrubStop) {
        // So many that memory stays bounded; of the rest the segment alone is told.
        guard lostSources.values.reduce(0, { $0 + $1.count }) < Self.lostSequenceLimit else { return }
        var sequences: Set<RecordSequence> = []
        _ = try walk(segment, reader) { batch in
            batch.forEachRecord { record, _ in
                sequences.insert(record.sequence)
                record.forEachChange { change, _, _ in
                    if case .move(let move) = change { sequences.insert(move.sequence) }
                }
            }
        }
        if try isStill(segment) {
            lostSources[segment.segmentID] = sequences
        }
    }

    /// Counts an entry of the tree that a damaged part of the log established. Under the lock.
    func noteIfLost(_ key: IndexKey, _ origin: Origin) {
        guard !lostSources.isEmpty else { return }
        let table = volume.state.heldState.core.table
        guard table.contains(origin.segment), let source = lostSources[table.id(of: origin.segment)],
            !source.contains(origin.sequence),
            lostEntries.count < ScrubStatus.findingLimit || lostEntries[key.object] != nil
        else { return }
        lostEntries[key.object, default: 0] += 1
    }
}
