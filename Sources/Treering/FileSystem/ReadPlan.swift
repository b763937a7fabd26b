// A read in progress: where its bytes go, and what must still be read and verified for it. Core makes it under the
// lock, and Volume carries it out outside the lock. A read of very many pieces is done in parts, so that it never holds
// the lock, or memory, for more than one part.

/// One range of a segment to be read for a plan.
struct PlannedRead {
    let segmentID: SegmentID
    let file: DeviceFile
    /// In bytes, a multiple of 4 KiB.
    let position: UInt64
    var byteCount: Int
    /// Where the bytes go in the plan's buffer. −1: they go to scratch memory, and pieces of them are copied to their
    /// places later.
    var target: Int
    var memory = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    /// Of each block of a direct read. Empty for a read to scratch memory.
    var checksums: [UInt32] = []
    /// The pieces of a read to scratch memory: a list through `ScratchPiece.next`. −1: none.
    var firstPiece: Int32 = -1
    var lastPiece: Int32 = -1

    var isDirect: Bool { target >= 0 }
    var end: UInt64 { position + UInt64(byteCount) }
}

/// A piece that comes through scratch memory: bytes with one checksum, of which a part goes to the plan's buffer.
private struct ScratchPiece {
    /// In the bytes of its read.
    var verifiedOffset: Int32
    var verifiedByteCount: Int32
    var checksum: UInt32
    var source: Int32
    var byteCount: Int32
    /// In the plan's buffer.
    var target: Int32
    var next: Int32 = -1
}

/// The bytes of one read request. Owned by whoever carries it out; not shared between threads at the same time.
final class ReadPlan: @unchecked Sendable {
    /// What is read, and from where on.
    let inode: InodeNumber
    let offset: UInt64
    let byteCount: Int
    private var buffer: AlignedBuffer?
    /// Everything below is in its place, or comes with `reads`.
    private(set) var filled = 0
    private(set) var reads: [PlannedRead] = []
    private var pieces: [ScratchPiece] = []
    private var scratch: AlignedBuffer?
    private var scratchByteCount = 0
    /// Pieces added to this part, those copied at once as well.
    private var pieceCount = 0
    /// The reads that have not completed yet.
    var pendingCount = 0
    var failure: Errno?

    private let bounds: WorkBounds
    /// No less than what one unaligned read of everything takes.
    private var scratchLimit: Int { max(bounds.scratchByteCount, byteCount + 2 * blockByteCount) }
    /// How many bytes may lie between two neighbours that come with one read.
    private static let gapLimit = 16 << 10
    /// How many of the last reads are looked at for a neighbour.
    private static let neighbourCount = 4

    init(_ inode: InodeNumber, at offset: UInt64, byteCount: Int, _ bounds: WorkBounds, buffers: inout BufferPool) {
        (self.inode, self.offset, self.byteCount, self.bounds) = (inode, offset, byteCount, bounds)
        buffer = buffers.take(byteCount)
    }

