// A reserved range claims records: none may be read, since none was verified.

import Testing

@testable import Treering

@Suite struct ReservedRangeTests {
    @Test func aReservedRangeThatClaimsRecordsHasNone() {
        let header = BatchHeader(
            kind: .reservedRange, endsSegment: false, uuid: StoreUUID(high: 1, low: 2), segment: SegmentNumber(0),
            incarnation: 1, epoch: MountEpoch(1), sequence: BatchSequence(1), previousChecksum: 0, recordsChecksum: 0,
            recordAreaByteCount: 4096, recordCount: 5, payloadBlockCount: 0, firstRecord: RecordSequence(1),
            lastRecord: RecordSequence(5), nextInode: InodeNumber(2), durable: .zero)
        let bytes = [UInt8](repeating: 0xFF, count: 4096)
        var count = 0
        bytes.withUnsafeBytes { bytes in
            let batch = FoundBatch(header: header, checksum: 0, offset: 4096, bytes: bytes)
            batch.forEachRecord { _, _ in count += 1 }
        }
        #expect(count == 0)
    }
}
