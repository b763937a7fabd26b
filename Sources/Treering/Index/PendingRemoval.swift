// A removal whose entries are taken out of the index in steps.

/// A removal under way, of a range or of a whole inode. It counts already, but some of its entries are still in the
/// index.
struct PendingRemoval {
    var sequence: RecordSequence
    var range: RemovalEntry
    /// Everything below is done.
    var cursor: UInt64 = 0
    /// About how many bytes are still to come free. Too high if others share them. 0 for a removal that a mount found.
    var byteCount: Int64 = 0
    /// The extent that the range shows meanwhile, and that takes its place in the end. No checkpoint has such a removal
    /// in it.
    var replacement: ExtentEntry?
    /// Where to go on with the tombstones that it covers, once its extents are out. Nil when there are no more.
    var tombstones: TombstoneCursor? = .start

    /// Whether nothing is left of a range.
    var isDone: Bool { cursor >= range.to && (replacement != nil || tombstones == nil) }
}
