// What a store looks like when the code that wrote or read it had a certain defect: made by changing the bytes, checksums
// included, so that the product needs no switches for it. For tests of the tests.

@testable import Treering

enum Tampering {
    private struct Batch {
        var header: BatchHeader
        var file: DeviceFile
        var offset: Int
        var bytes: [UInt8]
    }

    private static func read(_ device: SimulatedDevice, _ file: DeviceFile, _ offset: Int, _ count: Int) throws
        -> [UInt8]
    {
        let buffer = AlignedBuffer(byteCount: count)
        _ = try device.wait(Submission(.read, file, offset: UInt64(offset), buffer.bytes, tag: 0))
        return Array(buffer.bytes)
    }

    private static func write(_ device: SimulatedDevice, _ file: DeviceFile, _ offset: Int, _ bytes: [UInt8]) throws {
        let buffer = AlignedBuffer(byteCount: bytes.count)
        buffer.bytes.copyBytes(from: bytes)
        _ = try device.wait(Submission(.write, file, offset: UInt64(offset), buffer.bytes, tag: 0))
        _ = try device.wait(Submission(.sync, file, tag: 0))
    }

    /// The batches of the log in segments of one size, in order, with their record areas.
    private static func batches(_ device: SimulatedDevice, segmentByteCount: Int) throws -> [Batch] {
        var found: [Batch] = []
        for case .segment(let number) in device.list() {
            let file = try device.open(.segment(number), create: false)
            let reader = BatchReader(device: device, uuid: SimulatedStore.uuid, segmentByteCount: segmentByteCount)
            guard let header = try? reader.segmentHeader(number, file), header.state == .inUse, header.role == .hot
            else { continue }
            var offset = SegmentHeader.byteCount
            while offset < segmentByteCount,
                case .batch(let batch) = try reader.batch(
                    in: header.segmentID, file, at: offset, verifyPayload: false)
            {
                let bytes = try read(device, file, offset, batch.header.payloadAreaOffset)
                found.append(Batch(header: batch.header, file: file, offset: offset, bytes: bytes))
                offset += batch.header.byteCount
            }
        }
        return found.sorted { $0.header.sequence < $1.header.sequence }
    }

    private static func put(_ batch: Batch, _ device: SimulatedDevice) throws {
        var header = batch.header
        var bytes = batch.bytes
        bytes.withUnsafeMutableBytes { bytes in
            let records = UnsafeRawBufferPointer(bytes).part(
                BatchHeader.byteCount, Int(header.recordAreaByteCount) - BatchHeader.byteCount)
            header.recordsChecksum = Checksum.crc32c(records)
            header.encode(into: bytes.part(0, BatchHeader.byteCount))
        }
        try write(device, batch.file, batch.offset, bytes)
    }

    /// The last record of the log that changes two things of one kind changes the first one twice instead: half of it is not applied.
    static func halveLastRecord(_ device: SimulatedDevice, segmentByteCount: Int) throws {
        guard var batch = try batches(device, segmentByteCount: segmentByteCount).last else { return }
        var target: (record: Range<Int>, from: Range<Int>, to: Range<Int>)?
        batch.bytes.withUnsafeBytes { bytes in
            var position = BatchHeader.byteCount
            while position < Int(batch.header.recordAreaByteCount),
                let record = Record.decode(bytes.part(position, Int(batch.header.recordAreaByteCount) - position))
            {
                var earlier: [Range<Int>] = []
                if !record.isSkipped, record.validate() == nil {
                    record.forEachChange { _, offset, byteCount in
                        let place = position + offset..<position + offset + byteCount
                        // Length and type.
                        let twin = earlier.first {
                            bytes[$0].prefix(ChangeHeader.storedByteCount).elementsEqual(
                                bytes[place].prefix(ChangeHeader.storedByteCount))
                        }
                        if let twin { target = (position..<position + record.bytes.count, twin, place) }
                        earlier.append(place)
                    }
                }
                position += record.bytes.count
            }
        }
        guard let target else { return }
        batch.bytes.replaceSubrange(target.to, with: batch.bytes[target.from])
        batch.bytes.withUnsafeMutableBytes { bytes in
            _ = bytes.part(target.record.lowerBound, target.record.count).seal(Record.layout.checksum)
        }
        try put(batch, device)
    }

