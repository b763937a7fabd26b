// A failed write or flush of the log, case by case: what is written again, where, and what a crash finds.

import Glibc
import Testing

@testable import Treering

@Suite struct RelocationTests {
    private let kinds: Set<TraceEntry.Kind> = [.write, .writeDurable]

    private func write(_ store: TestStore, _ inode: InodeNumber, _ value: UInt8, at offset: UInt64 = 0) throws {
        _ = try [UInt8](repeating: value, count: 50_000).withUnsafeBytes { bytes in
            try store.volume.perform { (core) throws(Stop) in try core.write(inode, at: offset, bytes, [], .nobody) }
        }
    }

    private func make(_ store: TestStore) throws -> InodeNumber {
        try Array("file".utf8).withUnsafeBytes { name in
            try store.volume.perform { (core) throws(Stop) in
                try core.make(.root, name, NewInode(mode: 0o100644), TestStore.context)
            }
        }.inode
    }

    private func contents(_ volume: Volume<SimulatedDevice>, _ inode: InodeNumber) throws -> [UInt8] {
        try volume.bytes { (core) throws(Stop) in try core.planRead(inode, at: 0, 50_000) }
    }

    /// The fsync during which the write fails still succeeds, and tells the truth.
    @Test func anFsyncWhoseWriteFailsSucceedsElsewhere() throws {
        let store = try TestStore()
        let inode = try make(store)
        try store.volume.syncAndWait()
        try write(store, inode, 7)
        store.device.inject(SimulatedFault(.failTorn(.ioError), kinds: kinds))
        try store.volume.syncAndWait()
        #expect(!store.volume.isReadOnly)
        #expect(store.volume.figures().contains { $0.name == "relocated" && $0.value == 1 })
        for seed in 0..<4 as Range<UInt64> {
            let crashed = store.device.crash(seed: seed).device()
            let again = try Volume.mount(crashed, VolumeOptions(), now: TestStore.now) { _ in }
            #expect(try contents(again, inode) == [UInt8](repeating: 7, count: 50_000))
        }
        try store.volume.unmount()
        #expect(try Checker.check(store.device.snapshotAfterKill(), readsData: true).problems == [])
    }

    /// Each try on a host that stayed full opened files, or made some, and closed none.
    @Test func aTryThatFailsKeepsNoFileOpen() throws {
        let store = try TestStore()
        let inode = try make(store)
        try store.volume.syncAndWait()
        try write(store, inode, 7)
        store.device.inject(SimulatedFault(.fail(.noSpace), kinds: kinds))
        for number in 1..<64 as Range<UInt32> {
            let file = StoreFile.segment(SegmentNumber(number))
            store.device.inject(SimulatedFault(.fail(.noSpace), kinds: kinds, file: file, isLasting: true))
        }
        store.volume.sync(mayWait: true) { _ in }
        #expect(store.volume.isLogSuspended)
        let count = store.device.openFileCount
        let segments = store.device.list().count
        for _ in 0..<3 {
            store.volume.housekeeper.relocateWhereSuspended()
            #expect(store.device.openFileCount == count)
        }
        #expect(store.volume.isLogSuspended)
        #expect(store.device.list().count > segments)
        store.device.clearFaults()
        store.volume.housekeeper.relocateWhereSuspended()
        #expect(try contents(store.volume, inode) == [UInt8](repeating: 7, count: 50_000))
        try store.volume.unmount()
        #expect(try Checker.check(store.device.snapshotAfterKill(), readsData: true).problems == [])
    }

    /// The host is short of room, descriptors or memory for the log and for every place it is written to again, for a while: all wait, then go
    /// on, and a power cut during it or after it finds what was synced.
    @Test(arguments: [ENOSPC, EMFILE, ENFILE, ENOMEM]) func aShortageThatPassesEndsNothing(number: Int32) throws {
        let store = try TestStore()
        let inode = try make(store)
        try write(store, inode, 6)
        try store.volume.syncAndWait()
        store.device.keepHistory()
        try write(store, inode, 7)
        for _ in 0..<5 { store.device.inject(SimulatedFault(.failTorn(Errno(number)), kinds: kinds)) }
        try store.volume.syncAndWait()
        #expect(!store.volume.isReadOnly)
        for event in store.device.crashPoints.suffix(12) {
            for state in store.device.crashStates(at: event, exhaustiveUpTo: 2, samples: 2, seed: 1).prefix(4) {
                let again = try Volume.mount(state.device(), VolumeOptions(), now: TestStore.now) { _ in }
                let found = try contents(again, inode)
                #expect(found == [UInt8](repeating: 6, count: 50_000) || found == [UInt8](repeating: 7, count: 50_000))
            }
        }
        try write(store, inode, 8)
        try store.volume.syncAndWait()
        let crashed = store.device.crash(seed: 1).device()
        let again = try Volume.mount(crashed, VolumeOptions(), now: TestStore.now) { _ in }
        #expect(try contents(again, inode) == [UInt8](repeating: 8, count: 50_000))
        try store.volume.unmount()
        #expect(try Checker.check(store.device.snapshotAfterKill(), readsData: true).problems == [])
    }

