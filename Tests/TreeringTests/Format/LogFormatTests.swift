// Records, batch headers, segment headers, superblocks: what is encoded is decoded again, and no bytes whatever, with right
// checksums or wrong ones, make a decoder trap.

import Testing

@testable import Treering

@Suite struct LogFormatTests {
    private static let uuid = StoreUUID(high: 0x0102_0304_0506_0708, low: 0x090A_0B0C_0D0E_0F10)

    private static func time(_ number: Int64) -> Timestamp { Timestamp(seconds: number, nanoseconds: 999_999_999) }

    private static func inode(_ number: UInt64) -> InodeRecord {
        var inode = InodeRecord(
            inode: InodeNumber(number), mode: 0o100644, linkCount: 2, uid: 3, gid: 4, deviceNumber: 5, size: 6,
            since: BatchSequence(7), now: time(-8))
        inode.parent = InodeNumber(9)
        inode.modified = time(1 << 40)
        return inode
    }

    /// One record with every kind of change, its payload inline or in blocks.
    private static func record(payloadByteCount: Int, large: Bool = false) -> [UInt8] {
        var writer = RecordWriter(capacity: 16 << 10)
        let name = AlignedBuffer(byteCount: 4096)
        name.bytes.initializeMemory(as: UInt8.self, repeating: 0x61)
        let payload = AlignedBuffer(byteCount: max(1, payloadByteCount))
        payload.bytes.initializeMemory(as: UInt8.self, repeating: 0x5A)
        writer.inode(inode(20))
        writer.dirent(
            directory: InodeNumber(1), cookie: 256, since: .zero, inode: InodeNumber(20), mode: 0o100644,
            name: UnsafeRawBufferPointer(name.bytes).part(0, 255))
        writer.removeDirent(directory: InodeNumber(1), cookie: 512, since: BatchSequence(3))
        writer.payload(UnsafeRawBufferPointer(payload.bytes).part(0, payloadByteCount))
        if large {
            writer.xattr(
                inode: InodeNumber(20), cookie: 128, since: .zero, name: UnsafeRawBufferPointer(name.bytes).part(0, 10),
                value: UnsafeRawBufferPointer(payload.bytes).part(0, payloadByteCount), inPayload: true)
        } else {
            writer.extent(inode: InodeNumber(20), offset: 1 << 40, byteCount: UInt32(payloadByteCount))
        }
        writer.xattr(
            inode: InodeNumber(20), cookie: 256, since: .zero, name: UnsafeRawBufferPointer(name.bytes).part(0, 1),
            value: UnsafeRawBufferPointer(name.bytes).part(0, 1024), inPayload: false)
        writer.removeXattr(inode: InodeNumber(20), cookie: 128, since: BatchSequence(1))
        writer.removeRange(inode: InodeNumber(20), from: 5, to: .max, since: BatchSequence(1))
        writer.removeInode(InodeNumber(21), since: BatchSequence(1))
        writer.orphan(InodeNumber(22))
        writer.complete(sequence: RecordSequence(77), payloadPosition: 8192)
        Record.seal(writer.bytes, changeCount: writer.changeCount, sequence: RecordSequence(77))
        return Array(writer.bytes)
    }

