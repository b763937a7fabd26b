// Staged records: what a killed mount left in staging. Its published records by sequence, read from a private copy of
// its memory.

/// Records that a killed mount had acknowledged. Some of them are not on disk. Owns a copy of the staging and never
/// changes it.
final class StagedRecords {
    let header: StagingHeader
    private let memory: AlignedBuffer

    private struct Item {
        var record: Record
        /// The payload area of the record's slot.
        var payloadArea: UnsafeRawBufferPointer
    }

    private var items: [RecordSequence: Item] = [:]

    /// Copies the staging of a killed mount. Nil if its header is not whole.
    init?(copying bytes: UnsafeRawBufferPointer) {
        guard let header = StagingHeader(decoding: bytes) else { return nil }
        self.header = header
        memory = AlignedBuffer(byteCount: bytes.count)
        memory.bytes.copyMemory(from: bytes)
        let slot = blockByteCount + Int(header.recordAreaByteCount) + Int(header.payloadAreaByteCount)
        for index in 0..<Int(header.slotCount) {
            read(UnsafeRawBufferPointer(memory.bytes).part(StagingLayout.slotsOffset + index * slot, slot), index)
        }
    }

    private func read(_ slot: UnsafeRawBufferPointer, _ index: Int) {
        let descriptor = UnsafeRawBufferPointer(memory.bytes)
            .part(StagingLayout.header.descriptors[index])
        let published = descriptor[StagingLayout.descriptor.published]
        guard descriptor[StagingLayout.descriptor.batch] != 0, published <= UInt64(header.recordAreaByteCount) else {
            return
        }
        let area = slot.part(blockByteCount, Int(published))
        let payloadArea = slot.part(blockByteCount + Int(header.recordAreaByteCount), Int(header.payloadAreaByteCount))
        var position = BatchHeader.byteCount
        while position < area.count, let record = Record.decode(area.part(position, area.count - position)),
            record.validate() == nil
        {
            items[record.sequence] = Item(record: record, payloadArea: payloadArea)
            position += record.bytes.count
        }
    }

    /// The record with this sequence, and the bytes of its payload if that lies in blocks. Nil unless both are here and
    /// whole.
    func record(_ sequence: RecordSequence) -> (record: Record, payload: UnsafeRawBufferPointer?)? {
        guard let item = items[sequence] else { return nil }
        var payload: UnsafeRawBufferPointer?
        var isWhole = true
        item.record.forEachChange { change, _, _ in
            guard case .payload(let found) = change, !found.isInline else { return }
            let byteCount = found.blockCount * blockByteCount
            guard Int(found.position) + byteCount <= item.payloadArea.count else {
                isWhole = false
                return
            }
            let blocks = item.payloadArea.part(Int(found.position), byteCount)
            for block in 0..<found.blockCount
            where Checksum.crc32c(blocks.part(block * blockByteCount, blockByteCount))
                != found.checksum(block)
            {
                isWhole = false
            }
            payload = blocks.part(0, Int(found.length))
        }
        return isWhole ? (item.record, payload) : nil
    }

    /// Whether its records continue a log whose next record gets this sequence, or are all in that log already.
    func continues(_ next: RecordSequence) -> Bool { highestSequence < next || items[next] != nil }

    var recordCount: Int { items.count }
    var highestSequence: RecordSequence { items.keys.max() ?? .zero }
}
