// Every field of every kind of index entry with values that nobody wrote: found by a table, each store mounted, used for everything, and
// checked and repaired. An entry that cannot be is damage of its page; one that only contradicts others is met by an operation.

import Testing

@testable import Treering

/// A field of the value of an entry.
private struct Field: CustomStringConvertible {
    var kind: EntryKind
    var space: KeySpace
    var offset: Int
    var width: Int
    var description: String { "\(space) \(kind), offset \(offset), width \(width)" }

    init(_ space: KeySpace, _ kind: EntryKind, _ offset: Int, _ width: Int) {
        (self.space, self.kind, self.offset, self.width) = (space, kind, offset, width)
    }
}

@Suite(.serialized) struct HostileEntryTests {
    private static let values: [UInt64] = [
        0, 1, 2, 1 << 31 - 1, 1 << 31, 1 << 32 - 1, 1 << 62, 1 << 63 - 1, 1 << 63, UInt64.max - 99, UInt64.max,
    ]
    private static let fields: [Field] =
        table(
            .tree, .inode,
            [
                (0, 8), (8, 4), (16, 4), (20, 4), (24, 4), (28, 4), (32, 4), (36, 4), (40, 8), (48, 8), (56, 8),
                (64, 4),
                (68, 8), (80, 8), (92, 8), (104, 8), (112, 8),
            ])
        + table(.tree, .dirent, [(0, 8), (8, 4), (12, 1), (13, 1), (16, 8), (24, 8), (32, 1)])
        + table(.tree, .xattr, [(0, 8), (8, 4), (13, 1), (16, 8), (24, 8), (32, 4), (36, 1)])
        + table(.tree, .extent, [(0, 8), (8, 4), (12, 4), (16, 8), (24, 4)])
        + table(
            .payloads, .payload,
            [(0, 8), (8, 4), (12, 4), (16, 4), (20, 1), (21, 1), (22, 2), (36, 1), (40, 4), (44, 4), (48, 4)])
        + table(.usage, .usage, [(0, 8), (8, 8), (16, 8), (24, 8), (32, 4), (36, 4), (40, 1), (41, 1)])
        + table(.tombstones, .dirent, [(0, 8), (8, 4), (12, 4), (16, 8), (24, 8)])
        + table(.tombstones, .rangeTombstone, [(0, 8), (16, 8), (24, 8), (32, 8), (40, 8)])

    private static func table(_ space: KeySpace, _ kind: EntryKind, _ places: [(Int, Int)]) -> [Field] {
        places.map { Field(space, kind, $0.0, $0.1) }
    }

    /// A debug build tries every field with some of the values.
    private static var step: Int {
        #if DEBUG
            return 4
        #else
            return 1
        #endif
    }

    @Test func noFieldOfAnEntryKillsTheDaemon() throws {
        let template = try HostileTemplate()
        let watchdog = try Watchdog(secondCount: 120)
        var counts = (changed: 0, mounted: 0, repaired: 0)
        for (number, field) in Self.fields.enumerated() {
            let isShort = field.width < 8
            let values = Self.values.filter { !isShort || $0 == .max || $0 < 1 << UInt64(8 * field.width) }
            for (position, value) in values.enumerated() where (position + number) % Self.step == 0 {
                // Entries of one kind differ: files, directories and links; payloads inline and in blocks.
                let which = (number + position) % 5
                watchdog.alive("\(field) = \(value)")
                let device = template.clean.snapshotAfterKill()
                guard HostilePage.change(device, field.space, field.kind, which, field.offset, field.width, value)
                else {
                    continue
                }
                counts.changed += 1
                try ask(device, template.settings, "\(field) = \(value), entry \(which)", &counts)
            }
        }
        watchdog.stop()
        #expect(counts.changed > 100 && counts.mounted > 50 && counts.repaired * 10 > counts.changed * 9, "\(counts)")
    }

    private func ask(
        _ device: SimulatedDevice, _ settings: StoreSettings, _ text: String,
        _ counts: inout (changed: Int, mounted: Int, repaired: Int)
    ) throws {
        if let volume = try? Volume.mount(device.snapshotAfterKill(), settings.options, log: { _ in }) {
            counts.mounted += 1
            HostileOperations(volume).run(1...40, isWritten: true)
            try? volume.unmount()
        }
        // What is changed where nothing was wrong with it may have been a time or an owner.
        let report = try? Repairer.repair(indexCacheByteCount: 1 << 20, log: { _ in }) {
            device
        } mount: { (device, options) throws(MountError) in
            try Volume.mount(device, options) { _ in }
        }
        if report?.left.isClean == true { counts.repaired += 1 }
    }
}

/// Index pages on the medium, changed with their checksums made right again.
enum HostilePage {
    /// Changes a field of an entry of a kind; false where there is none. `which`: the first, the second and so on, from the start again
    /// behind the last.
    static func change(
        _ device: SimulatedDevice, _ space: KeySpace, _ kind: EntryKind, _ which: Int, _ offset: Int, _ width: Int,
        _ value: UInt64
    ) -> Bool {
        guard let handle = try? device.open(.index, create: false),
            let pair = try? SuperblockPair.read(device), let superblock = try? pair.newest()
        else { return false }
        defer { device.close(handle) }
        var places: [(page: UInt64, offset: Int)] = []
        _ = IndexVerifier.verify(
            root: superblock.indexRoot, uuid: superblock.blockUUID, checksEntries: false,
            read: { address, buffer in
                let place = UInt64(address.rawValue) * UInt64(IndexPage.byteCount)
                return device.perform(Submission(.read, handle, offset: place, buffer, tag: 0)).error
            },
            onPage: { page in
                guard page.isLeaf else { return }
                for position in 0..<page.count {
                    let key = page.leafKey(position)
                    guard key.space == space, key.kind == kind, page.value(position).count >= offset + width else {
                        continue
                    }
                    let start = page.value(position).baseAddress! - page.bytes.baseAddress!
                    places.append((UInt64(page.address.rawValue) * UInt64(IndexPage.byteCount), start + offset))
                }
            }, onDamage: { _ in })
        guard !places.isEmpty else { return false }
        let place = places[which % places.count]
        let buffer = AlignedBuffer(byteCount: IndexPage.byteCount)
        let bytes = buffer.bytes
        _ = device.perform(Submission(.read, handle, offset: place.page, bytes, tag: 0))
        for index in 0..<width { bytes[place.offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
        bytes.store(Checksum.crc32c(UnsafeRawBufferPointer(bytes), withHoleAt: 0), at: 0)
        return device.perform(Submission(.writeDurable, handle, offset: place.page, bytes, tag: 0)).error == nil
    }
}
