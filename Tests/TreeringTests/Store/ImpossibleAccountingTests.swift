// An index whose checksums are right and whose numbers cannot be: operations report it, lose nothing that lives, and do not trap. A repair
// makes the accounting true again.

import Testing

@testable import Treering

@Suite struct ImpossibleAccountingTests {
    private func corruptions(_ store: TestStore) -> [String] {
        store.volume.state.withLock { $0.core.corruptions.map(\.reason) }
    }

    /// Changes the accounting behind the operations' back, unmounts, and has the store repaired.
    private func repairAfterUnmount(_ store: TestStore) throws -> RepairReport {
        try store.volume.unmount()
        return try DamagedStore.repair(store.device)
    }

    /// Found by hostile store 436.
    @Test func aPayloadThatIsNamedMoreOftenThanItSaysIsReportedAndKept() throws {
        let store = try TestStore()
        let source = try store.make("source").inode
        let copy = try store.make("copy").inode
        let bytes = [UInt8](repeating: 1, count: 8192)
        try store.write(source, 0, bytes)
        let copied = try store.volume.perform { (core) throws(Stop) in
            try core.copyRange(source, at: 0, copy, at: 0, 8192, TestStore.context)
        }
        #expect(copied.byteCount == 8192)
        // As if one of the two did not name it, and the other only a part.
        store.volume.state.withLock { state in
            let index = state.core.index
            let key = IndexKey(space: .payloads, object: 0, kind: 0, subkey: 0)
            guard let found = try? index.tree.next(atOrAfter: key) else { return }
            index.replacePayload(PayloadID(found.key.object)) { entry in
                _ = entry.encodeNaming(0, 8192, more: false, keepsDead: true, into: index.scratch)
                // Two checksums, then two counts.
                let words = PayloadEntry.layout.checksums
                index.scratch[PayloadEntry.layout.countWidth] = 4
                for word in 2..<4 { index.scratch[words[word]] = 100 }
                return words[4].offset
            }
        }
        try store.write(source, 0, [UInt8](repeating: 2, count: 8192))
        #expect(corruptions(store).contains { $0.contains("named more often than it says") })
        #expect(try store.read(copy, 0, 8192) == bytes)
        let report = try repairAfterUnmount(store)
        #expect(!report.found.isClean && report.left.isClean, "\(report.left.problems)")
        store.volume = try Volume.mount(store.device, VolumeOptions(), now: TestStore.now) { _ in }
        #expect(try store.read(store.lookup("copy").inode, 0, 8192) == bytes)
    }

    @Test func moreReservedThanTheSuperblockSaysIsReported() throws {
        let store = try TestStore()
        let file = try store.make("file").inode
        let walk = AllocationWalk()
        _ = try store.volume.perform { (core) throws(Stop) in
            try core.allocate(file, [], at: 0, 1 << 20, TestStore.context, walk)
        }
        store.volume.state.withLock { $0.core.index.reservedByteCount = 4096 }
        try store.write(file, 0, [UInt8](repeating: 1, count: 100_000))
        #expect(corruptions(store).contains { $0.contains("more is reserved") })
        let report = try repairAfterUnmount(store)
        #expect(!report.found.isClean && report.left.isClean, "\(report.left.problems)")
    }

    /// Found by hostile store 3792, as stores were before there was a cleaner.
    @Test func anEntryOfASegmentBeyondTheCapacityIsReported() throws {
        let store = try TestStore()
        let file = try store.make("file").inode
        try store.write(file, 0, [UInt8](repeating: 1, count: 100))
        store.volume.state.withLock { state in
            state.core.index.tree.update(InodeEntry.key(file)) { $0[Origin.layout.segment] = SegmentNumber(77_777) }
        }
        try store.write(file, 0, [UInt8](repeating: 2, count: 200))
        #expect(corruptions(store).contains { $0.contains("segment 77777") })
        let report = try repairAfterUnmount(store)
        #expect(report.left.isClean, "\(report.left.problems)")
    }

    /// Found by hostile store 5552.
    @Test func anExtentThatReachesIntoTheNextDoesNotTrap() throws {
        let store = try TestStore()
        let file = try store.make("file").inode
        let bytes = [UInt8](repeating: 1, count: 8192)
        try store.write(file, 0, bytes)
        try store.write(file, 8192, bytes)
        store.volume.state.withLock { state in
            state.core.index.tree.update(ExtentEntry.key(file, 0)) { $0[ExtentEntry.layout.length] = 12_288 }
        }
        // What the first one names does not reach that far.
        _ = try? store.read(file, 0, 16_384)
        #expect(try store.read(file, 12_288, 4096) == Array(bytes[..<4096]))
        let report = try repairAfterUnmount(store)
        #expect(!report.found.isClean && report.left.isClean, "\(report.left.problems)")
    }

    /// Found by hostile store 3972.
    @Test func aRemovalWithoutANumberIsNotLookedFor() throws {
        let store = try TestStore()
        let file = try store.make("file").inode
        try store.volume.state.withLock { state in
            let since = BatchSequence(1)
            let change = Change.removeRange(inode: file, from: 0, to: 4096, since: since)
            try state.core.index.touch(change, RecordSequence(0))
        }
    }

    @Test func countsOfAllNumbersDoNotRunOver() throws {
        let store = try TestStore()
        store.volume.state.withLock { state in
            state.core.index.inodeCount = .max
            state.core.index.reservedByteCount = .max
        }
        _ = try store.volume.status()
        _ = try? store.make("one")
        _ = try? store.make("two")
        store.volume.state.withLock { state in
            state.core.index.inodeCount = 0
            state.core.index.reservedByteCount = 0
        }
        let file = try store.make("three").inode
        try store.write(file, 0, [1])
        store.volume.state.withLock { $0.core.index.inodeCount = 0 }
        try store.unlink("three")
        store.volume.housekeeper.housekeep()
        #expect(try store.names().contains("three") == false)
    }
}