    @Test(arguments: [1, 3072, 3073, 1 << 20])
    func recordsSayWhatWasWritten(payloadByteCount: Int) {
        Self.record(payloadByteCount: payloadByteCount).withUnsafeBytes { bytes in
            let record = Record.decode(bytes)
            #expect(record?.sequence == RecordSequence(77))
            #expect(record?.validate() == nil)
            var kinds: [String] = []
            record?.forEachChange { change, _, _ in
                switch change {
                case .inode(let inode):
                    kinds.append("inode")
                    #expect(inode == Self.inode(20))
                case .dirent(let directory, let cookie, _, let inode, let type, let name):
                    kinds.append("dirent")
                    #expect(
                        directory == .root && cookie == 256 && inode.rawValue == 20 && type == 8 && name.count == 255)
                case .payload(let payload):
                    kinds.append("payload")
                    #expect(payload.id.rawValue == 77 && payload.length == payloadByteCount)
                    #expect(payload.isInline == (payloadByteCount <= PayloadRecord.inlineByteCountLimit))
                    #expect(payload.isInline || payload.position == 8192)
                case .extent(let inode, let offset, let payload, let payloadOffset, let count):
                    kinds.append("extent")
                    #expect(inode.rawValue == 20 && offset == 1 << 40 && payload.rawValue == 77)
                    #expect(payloadOffset == 0 && Int(count) == payloadByteCount)
                case .removeRange(_, let from, let to, _):
                    kinds.append("removeRange")
                    #expect(from == 5 && to == .max)
                default: kinds.append("other")
                }
            }
            #expect(
                kinds == [
                    "inode", "dirent", "other", "payload", "extent", "other", "other", "removeRange", "other", "other",
                ])
        }
    }

    // MARK: Hostile bytes

    /// Changes some bytes, lengths mostly, and puts the checksum right again.
    private static func mutated(_ bytes: [UInt8], _ random: inout SimulatedRandom) -> [UInt8] {
        var bytes = bytes
        for _ in 0...random.next() % 4 {
            let place = Int(random.next() % UInt64(bytes.count))
            switch random.next() % 4 {
            case 0: bytes[place] = UInt8(truncatingIfNeeded: random.next())
            case 1: bytes[place] ^= 1 << UInt8(random.next() % 8)
            case 2: bytes[place] = 0xFF
            default:
                for index in place..<min(bytes.count, place + 8) { bytes[index] = random.next() % 2 == 0 ? 0 : 0xFF }
            }
        }
        return bytes
    }

    private static func seal(_ bytes: inout [UInt8], _ checksum: Field<UInt32>) {
        bytes.withUnsafeMutableBytes { _ = $0.seal(checksum) }
    }

    @Test(arguments: [false, true])
    func mutatedRecordsNeverTrap(large: Bool) {
        var random = SimulatedRandom(seed: 5)
        let originals = [
            Self.record(payloadByteCount: 10, large: large), Self.record(payloadByteCount: 20_000, large: large),
        ]
        var validCount = 0
        for round in 0..<20_000 {
            var bytes = Self.mutated(originals[round % 2], &random)
            // The length belongs to what is checked: keep it, or the checksum cannot be made right.
            bytes.withUnsafeMutableBytes { $0[Record.layout.length] = UInt32($0.count) }
            Self.seal(&bytes, Record.layout.checksum)
            bytes.withUnsafeBytes { bytes in
                guard let record = Record.decode(bytes), record.validate() == nil, !record.isSkipped else { return }
                validCount += 1
                var byteCount = 0
                record.forEachChange { change, _, length in
                    byteCount += length
                    if case .payload(let payload) = change { _ = Checksum.crc32c(payload.inlineBytes) }
                }
                #expect(byteCount + Record.headerByteCount == bytes.count)
            }
        }
        #expect(validCount > 100)
    }

    @Test func recordsCutAnywhereAreNone() {
        let whole = Self.record(payloadByteCount: 100)
        for count in 0..<whole.count {
            Array(whole[0..<count]).withUnsafeBytes { #expect(Record.decode($0) == nil) }
        }
    }

    @Test func mutatedBatchHeadersNeverTrap() {
        let header = BatchHeader(
            endsSegment: true, uuid: Self.uuid, segment: SegmentNumber(3), incarnation: 4, epoch: MountEpoch(5),
            sequence: BatchSequence(6), previousChecksum: 7, recordsChecksum: 8, recordAreaByteCount: 9000,
            recordCount: 10,
            payloadBlockCount: 11, firstRecord: RecordSequence(12), lastRecord: RecordSequence(13),
            nextInode: InodeNumber(14), durable: BatchSequence(15))
        var original = [UInt8](repeating: 0, count: BatchHeader.byteCount)
        let checksum = original.withUnsafeMutableBytes { header.encode(into: $0) }
        func decode(_ bytes: [UInt8], room: Int = 1 << 20) -> (header: BatchHeader, checksum: UInt32)? {
            bytes.withUnsafeBytes {
                BatchHeader.decode($0, uuid: Self.uuid, in: SegmentID(SegmentNumber(3), 4), room: room)
            }
        }
        let found = decode(original)
        #expect(found?.header == header && found?.checksum == checksum)
        #expect(decode(original, room: header.byteCount - 1) == nil)
        #expect(decode(Array(original.dropLast())) == nil)
        var random = SimulatedRandom(seed: 6)
        for _ in 0..<20_000 {
            var bytes = Self.mutated(original, &random)
            Self.seal(&bytes, BatchHeader.layout.checksum)
            if let found = decode(bytes) { #expect(found.header.byteCount <= 1 << 20) }
        }
    }

    @Test func mutatedSegmentHeadersNeverTrap() throws {
        let header = SegmentHeader(
            state: .inUse, role: .cold, uuid: Self.uuid, number: SegmentNumber(3), incarnation: 4, epoch: MountEpoch(5),
            firstBatch: BatchSequence(6), segmentByteCount: 1 << 20, end: 8192)
        var original = [UInt8](repeating: 0, count: SegmentHeader.byteCount)
        original.withUnsafeMutableBytes { header.encode(into: $0) }
        func decode(_ bytes: [UInt8]) throws(CorruptionReport) -> SegmentHeader? {
            let memory = AlignedBuffer(byteCount: bytes.count)
            memory.bytes.copyBytes(from: bytes)
            return try SegmentHeader.decode(
                UnsafeRawBufferPointer(memory.bytes).part(0, bytes.count), uuid: Self.uuid, number: SegmentNumber(3),
                segmentByteCount: 1 << 20)
        }
        #expect(try decode(original) == header)
        #expect(try decode([UInt8](repeating: 0, count: 4096)) == nil)
        var random = SimulatedRandom(seed: 7)
        for _ in 0..<5000 {
            var bytes = original
            let used = 0..<SegmentHeader.layout.hashKey.offset
            bytes.replaceSubrange(used, with: Self.mutated(Array(original[used]), &random))
            Self.seal(&bytes, SegmentHeader.layout.checksum)
            if let found = try? decode(bytes) { #expect(found.end <= 1 << 20) }
        }
    }

    @Test func mutatedSuperblocksNeverTrap() throws {
        var superblock = Superblock(
            uuid: Self.uuid, generation: 1, epoch: MountEpoch(2), isClean: true, capacityByteCount: 64 << 20,
            segmentByteCount: 1 << 20, hashKey: StoreUUID(high: 3, low: 4), nextInode: InodeNumber(5),
            highestSequence: RecordSequence(6), checkpoint: CheckpointNumber(7),
            position: LogPosition(
                lastBatch: BatchSequence(8), lastChecksum: 9, segment: SegmentNumber(10), incarnation: 11,
                offsetInSegment: 12288),
            formattedSeconds: -13, inodeCount: 14, checkpointEpoch: MountEpoch(15),
            indexRoot: IndexRoot(
                checkpoint: CheckpointNumber(7), page: PagePointer(address: PageAddress(3), birth: CheckpointNumber(6)),
                level: 1, entryCount: 20, pageCount: 128, usedPageCount: 6, bitmap: PageAddress(4)))
        superblock.staging = StagingHistory(
            void: MountEpoch(21), passed: MountEpoch(22), next: RecordSequence(23), passedCount: 24)
        var original = [UInt8](repeating: 0, count: Superblock.slotByteCount)
        original.withUnsafeMutableBytes { superblock.encode(into: $0) }
        func decode(_ bytes: [UInt8]) throws(Superblock.Refusal) -> Superblock {
            let memory = AlignedBuffer(byteCount: bytes.count)
            memory.bytes.copyBytes(from: bytes)
            return try Superblock(decoding: UnsafeRawBufferPointer(memory.bytes).part(0, bytes.count))
        }
        #expect(try decode(original) == superblock)
        // One that an earlier version wrote does not say which staging is void.
        var earlier = original
        let field = Superblock.layout
        earlier.withUnsafeMutableBytes {
            $0.zero(field.stagingVoid.offset, field.stagingTaking.offset - field.stagingVoid.offset)
        }
        Self.seal(&earlier, field.checksum)
        #expect(try decode(earlier).staging == StagingHistory())
        #expect(throws: Superblock.Refusal.foreign) { try decode([UInt8](repeating: 0, count: 4096)) }
        #expect(throws: Superblock.Refusal.self) { try decode(Array(original.prefix(512))) }
        var random = SimulatedRandom(seed: 8)
        for _ in 0..<5000 {
            var bytes = original
            let used = 0..<field.stagingTaking.offset
            bytes.replaceSubrange(used, with: Self.mutated(Array(original[used]), &random))
            Self.seal(&bytes, field.checksum)
            if let found = try? decode(bytes) {
                #expect(found.segmentCountLimit >= 8)
                #expect(Int(found.position.segment.rawValue) < found.segmentCountLimit)
            }
        }
    }
}
