// A piece of a file.

/// A part of a file that one extent shows.
struct FilePiece: Equatable {
    /// In bytes of the file.
    var offset: UInt64
    var byteCount: UInt64
    /// 0: reserved.
    var payload: PayloadID
    var payloadOffset: UInt32
    /// The record that made the extent. Two pieces that are equal with this show the same bytes, reserved ones as well.
    var record = RecordSequence.zero

    var isReserved: Bool { payload.rawValue == 0 }
    var end: UInt64 { offset + byteCount }
}
