// What recovery tells a repair about a segment whose file is gone.

/// A stretch of the log whose segment is gone.
struct LogGap {
    var first: BatchSequence
    var epoch: MountEpoch
}
