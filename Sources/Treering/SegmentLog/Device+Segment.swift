// How the file of a segment is made, and how its header is written.

extension Device {
    /// Makes the file of a free segment. It is written with zeros and durable before it gets its name, so a segment
    /// file is always whole and the host need not allocate blocks for it later.
    func makeSegment(
        _ number: SegmentNumber, _ uuid: StoreUUID, _ incarnation: UInt32, _ byteCount: Int
    ) throws(Errno) -> DeviceFile {
        try? unlink(.preparing(number))
        let file = try open(.preparing(number), create: true)
        do {
            try self.resize(file, to: UInt64(byteCount))
            let buffer = AlignedBuffer(byteCount: min(byteCount, 1 << 20))
            buffer.bytes.zero(0, buffer.bytes.count)
            let header = SegmentHeader(
                state: .free, uuid: uuid, number: number, incarnation: incarnation, epoch: MountEpoch(0),
                firstBatch: .zero, segmentByteCount: UInt32(byteCount))
            for offset in stride(from: byteCount - buffer.bytes.count, through: 0, by: -buffer.bytes.count) {
                if offset == 0 { header.encode(into: buffer.bytes.part(0, SegmentHeader.byteCount)) }
                try wait(Submission(.write, file, offset: UInt64(offset), buffer.bytes, tag: 0))
            }
            try wait(Submission(.sync, file, tag: 0))
            try rename(.preparing(number), to: .segment(number))
            try syncDirectories()
        } catch {
            close(file)
            throw error
        }
        return file
    }

    /// Writes the header of a segment. A sync makes it durable.
    func write(_ header: SegmentHeader, to file: DeviceFile) throws(Errno) {
        let block = AlignedBuffer(byteCount: SegmentHeader.byteCount)
        header.encode(into: block.bytes)
        try wait(Submission(.write, file, offset: 0, block.bytes, tag: 0))
    }
}
