// What a mount does with what recovery found before it goes on: it is made durable, and what lies beyond it is void.

extension Recovery {
    /// Tells apart the staging that was found, for the log as it was recovered.
    func choose(_ allStaged: [StagedRecords]) -> StagingChoice {
        StagingChoice(allStaged, superblock, next: nextSequence, last: lastBatchEpoch)
    }

    /// Whether the log can go on in the segment it ended in: after a clean unmount, if there is room for a batch.
    var canContinueSegment: Bool {
        let segment = position.segment
        return table[segment].state == .inUse && table[segment].lastBatch == .zero && table[segment].end == 0
            && table.id(of: segment) == position.segmentID
    }

    /// Makes what was recovered durable, declares where the dead mount's log ends, and voids what lies beyond.
    func makeDurable(continuesSegment: Bool) throws(Errno) {
        // A killed mount's last names and headers may be seen and not be durable yet.
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
                // Opened by the dead mount beyond the end of its log, or empty of anything that is still named.
                header.state = .free
                header.incarnation += 1
                header.firstBatch = .zero
                header.end = 0
                try makingRoom(besides: number) { () throws(Errno) in try rewrite(header, segment.file) }
            } else if header.incarnation > table[number].incarnation {
                // Recycled after the checkpoint: no tombstone may rely on that before it is durable. Written again and not only flushed:
                // a flush that failed before may have taken it for clean.
                try makingRoom(besides: number) { () throws(Errno) in try rewrite(header, segment.file) }
            }
            if device.hole(in: segment.file, from: 0) != nil || device.isCopiedOnWrite(segment.file) {
                // Punched, or copied by something that leaves zeros out, or of a host that needs room to overwrite: not fit for the head.
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

    /// Files that were not finished, and so are no part of the store.
    private func removeUnfinishedFiles() throws(Errno) {
        for file in try device.list() {
            switch file {
            case .preparing, .newIndex: try device.unlink(file)
            default: break
            }
        }
    }

    /// Gives the file of a segment that holds nothing back to the host; its incarnation is remembered.
    private func giveBack(_ number: SegmentNumber, _ file: DeviceFile, _ incarnation: UInt32) throws(Errno) {
        forget(number)
        device.close(file)
        table.note(number, file: nil, incarnation: incarnation)
        table[number].isChanged = true
        try device.unlink(.segment(number))
    }

    /// Does what finds no room on a full host again, as long as there are free segments to give back for it.
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

    /// Writes what was read once more. A flush may have failed under a mount that was killed then; the host may take what it lost for
    /// clean since, and no other flush would write it. Only what was verified and applied is written: what the host shows may
    /// have become what lies on the disk in the meantime.
    private func writeUnsettledBatches() throws(Errno) {
        for batch in unsettledBatches {
            let file = table[batch.segment].file!
            if batch.offset == SegmentHeader.byteCount, let header = headers[batch.segment]?.header {
                // A segment's header came with its first batch.
                try write(header, file)
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

    private func write(_ header: SegmentHeader, _ file: DeviceFile) throws(Errno) {
        let block = AlignedBuffer(byteCount: SegmentHeader.byteCount)
        header.encode(into: block.bytes)
        try device.wait(Submission(.write, file, offset: 0, block.bytes, tag: 0))
    }

    private func rewrite(_ header: SegmentHeader, _ file: DeviceFile) throws(Errno) {
        try write(header, file)
        try device.wait(Submission(.sync, file, tag: 0))
    }
}
