// The changes that a record consists of, as decoded values. ChangeLayout.swift says how each lies on disk.

/// What a change does to the index. Names and inline bytes are borrowed from the record.
///
/// `since` is the stamp (first batch) of the oldest segment that may hold an older change of the same key; 0 means the
/// record's own segment.
enum Change {
    /// Sets an inode.
    case inode(InodeRecord)
    /// Sets a directory entry.
    case dirent(
        directory: InodeNumber, cookie: UInt64, since: BatchSequence, inode: InodeNumber, type: UInt8,
        name: UnsafeRawBufferPointer)
    /// Removes a directory entry.
    case removeDirent(directory: InodeNumber, cookie: UInt64, since: BatchSequence)
    /// Sets an extended attribute.
    case xattr(
        inode: InodeNumber, cookie: UInt64, since: BatchSequence, name: UnsafeRawBufferPointer, value: XattrStorage)
    /// Removes an extended attribute.
    case removeXattr(inode: InodeNumber, cookie: UInt64, since: BatchSequence)
    /// Brings a payload.
    case payload(PayloadRecord)
    /// Makes a range of a file show a part of a payload.
    case extent(inode: InodeNumber, offset: UInt64, payload: PayloadID, payloadOffset: UInt32, byteCount: UInt32)
    /// Clears a range of a file (truncate, punch).
    case removeRange(inode: InodeNumber, from: UInt64, to: UInt64, since: BatchSequence)
    /// Removes an inode and everything of it.
    case removeInode(inode: InodeNumber, since: BatchSequence)
    /// Notes that an inode has no name any more but is still in use.
    case orphan(inode: InodeNumber)
    /// Reserves a range of a file (fallocate). What the range showed before is gone, and it reads as zeros. At most
    /// `reservedByteCountLimit` bytes.
    case reserve(inode: InodeNumber, from: UInt64, to: UInt64)
    /// Repeats a change of an older record, which the cleaner moves here.
    case move(MovedChange)
    /// A change of an unknown type that says it may be skipped.
    case skipped

    /// 2^50 bytes: more than any store holds, yet its entries are few enough to be made in one step.
    static let reservedByteCountLimit: UInt64 = 1 << 50
    /// The bytes that a move adds to a change. Every entry is charged as if it had been moved already, so the cleaner
    /// never needs more room than was charged.
    static let moveOverheadByteCount = MoveChange.byteCount
}

/// A change that the cleaner repeats in a newer record, so that the segment of the older record can be freed. It keeps
/// the sequence of the older record.
///
/// For a payload in blocks, its position is an offset in the segment that holds the blocks. It may have fewer blocks
/// than before: the cleaner leaves dead ones out.
struct MovedChange {
    /// That of the record that first made the change.
    var sequence: RecordSequence
    /// Removals: `until`. Payloads in blocks: `blocksSegmentID`. Else 0.
    var word: UInt64
    /// Never a move itself, and never skipped.
    var bytes: UnsafeRawBufferPointer

    var change: Change { Record.decodeChange(bytes, isMoved: true)! }
    var until: BatchSequence { BatchSequence(word) }
    /// The segment that holds a payload's blocks.
    var blocksSegmentID: SegmentID {
        SegmentID(SegmentNumber(UInt32(truncatingIfNeeded: word)), UInt32(truncatingIfNeeded: word >> 32))
    }
    /// The `word` of a move of a payload whose blocks lie in this segment.
    static func word(_ blocks: SegmentID) -> UInt64 {
        UInt64(blocks.number.rawValue) | UInt64(blocks.incarnation) << 32
    }
}

/// Where the value of an extended attribute is.
enum XattrStorage {
    case inline(UnsafeRawBufferPointer)
    case payload(PayloadID, byteCount: UInt32)
}
