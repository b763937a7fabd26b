// The data part of a scrub: reads the blocks that payload entries name, and compares them with their checksums.

/// A block, or inline bytes, that an entry of the index named when it was looked at.
struct ScrubPiece {
    var payload: PayloadID
    var segmentID: SegmentID
    /// The block's number in the payload; 0 for inline bytes.
    var block: Int
    /// Its offset in the segment.
    var position: Int
    var byteCount: Int
    var checksum: UInt32

    var end: Int { position + byteCount }
    var place: String { "segment \(segmentID.number.rawValue) at \(position)" }
}

extension Scrub {
    /// One read covers gaps between pieces up to this length, in bytes.
    private static var gapLimit: Int { 32 << 10 }

    /// Adds the live parts of a payload that are on disk. Call it under the lock.
    func take(_ key: IndexKey, _ value: UnsafeRawBufferPointer, _ core: Core, into pieces: inout [ScrubPiece]) {
        guard let entry = PayloadEntry(decoding: value) else { return }
        let segment = entry.blocksSegment
        // Data that is still on its way to the disk is left to the next scrub.
        guard core.table.contains(segment) else { return }
        let segmentID = core.table.id(of: segment)
        guard !core.log.isPending(segmentID, entry.position) else { return }
        let payload = PayloadID(key.object)
        let byteCount = entry.isInline ? Int(entry.length) : entry.storedCount * blockByteCount
        let isPossible =
            Int(entry.position) + byteCount <= core.table.segmentByteCount
            && (!entry.isInline || byteCount <= Self.windowByteCount / 2)
        guard isPossible else {
            misplacedCount += 1
            if misplacedCount <= ScrubStatus.findingLimit { misplaced.append(payload) }
            return
        }
        if entry.isInline {
            pieces.append(
                ScrubPiece(
                    payload: payload, segmentID: segmentID, block: 0,
                    position: Int(entry.position), byteCount: Int(entry.length), checksum: entry.checksum(ofStored: 0)))
            return
        }
        entry.forEachStored { index, block, named in
            guard named > 0 else { return }
            pieces.append(
                ScrubPiece(
                    payload: payload, segmentID: segmentID, block: block,
                    position: Int(entry.position(ofStored: index)), byteCount: blockByteCount,
                    checksum: entry.checksum(ofStored: index)))
        }
    }

    /// Verifies all pieces, neighbours with one read, and empties the list.
    func verify(_ pieces: inout [ScrubPiece]) throws(ScrubStop) {
        defer { pieces.removeAll(keepingCapacity: true) }
        for payload in misplaced {
            report(
                Finding(
                    place: "payload \(payload.rawValue)", reason: "its entry names a place outside of its segment",
                    effect: "reading it gives EIO; a repair makes the index anew"))
        }
        misplaced = []
        pieces.sort { ($0.segmentID.number.rawValue, $0.position) < ($1.segmentID.number.rawValue, $1.position) }
        var first = 0
        while first < pieces.count {
            let start = Self.blockStart(pieces[first].position)
            var end = first + 1
            var reach = pieces[first].end
            while end < pieces.count, pieces[end].segmentID == pieces[first].segmentID,
                pieces[end].position - reach <= Self.gapLimit,
                Self.blockEnd(pieces[end].end) - start <= Self.windowByteCount
            {
                reach = max(reach, pieces[end].end)
                end += 1
            }
            try verify(pieces[first..<end], from: start, to: Self.blockEnd(reach))
            first = end
        }
    }

    private static func blockStart(_ position: Int) -> Int { position / blockByteCount * blockByteCount }
    private static func blockEnd(_ position: Int) -> Int { blockStart(position + blockByteCount - 1) }

    private func verify(_ pieces: ArraySlice<ScrubPiece>, from start: Int, to end: Int) throws(ScrubStop) {
        let begin = monotonicNanoseconds()
        let bytes = window.bytes.part(0, end - start)
        let one = pieces.first!
        let read = try holding(one.segmentID) { file in
            device.perform(Submission(.read, file, offset: UInt64(start), bytes, tag: 0)).result
        }
        var doubtful: [ScrubPiece] = []
        for piece in pieces {
            let isThere = (read ?? -1) >= piece.end - start
            let part = UnsafeRawBufferPointer(bytes).part(piece.position - start, piece.byteCount)
            if !isThere || Checksum.crc32c(part) != piece.checksum { doubtful.append(piece) }
        }
        let live = pieces.reduce(0) { $0 + $1.byteCount }
        estimate.data.add(UInt64(live))
        volume.state.withLock { $0.scrub?.blockCount += UInt64(pieces.count) }
        try paced(read == nil ? 0 : end - start, since: begin)
        doubtCount += doubtful.count
        for piece in doubtful { try confirm(piece) }
    }

    // MARK: Doubt

    /// Looks again at a piece that did not match. It is damaged only if the index still names it, and a second read of
    /// its present place, while the segment is held there, does not match either.
    private func confirm(_ piece: ScrubPiece) throws(ScrubStop) {
        for _ in 0..<16 {
            guard let now = try present(piece) else { return }
            let begin = monotonicNanoseconds()
            let start = Self.blockStart(now.position)
            let bytes = window.bytes.part(0, Self.blockEnd(now.end) - start)
            let completion = try holding(now.segmentID) { file in
                device.perform(Submission(.read, file, offset: UInt64(start), bytes, tag: 0))
            }
            try paced(bytes.count, since: begin)
            // The piece has moved between two looks.
            guard let completion, let after = try present(piece) else { continue }
            guard after.isSamePlace(as: now) else { continue }
            var reason = "the checksum of the data does not match"
            if completion.result >= now.end - start {
                let part = UnsafeRawBufferPointer(bytes).part(now.position - start, now.byteCount)
                if Checksum.crc32c(part) == now.checksum { return }
                if now.checksum == Checksum.ofLostBlock {
                    return volume.state.withLock { $0.scrub?.knownLostCount += 1 }
                }
            } else {
                reason = completion.error.map { "it cannot be read: \($0)" } ?? "the file ends before it"
            }
            return note(now, reason)
        }
    }

    /// Where a block lies now. Nil if it is not named any more, or is on its way to another place.
    private func present(_ piece: ScrubPiece) throws(ScrubStop) -> ScrubPiece? {
        let found = try withValue(of: PayloadEntry.key(piece.payload)) { state, value -> ScrubPiece? in
            guard let value else { return nil }
            var all: [ScrubPiece] = []
            self.take(PayloadEntry.key(piece.payload), value, state.core, into: &all)
            return all.first { $0.block == piece.block }
        }
        return found ?? nil
    }

    private func note(_ piece: ScrubPiece, _ reason: String) {
        damagedCount += 1
        guard damagedCount <= Self.damagedLimit else { return }
        damaged[piece.payload, default: []].append(
            DamagedBlock(block: piece.block, place: CorruptionReport(place: piece.place, reason: reason)))
    }
}

extension ScrubPiece {
    fileprivate func isSamePlace(as other: ScrubPiece) -> Bool {
        segmentID == other.segmentID && position == other.position && checksum == other.checksum
    }
}
