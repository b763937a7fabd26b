// Callers without a housekeeper get what they wait for, too.

import Testing

@testable import Treering

@Suite(.serialized) struct WaitingTests {
    private let context = RequestContext.by(Caller(uid: 1, gid: 1, umask: 0, identity: .privileged))

    private func make(_ store: SimulatedStore) throws -> InodeNumber {
        try store.volume.perform { (core) throws(Stop) in
            try Operation.withName("file") { (name) throws(Stop) in
                try core.make(.root, name, NewInode(mode: 0o100644), context)
            }
        }.inode
    }

    private func write(_ store: SimulatedStore, _ inode: InodeNumber, _ offset: UInt64, _ count: Int) throws {
        try store.volume.perform { (core) throws(Stop) in
            try Operation.withBytes([UInt8](repeating: 1, count: count)) { (bytes) throws(Stop) in
                _ = try core.write(inode, at: offset, bytes, [], context)
            }
        }
    }

    /// A reservation waits for a great removal, which nobody went on with.
    @Test func aReservationBehindAGreatRemoval() throws {
        let watchdog = try Watchdog()
        defer { watchdog.stop() }
        let store = try SimulatedStore(StoreSettings())
        let inode = try make(store)
        for piece in 0..<100 as Range<UInt64> { try write(store, inode, piece * 8192, 3) }
        try store.volume.perform { (core) throws(Stop) in
            _ = try core.setAttributes(inode, AttributeChanges(byteCount: 0), context)
        }
        #expect(store.volume.state.withLock { $0.core.index.removals[inode] } != nil)
        let walk = AllocationWalk()
        try store.volume.perform { (core) throws(Stop) in _ = try core.allocate(inode, [], at: 0, 4096, context, walk) }
        #expect(store.volume.state.withLock { $0.core.index.removals[inode] } == nil)
    }

    /// One segment that could not be made was taken for a full host, and nobody looked again.
    @Test func aSegmentThatCannotBeMadeOnce() throws {
        let watchdog = try Watchdog()
        defer { watchdog.stop() }
        let store = try SimulatedStore(StoreSettings())
        let inode = try make(store)
        store.device.inject(
            SimulatedFault(.fail(.ioError), kinds: [.write], file: .preparing(SegmentNumber(1))))
        for piece in 0..<40 as Range<UInt64> { try write(store, inode, piece * 30_000, 30_000) }
        #expect(store.device.faultCount == 0)
        #expect(store.volume.state.withLock { $0.core.table.inUseCount } > 1)
    }
}
