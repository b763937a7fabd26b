// What a salvage must know of the log before the damaged place.

/// What is known of the log just before a damaged place.
struct LogContext {
    var sequence: BatchSequence
    var checksum: UInt32
    var lastRecord: RecordSequence
    var nextInode: InodeNumber
    var epoch: MountEpoch
    var durable: BatchSequence

    init(_ found: FoundBatch) {
        sequence = found.header.sequence
        checksum = found.checksum
        lastRecord = found.header.lastRecord
        nextInode = found.header.nextInode
        epoch = found.header.epoch
        durable = found.header.durable
    }

    /// The context before the batch `sequence`, where the batch before that was not read.
    init(
        before sequence: BatchSequence, checksum: UInt32, lastRecord: RecordSequence, nextInode: InodeNumber,
        epoch: MountEpoch
    ) {
        self.sequence = BatchSequence(sequence.rawValue - 1)
        self.checksum = checksum
        self.lastRecord = lastRecord
        self.nextInode = nextInode
        self.epoch = epoch
        durable = .zero
    }
}
