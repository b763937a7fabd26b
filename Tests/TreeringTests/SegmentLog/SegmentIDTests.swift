// A segment that is recycled begins another life: nothing that was known of the earlier one may count for it.

import Testing

@testable import Treering

@Suite struct SegmentIDTests {
    private static let pieceByteCount = 128 << 10

    /// A store whose staging keeps far more batches than a segment takes.
    private func store() throws -> TestStore {
        var options = VolumeOptions()
        options.cleaning = .off
        let store = try TestStore(options: options)
        try store.volume.unmount()
        let geometry = StagingGeometry(stagingByteCount: 16 << 20, segmentByteCount: 1 << 20)
        #expect(geometry.slotCount == 64)
        store.volume = try Volume.mount(
            store.device, options, staging: Staging(geometry: geometry), now: TestStore.now
        ) { _ in }
        for name in ["first", "second", "third"] { _ = try store.make(name) }
        // What follows begins a segment.
        try fill(store, "ballast", 9) { head(store) == nil }
        return store
    }

    private func head(_ store: TestStore) -> SegmentNumber? { store.volume.state.withLock { $0.core.log.head } }

    /// Writes pieces of a file, each in a batch of its own, until `isEnough`; gives how many.
    @discardableResult
    private func fill(
        _ store: TestStore, _ name: String, _ value: UInt8, until isEnough: () -> Bool
    ) throws -> (inode: InodeNumber, count: Int) {
        let inode = try (try? store.lookup(name))?.inode ?? store.make(name).inode
        var count = 0
        while !isEnough() {
            let offset = UInt64(count * Self.pieceByteCount)
            try store.write(inode, offset, [UInt8](repeating: value, count: Self.pieceByteCount))
            try store.volume.syncAndWait()
            count += 1
        }
        return (inode, count)
    }

    /// Fills one segment from its start to its end.
    private func fillOne(
        _ store: TestStore, _ name: String, _ value: UInt8
    ) throws -> (inode: InodeNumber, byteCount: Int, segment: SegmentNumber) {
        #expect(head(store) == nil)
        let (inode, count) = try fill(store, name, value) {
            head(store) == nil && (try? store.lookup(name).byteCount) != 0
        }
        return (inode, count * Self.pieceByteCount, store.volume.state.withLock { $0.core.log.position.segment })
    }

    private func empty(_ store: TestStore, _ name: String) throws {
        let inode = try store.lookup(name).inode
        var changes = AttributeChanges()
        changes.byteCount = 0
        _ = try store.volume.perform { (core) throws(Stop) in try core.setAttributes(inode, changes, TestStore.context)
        }
    }

    /// Fills a segment with what is removed then, and recycles it: the next head will be it, and staging still has its batches.
    private func recycledSegment(_ store: TestStore) throws -> SegmentNumber {
        let number = try fillOne(store, "first", 1).segment
        let incarnation = store.volume.state.withLock { $0.core.table[number].incarnation }
        try fill(store, "second", 2) { head(store) != nil }
        try empty(store, "first")
        for _ in 0..<4 { store.volume.housekeeper.housekeep(commits: true, checkpoints: true) }
        store.volume.state.withLock { state in
            #expect(state.core.table[number].state == .prepared)
            #expect(state.core.table[number].incarnation == incarnation + 1)
        }
        return number
    }

    /// Staging found a place by number and offset alone, and answered with what had lain there in the segment's earlier incarnation.
    @Test func stagingDoesNotAnswerForAnEarlierLife() throws {
        let store = try store()
        let number = try recycledSegment(store)
        try fill(store, "to the end", 3) { head(store) == nil }
        let (inode, byteCount, segment) = try fillOne(store, "third", 4)
        #expect(segment == number)
        #expect(try store.read(inode, 0, byteCount) == [UInt8](repeating: 4, count: byteCount))
        try checkStore(store)
    }

    /// The same where the cleaner fills the recycled segment with blocks that it moves.
    @Test func stagingDoesNotAnswerForTheCleanersSegment() throws {
        let store = try store()
        let number = try recycledSegment(store)
        func give(_ isNext: Bool) {
            store.volume.state.withLock { state in
                let table = state.core.table
                table.preferOthers(than: isNext ? Set(table.pool.filter { $0 != number }) : [number])
            }
        }
        for _ in 0..<3 { store.volume.housekeeper.prepareSegment() }
        give(false)
        try fill(store, "to the end", 3) { head(store) == nil }
        let (inode, byteCount, victim) = try fillOne(store, "third", 4)
        try fill(store, "fourth", 5) { head(store) != nil }
        give(true)
        try store.volume.housekeeper.empty(store.id(of: victim))
        store.volume.state.withLock { state in
            #expect(state.core.table[number].state == .inUse && state.core.table[number].role == .cold)
            #expect(state.core.table[victim].live == 0)
        }
        #expect(try store.read(inode, 0, byteCount) == [UInt8](repeating: 4, count: byteCount))
        try checkStore(store)
    }

    /// A segment that could not be emptied once was never cleaned again, in no later life.
    @Test func aSegmentIsStuckForOneLife() throws {
        let store = try store()
        let number = try fillOne(store, "first", 1).segment
        try fill(store, "second", 2) { head(store) != nil }
        store.device.damage(.segment(number), at: 4096 + 20)
        try store.volume.housekeeper.empty(store.id(of: number))
        #expect(store.volume.state.withLock { $0.core.table[number].live > 0 })
        for name in ["first", "second"] { try empty(store, name) }
        for _ in 0..<4 { store.volume.housekeeper.housekeep(commits: true, checkpoints: true) }
        #expect(store.volume.state.withLock { $0.core.table[number].state == .prepared })
        // In its next incarnation a part of it dies, and is worth cleaning.
        try fill(store, "to the end", 3) { head(store) == nil }
        let (inode, byteCount, segment) = try fillOne(store, "third", 4)
        #expect(segment == number)
        for offset in stride(from: 0, to: byteCount - Self.pieceByteCount, by: Self.pieceByteCount) {
            try store.write(inode, UInt64(offset), [UInt8](repeating: 5, count: Self.pieceByteCount))
        }
        try store.volume.syncAndWait()
        for _ in 0..<8 where store.volume.state.withLock({ $0.core.table[number].live > 0 }) {
            #expect(store.volume.housekeeper.cleanOne())
        }
        #expect(store.volume.state.withLock { $0.core.table[number].live == 0 })
        try checkStore(store)
    }

    private func checkStore(_ store: TestStore) throws {
        try store.volume.unmount()
        #expect(try Checker.check(store.device.snapshotAfterKill(), readsData: true).problems == [])
    }
}
