// Every field of every structure on disk with values that nobody wrote: a decoder refuses them, or what it gives is within its bounds.

import Testing

@testable import Treering

@Suite struct EntryCheckTests {
    private static let values: [UInt64] = [
        0, 1, 2, 255, 1 << 31 - 1, 1 << 31, 1 << 32 - 1, 1 << 32, 1 << 62, 1 << 63 - 1, 1 << 63, UInt64.max - 99, .max,
    ]
    private static let uuid = StoreUUID(high: 1, low: 2)

    /// Calls `body` with each variant: a field of any width at any place has one of the values.
    private func forEachVariant(
        _ original: [UInt8], from first: Int = 0, _ body: (UnsafeMutableRawBufferPointer) -> Void
    ) {
        for width in [1, 2, 4, 8] {
            for offset in stride(from: first, through: original.count - width, by: min(width, 4)) {
                for value in Self.values {
                    var bytes = original
                    for index in 0..<width {
                        bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
                    }
                    bytes.withUnsafeMutableBytes { body($0) }
                }
            }
        }
    }

    private func change(_ write: (inout RecordWriter) -> Void) -> [UInt8] {
        var writer = RecordWriter(capacity: 4096)
        write(&writer)
        writer.complete(sequence: RecordSequence(7), payloadPosition: 0)
        Record.seal(writer.bytes, changeCount: writer.changeCount, sequence: RecordSequence(7))
        return Array(writer.bytes.dropFirst(Record.headerByteCount))
    }

    @Test func everyFieldOfEveryChange() {
        let name = Array("name".utf8)
        let root = InodeNumber.root
        let time = Timestamp(seconds: 1, nanoseconds: 2)
        name.withUnsafeBytes { name in
            let inode = InodeRecord(
                inode: InodeNumber(9), mode: 0o100644, linkCount: 1, uid: 0, gid: 0, deviceNumber: 0, size: 5,
                since: .zero, now: time)
            let changes = [
                change { $0.inode(inode) },
                change {
                    $0.dirent(
                        directory: root, cookie: 256, since: .zero, inode: inode.inode, mode: inode.mode, name: name)
                },
                change { $0.removeDirent(directory: root, cookie: 256, since: .zero) },
                change {
                    $0.xattr(inode: root, cookie: 256, since: .zero, name: name, value: name, inPayload: false)
                },
                change { $0.removeXattr(inode: root, cookie: 256, since: .zero) },
                change { $0.removeRange(inode: root, from: 0, to: 4096, since: .zero) },
                change { $0.removeInode(inode.inode, since: .zero) }, change { $0.orphan(inode.inode) },
                change { $0.reserve(inode: root, from: 0, to: 4096) },
            ]
            var decodedCount = 0
            for bytes in changes {
                forEachVariant(bytes) { bytes in
                    guard let change = Record.decodeChange(UnsafeRawBufferPointer(bytes)) else { return }
                    decodedCount += 1
                    expectPossible(change)
                }
            }
            #expect(decodedCount > 1000)
        }
    }

    private func expectPossible(_ change: Change) {
        switch change {
        case .inode(let inode):
            #expect(inode.isPossible && inode.size <= UInt64(Int64.max) && inode.linkCount <= UInt32(Int32.max))
        case .dirent(let directory, let cookie, _, let inode, let type, let name):
            #expect(directory.rawValue < counterLimit && inode.isPossible && cookie <= UInt64(Int64.max))
            #expect(InodeRecord.isType(UInt32(type)) && NameCheck.isName(name))
        case .xattr(let inode, let cookie, _, let name, _):
            #expect(inode.rawValue < counterLimit && cookie <= UInt64(Int64.max) && NameCheck.isAttribute(name))
        case .extent(_, let offset, _, _, let count): #expect(offset + UInt64(count) <= UInt64(Int64.max))
        case .removeRange(_, let from, let to, _): #expect(from < to)
        case .reserve(_, let from, let to): #expect(from < to && to <= UInt64(Int64.max))
        default: break
        }
    }

