// What of the log is still in memory, in the slots of staging: reads are answered from there without a look at the disk.

extension SegmentLog {
    /// The bytes at a place of the log, if the batch that holds them still lies in staging. Valid under the lock.
    ///
    /// They are served without a look at their checksum, so they must not be of another incarnation of the segment: a slot keeps its batch for long
    /// after that is durable. Within one incarnation a place is written once, by one batch.
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

    /// Whether what lies at a place, or will, is not known to be written yet.
    func isPending(_ segmentID: SegmentID, _ position: UInt32) -> Bool {
        slots.contains { batch in
            guard let batch else { return false }
            return batch.segmentID == segmentID && batch.sequence > tracker.written && Int(position) >= batch.offset
        }
    }
}
