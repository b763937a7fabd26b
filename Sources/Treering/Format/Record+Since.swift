// What a record says of older changes of its keys, changed in place: for records that are appended again elsewhere.

extension Record {
    /// Asks `body` what `since` is to be in each change of the record in `bytes`, and puts it there; the checksum with it. Where `body`
    /// throws, that is to be done again.
    static func revise<Failure: Error>(
        _ bytes: UnsafeMutableRawBufferPointer,
        _ body: (Change, _ since: BatchSequence) throws(Failure) -> BatchSequence
    ) throws(Failure) {
        try Record(trusting: UnsafeRawBufferPointer(bytes)).forEachChange { change, offset, byteCount throws(Failure) in
            let place = bytes.part(offset, byteCount)
            guard let since = ChangeType(rawValue: place[ChangeHeader.layout.type])?.since else { return }
            place[since] = try body(change, place[since])
        }
        bytes.seal(layout.checksum)
    }
}
