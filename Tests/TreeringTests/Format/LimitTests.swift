// Limits of docs/limits.md that no other test goes to.

import Testing

@testable import Treering

@Suite struct LimitTests {
    private func format(_ capacity: UInt64, _ segment: Int?) throws {
        try Volume.format(
            SimulatedDevice(), FormatOptions(capacityByteCount: capacity, segmentByteCount: segment, now: TestStore.now)
        )
    }

    @Test func capacitiesAndSegmentsOutOfBoundsAreRefused() throws {
        for (capacity, segment) in [
            (16 << 20 - 1, 1 << 20), (56 << 20, 8 << 20), (1 << 30, 512 << 10), (1 << 34, 128 << 20),
            (1 << 30, 3 << 20),
            (1 << 44 + 1 << 20, 1 << 20), (1 << 50 + 1 << 26, 64 << 20),
        ] as [(UInt64, Int)] {
            #expect(throws: MountError.self, "\(capacity), \(segment)") { try format(capacity, segment) }
        }
        try format(16 << 20, 1 << 20)
        try format(64 << 20, 8 << 20)
    }

    /// A block with half a million names takes no more, long before its count runs over.
    @Test func aBlockHasABoundedNumberOfNames() throws {
        var decodedCount = 0
        for (count, mayBeShared) in [(4096, true), (1 << 31 - 4096, true), (1 << 31, false), (UInt32.max, false)]
            as [(UInt32, Bool)]
        {
            let buffer = AlignedBuffer(byteCount: 4096)
            let bytes = buffer.bytes
            defer { withExtendedLifetime(buffer) {} }
            bytes.zero(0, bytes.count)
            let field = PayloadEntry.layout
            bytes[field.length] = 4096
            bytes[field.storage] = PayloadStorage.blocks.rawValue
            bytes[field.countWidth] = 4
            bytes[field.storedCount] = 1
            bytes[field.checksums[1]] = count
            let entry = PayloadEntry(decoding: UnsafeRawBufferPointer(bytes.part(0, field.checksums[2].offset)))
            guard let entry else { continue }
            decodedCount += 1
            #expect(entry.canBeShared(0, 4096) == mayBeShared, "\(count)")
        }
        #expect(decodedCount >= 3)
    }
}
