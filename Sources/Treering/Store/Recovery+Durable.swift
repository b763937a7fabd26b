// What a mount does after recovery and before it goes on: it makes the recovered log durable and voids what lies
// beyond.

extension Recovery {
    /// Decides which of the found staging continues the recovered log.
    func choose(_ allStaged: [StagedRecords]) -> StagingChoice {
        StagingChoice(allStaged, superblock, next: nextSequence, last: lastBatchEpoch)
    }

    /// Whether the log can go on in the segment where it ended: the segment is in use, not sealed, and no end was
    /// declared.
    var canContinueSegment: Bool {
        let segment = position.segment
        return table[segment].state == .inUse && table[segment].lastBatch == .zero && table[segment].end == 0
            && table.id(of: segment) == position.segmentID
    }

    /// Makes the recovered log durable, declares where the dead mount's log ends, and voids what lies beyond.
    func makeDurable(continuesSegment: Bool) throws(Errno) {
        // File names and segment headers that a killed mount wrote last may be visible but not durable yet.
        try device.syncDirectories()
        try removeUnfinishedFiles()
        try makingRoom { () throws(Errno) in try writeUnsettledBatches() }
        for number in walkedSegments { try device.wait(Submission(.sync, table[number].file!, tag: 0)) }
        for number in tornSegments where table[number].state != .inUse {
            try giveBack(number, table[number].file!, table[number].incarnation + 8)
        }
        for (number, segment) in headers.sorted(by: { $0.key < $1.key }) {
            // One may have been given back meanwhile.
            if table[number].state == .inUse || headers[number] == nil { continue }
            var header = segment.header
            if header.state == .inUse {
                // The dead mount opened it beyond the end of its log, or it holds nothing that is named.
                header.state = .free
                header.incarnation += 1
                header.firstBatch = .zero
                header.end = 0
                try makingRoom(besides: number) { () throws(Errno) in try rewrite(header, segment.file) }
            } else if header.incarnation > table[number].incarnation {
                // Recycled after the checkpoint. A tombstone may be swept only when that is durable. A flush is not
                // enough: one may have failed before, and the host may take the block for clean since. So the header is
                // written again.
                try makingRoom(besides: number) { () throws(Errno) in try rewrite(header, segment.file) }
            }
            if device.hole(in: segment.file, from: 0) != nil || device.isCopiedOnWrite(segment.file) {
                // Not fit for the head: it has holes (punched, or lost by a copy), or the host needs room to overwrite
                // it.
                try giveBack(number, segment.file, header.incarnation)
            } else {
                table.addPrepared(number, incarnation: header.incarnation, file: segment.file)
            }
        }
        let last = position.segment
        guard !continuesSegment, table[last].state == .inUse, table[last].lastBatch == .zero,
            var header = headers[last]?.header
        else { return }
        if header.end == 0 { header.end = position.offsetInSegment }
        try makingRoom { () throws(Errno) in try rewrite(header, table[last].file!) }
        table[last].end = header.end
        table[last].lastBatch = position.lastBatch
        table[last].isChanged = true
    }

    /// Removes files that were not finished. They are no part of the store.
    private func removeUnfinishedFiles() throws(Errno) {
        for file in try device.list() {
            switch file {
            case .preparing, .newIndex: try device.unlink(file)
            default: break
            }
        }
    }

    /// Gives the file of an empty segment back to the host. The table remembers the incarnation.
    private func giveBack(_ number: SegmentNumber, _ file: DeviceFile, _ incarnation: UInt32) throws(Errno) {
        forget(number)
        device.close(file)
        table.note(number, file: nil, incarnation: incarnation)
        table[number].isChanged = true
        try device.unlink(.segment(number))
    }

    /// Runs `body`. While it finds no room on the host, gives back a free segment and runs it again.
    private func makingRoom(
        besides own: SegmentNumber? = nil, _ body: () throws(Errno) -> Void
    ) throws(Errno) {
        while true {
            do throws(Errno) { return try body() } catch {
                let free = headers.filter { number, segment in
                    number != own && segment.header.state == .free && table[number].state == .absent
                }
                guard error == .noSpace, let (number, segment) = free.max(by: { $0.key < $1.key }) else { throw error }
                try giveBack(number, segment.file, segment.header.incarnation)
                try device.syncDirectories()
            }
        }
    }

    /// Writes the replayed batches once more that nothing says are durable. A flush may have failed under the killed
    /// mount; the host may since take the lost blocks for clean, and no other flush would write them. Each batch is
    /// read and verified again first: what the host shows may have changed to what lies on the disk.
    private func writeUnsettledBatches() throws(Errno) {
        for batch in unsettledBatches {
            let file = table[batch.segment].file!
            if batch.offset == SegmentHeader.byteCount, let header = headers[batch.segment]?.header {
                // The header was written together with the segment's first batch.
                try device.write(header, to: file)
            }
            let outcome = try reader.batch(
                in: table.id(of: batch.segment), file, at: batch.offset, verifyPayload: true)
            guard case .batch(let found) = outcome, found.checksum == batch.checksum else {
                log(
                    "batch \(batch.batch.rawValue) was whole a moment ago, and is not any more: the disk loses what was written"
                )
                throw .ioError
            }
            let bytes = UnsafeMutableRawBufferPointer(
                mutating: found.bytes.part(0, min(found.bytes.count, found.header.byteCount)))
            try device.wait(Submission(.write, file, offset: UInt64(batch.offset), bytes, tag: 0))
        }
    }

    private func rewrite(_ header: SegmentHeader, _ file: DeviceFile) throws(Errno) {
        try device.write(header, to: file)
        try device.wait(Submission(.sync, file, tag: 0))
    }
}