    /// Damages the records of the batch that is so many before the last. With `forgetsDurable` no batch says how far the log was durable.
    static func damage(
        _ device: SimulatedDevice, segmentByteCount: Int, batchesBeforeLast count: Int, forgetsDurable: Bool
    ) throws {
        var all = try batches(device, segmentByteCount: segmentByteCount)
        if forgetsDurable {
            for index in all.indices {
                all[index].header.durable = .zero
                try put(all[index], device)
            }
        }
        let batch = all[all.count - 1 - count]
        var bytes = batch.bytes
        bytes[BatchHeader.byteCount + Record.headerByteCount + 2] ^= 1
        try write(device, batch.file, batch.offset, bytes)
    }

    /// The newer slot of the superblock becomes unreadable, where the older one is whole.
    static func damageNewerSlot(_ device: SimulatedDevice) throws {
        let slots = try SuperblockPair.read(device).slots
        guard case .success(let first) = slots[0], case .success(let second) = slots[1] else { return }
        let file = try device.open(.superblock, create: false)
        let newer = first.generation > second.generation ? 0 : 1
        try write(device, file, Int(Superblock.slotOffsets[newer]), [UInt8](repeating: 0xAA, count: 4096))
    }

    /// Neither slot of the superblock is whole any more: they are zeros or random, the file is cut short or gone. With `andCopies` the
    /// index goes as well.
    static func loseSuperblock(_ device: SimulatedDevice, how: UInt64, andCopies: Bool = false) throws {
        var random = SimulatedRandom(seed: how)
        switch how % 4 {
        case 0, 1:
            let file = try device.open(.superblock, create: false)
            defer { device.close(file) }
            let bytes = (0..<4096).map { _ in how % 4 == 0 ? 0 : UInt8(truncatingIfNeeded: random.next()) }
            for offset in Superblock.slotOffsets { try write(device, file, Int(offset), bytes) }
        case 2:
            let file = try device.open(.superblock, create: false)
            defer { device.close(file) }
            try device.resize(file, to: random.next() % 4000)
        default: if device.list().contains(.superblock) { try device.unlink(.superblock) }
        }
        if andCopies, device.list().contains(.index) { try device.unlink(.index) }
        try device.syncDirectories()
    }

    /// What a repair does first about it.
    static func renewSuperblock(_ device: SimulatedDevice, _ staging: [StagingHeader]) throws {
        guard let derived = try SuperblockPair.readOrDerive(device, staging: { _ in staging }).derived else { return }
        try SuperblockPair.renewSlots(derived.superblock, device)
        if !device.list().contains(.index) {
            _ = try IndexRebuild.rebuild(device, indexCacheByteCount: 1 << 20) { _ in }
        }
    }

    /// A copy of staging in which the last record of the newest batch was never published.
    static func withholdingLastRecord(_ staging: UnsafeRawBufferPointer) -> [UInt8] {
        var bytes = Array(staging)
        guard let header = StagingHeader(decoding: staging) else { return bytes }
        let slotByteCount = blockByteCount + Int(header.recordAreaByteCount) + Int(header.payloadAreaByteCount)
        let field = StagingLayout.descriptor
        func descriptor(_ index: Int) -> UnsafeRawBufferPointer {
            staging.part(StagingLayout.header.descriptors[index])
        }
        let newest = (0..<Int(header.slotCount)).max { descriptor($0)[field.batch] < descriptor($1)[field.batch] }
        guard let newest else { return bytes }
        let published = Int(descriptor(newest)[field.published])
        let area = staging.part(StagingLayout.slotsOffset + newest * slotByteCount + blockByteCount, published)
        var (position, last) = (BatchHeader.byteCount, 0)
        while position < published, let record = Record.decode(area.part(position, published - position)) {
            last = position
            position += record.bytes.count
        }
        if last > 0 {
            bytes.withUnsafeMutableBytes {
                $0.part(StagingLayout.header.descriptors[newest])[field.published] = UInt64(last)
            }
        }
        return bytes
    }
}
