// A read in progress: where its bytes go, and what must still be read and verified for it. Made by Core under the lock, carried
// out by Volume outside it.

/// One range of a segment to be read for a plan.
struct PlannedRead {
    var life: SegmentLife
    var file: DeviceFile
    /// In bytes, a multiple of 4 KiB.
    var position: UInt64
    /// Where the blocks go: in the plan's buffer, or in `scratch`.
    var memory: UnsafeMutableRawBufferPointer
    var scratch: AlignedBuffer?
    /// Blocks: checksum of each. Inline: one checksum, of `inlineRange` of the memory.
    var checksums: [UInt32]
    var inlineRange: Range<Int>?
    /// What of `scratch` goes where in the plan's buffer.
    var source: Int
    var byteCount: Int
    var target: Int
}

/// The bytes of one read request. Owned by whoever carries it out; not shared between threads at the same time.
final class ReadPlan: @unchecked Sendable {
    private var buffer: AlignedBuffer?
    let byteCount: Int
    var reads: [PlannedRead] = []
    /// The reads that have not completed yet.
    var pendingCount = 0
    var failure: Errno?

    init(byteCount: Int, buffers: inout BufferPool) {
        self.byteCount = byteCount
        buffer = buffers.take(byteCount)
    }

    /// The result, valid after the plan was carried out with success.
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(buffer!.bytes).part(0, byteCount) }
    var bytesToFill: UnsafeMutableRawBufferPointer { buffer!.bytes }
    var needsIO: Bool { !reads.isEmpty }

    func giveUpBuffer() -> AlignedBuffer? {
        defer { buffer = nil }
        return buffer
    }

    func zero(_ offset: Int, _ byteCount: Int) { bytesToFill.zero(offset, byteCount) }

    /// False when a read that is planned already brings it.
    func add(
        _ entry: PayloadEntry, _ life: SegmentLife, _ file: DeviceFile, offset: Int, byteCount: Int, target: Int
    ) -> Bool {
        let block = blockByteCount
        if entry.isInline {
            let start = Int(entry.position) / block * block
            let end = (Int(entry.position) + Int(entry.length) + block - 1) / block * block
            let scratch = AlignedBuffer(byteCount: end - start)
            let lead = Int(entry.position) - start
            reads.append(
                PlannedRead(
                    life: life, file: file, position: UInt64(start), memory: scratch.bytes.part(0, end - start),
                    scratch: scratch, checksums: [entry.checksum(ofStored: 0)],
                    inlineRange: lead..<lead + Int(entry.length),
                    source: lead + offset, byteCount: byteCount, target: target))
            return true
        }
        let first = offset / block
        let last = (offset + byteCount - 1) / block
        // All blocks of a piece are stored, and next to each other.
        let stored = entry.storedIndex(ofBlock: first)!
        let count = (last - first + 1) * block
        let isDirect =
            offset % block == 0 && target % block == 0 && target + count <= bytesToFill.count
            && (byteCount % block == 0 || target + byteCount == self.byteCount)
        let scratch = isDirect ? nil : AlignedBuffer(byteCount: count)
        let read = PlannedRead(
            life: life, file: file, position: UInt64(entry.position(ofStored: stored)),
            memory: scratch?.bytes.part(0, count) ?? bytesToFill.part(target, count), scratch: scratch,
            checksums: (stored...stored + last - first).map { entry.checksum(ofStored: $0) }, inlineRange: nil,
            source: offset - first * block, byteCount: byteCount, target: target)
        if extendLast(by: read) { return false }
        reads.append(read)
        return true
    }

    /// Payloads that were written one after the other lie one after the other: one read brings them all.
    private func extendLast(by next: PlannedRead) -> Bool {
        guard var last = reads.last, last.scratch == nil, next.scratch == nil, last.life == next.life,
            last.position + UInt64(last.memory.count) == next.position, last.target + last.memory.count == next.target
        else { return false }
        last.memory = bytesToFill.part(last.target, last.memory.count + next.memory.count)
        last.checksums += next.checksums
        last.byteCount += next.byteCount
        reads[reads.count - 1] = last
        return true
    }

    /// Verifies what one read brought and puts it in place; nil when it is good.
    func accept(_ index: Int, _ completion: Completion) -> CorruptionReport? {
        let read = reads[index]
        func damage(_ reason: String) -> CorruptionReport {
            CorruptionReport(place: "segment \(read.life.number.rawValue) at \(read.position)", reason: reason)
        }
        if let error = completion.error { return damage("reading failed: \(error)") }
        guard completion.result == read.memory.count else {
            return damage("only \(completion.result) of \(read.memory.count) bytes are there")
        }
        let bytes = UnsafeRawBufferPointer(read.memory)
        if let range = read.inlineRange {
            guard Checksum.crc32c(bytes.part(range.lowerBound, range.count)) == read.checksums[0] else {
                return damage("the checksum of an inline payload does not match")
            }
        } else {
            for (block, checksum) in read.checksums.enumerated()
            where Checksum.crc32c(bytes.part(block * blockByteCount, blockByteCount)) != checksum {
                return damage("the checksum of block \(block) does not match")
            }
        }
        if read.scratch != nil { bytesToFill.copy(bytes.part(read.source, read.byteCount), to: read.target) }
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

    /// A buffer of at least this many bytes, rounded up to whole blocks.
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
