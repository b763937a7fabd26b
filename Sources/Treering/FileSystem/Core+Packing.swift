// Small writes that lie next to each other in a file, and in one batch of the log, become one piece before the batch is closed. A log file
// is written in lines, and would else keep an extent, a payload and a record for each.
//
// Packing is an operation like any other: a record that writes the same bytes once more. What it replaces is then left out of the batch
// (SegmentLog+LeaveOut.swift). So a process that is killed at any moment leaves either state, and a batch reaches the disk as a whole.

/// A write of the open batch whose bytes lie in its record.
struct SmallWrite {
    var inode: InodeNumber
    /// In bytes of the file.
    var offset: UInt64
    var byteCount: UInt32
    /// Where its record begins, in bytes of the batch.
    var recordOffset: Int
    /// The id of its payload as well.
    var sequence: RecordSequence

    var end: UInt64 { offset + UInt64(byteCount) }
}

/// Those of one batch.
struct SmallWrites {
    private(set) var batch = BatchSequence.zero
    private(set) var list: [SmallWrite] = []
    private var byteCounts: [InodeNumber: Int] = [:]
    /// About the room that the records of packed writes take, and their blocks.
    private(set) var recordByteCount = 0
    private(set) var blocksByteCount = 0

    /// A record without the bytes that it has inline, with the checksums of a few blocks.
    private static let plainRecordByteCount = 400

    mutating func note(_ write: SmallWrite, in batch: BatchSequence) {
        if self.batch != batch { reset(for: batch) }
        list.append(write)
        let before = byteCounts[write.inode] ?? 0
        let after = before + Int(write.byteCount)
        byteCounts[write.inode] = after
        let inline = PayloadRecord.inlineByteCountLimit
        recordByteCount += min(after, inline) - min(before, inline) + (before == 0 ? Self.plainRecordByteCount : 0)
        if after > inline { blocksByteCount += after - (before > inline ? before : -blockByteCount) }
    }

    mutating func reset(for batch: BatchSequence) {
        self.batch = batch
        list.removeAll(keepingCapacity: true)
        byteCounts.removeAll(keepingCapacity: true)
        (recordByteCount, blocksByteCount) = (0, 0)
    }
}

extension Core {
    /// Notes the write that was just appended. Room is kept in the batch for packing it.
    func noteSmallWrite(_ number: InodeNumber, _ offset: UInt64, _ byteCount: Int) {
        guard byteCount <= PayloadRecord.inlineByteCountLimit, let open = log.openBatch else { return }
        smallWrites.note(
            SmallWrite(
                inode: number, offset: offset, byteCount: UInt32(byteCount), recordOffset: log.lastRecordOffset,
                sequence: RecordSequence(log.nextSequence.rawValue - 1)),
            in: open.sequence)
        guard smallWrites.list.count > 1 else { return }
        log.packingRoom = SegmentLog.PackingRoom(
            recordByteCount: min(smallWrites.recordByteCount, log.staging.geometry.recordAreaByteCount / 2),
            payloadByteCount: min(smallWrites.blocksByteCount, log.staging.geometry.payloadAreaByteCount / 2))
    }

    /// Packs the small writes of the open batch, which is about to be closed. What cannot be packed stays as it is.
    func packOpenBatch() {
        guard smallWrites.list.count > 1, let open = log.openBatch, smallWrites.batch == open.sequence, !isOver,
            log.suspension == nil
        else { return }
        let byRecord = smallWrites.list
        smallWrites.reset(for: open.sequence)
        let writes = byRecord.sorted {
            ($0.inode.rawValue, $0.offset, $0.sequence) < ($1.inode.rawValue, $1.offset, $1.sequence)
        }
        index.replacedExtentLimit = max(bounds.replacedExtentCount, bounds.packedPieceCount)
        var start = 0
        while start < writes.count {
            let inode = writes[start].inode
            var (next, end) = (start + 1, writes[start].end)
            while next < writes.count, writes[next].inode == inode, writes[next].offset <= end {
                end = max(end, writes[next].end)
                next += 1
            }
            // A missing page, or a removal under way, keeps the pieces as they are.
            if next - start > 1 { try? pack(inode, writes[start].offset, end, since: open.firstRecord) }
            start = next
        }
        index.replacedExtentLimit = bounds.replacedExtentCount
        for write in byRecord where (try? isReplaced(write)) == true { log.leaveOut(recordAt: write.recordOffset) }
    }

