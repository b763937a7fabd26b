// Small writes that lie next to each other become larger pieces before their batch is written; what they replace is not written.

import Testing

@testable import Treering

@Suite struct PackingTests {
    private func line(_ number: Int) -> [UInt8] { (0..<80).map { UInt8(truncatingIfNeeded: number &* 7 &+ $0) } }

    private func append(
        _ store: TestStore, _ inode: InodeNumber, _ lines: Range<Int>, to expected: inout [UInt8]
    ) throws {
        for number in lines {
            try store.write(inode, UInt64(expected.count), line(number))
            expected += line(number)
        }
    }

    private func leftOutCount(_ store: TestStore) -> UInt64 { store.volume.state.withLock { $0.core.log.leftOutCount } }

    @Test func linesOfALogBecomeFewPieces() throws {
        let store = try TestStore()
        let inode = try store.make("log").inode
        var expected: [UInt8] = []
        try append(store, inode, 0..<5000, to: &expected)
        try store.volume.syncAndWait()
        #expect(try store.pieces(of: inode).count < 60)
        #expect(leftOutCount(store) == 5000)
        let live = store.volume.state.withLock { $0.core.table.liveByteCount }
        #expect(live < Int64(expected.count) * 13 / 10)
        try store.verify([(inode, expected)])
    }

    /// Also where another write comes between any two of them, and where what was written is written again.
    @Test func filesThatGrowTogether() throws {
        let store = try TestStore()
        let inodes = try (0..<5).map { try store.make("log\($0)").inode }
        var expected = [[UInt8]](repeating: [], count: 5)
        for number in 0..<400 {
            for (index, inode) in inodes.enumerated() {
                try append(store, inode, number..<number + 1, to: &expected[index])
                // A counter at the file's beginning.
                try store.write(inode, 0, Array("\(number)".utf8))
                expected[index].replaceSubrange(0..<"\(number)".utf8.count, with: "\(number)".utf8)
            }
            if number == 200 { try store.volume.syncAndWait() }
        }
        try store.volume.syncAndWait()
        for inode in inodes { #expect(try store.pieces(of: inode).count < 40) }
        try store.verify(Array(zip(inodes, expected)))
    }

    /// Nothing is kept of a byte that was written a thousand times.
    @Test func whatIsWrittenOverInABatchIsNotWritten() throws {
        let store = try TestStore()
        let inode = try store.make("counter").inode
        let before = store.volume.state.withLock { $0.core.log.appendedByteCount }
        for number in 0..<1000 { try store.write(inode, 0, line(number)) }
        try store.volume.syncAndWait()
        #expect(store.volume.state.withLock { $0.core.log.appendedByteCount } - before < 10_000)
        try store.verify([(inode, line(999))])
    }

    /// A record that brings the newest size and times of its inode is written, even if its bytes are gone.
    @Test func theNewestInodeIsWritten() throws {
        let store = try TestStore()
        let inode = try store.make("file").inode
        try store.write(inode, 0, line(1))
        try store.write(inode, 80, line(2))
        try store.volume.perform { (core) throws(Stop) in
            _ = try core.setAttributes(inode, AttributeChanges(byteCount: 0), TestStore.context)
        }
        try store.write(inode, 300, line(3))
        try store.volume.syncAndWait()
        try store.verify([(inode, [UInt8](repeating: 0, count: 300) + line(3))])
    }

    /// A test of the tests: a record that is left out although something of it is live is found by a check.
    @Test func aLiveRecordThatIsLeftOutIsFound() throws {
        let store = try TestStore()
        let inode = try store.make("log").inode
        for number in 0..<3 { try store.write(inode, UInt64(number * 200), line(number)) }
        store.volume.state.withLock { state in
            let log = state.core.log
            log.leaveOut(recordAt: state.core.smallWrites.list[1].recordOffset)
        }
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems != [])
    }

    /// What an instant copy shows stays shared, and its record is written.
    @Test func copiedLinesStayShared() throws {
        let store = try TestStore()
        let inode = try store.make("log").inode
        let copy = try store.make("copy").inode
        var expected: [UInt8] = []
        try append(store, inode, 0..<100, to: &expected)
        _ = try store.volume.perform { (core) throws(Stop) in
            try core.copyRange(inode, at: 0, copy, at: 0, 8000, TestStore.context)
        }
        let copied = expected
        try append(store, inode, 100..<300, to: &expected)
        try store.volume.syncAndWait()
        #expect(store.volume.state.withLock { $0.core.index.sharedByteCount } == 8000)
        #expect(try store.pieces(of: inode).count < 110)
        try store.verify([(inode, expected), (copy, copied)])
    }

