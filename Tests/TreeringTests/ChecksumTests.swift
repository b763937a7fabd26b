// The checksum against its published check value.

import Testing

@testable import Treering

@Suite struct ChecksumTests {
    @Test func checkValue() {
        "123456789".utf8.withContiguousStorageIfAvailable { bytes in
            #expect(Checksum.crc32c(UnsafeRawBufferPointer(bytes)) == 0xE306_9283)
        }
    }

    @Test func holeCountsAsZeros() {
        var bytes = [UInt8](0..<64)
        let sum = bytes.withUnsafeBytes { Checksum.crc32c($0, withHoleAt: 12) }
        for i in 12..<16 { bytes[i] = 0 }
        #expect(bytes.withUnsafeBytes { Checksum.crc32c($0) } == sum)
    }
}
