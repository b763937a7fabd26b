// Changes `since` in a record: for records that are written again elsewhere (relocation).

extension Record {
    /// Sets `since` of each change of the record in `bytes` to what `body` returns, then the checksum. If `body`
    /// throws, the record has no right checksum, and the caller must call this again.
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
