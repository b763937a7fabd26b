// Every field of every kind of change in the log with values that nobody wrote, behind checksums that are right: found by a table, each
// store recovered by a mount and used for everything, checked and repaired. What a decoder can tell is damage of its record; the rest is
// met by whoever comes to it.

import Testing

@testable import Treering

/// A field of a change or of the header of its record.
private struct HostileField: CustomStringConvertible {
    /// Of the change that it lies in, or is moved by.
    var type: UInt16
    var isMoved = false
    var isOfRecord = false
    var offset: Int
    var width: Int
    var description: String {
        isOfRecord
            ? "record, offset \(offset), width \(width)"
            : "\(isMoved ? "moved " : "")change \(type), offset \(offset), width \(width)"
    }
}

@Suite(.serialized) struct HostileRecordTests {
    private static let values: [UInt64] = [
        0, 1, 2, 255, 4096, 1 << 31 - 1, 1 << 31, 1 << 32 - 1, 1 << 62, counterLimit - 1, 1 << 63 - 1, 1 << 63,
        UInt64.max - 99, UInt64.max,
    ]

    private static var layouts: [(type: ChangeType, layout: any DiskLayout.Type)] {
        [
            (.inode, InodeChange.self), (.dirent, DirentChange.self), (.removeDirent, RemoveKeyChange.self),
            (.xattr, XattrChange.self), (.removeXattr, RemoveKeyChange.self), (.payload, PayloadChange.self),
            (.extent, ExtentChange.self), (.removeRange, RemoveRangeChange.self),
            (.removeInode, RemoveInodeChange.self),
            (.orphan, OrphanChange.self), (.reserve, ReserveChange.self),
        ]
    }
    /// What the cleaner moves here.
    private static let movedTypes: [ChangeType] = [.inode, .dirent, .xattr, .payload, .extent]

    /// The numbers of a layout, those of the layouts in it as well.
    private static func numbers(_ parts: [LayoutPart], from start: Int = 0) -> [(offset: Int, width: Int)] {
        parts.flatMap { part -> [(offset: Int, width: Int)] in
            if !part.inner.isEmpty { return numbers(part.inner, from: start + part.offset) }
            return [1, 2, 4, 8].contains(part.byteCount) ? [(start + part.offset, part.byteCount)] : []
        }
    }

    private static var fields: [HostileField] {
        var fields = numbers(Record.Layout.parts).filter { $0.offset >= Record.layout.checksum.end || $0.offset == 0 }
            .map { HostileField(type: 0, isOfRecord: true, offset: $0.offset, width: $0.width) }
        for (type, layout) in layouts {
            fields += numbers(layout.parts).map {
                HostileField(type: type.rawValue, offset: $0.offset, width: $0.width)
            }
        }
        for type in movedTypes {
            let layout = layouts.first { $0.type == type }!.layout
            let inner = numbers(layout.parts, from: MoveChange.byteCount)
            fields += (numbers(MoveChange.parts) + inner).map {
                HostileField(type: type.rawValue, isMoved: true, offset: $0.offset, width: $0.width)
            }
        }
        return fields
    }

    /// Each run tries every field with some of the values, and every value with some of the fields; with 1 all with all.
    private static let step = Environment.count("TREERING_RECORD_STEP", debug: 24, release: 12)

    @Test func noFieldOfARecordKillsTheDaemon() throws {
        let (device, settings) = try Self.template()
        let superblock = try SuperblockPair.read(device).newest()
        let changes = HostileLog.changes(device, after: superblock.position.lastBatch)
        for (type, _) in Self.layouts {
            #expect(changes.contains { $0.type == type.rawValue }, "no change of type \(type)")
        }
        for type in Self.movedTypes {
            #expect(changes.contains { $0.movedType == type.rawValue }, "none of type \(type) moved")
        }
        let watchdog = try Watchdog(secondCount: 120)
        var counts = (changed: 0, mounted: 0, refused: 0, repaired: 0)
        for (number, field) in Self.fields.enumerated() {
            let values = Self.values.filter { field.width == 8 || $0 >> UInt64(8 * field.width) == 0 || $0 == .max }
            let places = changes.filter { change in
                if field.isOfRecord { return change.offset == Record.headerByteCount }
                let type = field.isMoved ? change.movedType : change.movedType == nil ? change.type : nil
                return type == field.type && field.offset + field.width <= change.byteCount
            }
            guard !places.isEmpty else { continue }
            for (position, value) in values.enumerated() where (position + number) % Self.step == 0 {
                // The first record, one in between, or the last.
                let place = places[(places.count - 1) * ((number + position / Self.step) % 3) / 2]
                let text = "\(field) = \(value)"
                watchdog.alive(text)
                let hostile = device.snapshotAfterKill()
                HostileLog.change(
                    hostile, place, inRecordHeader: field.isOfRecord, field.offset, field.width, value)
                counts.changed += 1
                ask(hostile, settings, text, &counts)
            }
        }
        watchdog.stop()
        #expect(counts.changed > 100 && counts.mounted > 20 && counts.refused > 20, "\(counts)")
        #expect(counts.repaired * 10 > counts.changed * 9, "\(counts)")
    }

