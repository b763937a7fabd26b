// Guesses when an fsync comes next, so that the device can begin before it is asked.

/// Counts records between syncs. A program that makes its writes durable one by one appends as many each time (one write and an fsync;
/// a new file, its contents and an fsync); after two rounds alike the third is written when it is as long, while the program is
/// still on its way to ask. A wrong guess costs one small write, and ends the guessing for two rounds.
struct SyncPredictor {
    /// Longer rounds are not what waits for the answer to each.
    private static let recordCountLimit = 16
    private var recordCount = 0
    private var last = 0
    /// How long the last two rounds were; 0 where they differed.
    private var usual = 0

    /// A sync of everything so far is likely to be asked for next.
    var isSyncLikely: Bool { usual > 0 && recordCount == usual }

    mutating func noteRecord() { recordCount += 1 }

    /// Somebody asked for durability.
    mutating func noteSync() {
        // Of what was durable already nothing is to be learnt.
        guard recordCount > 0 else { return }
        usual = recordCount == last && recordCount <= Self.recordCountLimit ? recordCount : 0
        last = recordCount
        recordCount = 0
    }
}
