// `dump` on whole, damaged and hostile stores: what it says, and that it never traps.

import Testing

@testable import Treering

/// Memory and a device handed out together.
private struct DumpStore {
    let device: SimulatedDevice
    let file: InodeNumber
    let directory: InodeNumber

    /// A store with one of everything; unmounted unless it is to look as after a kill.
    init(isKilled: Bool = false) throws {
        let store = try TestStore(capacity: 16 << 20)
        directory = try store.make("directory", mode: 0o040755).inode
        file = try store.make("ein größer \"name\"\n", in: directory).inode
        let file = self.file
        try store.write(file, 0, [UInt8](repeating: 7, count: 10_000))
        try store.write(file, 1 << 20, [1, 2, 3])
        try store.setXattr(file, "user.small", [UInt8]("value".utf8))
        try store.setXattr(file, "user.large", [UInt8](repeating: 1, count: 5000))
        let gone = try store.make("gone").inode
        try store.write(gone, 0, [UInt8](repeating: 9, count: 20_000))
        try store.volume.syncAndWait()
        store.volume.housekeeper.housekeep(commits: true, checkpoints: true)
        try store.unlink("gone")
        if isKilled {
            try store.write(file, 4096, [5])
            try store.volume.syncAndWait()
            device = store.device.snapshotAfterKill()
        } else {
            try store.volume.unmount()
            device = store.device.snapshotAfterKill()
        }
    }

    func lines(_ dump: (SimulatedDevice, @escaping (String) -> Void) throws -> Void) rethrows -> [String] {
        let lines = Lines()
        try dump(device) { lines.all.append($0) }
        return lines.all
    }

    final class Lines {
        var all: [String] = []
    }

    /// Runs every dump there is; errors are fine, traps are not.
    func runAll() -> Int {
        var count = 0
        let device = self.device
        try? Dump.superblock(device) { _ in count += 1 }
        for case .segment(let number) in device.list() {
            try? Dump.segment(device, number.rawValue) { _ in count += 1 }
        }
        try? Dump.index(device) { _ in count += 1 }
        for inode in 1..<6 as Range<UInt64> { try? Dump.inode(device, inode) { _ in count += 1 } }
        return count
    }
}

extension TestStore {
    func setXattr(_ inode: InodeNumber, _ name: String, _ value: [UInt8]) throws {
        try Array(name.utf8).withUnsafeBytes { name in
            try value.withUnsafeBytes { value in
                try volume.perform { (core) throws(Stop) in try core.setXattr(inode, name, value, [], .nobody) }
            }
        }
    }
}

extension [String] {
    fileprivate func has(_ parts: String...) -> Bool { contains { line in parts.allSatisfy { line.contains($0) } } }
}

@Suite struct DumpTests {
    @Test func superblock() throws {
        let store = try DumpStore()
        let lines = try store.lines { try Dump.superblock($0, $1) }
        #expect(lines.filter { $0.hasSuffix(": good") }.count == 2)
        #expect(lines.has("magic: \"TREERING\""))
        #expect(lines.has("store uuid: 00000000-0000-0001-0000-000000000002"))
        #expect(lines.has("capacity in bytes: 16777216"))
        store.device.damage(.superblock, at: 65536 + 200)
        let damaged = try store.lines { try Dump.superblock($0, $1) }
        #expect(damaged.has("slot 1 at 65536: damaged: its checksum does not match"))
        #expect(damaged.count == lines.count)
        store.device.damage(.superblock, at: 0)
        #expect(try store.lines { try Dump.superblock($0, $1) }.has("slot 0", "not a superblock"))
        try store.device.unlink(.superblock)
        #expect(throws: MountError.self) { try Dump.superblock(store.device) { _ in } }
    }