    /// Whether nothing of a write's record is live any more. What took its place is younger, so it is in the same batch.
    private func isReplaced(_ write: SmallWrite) throws(PageMiss) -> Bool {
        if try index.tree.contains(PayloadEntry.key(PayloadID(write.sequence.rawValue))) { return false }
        return try index.inode(write.inode)?.origin.sequence != write.sequence
    }

    /// Packs a range of a file, in parts that end at multiples of the largest piece.
    private func pack(
        _ number: InodeNumber, _ from: UInt64, _ to: UInt64, since first: RecordSequence
    ) throws(PageMiss) {
        guard index.removals[number] == nil, let inode = try index.inode(number)?.record else { return }
        let limit = UInt64(joinByteCount)
        var parts = [PackedPieces()]
        try index.forEachPiece(number, from, to) { piece throws(PageMiss) in
            let bytes = try smallBytes(of: piece, since: first)
            if bytes == nil || !parts[parts.count - 1].continues(with: piece, bounds.packedPieceCount, limit) {
                parts.append(PackedPieces())
            }
            if let bytes { parts[parts.count - 1].add(piece, bytes) }
            return true
        }
        // Not within the walk, since this changes what is walked over.
        for part in parts { commit(part, of: inode) }
    }

    /// The bytes of a piece that may be packed: inline in the open batch, and shown nowhere else.
    private func smallBytes(
        of piece: FilePiece, since first: RecordSequence
    ) throws(PageMiss) -> UnsafeRawBufferPointer? {
        guard piece.payload.rawValue >= first.rawValue else { return nil }
        return try index.tree.withValue(of: PayloadEntry.key(piece.payload)) { value in
            guard let value, let entry = PayloadEntry(decoding: value), entry.isInline, entry.sharedByteCount == 0
            else { return nil }
            return self.log.resident(
                self.table.id(of: entry.blocksSegment), entry.position + piece.payloadOffset, Int(piece.byteCount))
        }
    }

    /// Appends the record that packs these pieces, if there is room for it and it takes less than they do.
    private func commit(_ packed: PackedPieces, of inode: InodeRecord) {
        let joined = FilePiece(
            offset: packed.from, byteCount: UInt64(packed.bytes.count), payload: PayloadID(1), payloadOffset: 0)
        guard packed.count > 1, packed.cost > joined.cost + joined.cost / 64, !isDirtyLimitReached else { return }
        packed.bytes.withUnsafeBytes { bytes in
            defer { packer.reset() }
            packer.payload(bytes)
            packer.extent(inode: inode.inode, offset: packed.from, byteCount: UInt32(bytes.count))
            packer.inode(inode)
            let payloadByteCount = packer.payloadBlocks?.count ?? 0
            guard log.hasRoom(recordByteCount: packer.byteCount, payloadByteCount: payloadByteCount, isPacking: true)
            else { return }
            let preview = packer.preview(sequence: log.nextSequence)
            guard index.conflict(of: preview) == nil, (try? index.touch(preview)) != nil else { return }
            let (record, place) = log.append(&packer)
            index.apply(record, at: place)
            forgetReservations(changedBy: record)
        }
    }
}

/// Neighbouring pieces that are about to become one.
private struct PackedPieces {
    var from: UInt64 = 0
    var bytes: [UInt8] = []
    var count = 0
    /// What they take as they are.
    var cost: UInt64 = 0

    var end: UInt64 { from + UInt64(bytes.count) }

    /// Whether a piece may follow: it lies behind them, and in the same part of the file.
    func continues(with piece: FilePiece, _ countLimit: Int, _ byteLimit: UInt64) -> Bool {
        piece.offset == end && count < countLimit && piece.offset / byteLimit == from / byteLimit
    }

    mutating func add(_ piece: FilePiece, _ more: UnsafeRawBufferPointer) {
        if count == 0 { from = piece.offset }
        bytes += more
        count += 1
        cost += piece.cost
    }
}
