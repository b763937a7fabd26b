// The bytes of one structure of each kind, by their checksum: they may only change with a new version of the format.

import Testing

@testable import Treering

@Suite struct GoldenBytesTests {
    private static let uuid = StoreUUID(high: 0x0102_0304_0506_0708, low: 0x090A_0B0C_0D0E_0F10)
    private static let inode: InodeRecord = {
        var inode = InodeRecord(
            inode: InodeNumber(20), mode: 0o100644, linkCount: 2, uid: 3, gid: 4, deviceNumber: 5, size: 6,
            since: BatchSequence(7), now: Timestamp(seconds: -8, nanoseconds: 9))
        inode.flags = 10
        inode.modified = Timestamp(seconds: 1 << 40, nanoseconds: 11)
        inode.changed = Timestamp(seconds: 12, nanoseconds: 999_999_999)
        inode.born = Timestamp(seconds: 13, nanoseconds: 14)
        inode.parent = InodeNumber(15)
        return inode
    }()
    private static let origin = Origin(sequence: RecordSequence(101), segment: SegmentNumber(102))

    /// The checksum of what `encode` writes over bytes that are not zero; it gives how many there are.
    private func sum(_ encode: (UnsafeMutableRawBufferPointer) -> Int) -> String {
        let buffer = AlignedBuffer(byteCount: 16_384)
        for index in buffer.bytes.indices { buffer.bytes[index] = 0xA5 }
        let count = encode(buffer.bytes)
        return String(Checksum.crc32c(UnsafeRawBufferPointer(buffer.bytes.part(0, count))), radix: 16)
    }

    @Test func superblock() {
        let sum = sum { bytes in
            var superblock = Superblock(
                uuid: Self.uuid, generation: 1, epoch: MountEpoch(2), isClean: true, capacityByteCount: 64 << 20,
                segmentByteCount: 1 << 20, hashKey: StoreUUID(high: 3, low: 4), nextInode: InodeNumber(5),
                highestSequence: RecordSequence(6), checkpoint: CheckpointNumber(7),
                position: LogPosition(
                    lastBatch: BatchSequence(8), lastChecksum: 9, segment: SegmentNumber(10), incarnation: 11,
                    offsetInSegment: 12288),
                formattedSeconds: -13, inodeCount: 14, checkpointEpoch: MountEpoch(15),
                indexRoot: IndexRoot(
                    checkpoint: CheckpointNumber(7),
                    page: PagePointer(address: PageAddress(3), birth: CheckpointNumber(6)), level: 1, entryCount: 20,
                    pageCount: 128, usedPageCount: 6, bitmap: PageAddress(4)))
            superblock.ownBlockUUID = StoreUUID(high: 16, low: 17)
            superblock.bootID = StoreUUID(high: 18, low: 19)
            superblock.stagingIdentity = 25
            superblock.reservedByteCount = 26
            superblock.written = WrittenByteCounts(asked: 27, moved: 28)
            superblock.sharedByteCount = 29
            superblock.compatibleFeatures = 30
            superblock.readOnlyCompatibleFeatures = 31
            superblock.staging = StagingHistory(
                void: MountEpoch(21), passed: MountEpoch(22), next: RecordSequence(23), passedCount: 24,
                taking: MountEpoch(32))
            superblock.encode(into: bytes.part(0, Superblock.slotByteCount))
            return Superblock.slotByteCount
        }
        #expect(sum == "332a94be")
    }

    @Test func log() {
        let segment = sum { bytes in
            var header = SegmentHeader(
                state: .inUse, role: .cold, uuid: Self.uuid, number: SegmentNumber(3), incarnation: 4,
                epoch: MountEpoch(5), firstBatch: BatchSequence(6), segmentByteCount: 1 << 20, end: 8192)
            header.forSuperblock = .init(hashKey: StoreUUID(high: 7, low: 8), capacityByteCount: 9)
            header.encode(into: bytes.part(0, SegmentHeader.byteCount))
            return SegmentHeader.byteCount
        }
        #expect(segment == "94f8c3a5")
        let batch = sum { bytes in
            let header = BatchHeader(
                kind: .reservedRange, endsSegment: true, uuid: Self.uuid, segment: SegmentNumber(3), incarnation: 4,
                epoch: MountEpoch(5), sequence: BatchSequence(6), previousChecksum: 7, recordsChecksum: 8,
                recordAreaByteCount: 9000, recordCount: 10, payloadBlockCount: 11, firstRecord: RecordSequence(12),
                lastRecord: RecordSequence(13), nextInode: InodeNumber(14), durable: BatchSequence(15),
                salvagedChecksum: 16)
            header.encode(into: bytes.part(0, BatchHeader.byteCount))
            return BatchHeader.byteCount
        }
        #expect(batch == "eecb045c")
        let run = sum { bytes in
            RunHeader.encode(
                [PayloadID(1), PayloadID(2)], blockCount: 3, uuid: Self.uuid, in: SegmentID(SegmentNumber(4), 5),
                into: bytes.part(0, RunHeader.byteCount))
            return RunHeader.byteCount
        }
        #expect(run == "12efdf17")
        let staging = sum { bytes in
            StagingHeader(
                uuid: Self.uuid, epoch: MountEpoch(1), generation: 2, device: 3, directory: 4,
                bootID: StoreUUID(high: 5, low: 6), owner: 7, identity: 8,
                geometry: StagingGeometry(stagingByteCount: 1 << 20, segmentByteCount: 1 << 20),
                path: Array("/a/store".utf8)
            ).encode(into: bytes)
            return StagingLayout.headerByteCount
        }
        #expect(staging == "f1516d79")
    }

