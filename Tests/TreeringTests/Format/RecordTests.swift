// Records as they come from disk: what is skipped, what is refused.

import Testing

@testable import Treering

@Suite struct RecordTests {
    /// An empty record with a type, a version and flags, under a right checksum.
    private func decode<R>(type: UInt16, version: UInt8, flags: UInt8, _ body: (Record) -> R) throws -> R {
        var bytes = [UInt8](repeating: 0, count: Record.headerByteCount)
        return try bytes.withUnsafeMutableBytes { bytes in
            Record.seal(bytes, changeCount: 1, sequence: RecordSequence(7))
            bytes[Record.layout.type] = type
            bytes[Record.layout.version] = version
            bytes[Record.layout.flags] = flags
            bytes.seal(Record.layout.checksum)
            return body(try #require(Record.decode(UnsafeRawBufferPointer(bytes))))
        }
    }

    /// Found by the hostile dump test: a known type in an unknown version was not skipped, and its changes trapped.
    @Test(arguments: [(2, 1), (1, 2), (9, 9)] as [(UInt16, UInt8)])
    func unknownTypesAndVersionsAreSkippedOnlyIfTheySaySo(_ type: UInt16, _ version: UInt8) throws {
        try decode(type: type, version: version, flags: 1) { record in
            #expect(record.validate() == nil)
            #expect(record.isSkipped)
        }
        try decode(type: type, version: version, flags: 0) { #expect($0.validate() != nil) }
    }

    @Test func aKnownRecordIsChecked() throws {
        try decode(type: 1, version: 1, flags: 1) { record in
            #expect(!record.isSkipped)
            #expect(record.validate() == "change 0 lies outside the record")
        }
    }
}
