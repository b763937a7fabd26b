// Batches of the log on the medium, changed with the checksums of record, batch and chain made right again.

@testable import Treering

/// A change in a record of the log.
struct LoggedChange {
    var file: StoreFile
    /// In the file.
    var batch: Int
    /// In the batch.
    var record: Range<Int>
    /// In the record.
    var offset: Int
    var byteCount: Int
    var type: UInt16
    /// Of a move: what is moved.
    var movedType: UInt16?
}

enum HostileLog {
    /// Bytes of a segment behind the start of a batch that are looked at.
    static let room = 1 << 18

    /// Where batches, or runs of the cleaner, begin in a segment.
    static func batches(_ device: SimulatedDevice, _ file: StoreFile, magic: UInt64 = BatchHeader.magic) -> [Int] {
        guard let bytes = device.contents(of: file) else { return [] }
        return bytes.withUnsafeBytes { bytes in
            stride(from: SegmentHeader.byteCount, to: bytes.count - BatchHeader.byteCount + 1, by: blockByteCount)
                .filter { bytes.part($0, BatchHeader.byteCount)[BatchHeader.layout.magic] == magic }
        }
    }

    /// The records of the batch at the start of `bytes`, and where its record area ends; nil where it is none.
    static func records(_ bytes: UnsafeRawBufferPointer) -> (records: [Range<Int>], area: Int)? {
        let area = Int(bytes[BatchHeader.layout.recordAreaByteCount])
        guard area > BatchHeader.byteCount, area <= bytes.count else { return nil }
        var records: [Range<Int>] = []
        var position = BatchHeader.byteCount
        while position + Record.headerByteCount <= area {
            let length = Int(bytes.part(position, Record.headerByteCount)[Record.layout.length])
            guard length >= Record.headerByteCount, position + length <= area else { break }
            records.append(position..<position + length)
            position += length
        }
        return (records, area)
    }

    /// Records of the batch at the start of `bytes` were changed.
    static func sealBatch(_ bytes: UnsafeMutableRawBufferPointer, _ area: Int) {
        let records = bytes.part(BatchHeader.byteCount, area - BatchHeader.byteCount)
        bytes[BatchHeader.layout.recordsChecksum] = Checksum.crc32c(UnsafeRawBufferPointer(records))
        bytes.part(0, BatchHeader.byteCount).seal(BatchHeader.layout.checksum)
        chain(bytes)
    }

    /// Tells the batches behind a changed one of its new checksum.
    private static func chain(_ bytes: UnsafeMutableRawBufferPointer) {
        let field = BatchHeader.layout
        var here = 0
        while true {
            let header = bytes.part(here, BatchHeader.byteCount)
            let records = (Int(header[field.recordAreaByteCount]) + blockByteCount - 1) & ~(blockByteCount - 1)
            let next = here + records + Int(header[field.payloadBlockCount]) * blockByteCount
            guard next > here, next + BatchHeader.byteCount <= bytes.count else { return }
            let follower = bytes.part(next, BatchHeader.byteCount)
            guard follower[field.magic] == BatchHeader.magic else { return }
            follower[field.previousChecksum] = header[field.checksum]
            follower.seal(field.checksum)
            here = next
        }
    }

    /// Every change of the log behind a batch.
    static func changes(_ device: SimulatedDevice, after last: BatchSequence) -> [LoggedChange] {
        var found: [LoggedChange] = []
        for file in device.list() {
            guard case .segment = file, let contents = device.contents(of: file) else { continue }
            contents.withUnsafeBytes { contents in
                for batch in batches(device, file) {
                    let bytes = contents.part(batch, contents.count - batch)
                    guard bytes[BatchHeader.layout.sequence] > last, let (records, _) = records(bytes) else {
                        continue
                    }
                    for record in records {
                        Record(trusting: bytes.part(record.lowerBound, record.count)).forEachChange {
                            change, offset, count in
                            let header = bytes.part(record.lowerBound + offset, count)
                            var moved: UInt16?
                            if case .move(let move) = change { moved = move.bytes[ChangeHeader.layout.type] }
                            found.append(
                                LoggedChange(
                                    file: file, batch: batch, record: record, offset: offset, byteCount: count,
                                    type: header[ChangeHeader.layout.type], movedType: moved))
                        }
                    }
                }
            }
        }
        return found
    }

    /// Puts a number into a record, `place` bytes from the start of the change, or of the record.
    static func change(
        _ device: SimulatedDevice, _ change: LoggedChange, inRecordHeader: Bool, _ place: Int, _ width: Int,
        _ value: UInt64
    ) {
        guard let handle = try? device.open(change.file, create: false),
            let size = device.contents(of: change.file)?.count
        else { return }
        defer { device.close(handle) }
        let buffer = AlignedBuffer(byteCount: room)
        let bytes = buffer.bytes.part(0, min(room, size - change.batch))
        _ = device.perform(Submission(.read, handle, offset: UInt64(change.batch), bytes, tag: 0))
        guard let (_, area) = records(UnsafeRawBufferPointer(bytes)) else { return }
        let start = change.record.lowerBound + (inRecordHeader ? 0 : change.offset) + place
        for index in 0..<width { bytes[start + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
        bytes.part(change.record.lowerBound, change.record.count).seal(Record.layout.checksum)
        sealBatch(bytes, area)
        _ = device.perform(Submission(.writeDurable, handle, offset: UInt64(change.batch), bytes, tag: 0))
    }
}
