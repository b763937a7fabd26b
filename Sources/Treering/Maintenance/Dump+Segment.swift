// One segment of the log in words: header, batches, records, changes. Reads a batch at a time.

extension Dump {
    /// A segment's header, batches, records and changes; what is broken or left over from an earlier incarnation is said to be so.
    static func segment(_ device: D, _ number: UInt32, _ line: @escaping (String) -> Void) throws(MountError) {
        let file: DeviceFile
        let name = StoreFile.segment(SegmentNumber(number))
        do throws(Errno) { file = try device.open(name, create: false) } catch {
            if error == .noEntry { throw MountError(.host, "the store has no segment \(number) (\(name.path))") }
            throw MountError("segment \(number) cannot be opened", error)
        }
        defer { device.close(file) }
        do throws(Errno) {
            try SegmentDump(Dump(device: device, line: line), SegmentNumber(number), file).run()
        } catch { throw MountError("segment \(number) cannot be read", error) }
    }

    /// A change for a person. `place` is where its record lies.
    static func describe(_ change: Change, _ place: RecordPlace, _ offset: Int) -> String {
        func since(_ since: BatchSequence) -> String { since == .zero ? "" : ", since \(since.rawValue)" }
        switch change {
        case .inode(let inode): return "inode \(inode.inode.rawValue): \(words(inode))"
        case .dirent(let directory, let cookie, let since_, let inode, let type, let name):
            return
                "directory \(directory.rawValue): \(name.quoted) is inode \(inode.rawValue), \(typeWord(UInt32(type) << 12)), "
                + "cookie \(cookie)\(since(since_))"
        case .removeDirent(let directory, let cookie, let since_):
            return "directory \(directory.rawValue): the name with cookie \(cookie) goes\(since(since_))"
        case .xattr(let inode, let cookie, let since_, let name, let value):
            return
                "inode \(inode.rawValue): attribute \(name.quoted) = \(words(value)), cookie \(cookie)\(since(since_))"
        case .removeXattr(let inode, let cookie, let since_):
            return "inode \(inode.rawValue): the attribute with cookie \(cookie) goes\(since(since_))"
        case .payload(let payload):
            let start =
                payload.isInline
                ? Int(place.recordPosition) + offset + payload.inlineOffset
                : Int(place.payloadAreaPosition) + Int(payload.position)
            let kind = payload.isInline ? "inline" : "in \(payload.blockCount) blocks"
            return "payload \(payload.id.rawValue): \(payload.length) bytes \(kind) at \(start)"
        case .extent(let inode, let offset, let payload, let payloadOffset, let count):
            return
                "inode \(inode.rawValue): bytes \(offset)..<\(offset + UInt64(count)) are payload \(payload.rawValue) from \(payloadOffset) on"
        case .reserve(let inode, let from, let to): return "inode \(inode.rawValue): bytes \(from)..<\(to) are reserved"
        case .removeRange(let inode, let from, let to, let since_):
            return "inode \(inode.rawValue): bytes \(from)..<\(to == .max ? "end" : "\(to)") go\(since(since_))"
        case .removeInode(let inode, let since_):
            return "inode \(inode.rawValue): it goes with all its entries\(since(since_))"
        case .orphan(let inode): return "inode \(inode.rawValue): it has no name any more"
        case .move(let move):
            let what = "moved, of record \(move.sequence.rawValue): "
            if case .payload(let payload) = move.change, !payload.isInline {
                return what
                    + "payload \(payload.id.rawValue): \(payload.length) bytes, \(payload.blockCount) blocks at \(payload.position) of segment \(move.blocksSegmentID.number.rawValue)"
            }
            return what + describe(move.change, place, offset + Change.moveOverheadByteCount)
        case .skipped: return "a change of an unknown type that may be skipped"
        }
    }
}

/// A walk through one segment file.
private struct SegmentDump<D: Device> {
    let dump: Dump<D>
    let number: SegmentNumber
    let file: DeviceFile
    var reader: BatchReader<D>
    /// No batch begins here or behind it: what the file holds, no more than a segment may.
    var end: Int
    var header: SegmentHeader?

    init(_ dump: Dump<D>, _ number: SegmentNumber, _ file: DeviceFile) throws(Errno) {
        self.dump = dump
        self.number = number
        self.file = file
        let fileByteCount = try dump.device.byteCount(of: file)
        dump.line("segment \(number.rawValue), \(StoreFile.segment(number).path), \(fileByteCount) bytes")
        var (uuid, size): (StoreUUID, Int)
        do throws(MountError) {
            let superblock = try SuperblockPair.read(dump.device).newest()
            uuid = superblock.blockUUID
            size = Int(superblock.segmentByteCount)
        } catch {
            dump.line("the superblock is of no help (\(error)); going by what the segment says of itself")
            (uuid, size) = (StoreUUID(high: 0, low: 0), 64 << 20)
            let block = AlignedBuffer(byteCount: SegmentHeader.byteCount)
            let completion = dump.device.perform(Submission(.read, file, offset: 0, block.bytes, tag: 0))
            if let error = completion.error { throw error }
            let bytes = UnsafeRawBufferPointer(block.bytes)
            if completion.result == SegmentHeader.byteCount {
                uuid = bytes[SegmentHeader.layout.uuid]
                let claimed = Int(bytes[SegmentHeader.layout.segmentByteCount])
                if claimed >= 1 << 20, claimed <= 64 << 20, claimed & (claimed - 1) == 0 { size = claimed }
            }
        }
        end = Int(min(UInt64(size), fileByteCount))
        if fileByteCount != UInt64(size) { dump.line("DAMAGED: the file should have \(size) bytes") }
        reader = BatchReader(device: dump.device, uuid: uuid, segmentByteCount: size)
        reader.passesHoles = true
        let bytes = try reader.bytes(file, 0, SegmentHeader.byteCount)
        do throws(CorruptionReport) {
            header = try SegmentHeader.decode(bytes, uuid: uuid, number: number, segmentByteCount: UInt32(size))
            dump.line(header == nil ? "header: zeros, the segment was never used" : "header: good")
        } catch { dump.line("header: DAMAGED: \(error.reason)") }
        if bytes.contains(where: { $0 != 0 }) { dump.fields(SegmentHeader.Layout.self, bytes) }
    }