    /// The result, valid after the plan was carried out with success.
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(buffer!.bytes).part(0, byteCount) }
    private var bytesToFill: UnsafeMutableRawBufferPointer { buffer!.bytes }
    var isWhole: Bool { filled == byteCount }
    /// Whether it is to be carried out: something is to be read, or to be planned.
    var needsIO: Bool { !reads.isEmpty || !isWhole }
    /// Pieces of this part so far.
    var partPieceCount: Int { pieceCount }
    /// This part takes no more.
    var isFull: Bool { pieceCount >= bounds.pieceCount || reads.count >= bounds.readCount }

    func giveUpBuffers(_ body: (AlignedBuffer) -> Void) {
        if let buffer { body(buffer) }
        if let scratch { body(scratch) }
        (buffer, scratch) = (nil, nil)
    }

    // MARK: Planning

    func zero(through end: Int) {
        if end > filled { bytesToFill.zero(filled, end - filled) }
        filled = max(filled, end)
    }

    func copy(_ bytes: UnsafeRawBufferPointer) {
        bytesToFill.copy(bytes, to: filled)
        filled += bytes.count
        pieceCount += 1
    }

    /// Plans to read a part of a payload to where the plan is filled. Returns how many bytes of it. All its blocks are
    /// stored next to each other.
    func add(
        _ entry: PayloadEntry, _ segmentID: SegmentID, _ file: DeviceFile, offset: Int, byteCount: Int
    ) -> Int {
        pieceCount += 1
        let block = blockByteCount
        if entry.isInline {
            let position = Int(entry.position)
            let piece = ScratchPiece(
                verifiedOffset: 0, verifiedByteCount: Int32(entry.length), checksum: entry.checksum(ofStored: 0),
                source: Int32(offset), byteCount: Int32(byteCount), target: 0)
            return add(piece, segmentID, file, at: position)
        }
        let first = offset / block
        let last = (offset + byteCount - 1) / block
        let stored = entry.storedIndex(ofBlock: first)!
        let count = (last - first + 1) * block
        let isDirect =
            offset % block == 0 && filled % block == 0 && filled + count <= bytesToFill.count
            && (byteCount % block == 0 || filled + byteCount == self.byteCount)
        if isDirect {
            addDirect(
                PlannedRead(
                    segmentID: segmentID, file: file, position: UInt64(entry.position(ofStored: stored)),
                    byteCount: count,
                    target: filled, checksums: (stored...stored + last - first).map { entry.checksum(ofStored: $0) }))
            filled += byteCount
            return byteCount
        }
        var taken = 0
        for number in first...last {
            let start = max(offset, number * block)
            let part = min(offset + byteCount, (number + 1) * block) - start
            let piece = ScratchPiece(
                verifiedOffset: 0, verifiedByteCount: Int32(block),
                checksum: entry.checksum(ofStored: stored + number - first),
                source: Int32(start - number * block), byteCount: Int32(part), target: 0)
            let added = add(piece, segmentID, file, at: Int(entry.position(ofStored: stored + number - first)))
            taken += added
            if added == 0 { break }
        }
        return taken
    }

    /// Payloads that were written one after the other lie one after the other: one read brings them all.
    private func addDirect(_ next: PlannedRead) {
        if let last = reads.last, last.isDirect, last.segmentID == next.segmentID, last.end == next.position,
            last.target + last.byteCount == next.target
        {
            reads[reads.count - 1].byteCount += next.byteCount
            reads[reads.count - 1].checksums += next.checksums
        } else {
            reads.append(next)
        }
    }

    /// Adds bytes that lie at `position` of a segment and are verified as a whole. Returns how many of them go to the
    /// plan's buffer, 0 if no scratch memory is left for them.
    private func add(_ piece: ScratchPiece, _ segmentID: SegmentID, _ file: DeviceFile, at position: Int) -> Int {
        let block = blockByteCount
        let start = position / block * block
        let end = (position + Int(piece.verifiedByteCount) + block - 1) / block * block
        guard let index = scratchRead(segmentID, file, start, end) else { return 0 }
        var piece = piece
        piece.verifiedOffset = Int32(position - Int(reads[index].position))
        piece.source += piece.verifiedOffset
        piece.target = Int32(filled)
        let place = Int32(pieces.count)
        pieces.append(piece)
        if reads[index].lastPiece >= 0 {
            pieces[Int(reads[index].lastPiece)].next = place
        } else {
            reads[index].firstPiece = place
        }
        reads[index].lastPiece = place
        filled += Int(piece.byteCount)
        return Int(piece.byteCount)
    }

    /// The read that brings these blocks of a segment to scratch memory: one of the last reads, made longer, or a new
    /// one. Nil if this part takes no more.
    private func scratchRead(_ segmentID: SegmentID, _ file: DeviceFile, _ start: Int, _ end: Int) -> Int? {
        for index in reads.indices.suffix(Self.neighbourCount) {
            let read = reads[index]
            let gap = start - Int(read.end)
            guard !read.isDirect, read.segmentID == segmentID, start >= Int(read.position), gap <= Self.gapLimit else {
                continue
            }
            let growth = max(0, end - Int(read.end))
            guard scratchByteCount + growth <= scratchLimit else { return nil }
            scratchByteCount += growth
            reads[index].byteCount += growth
            return index
        }
        guard scratchByteCount + end - start <= scratchLimit, reads.count < bounds.readCount else { return nil }
        scratchByteCount += end - start
        reads.append(
            PlannedRead(segmentID: segmentID, file: file, position: UInt64(start), byteCount: end - start, target: -1))
        return reads.count - 1
    }

    /// A part is planned: each read gets the memory that it needs.
    func allotScratch(_ buffers: inout BufferPool) {
        if scratchByteCount > (scratch?.bytes.count ?? 0) {
            if let scratch { buffers.put(scratch) }
            scratch = buffers.take(scratchByteCount)
        }
        var next = 0
        for index in reads.indices {
            let count = reads[index].byteCount
            if reads[index].isDirect {
                reads[index].memory = bytesToFill.part(reads[index].target, count)
            } else {
                reads[index].memory = scratch!.bytes.part(next, count)
                next += count
            }
        }
        precondition(next == scratchByteCount, "each read has memory of its own")
    }

    // MARK: Carrying out

    /// A part is over.
    func forgetReads() {
        reads.removeAll(keepingCapacity: true)
        pieces.removeAll(keepingCapacity: true)
        (scratchByteCount, pieceCount) = (0, 0)
    }

    /// Verifies what one read brought and puts it in place. Returns the damage, or nil. Threads may do this at the same
    /// time for different reads of one part.
    func accept(_ index: Int, _ completion: Completion) -> CorruptionReport? {
        let read = reads[index]
        func damage(_ reason: String) -> CorruptionReport {
            CorruptionReport(place: "segment \(read.segmentID.number.rawValue) at \(read.position)", reason: reason)
        }
        if let error = completion.error { return damage("reading failed: \(error)") }
        guard completion.result == read.byteCount else {
            return damage("only \(completion.result) of \(read.byteCount) bytes are there")
        }
        precondition(
            read.memory.count == read.byteCount
                && (read.isDirect ? read.checksums.count * blockByteCount == read.byteCount : read.firstPiece >= 0),
            "every byte that a read gives was verified")
        let bytes = UnsafeRawBufferPointer(read.memory)
        for (block, checksum) in read.checksums.enumerated()
        where Checksum.crc32c(bytes.part(block * blockByteCount, blockByteCount)) != checksum {
            return damage("the checksum of block \(block) does not match")
        }
        var next = read.firstPiece
        var verified: (offset: Int32, checksum: UInt32)?
        while next >= 0 {
            let piece = pieces[Int(next)]
            if verified?.offset != piece.verifiedOffset || verified?.checksum != piece.checksum {
                let part = bytes.part(Int(piece.verifiedOffset), Int(piece.verifiedByteCount))
                guard Checksum.crc32c(part) == piece.checksum else {
                    return damage("the checksum of what lies \(piece.verifiedOffset) bytes behind it does not match")
                }
                verified = (piece.verifiedOffset, piece.checksum)
            }
            bytesToFill.copy(bytes.part(Int(piece.source), Int(piece.byteCount)), to: Int(piece.target))
            next = piece.next
        }
        return nil
    }
}

/// Buffers for reads, kept for the next one. Bounded; used under the core's lock.
struct BufferPool {
    private var small: [AlignedBuffer] = []
    private var large: [AlignedBuffer] = []
    static let smallByteCount = 128 << 10
    static let largeByteCount = 1 << 20
    static let countLimit = 16

    /// A buffer of at least this many bytes; it may have many more.
    mutating func take(_ byteCount: Int) -> AlignedBuffer {
        if byteCount <= Self.smallByteCount { return small.popLast() ?? AlignedBuffer(byteCount: Self.smallByteCount) }
        if byteCount <= Self.largeByteCount { return large.popLast() ?? AlignedBuffer(byteCount: Self.largeByteCount) }
        return AlignedBuffer(byteCount: byteCount)
    }

    mutating func put(_ buffer: AlignedBuffer) {
        if buffer.bytes.count == Self.smallByteCount, small.count < Self.countLimit {
            small.append(buffer)
        } else if buffer.bytes.count == Self.largeByteCount, large.count < Self.countLimit {
            large.append(buffer)
        }
    }
}
