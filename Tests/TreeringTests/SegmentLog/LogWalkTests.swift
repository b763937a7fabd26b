// Where the log ends, and when its end is damage: batches and segments written by hand.

import Testing

@testable import Treering

/// Segments on a simulated device, filled batch by batch.
private final class LogBench {
    static let uuid = StoreUUID(high: 7, low: 8)
    static let segmentByteCount = 1 << 20
    let device = SimulatedDevice()
    private var files: [SegmentNumber: DeviceFile] = [:]
    private var headers: [SegmentNumber: SegmentHeader] = [:]
    private var offsets: [SegmentNumber: Int] = [:]
    /// Of the last batch written, for the next one's header.
    var lastChecksum: UInt32 = 0

    private func write(_ segment: SegmentNumber, _ offset: Int, _ bytes: UnsafeMutableRawBufferPointer) {
        let completion = device.perform(
            Submission(.writeDurable, files[segment]!, offset: UInt64(offset), bytes, tag: 0))
        precondition(completion.result == bytes.count)
    }

    @discardableResult
    func segment(
        _ number: UInt32, incarnation: UInt32 = 1, epoch: UInt64 = 1, firstBatch: UInt64, end: UInt32 = 0,
        state: SegmentHeader.State = .inUse
    ) -> SegmentNumber {
        let number = SegmentNumber(number)
        if files[number] == nil {
            files[number] = try! device.open(.segment(number), create: true)
            try! device.resize(files[number]!, to: UInt64(Self.segmentByteCount))
        }
        let header = SegmentHeader(
            state: state, uuid: Self.uuid, number: number, incarnation: incarnation, epoch: MountEpoch(epoch),
            firstBatch: BatchSequence(firstBatch), segmentByteCount: UInt32(Self.segmentByteCount), end: end)
        headers[number] = header
        let block = AlignedBuffer(byteCount: SegmentHeader.byteCount)
        header.encode(into: block.bytes)
        write(number, 0, block.bytes)
        offsets[number] = offsets[number] ?? SegmentHeader.byteCount
        return number
    }

    /// Writes a batch behind the last one of its segment; gives where it lies.
    @discardableResult
    func batch(
        _ segment: SegmentNumber, _ sequence: UInt64, durable: UInt64 = 0, epoch: UInt64 = 1, incarnation: UInt32 = 1,
        ends: Bool = false, isTorn: Bool = false
    ) -> Int {
        let offset = offsets[segment]!
        let block = AlignedBuffer(byteCount: 8192)
        block.bytes.zero(0, 8192)
        var writer = RecordWriter(capacity: 1024)
        writer.orphan(InodeNumber(sequence))
        Record.seal(writer.bytes, changeCount: 1, sequence: RecordSequence(sequence))
        block.bytes.copy(UnsafeRawBufferPointer(writer.bytes), to: BatchHeader.byteCount)
        let header = BatchHeader(
            endsSegment: ends, uuid: Self.uuid, segment: segment, incarnation: incarnation, epoch: MountEpoch(epoch),
            sequence: BatchSequence(sequence), previousChecksum: lastChecksum,
            recordsChecksum: Checksum.crc32c(UnsafeRawBufferPointer(writer.bytes)),
            recordAreaByteCount: UInt32(BatchHeader.byteCount + writer.byteCount), recordCount: 1, payloadBlockCount: 0,
            firstRecord: RecordSequence(sequence), lastRecord: RecordSequence(sequence), nextInode: InodeNumber(2),
            durable: BatchSequence(durable))
        lastChecksum = header.encode(into: block.bytes.part(0, BatchHeader.byteCount))
        if isTorn { block.bytes[BatchHeader.byteCount + 20] ^= 1 }
        write(segment, offset, block.bytes.part(0, 4096))
        offsets[segment] = offset + 4096
        return offset
    }

    /// Walks from the start of a segment.
    func walk(
        _ start: SegmentNumber, epoch: UInt64 = 1, incarnation: UInt32 = 1
    ) throws -> (batches: [UInt64], walk: LogWalk<SimulatedDevice>, damage: CorruptionReport?) {
        let reader = BatchReader(device: device, uuid: Self.uuid, segmentByteCount: Self.segmentByteCount)
        var segments: [SegmentNumber: WalkSegment] = [:]
        for (number, header) in headers { segments[number] = WalkSegment(header: header, file: files[number]!) }
        let position = LogPosition(
            lastBatch: .zero, lastChecksum: 0, segment: start, incarnation: incarnation,
            offsetInSegment: UInt32(SegmentHeader.byteCount))
        var walk = LogWalk(reader: reader, segments: segments, from: position, epoch: MountEpoch(epoch))
        var batches: [UInt64] = []
        while let found = try walk.next() { batches.append(found.header.sequence.rawValue) }
        return (batches, walk, try walk.evidenceOfDamage())
    }
}

@Suite struct LogWalkTests {
    @Test func theChainIsFollowedOverSegments() throws {
        let bench = LogBench()
        let one = bench.segment(1, firstBatch: 1)
        let two = bench.segment(2, firstBatch: 3)
        bench.batch(one, 1)
        bench.batch(one, 2, ends: true)
        bench.batch(two, 3, durable: 2)
        let (batches, walk, damage) = try bench.walk(one)
        #expect(batches == [1, 2, 3])
        #expect(walk.position.segment == two && walk.position.offsetInSegment == 8192)
        #expect(damage == nil)
    }