    /// The record of a copy closes the batch whose lines it names: they were packed, and the copy named what was not there any more.
    @Test func aCopyThatClosesTheBatch() throws {
        let store = try TestStore()
        var files: [(InodeNumber, [UInt8])] = []
        for round in 0..<150 {
            let source = try store.make("s\(round)").inode
            let copy = try store.make("c\(round)").inode
            var expected: [UInt8] = []
            for number in 0..<90 {
                try store.write(source, UInt64(expected.count), line(number + round))
                expected += line(number + round)
            }
            _ = try store.volume.perform { (core) throws(Stop) in
                try core.copyRange(source, at: 0, copy, at: 0, UInt64(expected.count), TestStore.context)
            }
            files.append((source, expected))
            files.append((copy, expected))
        }
        try store.volume.syncAndWait()
        try store.verify(files)
    }

    /// What was left out of a damaged batch is no loss, neither before its repair nor after.
    @Test func aDamagedBatchThatWasPacked() throws {
        let store = try TestStore()
        let inode = try store.make("log").inode
        var expected: [UInt8] = []
        try append(store, inode, 0..<150, to: &expected)
        try store.volume.syncAndWait()
        let (segment, position) = try store.volume.perform { (core) throws(Stop) in
            try core.find { () throws(PageMiss) in
                var payload = PayloadID(0)
                try core.index.forEachPiece(inode, 0, 1 << 40) { piece in
                    payload = piece.payload
                    return false
                }
                return try core.index.tree.withValue(of: PayloadEntry.key(payload)) { value in
                    let entry = PayloadEntry(decoding: value!)!
                    return (entry.blocksSegment, entry.position)
                }
            }
        }
        try store.volume.unmount()
        store.device.damage(.segment(segment), at: UInt64(position) + 100)
        let problems = try Checker.check(store.device, readsData: true).problems
        #expect(!problems.isEmpty && !"\(problems)".contains("are lost"), "\(problems)")
        let device = store.device
        _ = try Repairer.repair(log: { _ in }) {
            device
        } mount: { (device, options) throws(MountError) in
            try Volume.mount(device, options, now: TestStore.now) { _ in }
        }
        let rest = try Checker.check(store.device, readsData: true).problems
        #expect(!"\(rest)".contains("are lost"), "\(rest)")
    }

    /// A large write leaves no room for packing in the batch that it closes: the lines stay as they are, or are packed before.
    @Test func largeWritesBetweenLines() throws {
        let store = try TestStore()
        let inode = try store.make("log").inode
        let large = try store.make("large").inode
        var expected: [UInt8] = []
        var block: [UInt8] = []
        for round in 0..<60 {
            try append(store, inode, round * 20..<round * 20 + 20, to: &expected)
            block = [UInt8](repeating: UInt8(round), count: 100_000)
            try store.write(large, 0, block)
        }
        try store.volume.syncAndWait()
        #expect(try store.pieces(of: inode).count < 200)
        try store.verify([(inode, expected), (large, block)])
    }

    /// A killed process has packed some batches, and not the last: nothing that it acknowledged is lost.
    @Test func killedBeforeAndAfterPacking() throws {
        for count in [3, 700, 1000] {
            let store = try TestStore(capacity: 16 << 20, keepsStaging: true)
            let inode = try store.make("log").inode
            var expected: [UInt8] = []
            try append(store, inode, 0..<count, to: &expected)
            // The batch is closed, and whether it was written nobody knows.
            store.volume.state.withLock { $0.core.packOpenBatch() }
            try append(store, inode, count..<count + 2, to: &expected)
            let crashed = store.device.snapshotAfterKill(seed: UInt64(count))
            let staged = try #require(StagedRecords(copying: UnsafeRawBufferPointer(store.stagingBuffer.bytes)))
            let volume = try Volume.mount(crashed, VolumeOptions(), allStaged: [staged]) { _ in }
            let found = try volume.bytes { (core) throws(Stop) in try core.planRead(inode, at: 0, expected.count + 1) }
            #expect(found == expected)
            try volume.unmount()
            #expect(try Checker.check(crashed, readsData: true).problems == [])
        }
    }
}

extension TestStore {
    /// All pieces of a file.
    func pieces(of inode: InodeNumber) throws -> [FilePiece] {
        var pieces: [FilePiece] = []
        try volume.perform { (core) throws(Stop) in
            try core.find { () throws(PageMiss) in
                pieces.removeAll()
                try core.index.forEachPiece(inode, 0, 1 << 40) { piece in
                    pieces.append(piece)
                    return true
                }
            }
        }
        return pieces
    }

    /// The store checks, and an index that is made anew from the log is as good as the present one.
    func verify(_ files: [(InodeNumber, [UInt8])]) throws {
        for (inode, expected) in files { #expect(try read(inode, 0, expected.count + 1) == expected) }
        try volume.unmount()
        #expect(try Checker.check(device, readsData: true).problems == [])
        try device.unlink(.index)
        _ = try IndexRebuild.rebuild(device) { _ in }
        #expect(try Checker.check(device, readsData: true).problems == [])
        volume = try Volume.mount(device, VolumeOptions(), now: TestStore.now) { _ in }
        for (inode, expected) in files { #expect(try read(inode, 0, expected.count + 1) == expected) }
    }
}
