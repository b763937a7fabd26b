// Records that are not written: when a batch is closed, those of small writes whose bytes other records of the same batch have taken over
// (Core+Packing.swift). A batch reaches the disk as a whole or not at all, so nobody can miss them there. In staging they stay, because a
// successor of this process may find the batch before it is closed.

extension SegmentLog {
    /// The record that begins at `offset` of the open batch will not be written. Nothing of it may be live, and what took its place must be
    /// in the same batch. To be called with rising offsets.
    func leaveOut(recordAt offset: Int) {
        guard let slot = openSlot else { preconditionFailure("no batch is open") }
        let last = slots[slot]!.leftOut.last ?? 0
        precondition(offset > last && offset < slots[slot]!.recordByteCount, "records are left out in order")
        slots[slot]!.leftOut.append(offset)
    }

    /// The record area of a batch as it is written. While the batch is open that is the slot's.
    func recordArea(_ batch: Batch) -> UnsafeMutableRawBufferPointer {
        guard let image = batch.image else { return staging.recordArea(batch.slot) }
        return image.bytes.part(SegmentHeader.byteCount, image.bytes.count - SegmentHeader.byteCount)
    }

    /// Copies what is written of a batch that is being closed, and tells where inline payloads lie now.
    func leaveOut(_ batch: inout Batch) {
        let area = UnsafeRawBufferPointer(staging.recordArea(batch.slot))
        let rounded = (batch.recordByteCount + blockByteCount - 1) & ~(blockByteCount - 1)
        let image = AlignedBuffer(byteCount: SegmentHeader.byteCount + rounded)
        var end = BatchHeader.byteCount
        var next = 0
        var offset = BatchHeader.byteCount
        while offset < batch.recordByteCount {
            let length = Int(area.part(offset, Record.headerByteCount)[Record.layout.length])
            if next < batch.leftOut.count, batch.leftOut[next] == offset {
                next += 1
                batch.recordCount -= 1
                countLeftOut(length)
            } else {
                let bytes = area.part(offset, length)
                image.bytes.copy(bytes, to: SegmentHeader.byteCount + end)
                if end < offset { place(Record(trusting: bytes), of: batch, from: offset, at: end) }
                end += length
            }
            offset += length
        }
        precondition(next == batch.leftOut.count && batch.recordCount > 0, "what is left out are records, and not all")
        batch.recordByteCount = end
        batch.image = image
    }

    private func place(_ record: Record, of batch: Batch, from provisional: Int, at offset: Int) {
        record.forEachInlinePayload { payload, offsetInRecord in
            let start = batch.offset + offsetInRecord
            placePayload(payload, batch.segment, UInt32(start + provisional), UInt32(start + offset))
        }
    }
}
