// The options of a mounted store.

/// What a mount may choose about the file system.
struct VolumeOptions: Sendable {
    /// The options that a person chose, one line "name=value" each. Shown to those who ask how a mount was made.
    var chosenText = ""
    enum Acknowledgement: String, Sendable, CaseIterable {
        /// When the record is in staging, which outlives the process.
        case staged
        /// When its batch's write has completed.
        case written
        /// When it is durable.
        case durable
    }

    var isReadOnly = false
    var acknowledgement = Acknowledgement.staged
    var stagingByteCount = 16 << 20
    var indexCacheByteCount = 256 << 20
    /// At the latest after this long, everything acknowledged is durable.
    var commitIntervalNanoseconds: UInt64 = 5_000_000_000
    /// A checkpoint comes at the latest after this much log, or this long.
    var checkpointByteCount: UInt64 = 128 << 20
    var checkpointIntervalNanoseconds: UInt64 = 30_000_000_000
    /// Recycled segments kept ready; more are given back to the host.
    var poolLimit = 8
    /// Which reads change the time of the last access.
    var accessTimes = AccessTimes()
    /// Whether POSIX access control lists are supported.
    var keepsAccessLists = true
    var cleaning = CleaningPolicy.auto
    var defragmenting = DefragmentPolicy.auto
    /// How many bytes of the log joining may write in an idle mount beyond what programs have written.
    var defragmentFreeByteCount: UInt64 = 256 << 20
    /// What a successor takes over if this process is killed. Nil where there is no supervisor.
    var connection: ConnectionState?
    /// Shorter pieces of dead data are not punched out of a segment.
    var punchByteCountMinimum = 256 << 10
    var bounds = WorkBounds()
    /// After so many failed tries to relocate the log on a full host, those who wait are told that it is full. Tries
    /// are at least 200 ms apart.
    var lateTryLimit = 25
}
