// Reads batches from segments and verifies them. For whatever needs records that are not in staging any more: recovery,
// the cleaner, punching, scrub, check, dump and rebuild.

final class BatchReader<D: Device> {
    private let device: D
    let uuid: StoreUUID
    let segmentByteCount: Int
    /// Whether blocks that cannot be read count as zeros. Else such a block ends the read with its error.
    var isTolerant = false
    /// How many bytes are read first of a batch whose length is not known yet.
    var firstReadByteCount = 64 << 10
    /// Whether payload blocks of zeros count as verified, since they may have been punched.
    var passesHoles = false
    /// How many such blocks the last batch has.
    private(set) var holeCount = 0
    private var buffer = AlignedBuffer(byteCount: 256 << 10)
    /// Bytes to be read instead of those on disk. They show a damaged log as it will be after a repair.
    var patches: [DeviceFile: [Patch]] = [:]

    struct Patch {
        var offset: Int
        var bytes: [UInt8]
    }

    init(device: D, uuid: StoreUUID, segmentByteCount: Int) {
        self.device = device
        self.uuid = uuid
        self.segmentByteCount = segmentByteCount
    }

    private func read(_ file: DeviceFile, _ offset: Int, _ byteCount: Int) throws(Errno) -> UnsafeRawBufferPointer {
        if buffer.bytes.count < byteCount { buffer = AlignedBuffer(byteCount: byteCount) }
        let target = buffer.bytes.part(0, byteCount)
        let completion = device.perform(Submission(.read, file, offset: UInt64(offset), target, tag: 0))
        var count = completion.result
        if let error = completion.error {
            guard isTolerant else { throw error }
            count = byBlocks(file, offset, target)
        }
        if !patches.isEmpty { apply(patches[file] ?? [], offset, target.part(0, count)) }
        return UnsafeRawBufferPointer(target).part(0, count)
    }

    /// Reads block by block. Blocks that cannot be read become zeros. Returns how many bytes were read.
    private func byBlocks(_ file: DeviceFile, _ offset: Int, _ target: UnsafeMutableRawBufferPointer) -> Int {
        var done = 0
        while done < target.count {
            let part = target.part(done, min(blockByteCount, target.count - done))
            let completion = device.perform(Submission(.read, file, offset: UInt64(offset + done), part, tag: 0))
            if completion.result < 0 {
                part.zero(0, part.count)
            } else if completion.result < part.count {
                return done + completion.result
            }
            done += part.count
        }
        return done
    }

    private func apply(_ patches: [Patch], _ offset: Int, _ target: UnsafeMutableRawBufferPointer) {
        for patch in patches {
            let low = max(offset, patch.offset)
            let high = min(offset + target.count, patch.offset + patch.bytes.count)
            guard low < high else { continue }
            patch.bytes.withUnsafeBytes { target.copy($0.part(low - patch.offset, high - low), to: low - offset) }
        }
    }

    /// A part of a segment with patches applied, unverified. Valid until the next read.
    func bytes(_ file: DeviceFile, _ offset: Int, _ byteCount: Int) throws(Errno) -> UnsafeRawBufferPointer {
        try read(file, offset, byteCount)
    }

    /// The header of a segment; nil if the segment was never used.
    func segmentHeader(_ number: SegmentNumber, _ file: DeviceFile) throws(SegmentProblem) -> SegmentHeader? {
        let bytes: UnsafeRawBufferPointer
        do { bytes = try read(file, 0, SegmentHeader.byteCount) } catch { throw .unreadable(error) }
        do {
            return try SegmentHeader.decode(
                bytes, uuid: uuid, number: number, segmentByteCount: UInt32(segmentByteCount))
        } catch { throw .damaged(error) }
    }

