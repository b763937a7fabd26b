// What recovery tells a repair of a segment whose file is gone.

/// A stretch of the log whose segment is gone.
struct LogGap {
    var first: BatchSequence
    var epoch: MountEpoch
}