    @Test func aTornBatchFollowedByAWholeOneIsTheTail() throws {
        let bench = LogBench()
        let one = bench.segment(1, firstBatch: 1)
        bench.batch(one, 1)
        bench.batch(one, 2, isTorn: true)
        bench.batch(one, 3, durable: 1)
        let (batches, _, damage) = try bench.walk(one)
        #expect(batches == [1])
        #expect(damage == nil)
    }

    @Test func damageThatALaterBatchCallsDurableIsRefused() throws {
        let bench = LogBench()
        let one = bench.segment(1, firstBatch: 1)
        bench.batch(one, 1)
        bench.batch(one, 2, isTorn: true)
        bench.batch(one, 3, durable: 2)
        let (batches, _, damage) = try bench.walk(one)
        #expect(batches == [1])
        #expect(damage?.reason.contains("durable through 2") == true)
    }

    /// The log of a later mount went on in a segment whose header is of an earlier one: damage in it was taken for a torn tail.
    @Test func damageInASegmentThatALaterMountWentOnInIsRefused() throws {
        let bench = LogBench()
        let one = bench.segment(1, firstBatch: 1)
        bench.batch(one, 1)
        bench.batch(one, 2, epoch: 2)
        bench.batch(one, 3, epoch: 2, isTorn: true)
        bench.batch(one, 4, durable: 3, epoch: 2)
        let (batches, _, damage) = try bench.walk(one)
        #expect(batches == [1, 2])
        #expect(damage?.reason.contains("durable through 3") == true)
    }

    @Test func damageThatALaterSegmentCallsDurableIsRefused() throws {
        let bench = LogBench()
        let one = bench.segment(1, firstBatch: 1)
        let two = bench.segment(2, firstBatch: 3)
        bench.batch(one, 1)
        bench.batch(one, 2, ends: true, isTorn: true)
        bench.batch(two, 3, durable: 2)
        #expect(try bench.walk(one).damage != nil)
    }

    @Test func damageBeforeTheEndOfTheChainIsRefused() throws {
        let bench = LogBench()
        let one = bench.segment(1, firstBatch: 1)
        bench.batch(one, 1, durable: 2)
        bench.batch(one, 2, isTorn: true)
        #expect(try bench.walk(one).damage != nil)
    }

    /// Epoch 1 ended at batch 1; its batch 2 reached the disk whole all the same, epoch 2's own batch 2 did not.
    @Test func anAbandonedSuffixDoesNotComeBackAfterTwoCrashes() throws {
        let bench = LogBench()
        let one = bench.segment(1, firstBatch: 1)
        bench.batch(one, 1)
        let checksum = bench.lastChecksum
        bench.batch(one, 2)
        bench.batch(one, 3)
        bench.segment(1, firstBatch: 1, end: 8192)
        bench.lastChecksum = checksum
        let two = bench.segment(2, epoch: 2, firstBatch: 2)
        var found = try bench.walk(one)
        #expect(found.batches == [1])
        #expect(found.damage == nil)
        bench.batch(two, 2, durable: 1, epoch: 2)
        found = try bench.walk(one)
        #expect(found.batches == [1, 2])
        #expect(found.walk.position.segment == two)
    }

    /// Even where no end was declared: what a later mount wrote behind the same batch counts.
    @Test func theLaterEpochWins() throws {
        let bench = LogBench()
        let one = bench.segment(1, firstBatch: 1)
        bench.batch(one, 1)
        let checksum = bench.lastChecksum
        bench.batch(one, 2)
        bench.lastChecksum = checksum
        let two = bench.segment(2, epoch: 2, firstBatch: 2)
        bench.batch(two, 2, durable: 1, epoch: 2)
        let found = try bench.walk(one)
        #expect(found.batches == [1, 2])
        #expect(found.walk.position.segment == two)
        #expect(found.walk.epoch == MountEpoch(2))
    }

    @Test func leftoversOfAnotherIncarnationAreIgnored() throws {
        let bench = LogBench()
        let one = bench.segment(1, incarnation: 2, firstBatch: 1)
        bench.batch(one, 1, incarnation: 2)
        bench.batch(one, 2, incarnation: 1)
        bench.batch(one, 3, durable: 2, incarnation: 1)
        let (batches, _, damage) = try bench.walk(one, incarnation: 2)
        #expect(batches == [1])
        #expect(damage == nil)
    }

    @Test func aBatchBehindAnotherOneThanItSaysIsNotTaken() throws {
        let bench = LogBench()
        let one = bench.segment(1, firstBatch: 1)
        bench.batch(one, 1)
        bench.lastChecksum ^= 1
        bench.batch(one, 2)
        #expect(try bench.walk(one).batches == [1])
    }

    @Test func batchesOfAnEarlierEpochAreNotTaken() throws {
        let bench = LogBench()
        let one = bench.segment(1, epoch: 2, firstBatch: 1)
        bench.batch(one, 1, epoch: 2)
        bench.batch(one, 2, epoch: 1)
        #expect(try bench.walk(one, epoch: 2).batches == [1])
    }

    @Test func aFreeSegmentIsNeverWalked() throws {
        let bench = LogBench()
        let one = bench.segment(1, firstBatch: 1, state: .free)
        bench.batch(one, 1)
        #expect(try bench.walk(one).batches == [])
    }
}