    /// An entry that passes can be shown, charged and turned into what stat(2) tells.
    @Test func everyFieldOfEveryEntry() {
        let scratch = AlignedBuffer(byteCount: 4096)
        let origin = Origin(sequence: RecordSequence(3), segment: SegmentNumber(1))
        func bytes(_ count: Int, _ encode: (UnsafeMutableRawBufferPointer) -> Void) -> [UInt8] {
            encode(scratch.bytes)
            return Array(scratch.bytes.prefix(count))
        }
        let inode = InodeRecord(
            inode: InodeNumber(9), mode: 0o040755, linkCount: 2, uid: 0, gid: 0, deviceNumber: 0, size: 5, since: .zero,
            now: Timestamp(seconds: 1, nanoseconds: 2))
        let extent = ExtentEntry(origin: origin, length: 4096, payload: PayloadID(7), payloadOffset: 0)
        let usage = UsageEntry(
            firstBatch: BatchSequence(1), lastBatch: .zero, epoch: MountEpoch(1), live: 5, incarnation: 1, end: 0,
            state: .inUse, role: .hot)
        let tombstone = TombstoneEntry(
            origin: origin, charge: 64, since: BatchSequence(1), until: BatchSequence(2), from: 0, to: 4096)
        let range = IndexKey(space: .tombstones, object: 9, kind: .rangeTombstone, subkey: 3)
        let entries: [(IndexKey, [UInt8])] = [
            (
                InodeEntry.key(inode.inode),
                bytes(InodeEntry.byteCount) { InodeEntry(origin: origin, record: inode, derived: 3).encode(into: $0) }
            ),
            (ExtentEntry.key(inode.inode, 1 << 62), bytes(ExtentEntry.byteCount) { extent.encode(into: $0) }),
            (UsageEntry.key(SegmentNumber(3)), bytes(UsageEntry.byteCount) { usage.encode(into: $0) }),
            (range, bytes(TombstoneEntry.byteCount) { tombstone.encode(into: $0) }),
            (
                RemovalEntry.key(inode.inode, RecordSequence(3)),
                bytes(RemovalEntry.byteCount) { RemovalEntry(from: 0, to: 9).encode(into: $0) }
            ),
        ]
        for (key, original) in entries {
            original.withUnsafeBytes { #expect(key.problem($0) == nil) }
            var passCount = 0
            forEachVariant(original) { bytes in
                let value = UnsafeRawBufferPointer(bytes)
                guard key.problem(value) == nil else { return }
                passCount += 1
                _ = Dump<SimulatedDevice>.describe(key, value)
                _ = RecordIndex.charge(key, value)
                if let entry = InodeEntry(inode: inode.inode, decoding: value) { _ = Attributes(entry).status }
            }
            #expect(passCount > 0)
        }
        for object in [0, counterLimit, .max] {
            let key = IndexKey(space: .tree, object: object, kind: .inode, subkey: 0)
            entries[0].1.withUnsafeBytes { #expect(key.problem($0) != nil) }
        }
    }

    @Test func everyFieldOfAPayloadEntry() {
        let scratch = AlignedBuffer(byteCount: 4096)
        let checksums = [UInt8](repeating: 1, count: 8)
        let original = checksums.withUnsafeBytes { checksums -> [UInt8] in
            let record = PayloadRecord(
                id: PayloadID(3), isInline: false, length: 5000, position: 4096, checksums: checksums,
                inlineBytes: .init(start: nil, count: 0))
            let count = PayloadEntry.encode(
                record, origin: Origin(sequence: RecordSequence(3), segment: SegmentNumber(1)),
                blocksSegment: SegmentNumber(1), position: 8192, named: false, into: scratch.bytes)
            return Array(scratch.bytes.prefix(count))
        }
        let key = PayloadEntry.key(PayloadID(3))
        forEachVariant(original) { bytes in
            let value = UnsafeRawBufferPointer(bytes)
            guard key.problem(value) == nil, let entry = PayloadEntry(decoding: value) else { return }
            _ = Dump<SimulatedDevice>.describe(key, value)
            _ = RecordIndex.charge(key, value)
            for index in 0..<entry.storedCount { _ = entry.position(ofStored: index) }
            _ = entry.position(ofByte: 0, through: entry.length - 1)
            for more in [false, true] {
                _ = entry.encodeNaming(0, entry.length, more: more, keepsDead: true, into: scratch.bytes)
            }
        }
    }

    @Test func everyFieldOfAStagingHeader() {
        let geometry = StagingGeometry(stagingByteCount: 1 << 20, segmentByteCount: 1 << 20)
        let memory = AlignedBuffer(byteCount: geometry.byteCount)
        memory.bytes.zero(0, memory.bytes.count)
        StagingHeader(
            uuid: Self.uuid, epoch: MountEpoch(1), generation: 1, device: 0, directory: 0, bootID: Self.uuid, owner: 0,
            identity: 1, geometry: geometry
        ).encode(into: memory.bytes)
        let field = StagingLayout.header
        let header = Array(memory.bytes.prefix(field.path.offset + 2))
        forEachVariant(header, from: field.version.end) { bytes in
            memory.bytes.copy(UnsafeRawBufferPointer(bytes), to: 0)
            memory.bytes.part(0, StagingLayout.headerByteCount).seal(field.checksum)
            guard let found = StagingHeader(decoding: UnsafeRawBufferPointer(memory.bytes)) else { return }
            #expect(found.epoch.rawValue <= counterLimit && found.generation <= counterLimit)
        }
    }
}