    @Test func segment() throws {
        let store = try DumpStore()
        let lines = try store.lines { try Dump.segment($0, 0, $1) }
        #expect(lines.first == "segment 0, segments/00000000.seg, 1048576 bytes")
        #expect(lines.has("header: good"))
        #expect(lines.has("batch 1 at 4096..<8192", "epoch 1", "record"))
        #expect(
            lines.has(
                "directory \(store.directory.rawValue): \"ein gr\\xc3\\xb6\\xc3\\x9fer \\x22name\\x22\\x0a\" is inode \(store.file.rawValue), file"
            ))
        #expect(lines.has("10000 bytes in 3 blocks at "))
        #expect(lines.has("3 bytes inline at "))
        #expect(lines.has("bytes 0..<10000 are payload"))
        #expect(lines.has("attribute \"user.small\" = \"value\" (5 bytes)"))
        #expect(!lines.has("DAMAGED"))
        #expect(throws: MountError.self) { try Dump.segment(store.device, 15) { _ in } }
    }

    @Test func damagedSegment() throws {
        let whole = try DumpStore()
        let lines = try whole.lines { try Dump.segment($0, 0, $1) }
        let payload = try #require(lines.first { $0.contains("10000 bytes in 3 blocks at ") })
        let position = try #require(UInt64(payload.split(separator: " ").last!))
        whole.device.damage(.segment(SegmentNumber(0)), at: position + 5000)
        let broken = try whole.lines { try Dump.segment($0, 0, $1) }
        #expect(broken.has("batch", "DAMAGED", "block 1 of its payload"))
        #expect(broken.count == lines.count)
        whole.device.damage(.segment(SegmentNumber(0)), at: 40)
        let headless = try whole.lines { try Dump.segment($0, 0, $1) }
        #expect(headless.has("header: DAMAGED: checksum"))
        #expect(headless.count == broken.count)
        whole.device.damage(.superblock, at: 8)
        whole.device.damage(.superblock, at: 65536 + 8)
        #expect(try whole.lines { try Dump.segment($0, 0, $1) }.count == broken.count + 1)
        whole.device.damage(.segment(SegmentNumber(0)), at: 4096 + 9)
        #expect(try whole.lines { try Dump.segment($0, 0, $1) }.has("batch at 4096: DAMAGED header"))
        whole.device.damage(.segment(SegmentNumber(0)), at: 4096)
        #expect(try whole.lines { try Dump.segment($0, 0, $1) }.has("4096..<", "nothing that could be a batch"))
    }

    @Test func inode() throws {
        let store = try DumpStore()
        let lines = try store.lines { try Dump.inode($0, store.file.rawValue, $1) }
        #expect(
            lines.has(
                "  inode 0: file mode 0644, 1 links, uid 1000, gid 1000, size 1048579",
                "modified 1970-01-12T13:46:40.000000005Z"))
        #expect(lines.has("extent 0: 10000 bytes from 0 on of payload"))
        #expect(lines.has("    payload", "10000 bytes in 3 blocks at ", "of segment 0"))
        #expect(lines.has("xattr", "\"user.large\" = payload", "(5000 bytes)"))
        #expect(lines.has("no change of it"))
        let directory = try store.lines { try Dump.inode($0, store.directory.rawValue, $1) }
        #expect(directory.has("directory mode 0755, 2 links", "1 entries"))
        #expect(directory.has("dirent", "is inode \(store.file.rawValue), file"))
        #expect(try store.lines { try Dump.inode($0, 77, $1) }.has("no entry of it"))
    }

    @Test func changesThatNoCheckpointIncludes() throws {
        let store = try DumpStore(isKilled: true)
        let lines = try store.lines { try Dump.inode($0, store.file.rawValue, $1) }
        #expect(lines.has("record", "bytes 4096..<4097 are payload"))
        #expect(lines.has("1 bytes inline at"))
        #expect(lines.has("2 changes of it"))
        let root = try store.lines { try Dump.inode($0, 1, $1) }
        #expect(root.has("directory 1: the name with cookie", "goes"))
    }

    @Test func index() throws {
        let store = try DumpStore()
        let superblock = try SuperblockPair.read(store.device).newest()
        let lines = try store.lines { try Dump.index($0, $1) }
        #expect(lines.filter { line in line.hasPrefix("tree ") }.count == 9)
        #expect(lines.has("entries: \(superblock.indexRoot.entryCount), "))
        #expect(lines.count == Int(superblock.indexRoot.entryCount) + 6)
        #expect(lines.has("payloads ", "3 of 3 live, 10000 bytes named"))
        #expect(lines.has("usage 0", "in use, hot head"))
        #expect(lines.last == "no damage")
        #expect(!lines.has("MALFORMED"))
        let root = UInt64(superblock.indexRoot.page.address.rawValue) * 8192
        store.device.damage(.index, at: root + 5000)
        let damaged = try store.lines { try Dump.index($0, $1) }
        #expect(damaged.has("DAMAGED index page", "checksum"))
        #expect(damaged.last == "damage in 1 places")
        #expect(try store.lines { try Dump.inode($0, 1, $1) }.has("DAMAGED"))
    }

    @Test func randomDamageNeverTraps() throws {
        for seed in 0..<20 as Range<UInt64> {
            let store = try DumpStore(isKilled: seed % 2 == 0)
            var random = SimulatedRandom(seed: seed)
            for file in store.device.list() {
                let size = UInt64(store.device.contents(of: file)!.count)
                for _ in 0..<20 {
                    let place = random.next() % 2 == 0 ? random.next() % size : random.next() % min(size, 65_536)
                    store.device.damage(file, at: place, bits: UInt8(truncatingIfNeeded: random.next() | 1))
                }
            }
            #expect(store.runAll() > 0)
        }
    }

    /// Bytes that are wrong under right checksums.
    @Test func hostileBytesNeverTrap() throws {
        for seed in 0..<40 as Range<UInt64> {
            let store = try DumpStore(isKilled: seed % 2 == 0)
            var random = SimulatedRandom(seed: seed)
            for file in store.device.list() {
                var bytes = store.device.contents(of: file)!
                bytes.withUnsafeMutableBytes { forge(file, $0, &random) }
                let handle = try store.device.open(file, create: false)
                bytes.withUnsafeMutableBytes { _ = store.device.perform(Submission(.write, handle, $0, tag: 0)) }
                store.device.close(handle)
            }
            #expect(store.runAll() > 0, "seed \(seed)")
        }
    }

    private func forge(_ file: StoreFile, _ bytes: UnsafeMutableRawBufferPointer, _ random: inout SimulatedRandom) {
        switch file {
        case .superblock:
            let field = Superblock.layout
            for offset in Superblock.slotOffsets where random.next() % 3 == 0 {
                let slot = bytes.part(Int(offset), Superblock.slotByteCount)
                spoil(slot, field.uuid.offset..<field.indexRoot.end, &random)
                slot.seal(field.checksum)
            }
        case .index, .newIndex, .scratch:
            let field = IndexPage.header
            for offset in stride(from: 0, to: bytes.count - IndexPage.byteCount + 1, by: IndexPage.byteCount)
            where random.next() % 2 == 0 {
                let page = bytes.part(offset, IndexPage.byteCount)
                let isFront = random.next() % 2 == 0
                spoil(page, isFront ? field.level.offset..<512 : field.entries.offset..<IndexPage.byteCount, &random)
                page.seal(field.checksum)
            }
        case .segment, .preparing:
            if random.next() % 4 == 0 {
                let field = SegmentHeader.layout
                let header = bytes.part(0, SegmentHeader.byteCount)
                spoil(header, field.state.offset..<field.hashKey.offset, &random)
                header.seal(field.checksum)
            }
            for offset in stride(from: SegmentHeader.byteCount, to: bytes.count, by: blockByteCount) {
                let batch = bytes.part(offset, bytes.count - offset)
                if batch[BatchHeader.layout.magic] == BatchHeader.magic { forgeBatch(batch, &random) }
            }
        }
    }

    private func forgeBatch(_ bytes: UnsafeMutableRawBufferPointer, _ random: inout SimulatedRandom) {
        let field = BatchHeader.layout
        let header = bytes.part(0, BatchHeader.byteCount)
        let area = bytes.part(0, min(bytes.count, Int(header[field.recordAreaByteCount])))
        var position = header.count
        while position + Record.headerByteCount < area.count {
            let length = Int(area.part(position, Record.headerByteCount)[Record.layout.length])
            guard length >= Record.headerByteCount, position + length <= area.count else { break }
            let record = area.part(position, length)
            if random.next() % 3 == 0 {
                spoil(record, Record.layout.checksum.end..<length, &random)
                record.seal(Record.layout.checksum)
            }
            position += length
        }
        if area.count > header.count {
            header[field.recordsChecksum] = Checksum.crc32c(
                UnsafeRawBufferPointer(area.part(header.count, area.count - header.count)))
        }
        if random.next() % 4 == 0 { spoil(header, field.checksum.end..<field.salvagedChecksum.offset, &random) }
        header.seal(field.checksum)
    }

    /// Puts a few wild values into a range.
    private func spoil(_ bytes: UnsafeMutableRawBufferPointer, _ range: Range<Int>, _ random: inout SimulatedRandom) {
        let values: [UInt64] = [
            0, 1, 255, 4096, 65_535, UInt64(UInt32.max), UInt64(Int64.max), UInt64(Int64.max) + 1, .max, random.next(),
        ]
        for _ in 0..<1 + random.next() % 3 {
            let place = range.lowerBound + Int(random.next() % UInt64(range.count))
            let value = values[Int(random.next() % UInt64(values.count))]
            let width = min(1 << Int(random.next() % 4), bytes.count - place)
            for index in 0..<width { bytes[place + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
        }
    }

}
