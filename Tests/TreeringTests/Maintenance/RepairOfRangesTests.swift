// Repair of what ranges and lists brought: shared payloads, reservations, access control lists.

import Testing

@testable import Treering

@Suite struct RepairOfRangesTests {
    /// Damages the middle of the record area of the batch that `write` makes.
    private func damageRecords(of store: TestStore, _ write: () throws -> Void) throws {
        try store.volume.syncAndWait()
        let before = store.volume.state.withLock { $0.core.log.position }
        try write()
        try store.volume.syncAndWait()
        store.device.damage(.segment(before.segment), at: UInt64(before.offsetInSegment) + 200)
    }

    private func repaired(_ store: TestStore) throws -> RepairReport {
        _ = try store.make("last")
        try store.volume.syncAndWait()
        try store.volume.unmount()
        let report = try DamagedStore.repair(store.device)
        store.volume = try Volume.mount(store.device, VolumeOptions(), now: TestStore.now) { _ in }
        return report
    }

    @Test func aCopyOutlivesTheLossOfTheRecordThatBroughtItsData() throws {
        let store = try TestStore()
        let source = try store.make("source").inode
        let copy = try store.make("copy").inode
        let bytes = (0..<20_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        try damageRecords(of: store) { try store.write(source, 0, bytes) }
        let copied = try store.volume.perform { (core) throws(Stop) in
            try core.copyRange(source, at: 0, copy, at: 0, 20_000, TestStore.context)
        }
        #expect(copied.byteCount == 20_000)
        let report = try repaired(store)
        #expect(report.found.needs.contains(.log) && report.left.isClean, "\(report.left.problems)")
        #expect(try store.read(source, 0, 20_000) == bytes)
        #expect(try store.read(copy, 0, 20_000) == bytes)
    }

    @Test func aReservationOutlivesTheLossOfItsRecord() throws {
        let store = try TestStore()
        let file = try store.make("file").inode
        try damageRecords(of: store) {
            let walk = AllocationWalk()
            _ = try store.volume.perform { (core) throws(Stop) in
                try core.allocate(file, [], at: 0, 1 << 20, TestStore.context, walk)
            }
        }
        let report = try repaired(store)
        #expect(report.found.needs.contains(.log) && report.left.isClean, "\(report.left.problems)")
        #expect(store.volume.state.withLock { $0.core.index.reservedByteCount } == 1 << 20)
        #expect(try store.volume.attributes(file).byteCount == 1 << 20)
    }

    @Test func whereAnAccessControlListIsLostOnlyTheOwnerIsLetIn() throws {
        let store = try TestStore()
        let lost = try store.make("lost", mode: 0o100666).inode
        let untold = try store.make("untold", mode: 0o100644).inode
        try change(store, lost) { $0.inodeFlags.insert(.hasAccessList) }
        let list: [UInt8] = [
            2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 7, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0,
            4, 0, 255, 255,
            255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
        ]
        try list.withUnsafeBytes { list in
            _ = try store.volume.perform { (core) throws(Stop) in
                try core.setXattr(untold, XattrName.bytes(XattrName.accessListName), list, [], TestStore.context)
            }
        }
        try change(store, untold) { $0.inodeFlags.remove(.hasAccessList) }
        let report = try repaired(store)
        #expect(report.found.needs == [.tree] && report.found.problemCount == 2, "\(report.found.problems)")
        #expect(report.left.isClean, "\(report.left.problems)")
        #expect(try store.volume.attributes(lost).mode == 0o100600)
        #expect(try store.volume.attributes(untold).mode == 0o100644)
        let flags = try store.volume.perform { (core) throws(Stop) in try core.inode(untold).record.inodeFlags }
        #expect(flags.contains(.hasAccessList))
    }

    @Test func aMalformedAccessControlListIsRemoved() throws {
        let store = try TestStore()
        let file = try store.make("file", mode: 0o100644).inode
        var record = try store.volume.perform { (core) throws(Stop) in try core.inode(file).record }
        record.inodeFlags.insert(.hasAccessList)
        try store.volume.repairing { writer in
            writer.inode(record)
            [UInt8](repeating: 9, count: 12).withUnsafeBytes {
                writer.xattr(
                    inode: file, cookie: 4096, since: .zero, name: XattrName.bytes(XattrName.accessListName), value: $0,
                    inPayload: false)
            }
        }
        let report = try repaired(store)
        #expect(report.found.needs == [.tree] && report.left.isClean, "\(report.left.problems)")
        #expect(try store.volume.attributes(file).mode == 0o100600)
    }

    private func change(_ store: TestStore, _ inode: InodeNumber, _ body: (inout InodeRecord) -> Void) throws {
        var record = try store.volume.perform { (core) throws(Stop) in try core.inode(inode).record }
        body(&record)
        try store.volume.repairing { $0.inode(record) }
    }
}