    /// Reads the batch at `offset` and verifies its records and, if asked, its payload blocks.
    func batch(
        in segmentID: SegmentID, _ file: DeviceFile, at offset: Int, verifyPayload: Bool
    ) throws(Errno) -> BatchOutcome {
        let room = segmentByteCount - offset
        guard room >= blockByteCount else { return .nothing }
        let first = try read(file, offset, min(room, firstReadByteCount))
        guard
            let (header, checksum) = BatchHeader.decode(
                first, uuid: uuid, in: segmentID, room: room)
        else { return .nothing }
        // A salvaged batch may have lost payload blocks. Their checksums tell when the data is read.
        let verifyPayload = verifyPayload && !header.isSalvaged
        var bytes = first
        let needed = verifyPayload ? header.byteCount : header.payloadAreaOffset
        if bytes.count < needed { bytes = try read(file, offset, needed) }
        guard bytes.count >= needed else { return .broken(header, "the file ends inside it") }
        let areaCount = Int(header.recordAreaByteCount)
        guard
            Checksum.crc32c(bytes.part(BatchHeader.byteCount, areaCount - BatchHeader.byteCount))
                == header.recordsChecksum
        else { return .broken(header, "the checksum of its records does not match") }
        let found = FoundBatch(header: header, checksum: checksum, offset: offset, bytes: bytes)
        holeCount = 0
        if header.kind == .records, let problem = problem(found, verifyPayload: verifyPayload) {
            return .broken(header, problem)
        }
        return .batch(found)
    }

    /// The incarnation that what lies at `offset` claims; nil where it does not even begin like a batch.
    func claimedIncarnation(_ file: DeviceFile, at offset: Int) throws(Errno) -> UInt32? {
        BatchHeader.claimedIncarnation(try read(file, offset, blockByteCount))
    }

    /// The next offset after `offset` where a block begins with the magic of a batch; `end` if there is none.
    func candidate(_ file: DeviceFile, after offset: Int, end: Int) throws(Errno) -> Int {
        var start = offset + blockByteCount
        while start < end {
            let bytes = try read(file, start, min(end - start, 1 << 20))
            if bytes.isEmpty { return end }
            for position in stride(from: 0, to: bytes.count - BatchHeader.layout.magic.end + 1, by: blockByteCount)
            where bytes.part(position, bytes.count - position)[BatchHeader.layout.magic] == BatchHeader.magic {
                return start + position
            }
            start += (bytes.count + blockByteCount - 1) / blockByteCount * blockByteCount
        }
        return end
    }

    private func problem(_ batch: FoundBatch, verifyPayload: Bool) -> String? {
        let area = batch.bytes.part(0, Int(batch.header.recordAreaByteCount))
        var position = BatchHeader.byteCount
        for index in 0..<batch.header.recordCount {
            guard position < area.count, let record = Record.decode(area.part(position, area.count - position)) else {
                return "record \(index) is not whole"
            }
            if let problem = record.validate() { return "record \(index): \(problem)" }
            if !record.isSkipped, let problem = payloadProblem(record, batch, verifyPayload) {
                return "record \(index): \(problem)"
            }
            position += record.bytes.count
        }
        return position == area.count ? nil : "its records do not fill it"
    }

    private func payloadProblem(_ record: Record, _ batch: FoundBatch, _ verify: Bool) -> String? {
        var problem: String?
        record.forEachChange { change, _, _ in
            guard case .payload(let payload) = change else { return }
            if payload.id.rawValue != record.sequence.rawValue { problem = "its payload has another record's id" }
            if payload.isInline {
                if Checksum.crc32c(payload.inlineBytes) != payload.checksum(0) {
                    problem = "the checksum of its inline payload does not match"
                }
                return
            }
            let end = Int(payload.position) + payload.blockCount * blockByteCount
            guard end <= Int(batch.header.payloadBlockCount) * blockByteCount else {
                problem = "its payload lies outside the batch"
                return
            }
            guard verify else { return }
            for block in 0..<payload.blockCount {
                let start = batch.header.payloadAreaOffset + Int(payload.position) + block * blockByteCount
                let bytes = batch.bytes.part(start, blockByteCount)
                if Checksum.crc32c(bytes) == payload.checksum(block) { continue }
                if passesHoles, bytes.allSatisfy({ $0 == 0 }) {
                    holeCount += 1
                } else {
                    problem = "the checksum of block \(block) of its payload does not match"
                }
            }
        }
        return problem
    }
}

/// Why the header of a segment could not be read.
enum SegmentProblem: Error {
    case unreadable(Errno)
    case damaged(CorruptionReport)
}
