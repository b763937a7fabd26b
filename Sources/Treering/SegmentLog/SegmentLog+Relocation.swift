// Relocation after a failed write or flush: the batches that are not durable get places in fresh segments and are
// written again. Housekeeper+Relocation.swift drives it.
//
// Contract: a slot is used again only when its batch is durable, and batches become durable in order. So everything
// that was acknowledged and is not durable lies in staging. A failure loses nothing as long as some place of the store
// can be written.

extension SegmentLog {
    /// The batches to write again, in order. The log must be suspended, with no write or flush in flight.
    var undurableBatches: [Batch] {
        precondition(suspension != nil && tracker.inFlightCount == 0)
        let batches = slots.compactMap { $0 }.filter { $0.sequence > tracker.durable }
            .sorted { $0.sequence < $1.sequence }
        precondition(batches.count == Int(lastBatch.rawValue - tracker.durable.rawValue), "a batch has left its slot")
        return batches
    }

    /// A closed batch as it lies in its slot, with its present place in the log.
    func found(_ batch: Batch) -> FoundBatch {
        let area = recordArea(batch)
        guard
            let (header, checksum) = BatchHeader.decode(
                UnsafeRawBufferPointer(area), uuid: uuid,
                in: SegmentID(batch.segment, area[BatchHeader.layout.incarnation]),
                room: staging.geometry.batchByteCountLimit)
        else { preconditionFailure("a closed batch without a header") }
        return FoundBatch(
            header: header, checksum: checksum, offset: batch.offset,
            bytes: UnsafeRawBufferPointer(area).part(0, batch.payloadAreaOffset))
    }

    /// Gives a batch its new place, behind `position` or, if `beginsSegment`, at the start of `position.segment`.
    /// Copies its records to `front`, with room for a segment header before them. The slot in staging does not change,
    /// so a successor still finds the batch.
    func move(
        _ batch: inout Batch, behind position: LogPosition, beginsSegment: Bool, durable: BatchSequence,
        to front: UnsafeMutableRawBufferPointer
    ) -> FoundBatch {
        var found = found(batch)
        batch.segmentID = position.segmentID
        batch.offset = Int(position.offsetInSegment)
        batch.beginsSegment = beginsSegment
        front.copy(found.bytes, to: SegmentHeader.byteCount)
        found.bytes = UnsafeRawBufferPointer(front.part(SegmentHeader.byteCount, batch.payloadAreaOffset))
        found.offset = batch.offset
        found.header.segment = position.segment
        found.header.incarnation = position.incarnation
        found.header.previousChecksum = position.lastChecksum
        found.header.durable = durable
        let end = batch.offset + batch.byteCount
        found.header.endsSegment = end + staging.geometry.batchByteCountLimit > table.segmentByteCount
        return found
    }

    /// Writes the header of a batch whose records at `front` are final, and moves `position` behind the batch.
    func seal(
        _ batch: Batch, _ found: FoundBatch, behind position: inout LogPosition, at front: UnsafeMutableRawBufferPointer
    ) {
        var header = found.header
        header.recordsChecksum = Checksum.crc32c(
            found.bytes.part(BatchHeader.byteCount, batch.recordByteCount - BatchHeader.byteCount))
        position.lastChecksum = header.encode(into: front.part(SegmentHeader.byteCount, BatchHeader.byteCount))
        position.lastBatch = batch.sequence
        position.offsetInSegment = UInt32(batch.offset + batch.byteCount)
    }

    /// Ends the suspension: all batches are durable at their new places. The log goes on at `position`, in the same
    /// segment if `continuesSegment`.
    func resume(
        _ batches: [Batch], _ table: SegmentTable, at position: LogPosition, continuesSegment: Bool,
        _: borrowing Telling
    ) {
        for batch in batches { slots[batch.slot] = batch }
        self.table = table
        self.position = position
        head = continuesSegment ? position.segment : nil
        tracker = DurabilityTracker(through: position.lastBatch)
        suspension = nil
    }
}
