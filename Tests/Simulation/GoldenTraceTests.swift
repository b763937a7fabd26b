// Order on disk is asserted, not assumed: what the device is asked for an fsync, a rename, a checkpoint, a roll-over.

import Testing

@testable import Treering

@Suite struct GoldenTraceTests {
    /// A mounted store with one file, everything durable, and the log somewhere in the middle of a segment.
    private final class Bench {
        let store: SimulatedStore
        let file: UInt64
        private var start = 0

        init() throws {
            var settings = StoreSettings(cacheByteCount: 1 << 20)
            settings.capacityByteCount = 16 << 20
            store = try SimulatedStore(settings)
            let make = Operation.make(1, "file", mode: 0o100644, deviceNumber: 0, target: nil)
            file = try store.volume.perform(make.body(CrashRun.caller)).made
            try store.volume.syncAndWait()
            start = store.device.trace.count
        }

        func run(_ operation: Operation) throws { _ = try store.volume.perform(operation.body(CrashRun.caller)) }

        func trace() -> [String] {
            defer { start = store.device.trace.count }
            return store.device.traceLines(from: start)
        }
    }

    @Test func fsyncAfterOneWriteIsOneDurableWrite() throws {
        let bench = try Bench()
        try bench.run(.write(bench.file, offset: 0, byteCount: 100, seed: 1))
        try bench.store.volume.syncAndWait()
        #expect(bench.trace() == ["writeDurable segment 0 @12288 4096"])
    }

    @Test func renameAndFsync() throws {
        let bench = try Bench()
        try bench.run(.rename(1, "file", 1, "new", []))
        try bench.store.volume.syncAndWait()
        #expect(bench.trace() == ["writeDurable segment 0 @12288 4096"])
        try bench.store.volume.syncAndWait()
        #expect(bench.trace() == [])
    }

    @Test func checkpointOrder() throws {
        let bench = try Bench()
        try bench.run(.write(bench.file, offset: 0, byteCount: 100, seed: 1))
        try bench.store.volume.housekeeper.checkpoint()
        #expect(
            bench.trace() == [
                "writeDurable segment 0 @12288 4096", "write index @32768 16384", "sync index",
                "writeDurable index @4096 4096", "writeDurable superblock @65536 4096", "sync superblock",
            ])
    }

    @Test func rollOverSyncsTheOldSegmentBeforeTheNewOneIsDurable() throws {
        let bench = try Bench()
        bench.store.volume.housekeeper.prepareSegment()
        #expect(
            bench.trace() == [
                "unlink preparing 1 failed with 2", "create preparing 1", "resize preparing 1 1048576",
                "write preparing 1 @0 1048576", "sync preparing 1", "rename preparing 1 to segment 1",
                "sync directories",
            ])
        for piece in 0..<7 as Range<UInt64> {
            try bench.run(.write(bench.file, offset: piece << 17, byteCount: 1 << 17, seed: piece))
        }
        try bench.store.volume.syncAndWait()
        // Every segment but the durable write's own is synced after its last write has completed, and before the answer; and where
        // half of the slots wait for a flush, one begins unasked.
        #expect(
            bench.trace() == [
                "write segment 0 @12288 135168", "write segment 0 @147456 135168", "write segment 0 @282624 135168",
                "write segment 0 @417792 135168", "sync segment 0", "sync segment 0", "write segment 0 @552960 135168",
                "write segment 0 @688128 135168", "writeDurable segment 1 @0 139264", "sync segment 0",
                "sync segment 0",
            ])
    }

    @Test func mountAfterACrash() throws {
        let bench = try Bench()
        try bench.run(.write(bench.file, offset: 0, byteCount: 100, seed: 1))
        try bench.store.volume.syncAndWait()
        try bench.store.cutPower(seed: 1)
        #expect(
            bench.store.device.traceLines() == [
                "sync directories", "write segment 0 @12288 4096", "sync segment 0", "write segment 0 @0 4096",
                "sync segment 0", "writeDurable index @4096 4096",
                "writeDurable superblock @65536 4096", "sync superblock",
            ])
    }

    @Test func recyclingAWholeSegment() throws {
        let bench = try Bench()
        for piece in 0..<8 as Range<UInt64> {
            try bench.run(.write(bench.file, offset: 0, byteCount: 1 << 17, seed: piece))
        }
        try bench.run(.unlink(1, "file"))
        bench.store.volume.forget(InodeNumber(bench.file), 1)
        try bench.store.volume.housekeeper.checkpoint()
        try bench.store.volume.housekeeper.checkpoint()
        try bench.store.volume.housekeeper.checkpoint()
        _ = bench.trace()
        bench.store.volume.housekeeper.prepareSegment()
        _ = bench.trace()
        bench.store.volume.housekeeper.recycleSegments()
        #expect(bench.trace() == ["write segment 0 @0 4096", "sync segment 0"])
    }
}
