// Every field of every kind of index entry with values that nobody wrote: found by a table, each store mounted, used for everything, and
// checked and repaired. An entry that cannot be is damage of its page; one that only contradicts others is met by an operation.

import Testing

@testable import Treering

/// A field of the value of an entry.
private struct Target: CustomStringConvertible {
    var kind: EntryKind
    var space: KeySpace
    var offset: Int
    var width: Int
    var description: String { "\(space) \(kind), offset \(offset), width \(width)" }
}

@Suite(.serialized) struct HostileEntryTests {
    private static let values: [UInt64] = [
        0, 1, 2, 1 << 31 - 1, 1 << 31, 1 << 32 - 1, 1 << 62, 1 << 63 - 1, 1 << 63, UInt64.max - 99, UInt64.max,
    ]
    private static let fields =
        table(.tree, .inode, InodeEntry.Layout.parts) + table(.tree, .dirent, DirentEntry.Layout.parts)
        + table(.tree, .xattr, XattrEntry.Layout.parts) + table(.tree, .extent, ExtentEntry.Layout.parts)
        + table(.payloads, .payload, PayloadEntry.Layout.parts) + table(.usage, .usage, UsageEntry.Layout.parts)
        + table(.tombstones, .dirent, TombstoneEntry.Layout.parts)
        + table(.tombstones, .rangeTombstone, TombstoneEntry.Layout.parts)

    /// Every number in it, with the first of those that are repeated.
    private static func table(
        _ space: KeySpace, _ kind: EntryKind, _ parts: [LayoutPart], from start: Int = 0
    ) -> [Target] {
        parts.flatMap { part -> [Target] in
            let offset = start + part.offset
            if !part.inner.isEmpty { return table(space, kind, part.inner, from: offset) }
            // A point in time is a number and a smaller one behind it.
            let width = part.byteCount == Timestamp.storedByteCount ? 8 : part.byteCount
            return [Target(kind: kind, space: space, offset: offset, width: width)]
        }
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
            read: device.pages(of: handle),
            onPage: { page in
                guard page.isLeaf else { return }
                for position in 0..<page.count {
                    let key = page.leafKey(position)
                    guard key.space == space, key.kind == kind, page.value(position).count >= offset + width else {
                        continue
                    }
                    let start = page.value(position).baseAddress! - page.bytes.baseAddress!
                    places.append((page.address.offsetInFile, start + offset))
                }
            }, onDamage: { _ in })
        guard !places.isEmpty else { return false }
        let place = places[which % places.count]
        let buffer = AlignedBuffer(byteCount: IndexPage.byteCount)
        let bytes = buffer.bytes
        _ = device.perform(Submission(.read, handle, offset: place.page, bytes, tag: 0))
        for index in 0..<width { bytes[place.offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
        bytes.seal(IndexPage.header.checksum)
        return device.perform(Submission(.writeDurable, handle, offset: place.page, bytes, tag: 0)).error == nil
    }
}