    /// A record with every kind of change.
    @Test func record() {
        let name = Array("name".utf8)
        let sum = sum { bytes in
            name.withUnsafeBytes { name in
                var writer = RecordWriter(capacity: 8192)
                writer.inode(Self.inode)
                writer.dirent(
                    directory: .root, cookie: 256, since: BatchSequence(1), inode: InodeNumber(20), mode: 0o100644,
                    name: name)
                writer.removeDirent(directory: .root, cookie: 512, since: BatchSequence(3))
                writer.payload(name)
                writer.extent(inode: InodeNumber(20), offset: 1 << 40, byteCount: 4)
                writer.xattr(
                    inode: InodeNumber(20), cookie: 384, since: .zero, name: name, value: name, inPayload: false)
                writer.xattr(
                    inode: InodeNumber(20), cookie: 640, since: .zero, name: name, value: name, inPayload: true)
                writer.removeXattr(inode: InodeNumber(20), cookie: 128, since: BatchSequence(1))
                writer.removeRange(inode: InodeNumber(20), from: 5, to: .max, since: BatchSequence(1))
                writer.reserve(inode: InodeNumber(20), from: 4096, to: 8192)
                writer.removeInode(InodeNumber(21), since: BatchSequence(2))
                writer.orphan(InodeNumber(22))
                writer.complete(sequence: RecordSequence(77), payloadPosition: 8192)
                writer.move(RecordSequence(70), word: 80) {
                    $0.extent(
                        inode: InodeNumber(23), offset: 1, payload: PayloadID(60), payloadOffset: 2, byteCount: 3)
                }
                Record.seal(writer.bytes, changeCount: writer.changeCount, sequence: RecordSequence(77))
                bytes.copy(UnsafeRawBufferPointer(writer.bytes), to: 0)
                return writer.byteCount
            }
        }
        #expect(sum == "1ec393d4")
    }

    @Test func entries() {
        let name = Array("name".utf8)
        let sums = name.withUnsafeBytes { name in
            [
                sum {
                    InodeEntry(origin: Self.origin, record: Self.inode, derived: 3).encode(into: $0)
                    return InodeEntry.byteCount
                },
                sum {
                    let entry = DirentEntry(
                        origin: Self.origin, type: 8, since: BatchSequence(1), inode: InodeNumber(2), name: name)
                    entry.encode(into: $0)
                    return entry.byteCount
                },
                sum {
                    let entry = XattrEntry(
                        origin: Self.origin, since: BatchSequence(1), name: name, value: .inline(name))
                    entry.encode(into: $0)
                    return entry.byteCount
                },
                sum {
                    ExtentEntry(origin: Self.origin, length: 1, payload: PayloadID(2), payloadOffset: 3).encode(
                        into: $0)
                    return ExtentEntry.byteCount
                },
                sum {
                    let payload = PayloadRecord(
                        id: PayloadID(3), isInline: true, length: 5000, position: 4096, checksums: name,
                        inlineBytes: name)
                    return PayloadEntry.encode(
                        payload, origin: Self.origin, blocksSegment: SegmentNumber(1), position: 8192, named: false,
                        into: $0)
                },
                sum {
                    UsageEntry(
                        firstBatch: BatchSequence(1), lastBatch: BatchSequence(2), epoch: MountEpoch(3), live: -4,
                        incarnation: 5, end: 6, state: .inUse, role: .cold
                    ).encode(into: $0)
                    return UsageEntry.byteCount
                },
                sum {
                    TombstoneEntry(
                        origin: Self.origin, charge: 1, since: BatchSequence(2), until: BatchSequence(3), from: 4, to: 5
                    ).encode(into: $0)
                    return TombstoneEntry.byteCount
                },
                sum {
                    RemovalEntry(from: 1, to: 2).encode(into: $0)
                    return RemovalEntry.byteCount
                },
            ]
        }
        #expect(sums.joined(separator: " ") == "506d36e3 e88e7d8a f998146 3e08b282 8ac2beca 56770ec7 7b4fdfd5 22046d5a")
    }

    @Test func pages() {
        let pointer = PagePointer(address: PageAddress(5), birth: CheckpointNumber(6))
        let leaf = sum { bytes in
            let page = IndexPage(bytes.baseAddress!)
            page.format(uuid: Self.uuid, pointer: pointer, level: 0)
            let value = Array("a value".utf8)
            for number in 1...3 as ClosedRange<UInt64> {
                let key = IndexKey(space: .tree, object: number << 31, kind: .dirent, subkey: number << 40)
                value.withUnsafeBytes { page.insertValue(page.count, key, $0.part(0, Int(number))) }
                page.noteInsertion(page.count - 1)
            }
            page.removeValue(1)
            page.seal()
            return IndexPage.byteCount
        }
        let inner = sum { bytes in
            let page = IndexPage(bytes.baseAddress!)
            page.format(uuid: Self.uuid, pointer: pointer, level: 1)
            page.insertChild(0, .min, PagePointer(address: PageAddress(7), birth: CheckpointNumber(1)))
            page.insertChild(
                1, IndexKey(space: .usage, object: 8, kind: .usage, subkey: 9),
                PagePointer(address: PageAddress(10), birth: CheckpointNumber(2)))
            page.seal()
            return IndexPage.byteCount
        }
        let bitmap = sum { bytes in
            let page = IndexBitmapPage(bytes.baseAddress!)
            page.format(uuid: Self.uuid, pointer: pointer, next: PageAddress(11), ordinal: 12)
            page.setWord(13, 14)
            page.page.seal()
            return IndexPage.byteCount
        }
        #expect([leaf, inner, bitmap].joined(separator: " ") == "5a066935 9abd4799 6b984c37")
    }
}