    func run() throws(Errno) {
        var cursor = BatchCursor(reader, anyIncarnationOf: number, file, end: end)
        var toldEnd = header.map { $0.end == 0 } ?? true
        // Batches of an earlier incarnation may lie behind the last one of this.
        while cursor.offset < cursor.end {
            if !toldEnd, let header, cursor.offset >= Int(header.end) {
                dump.line("from \(header.end) on: void, recovery declared that the segment ends there")
                toldEnd = true
            }
            try tellAndPass(&cursor)
        }
    }

    /// Tells of what is at the cursor's place, and moves it behind that.
    private func tellAndPass(_ cursor: inout BatchCursor<D>) throws(Errno) {
        let offset = cursor.offset
        switch try cursor.read(verifyPayload: true) {
        case .nothing:
            let first = try reader.bytes(file, offset, blockByteCount)
            guard BatchHeader.claimedIncarnation(first) == nil else {
                dump.line("batch at \(offset): DAMAGED header, or one that belongs elsewhere")
                dump.fields(BatchHeader.Layout.self, first)
                return cursor.step()
            }
            try cursor.skip()
            dump.line("\(offset)..<\(cursor.offset): nothing that could be a batch")
        case .batch(let found):
            let text = Self.words(found.header, offset)
            if isLeftover(found.header) {
                dump.line("\(text), left over from incarnation \(found.header.incarnation)")
            } else {
                dump.line("\(text), header checksum 0x\(String(found.checksum, radix: 16))")
                if reader.holeCount > 0 {
                    dump.line("  \(reader.holeCount) of its payload blocks are zeros: punched, since they were dead")
                }
                records(found.bytes.part(0, Int(found.header.recordAreaByteCount)), found.header, offset)
            }
            cursor.pass(found.header)
        case .broken(let header, let reason):
            let text = "\(Self.words(header, offset)), DAMAGED: \(reason)"
            if isLeftover(header) {
                dump.line("\(text), left over from incarnation \(header.incarnation)")
                // What a later life overwrote says nothing of what follows it.
                return cursor.step()
            }
            dump.line(text)
            records(try reader.bytes(file, offset, Int(header.recordAreaByteCount)), header, offset)
            cursor.pass(header)
        }
    }

    private func isLeftover(_ batch: BatchHeader) -> Bool {
        header.map { $0.state == .free || $0.incarnation != batch.incarnation } ?? false
    }

    private static func words(_ header: BatchHeader, _ offset: Int) -> String {
        let kind = header.kind == .records ? "batch" : "reserved range, batch"
        let records =
            header.recordCount == 0
            ? "no records" : "records \(header.firstRecord.rawValue) to \(header.lastRecord.rawValue)"
        return
            "\(kind) \(header.sequence.rawValue) at \(offset)..<\(offset + header.byteCount), epoch \(header.epoch.rawValue), "
            + "\(records) in \(header.recordAreaByteCount) bytes, \(header.payloadBlockCount) payload blocks, "
            + "durable through \(header.durable.rawValue), next inode \(header.nextInode.rawValue)"
            + (header.endsSegment ? ", the last of the segment" : "")
    }

    /// Every record whose own checksum is right, as far as lengths lead.
    private func records(_ area: UnsafeRawBufferPointer, _ header: BatchHeader, _ offset: Int) {
        guard header.kind == .records else { return }
        var position = BatchHeader.byteCount
        for index in 0..<Int(header.recordCount) {
            guard position < area.count, let record = Record.decode(area.part(position, area.count - position)) else {
                dump.line(
                    "  record \(index) at \(offset + position): DAMAGED, and so is the way to the \(Int(header.recordCount) - index - 1) after it"
                )
                return
            }
            let place = RecordPlace(
                segment: number, recordPosition: UInt32(offset + position),
                payloadAreaPosition: UInt32(offset + header.payloadAreaOffset))
            show(record, place)
            position += record.bytes.count
        }
        if position != area.count { dump.line("  \(area.count - position) bytes after the last record: DAMAGED") }
    }

    private func show(_ record: Record, _ place: RecordPlace) {
        let text = "  record \(record.sequence.rawValue) at \(place.recordPosition), \(record.bytes.count) bytes"
        if let problem = record.validate() { return dump.line("\(text): DAMAGED: \(problem)") }
        if record.isSkipped { return dump.line("\(text): of an unknown type that may be skipped") }
        dump.line(text)
        record.forEachChange { change, offset, _ in dump.line("    \(Dump<D>.describe(change, place, offset))") }
    }
}