    /// Where it does not pass before the mount ends, the mount ends all the same.
    @Test func aShortageDoesNotKeepAMountFromEnding() throws {
        let store = try TestStore()
        let inode = try make(store)
        try store.volume.syncAndWait()
        try write(store, inode, 7)
        store.device.inject(SimulatedFault(.fail(.noSpace), kinds: kinds, isLasting: true))
        #expect(throws: Errno.self) { try store.volume.unmount() }
    }

    /// A flush that failed and lost what it was asked to keep: the next fsync must not believe the host's "all clean".
    @Test func aFailedFlushIsNotAskedAgain() throws {
        let store = try TestStore()
        let inode = try make(store)
        // Two batches, the first without DSYNC: the fsync needs a flush.
        try write(store, inode, 1)
        store.volume.state.withLock { $0.core.log.closeBatch(durable: false) }
        try write(store, inode, 2, at: 50_000)
        store.device.inject(SimulatedFault(.failAndLose(.ioError), kinds: [.sync]))
        try store.volume.syncAndWait()
        let crashed = store.device.crash(seed: 1).device()
        let again = try Volume.mount(crashed, VolumeOptions(), now: TestStore.now) { _ in }
        #expect(try contents(again, inode) == [UInt8](repeating: 1, count: 50_000))
    }

    /// A slot of staging is not used again before its batch is durable: a flush begins by itself, and writing goes on.
    @Test func streamingWithoutFsyncGoesOnAndStaysRecreatable() throws {
        var options = VolumeOptions()
        options.stagingByteCount = 1 << 20
        let store = try TestStore(options: options)
        let inode = try make(store)
        for piece in 0..<200 as Range<UInt64> {
            try write(store, inode, UInt8(piece), at: piece * 50_000)
            let (last, durable, slotCount) = store.volume.state.withLock { state in
                let log = state.core.log
                return (log.lastBatch.rawValue, log.tracker.durable.rawValue, log.slots.count)
            }
            #expect(last - durable <= UInt64(slotCount))
        }
    }

    /// Both places fail: the mount is read-only, every fsync says so, reads still give what was acknowledged.
    @Test func whereTheSecondPlaceFailsTooTheMountIsReadOnly() throws {
        let store = try TestStore()
        let inode = try make(store)
        try store.volume.syncAndWait()
        try write(store, inode, 9)
        store.device.inject(SimulatedFault(.fail(.ioError), kinds: kinds, isLasting: true))
        for _ in 0..<3 { #expect(throws: Errno.ioError) { try store.volume.syncAndWait() } }
        #expect(store.volume.isReadOnly)
        #expect(store.volume.complaints().contains { $0.contains("the log failed") })
        #expect(try contents(store.volume, inode) == [UInt8](repeating: 9, count: 50_000))
        #expect(throws: Errno.readOnly) { try write(store, inode, 1) }
        store.device.clearFaults()
        #expect(throws: Errno.ioError) { try store.volume.syncAndWait() }
    }

    /// A checkpoint whose pages cannot be written is written again at other addresses.
    @Test func aCheckpointThatFailsOnceIsWrittenAgain() throws {
        for file in [StoreFile.index, .superblock] {
            for kind in [TraceEntry.Kind.write, .writeDurable, .sync] {
                let store = try TestStore()
                let inode = try make(store)
                try write(store, inode, 3)
                store.device.inject(SimulatedFault(.failAndLose(.ioError), kinds: [kind], file: file))
                store.volume.housekeeper.housekeep(commits: true, checkpoints: true)
                #expect(!store.volume.isReadOnly)
                store.device.clearFaults()
                let crashed = store.device.crash(seed: 1).device()
                let again = try Volume.mount(crashed, VolumeOptions(), now: TestStore.now) { _ in }
                #expect(try contents(again, inode) == [UInt8](repeating: 3, count: 50_000))
            }
        }
    }
}
