// What the host is asked to read ahead, for readers of every kind.

import Testing

@testable import Treering

@Suite struct SequentialReadsTests {
    private let place = 1
    private let piece = 128 << 10

    @Test func aStreamIsReadAheadOfWithoutGaps() {
        let reads = SequentialReads(capacity: 4)
        reads.reset(place)
        var asked: [Range<UInt64>] = []
        for number in 0..<64 {
            let offset = UInt64(4096 + number * piece)
            if let range = reads.note(place, offset: offset, byteCount: piece) { asked.append(range) }
            // From the second piece on the host always knows of the next megabyte.
            if number > 0 { #expect(asked.last!.upperBound >= offset + UInt64(piece) + (1 << 20)) }
        }
        #expect(asked.first!.lowerBound <= 4096 + UInt64(2 * piece))
        for (one, next) in zip(asked, asked.dropFirst()) { #expect(one.upperBound == next.lowerBound) }
        // In steps worth a call, and never further than the window.
        #expect(asked.count <= (64 * piece) >> 20 + 2)
        #expect(asked.last!.upperBound <= UInt64(4096 + 64 * piece) + (2 << 20))
    }

    @Test func requestsThatOvertakeEachOtherStayAStream() {
        let reads = SequentialReads(capacity: 4)
        var count = 0
        for pair in 0..<32 {
            for number in [2 * pair + 1, 2 * pair] {
                if reads.note(place, offset: UInt64(number * piece), byteCount: piece) != nil { count += 1 }
            }
        }
        #expect(count >= 6)
    }

    @Test func neitherSmallNorScatteredReadsAreAStream() {
        let reads = SequentialReads(capacity: 4)
        for number in 0..<1000 {
            #expect(reads.note(place, offset: UInt64(number * 4096), byteCount: 4096) == nil)
        }
        var offset: UInt64 = 0
        for number in 0..<1000 as Range<UInt64> {
            offset = (offset + 7_919 * 4096 * (number % 7 + 1)) % (1 << 28)
            #expect(reads.note(place, offset: offset, byteCount: piece) == nil)
        }
    }

    @Test func eachFileHasItsOwn() {
        let reads = SequentialReads(capacity: 4)
        let far = UInt64(64 << 20)
        #expect(reads.note(place, offset: far, byteCount: piece) == nil)
        #expect(reads.note(place, offset: far + UInt64(piece), byteCount: piece) != nil)
        #expect(reads.note(2, offset: far + UInt64(2 * piece), byteCount: piece) == nil)
        reads.reset(place)
        #expect(reads.note(place, offset: far + UInt64(10 * piece), byteCount: piece) == nil)
    }
}