    private func ask(
        _ device: SimulatedDevice, _ settings: StoreSettings, _ text: String,
        _ counts: inout (changed: Int, mounted: Int, refused: Int, repaired: Int)
    ) {
        do throws(MountError) {
            let volume = try Volume.mount(device.snapshotAfterKill(), settings.options, log: { _ in })
            counts.mounted += 1
            HostileOperations(volume).run(1...40, isWritten: true)
            try? volume.unmount()
        } catch {
            counts.refused += 1
            #expect(!error.description.isEmpty, "\(text)")
        }
        _ = try? Checker.check(device.snapshotAfterKill(), readsData: true, indexCacheByteCount: 1 << 20)
        let report = try? Repairer.repair(indexCacheByteCount: 1 << 20, log: { _ in }) {
            device
        } mount: { (device, options) throws(MountError) in
            try Volume.mount(device, options) { _ in }
        }
        if report?.left.isClean == true { counts.repaired += 1 }
    }

    /// A store whose log has something of everything behind the last checkpoint, some of it moved by the cleaner.
    private static func template() throws -> (device: SimulatedDevice, settings: StoreSettings) {
        let template = try HostileTemplate()
        var settings = template.settings
        settings.options.cleaning = .off
        // No checkpoint for want of pages.
        settings.options.indexCacheByteCount = 4 << 20
        let store = try SimulatedStore(
            settings, on: template.clean.snapshotAfterKill(), clock: SimulationClock())
        let caller = Caller(uid: 1, gid: 1, umask: 0, identity: Identity(groups: [1]))
        @discardableResult
        func perform(_ operation: Operation) throws -> UInt64 {
            try store.volume.perform(operation.body(caller)).made
        }
        func make(_ parent: UInt64, _ name: String, _ mode: UInt32 = 0o100644) throws -> UInt64 {
            try perform(.make(parent, name, mode: mode, deviceNumber: 0, target: nil))
        }
        let directory = try make(1, "last", 0o040755)
        let file = try make(directory, "file")
        let other = try make(directory, "other")
        var cut = AttributeChanges()
        cut.byteCount = 5000
        for operation in [
            .link(file, directory, "linked"), .write(file, offset: 0, byteCount: 100, seed: 1),
            .write(file, offset: 4096, byteCount: 20_000, seed: 2),
            .setXattr(file, "user.short", byteCount: 20, seed: 3, []),
            .setXattr(file, "user.long", byteCount: 5000, seed: 3, []),
            .setXattr(other, "user.gone", byteCount: 20, seed: 3, []), .removeXattr(other, "user.gone"),
            .allocate(other, .keepsSize, offset: 0, byteCount: 50_000),
            .copyRange(file, from: 4096, other, to: 8192, byteCount: 12_288),
            .allocate(file, [.punchesHole, .keepsSize], offset: 8192, byteCount: 4096),
            .setAttributes(other, cut), .rename(directory, "linked", 1, "renamed", []), .unlink(directory, "other"),
            .forget(other, 1),
        ] as [Operation] { try perform(operation) }
        let orphan = try make(directory, "orphan")
        try perform(.write(orphan, offset: 0, byteCount: 200, seed: 5))
        try perform(.unlink(directory, "orphan"))
        for number in store.volume.state.withLock({ $0.core.reapable }) {
            try store.volume.perform { (core) throws(Stop) in try core.reap(number) }
        }
        store.volume.state.withLock { $0.core.reapable = [] }
        // The cleaner leaves the head of the log alone.
        let filler = try make(1, "filler")
        for piece in 0..<40 as Range<UInt64> {
            try perform(.write(filler, offset: piece * 32_768, byteCount: 32_768, seed: piece))
        }
        try store.volume.syncAndWait()
        let victims = store.volume.state.withLock { state -> [SegmentID] in
            let table = state.core.table
            return table.segments.indices.map { SegmentNumber(UInt32($0)) }
                .filter { table[$0].isSealed && table[$0].role == .hot && table[$0].live > 0 }
                .map { table.id(of: $0) }
        }
        for victim in victims { try store.volume.housekeeper.empty(victim) }
        try store.volume.syncAndWait()
        return (store.device.snapshotAfterKill(), settings)
    }
}
