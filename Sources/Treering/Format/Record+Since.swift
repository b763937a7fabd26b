// What a record says of older changes of its keys, changed in place: for records that are appended again elsewhere.

extension Record {
    /// Where `since` lies in a change of this type; nil where it has none.
    static func sinceOffset(_ type: UInt16) -> Int? {
        switch type {
        case 1: return 16 + InodeRecord.sinceOffset
        case 2, 3, 4, 5: return 24
        case 8: return 32
        case 9: return 16
        default: return nil
        }
    }

    /// Asks `body` what `since` is to be in each change of the record in `bytes`, and puts it there; the checksum with it. Where `body`
    /// throws, that is to be done again.
    static func revise<Failure: Error>(
        _ bytes: UnsafeMutableRawBufferPointer,
        _ body: (Change, _ since: BatchSequence) throws(Failure) -> BatchSequence
    ) throws(Failure) {
        try Record(trusting: UnsafeRawBufferPointer(bytes)).forEachChange { change, offset, _ throws(Failure) in
            guard let place = sinceOffset(bytes.load(offset)) else { return }
            bytes.store(try body(change, BatchSequence(bytes.load(offset + place))).rawValue, at: offset + place)
        }
        bytes.store(Checksum.crc32c(UnsafeRawBufferPointer(bytes), withHoleAt: 4), at: 4)
    }
}
