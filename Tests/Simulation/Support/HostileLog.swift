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

    static func seal(_ bytes: UnsafeMutableRawBufferPointer, hole: Int) {
        bytes.store(Checksum.crc32c(UnsafeRawBufferPointer(bytes), withHoleAt: hole), at: hole)
    }

    /// Where batches, or runs of the cleaner, begin in a segment.
    static func batches(_ device: SimulatedDevice, _ file: StoreFile, magic: UInt64 = BatchHeader.magic) -> [Int] {
        guard let bytes = device.contents(of: file) else { return [] }
        return bytes.withUnsafeBytes { bytes in
            stride(from: 4096, to: bytes.count - 127, by: 4096).filter { bytes.load($0, as: UInt64.self) == magic }
        }
    }

    /// The records of the batch at the start of `bytes`, and where its record area ends; nil where it is none.
    static func records(_ bytes: UnsafeRawBufferPointer) -> (records: [Range<Int>], area: Int)? {
        let area = Int(bytes.load(64, as: UInt32.self))
        guard area > BatchHeader.byteCount, area <= bytes.count else { return nil }
        var records: [Range<Int>] = []
        var position = BatchHeader.byteCount
        while position + Record.headerByteCount <= area {
            let length = Int(bytes.load(position, as: UInt32.self))
            guard length >= Record.headerByteCount, position + length <= area else { break }
            records.append(position..<position + length)
            position += length
        }
        return (records, area)
    }

    /// Records of the batch at the start of `bytes` were changed.
    static func sealBatch(_ bytes: UnsafeMutableRawBufferPointer, _ area: Int) {
        let records = bytes.part(BatchHeader.byteCount, area - BatchHeader.byteCount)
        bytes.store(Checksum.crc32c(UnsafeRawBufferPointer(records)), at: 60)
        seal(bytes.part(0, BatchHeader.byteCount), hole: 8)
        chain(bytes)
    }

    /// Tells the batches behind a changed one of its new checksum.
    private static func chain(_ bytes: UnsafeMutableRawBufferPointer) {
        var here = 0
        while true {
            let records = (Int(bytes.load(here + 64, as: UInt32.self)) + 4095) & ~4095
            let next = here + records + Int(bytes.load(here + 72, as: UInt32.self)) * 4096
            guard next > here, next + BatchHeader.byteCount <= bytes.count,
                bytes.load(next, as: UInt64.self) == BatchHeader.magic
            else { return }
            bytes.store(bytes.load(here + 8, as: UInt32.self), at: next + 56)
            seal(bytes.part(next, BatchHeader.byteCount), hole: 8)
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
                    guard bytes.load(48, as: UInt64.self) > last.rawValue, let (records, _) = records(bytes) else {
                        continue
                    }
                    for record in records {
                        Record(trusting: bytes.part(record.lowerBound, record.count)).forEachChange {
                            change, offset, count in
                            let type = bytes.load(record.lowerBound + offset, as: UInt16.self)
                            var moved: UInt16?
                            if case .move(let move) = change { moved = move.bytes.load(0) }
                            found.append(
                                LoggedChange(
                                    file: file, batch: batch, record: record, offset: offset, byteCount: count,
                                    type: type, movedType: moved))
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
        seal(bytes.part(change.record.lowerBound, change.record.count), hole: 4)
        sealBatch(bytes, area)
        _ = device.perform(Submission(.writeDurable, handle, offset: UInt64(change.batch), bytes, tag: 0))
    }
}
