// Looks into a damaged batch: finds its whole records one by one, and where its payload area begins.

/// The records that survive in a damaged place of a segment.
struct BatchSurvey {
    /// A record that is whole.
    struct Survivor {
        /// From the start of the damaged place.
        var offset: Int
        var byteCount: Int
        var sequence: UInt64
    }

    private let range: Range<Int>
    private let isAreaKnown: Bool
    private(set) var records: [Survivor] = []
    private(set) var recordAreaByteCount: Int
    private(set) var lost: [ClosedRange<UInt64>] = []
    private(set) var nextInode = InodeNumber(0)
    /// The payloads of survivors: their positions in the payload area, and their checksums.
    private var payloads: [(position: Int, checksums: [UInt32])] = []

    /// How many bytes are searched at most. No record area is longer.
    private static let searchByteCountLimit = 16 << 20

    /// Looks for whole records with sequences above `lower` and through `upper`.
    init<D: Device>(
        _ reader: BatchReader<D>, _ file: DeviceFile, _ range: Range<Int>, _ header: BatchHeader?,
        _ lower: RecordSequence, _ upper: RecordSequence?
    ) throws(Errno) {
        self.range = range
        let areaEnd = header.map { min(Int($0.recordAreaByteCount), range.count) }
        isAreaKnown = areaEnd != nil
        recordAreaByteCount = max(areaEnd ?? BatchHeader.byteCount, BatchHeader.byteCount)
        let bytes = try reader.bytes(file, range.lowerBound, min(areaEnd ?? range.count, Self.searchByteCountLimit))
        let payloadByteCount = header.map { Int($0.payloadBlockCount) * blockByteCount } ?? range.count
        var sequence = lower.rawValue
        var position = BatchHeader.byteCount
        let limit = min(upper?.rawValue ?? counterLimit, counterLimit)
        while position + Record.headerByteCount <= bytes.count {
            guard
                let record = Self.record(
                    bytes.part(position, bytes.count - position), above: sequence, through: limit,
                    payloadByteCount: payloadByteCount)
            else {
                position += 1
                continue
            }
            let survivor = Survivor(
                offset: position, byteCount: record.bytes.count, sequence: record.sequence.rawValue)
            // A void record will fill the gap before this one, so the gap must hold at least its header.
            let before = records.last.map { $0.offset + $0.byteCount } ?? BatchHeader.byteCount
            guard position == before || position - before >= Record.headerByteCount else {
                position += 1
                continue
            }
            note(record)
            // Where nothing lies between two records, what is missing between them was left out when the batch was closed.
            if position > before, survivor.sequence > sequence + 1 { lost.append(sequence + 1...survivor.sequence - 1) }
            records.append(survivor)
            sequence = survivor.sequence
            position += survivor.byteCount
        }
        if upper != nil, limit > sequence { lost.append(sequence + 1...limit) }
        let end = records.last.map { $0.offset + $0.byteCount } ?? BatchHeader.byteCount
        if !isAreaKnown || recordAreaByteCount - end < Record.headerByteCount { recordAreaByteCount = end }
    }

    private static func record(
        _ bytes: UnsafeRawBufferPointer, above lower: UInt64, through upper: UInt64, payloadByteCount: Int
    ) -> Record? {
        // The cheap checks come first: this runs at every byte of a damaged place.
        let length = Int(bytes[Record.layout.length])
        guard length >= Record.headerByteCount, length <= bytes.count,
            bytes[Record.layout.type] == Record.operationType
        else { return nil }
        let sequence = bytes[Record.layout.sequence].rawValue
        guard sequence > lower, sequence <= upper, let record = Record.decode(bytes), record.validate() == nil else {
            return nil
        }
        var isSound = true
        record.forEachChange { change, _, _ in
            guard case .payload(let payload) = change else { return }
            if payload.id.rawValue != sequence { isSound = false }
            if Int(payload.position) + payload.blockCount * blockByteCount > payloadByteCount { isSound = false }
            if payload.isInline, Checksum.crc32c(payload.inlineBytes) != payload.checksum(0) { isSound = false }
        }
        return isSound ? record : nil
    }

    private mutating func note(_ record: Record) {
        var payloads = self.payloads
        var next = nextInode
        record.forEachChange { change, _, _ in
            switch change {
            case .inode(let inode) where inode.inode.rawValue < counterLimit:
                next = max(next, InodeNumber(inode.inode.rawValue + 1))
            case .payload(let payload) where !payload.isInline:
                payloads.append((Int(payload.position), (0..<payload.blockCount).map(payload.checksum)))
            default: break
            }
        }
        self.payloads = payloads
        nextInode = next
    }

    var lastRecord: RecordSequence { RecordSequence(records.last?.sequence ?? 0) }
    var roundedAreaByteCount: Int { (recordAreaByteCount + blockByteCount - 1) & ~(blockByteCount - 1) }

    /// The number of records of the repaired batch: survivors, and void records between them.
    var pieceCount: Int { records.count + gaps.count }

    /// The ranges of the record area that no survivor covers.
    private var gaps: [Range<Int>] {
        var gaps: [Range<Int>] = []
        var end = BatchHeader.byteCount
        for record in records {
            if record.offset > end { gaps.append(end..<record.offset) }
            end = record.offset + record.byteCount
        }
        if recordAreaByteCount > end { gaps.append(end..<recordAreaByteCount) }
        return gaps
    }

    /// If the header is lost, finds the payload area: it begins where a block matches the checksum of a survivor's
    /// payload.
    mutating func findPayloads<D: Device>(_ reader: BatchReader<D>, _ file: DeviceFile) {
        guard !isAreaKnown, !payloads.isEmpty else { return }
        var start = roundedAreaByteCount
        while start < range.count {
            for payload in payloads {
                for (block, checksum) in payload.checksums.enumerated() {
                    let place = start + payload.position + block * blockByteCount
                    guard place + blockByteCount <= range.count,
                        let bytes = try? reader.bytes(file, range.lowerBound + place, blockByteCount),
                        bytes.count == blockByteCount, Checksum.crc32c(bytes) == checksum
                    else { continue }
                    if start > roundedAreaByteCount { recordAreaByteCount = start }
                    return
                }
            }
            start += blockByteCount
        }
    }

    /// What to write: the header of the batch, and the headers of void records. No other byte of the place changes. So
    /// a torn write cannot damage a record that is whole.
    func patches<D: Device>(
        _ reader: BatchReader<D>, _ file: DeviceFile, _ header: BatchHeader
    ) throws(Errno) -> [(offset: Int, bytes: [UInt8])] {
        var area = [UInt8](repeating: 0, count: recordAreaByteCount)
        let found = try reader.bytes(file, range.lowerBound, recordAreaByteCount)
        area.withUnsafeMutableBytes { $0.copy(found, to: 0) }
        var patches: [(offset: Int, bytes: [UInt8])] = []
        area.withUnsafeMutableBytes { area in
            for gap in gaps {
                Record.sealVoid(area.part(gap.lowerBound, gap.count))
                let bytes = Array(area.part(gap.lowerBound, Record.headerByteCount))
                patches.append((range.lowerBound + gap.lowerBound, bytes))
            }
            var header = header
            header.recordsChecksum = Checksum.crc32c(
                UnsafeRawBufferPointer(area.part(BatchHeader.byteCount, area.count - BatchHeader.byteCount)))
            header.encode(into: area.part(0, BatchHeader.byteCount))
            patches.append((range.lowerBound, Array(area.part(0, BatchHeader.byteCount))))
        }
        return patches
    }
}
