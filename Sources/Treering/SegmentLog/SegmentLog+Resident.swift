// Reads from batches that still lie in staging, without the disk.

extension SegmentLog {
    /// The bytes at a place of the log, if their batch still lies in staging. Valid while the lock is held.
    ///
    /// Nobody verifies the checksum of these bytes. A slot keeps its batch long after that is durable, and the segment
    /// may have been recycled meanwhile. So the incarnation is compared. Within one incarnation each place is written
    /// once, by one batch.
    func resident(_ segmentID: SegmentID, _ position: UInt32, _ byteCount: Int) -> UnsafeRawBufferPointer? {
        for batch in slots {
            guard let batch, batch.segmentID == segmentID, Int(position) >= batch.offset,
                table.includes(batch.sequence, in: segmentID)
            else { continue }
            let offset = Int(position) - batch.offset
            if offset >= batch.payloadAreaOffset {
                let start = offset - batch.payloadAreaOffset
                guard start + byteCount <= batch.payloadBlockCount * blockByteCount else { continue }
                return UnsafeRawBufferPointer(staging.payloadArea(batch.slot).part(start, byteCount))
            }
            guard offset + byteCount <= batch.recordByteCount else { continue }
            return UnsafeRawBufferPointer(recordArea(batch).part(offset, byteCount))
        }
        return nil
    }

    /// Whether the batch at a place may not be written yet, so that it cannot be read from disk.
    func isPending(_ segmentID: SegmentID, _ position: UInt32) -> Bool {
        slots.contains { batch in
            guard let batch else { return false }
            return batch.segmentID == segmentID && batch.sequence > tracker.written && Int(position) >= batch.offset
        }
    }
}
