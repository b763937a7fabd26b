// The accounting of space: who may use how much of a store, what is kept back for whom, when an operation waits for
// room, and when it gets ENOSPC. All of this is decided here, from the numbers of the segment table and from what
// others note here.
//
// Free segments, of `table.countLimit` in all:
//
// | who asks            | leaves alone                                                                          |
// |---------------------|---------------------------------------------------------------------------------------|
// | `.recovery`         | nothing: the cleaner, and the replay of a killed mount's staging                      |
// | `.removal`          | two for the cleaner, and what the replay of staging takes                             |
// | `.write`            | those, one more, two for the cleaner again, and `withheldSegmentCount` for the index  |
// | `.write`, unclaimed | also what reserved ranges may come to need (`RoomClaim.none`)                         |
// | `.write`, claimed   | less `withheldSegmentCount`: the index does not grow at the cost of what was reserved |
// | on a full host      | the cleaner's two at most, and removals nothing; only prepared segments are opened    |
//
// Live bytes:
//
// | what               | limit                                                                                    |
// |--------------------|------------------------------------------------------------------------------------------|
// | all files          | `liveByteCountLimit`: the segments that writes may use, less half a batch each, 62 of 64 |
// | an unclaimed write | that, less what is reserved                                                              |
// | a claimed write    | that, with the index's part and an eighth of a segment (a quarter if it releases some)   |
// | joining            | none: it takes less room in the end                                                      |
//
// An operation without room waits as long as pending removals, recycling or cleaning may make room. Then it fails.

/// The answer to a request for room.
enum RoomAnswer: Equatable {
    case fits
    /// There is none now, but some may come.
    case wait
    /// There is none and none will come: ENOSPC.
    case full
    /// The pieces of the file must be joined first.
    case crowded
}

/// Decides who may use how much of a store. Owned by its log and used under the volume's lock.
final class SpaceAccounting {
    /// Replaced by relocation.
    var table: SegmentTable
    let geometry: StagingGeometry
    /// Where the next batch goes in the head, in bytes from the start of the segment; nil if it begins another segment.
    var headOffset: Int?
    /// Whether the host has no room for another segment.
    var isHostFull = false
    /// The free bytes of the host when it was last asked.
    var hostAvailableByteCount: UInt64 = .max
    /// Whether the last checkpoint found no room on the host. Then nobody waits for room that only a checkpoint can
    /// free.
    var isCheckpointStuck = false
    /// Free segments that count as used, because the index takes their part of the capacity.
    var withheldSegmentCount = 0
    /// Free segments that the last write that asked had to leave to reserved ranges. Below 0 if it claimed a reserved
    /// range: then it may use the withheld segments. The housekeeper makes room accordingly.
    private(set) var owedSegmentCount = 0
    /// The state in which the cleaner found nothing to gain for writes, and for removals. Nil: it may gain something.
    var writeStandstill: Standstill?
    var removalStandstill: Standstill?

    init(table: SegmentTable, geometry: StagingGeometry) {
        self.table = table
        self.geometry = geometry
    }

    // MARK: Segments

    /// What the cleaner needs to begin: one segment for blocks, one for the log.
    static let cleanerSegmentCount = 2

    /// How many free segments a tier must leave.
    func keptSegmentCount(_ tier: SpaceTier) -> Int {
        if tier == .recovery { return 0 }
        // A mount appends the staging of a killed mount before anything can be freed.
        let batches = (table.segmentByteCount - SegmentHeader.byteCount) / geometry.batchByteCountLimit
        let replay = (geometry.slotCount + batches - 1) / batches
        if tier == .removal { return Self.cleanerSegmentCount + replay }
        // When writes run short, the cleaner must have its segments without those that are kept for removals.
        return Self.cleanerSegmentCount + replay + 1 + Self.cleanerSegmentCount + withheldSegmentCount
    }

    /// How many segments can be opened now: if the host is full, only prepared ones.
    var availableSegmentCount: Int { isHostFull ? table.pool.count : table.freeCount }

    /// Whether a tier may not open a segment, because only those that it must leave are left.
    func isShort(for tier: SpaceTier) -> Bool {
        // A full host may have fewer prepared segments than that. They are for operations that free space.
        let kept = isHostFull ? min(keptSegmentCount(tier), Self.cleanerSegmentCount) : keptSegmentCount(tier)
        let owed = tier == .write ? owedSegmentCount : 0
        return availableSegmentCount <= (isHostFull && tier == .removal ? 0 : kept + owed)
    }

    /// Whether removals or the cleaner have opened segments that writes must leave. The head may be one of these, and
    /// writes must not fill it: they would use up what the cleaner gains.
    private var isReserveInUse: Bool {
        !isHostFull && table.freeCount < keptSegmentCount(.write) + min(0, owedSegmentCount)
    }

    /// Whether writes find no segment to go on in.
    var isShortOfSegments: Bool { isShort(for: .write) && (headOffset == nil || isReserveInUse) }

    /// How many segments should be prepared: one for the next head, and those that the cleaner needs to work on a full
    /// host. A fresh store has its head only, until that is a quarter full.
    var preparedSegmentGoal: Int {
        if table.inUseCount > 1 { return min(Self.cleanerSegmentCount, table.inUseCount - 1) + 1 }
        return (headOffset ?? .max) > table.segmentByteCount / 4 ? 1 : 0
    }

    var wantsPreparedSegment: Bool {
        table.freeCount > table.pool.count && table.pool.count < preparedSegmentGoal && !isHostFull
    }

    // MARK: The head

    /// How many bytes can be appended to the head before it is full.
    var headRoom: Int { headOffset.map { table.segmentByteCount - $0 - geometry.batchByteCountLimit } ?? 0 }

    /// While no segment is prepared, the head from this offset on is kept for operations that free space: the host may
    /// have no room for another segment, and removing must be possible then.
    private var keptOffset: Int {
        table.segmentByteCount - max(table.segmentByteCount / 8, 2 * geometry.batchByteCountLimit)
    }

    /// Whether a tier may begin a batch in the head.
    func roomInHead(_ tier: SpaceTier) -> RoomAnswer {
        guard tier == .write, let headOffset else { return .fits }
        // The rest of the head is kept for operations that free space.
        if isReserveInUse { return isSpaceComing ? .wait : .full }
        guard table.pool.isEmpty, table.freeCount > 0, headOffset > keptOffset else { return .fits }
        return isHostFull && !isSpaceComing ? .full : .wait
    }

    /// Whether a tier may begin a segment.
    func roomForSegment(_ tier: SpaceTier) -> RoomAnswer {
        if isShort(for: tier) { return isSpaceComing(tier) ? .wait : .full }
        if !table.pool.isEmpty { return .fits }
        return isHostFull && !isSpaceComing(tier) ? .full : .wait
    }

    // MARK: What may come

    /// Whether recycling or cleaning will free something.
    var isSpaceComing: Bool { isSpaceComing(.write) }

    private func isSpaceComing(_ tier: SpaceTier) -> Bool {
        if isCheckpointStuck { return false }
        if table.hasDeadSegment { return true }
        // The cleaner must not wait for itself.
        if tier == .recovery { return false }
        guard let standstill = tier == .write ? writeStandstill : removalStandstill else { return table.inUseCount > 1 }
        // Less is live, or more is dead, than when the cleaner found nothing to gain.
        return table.liveByteCount < standstill.live
            || table.deadByteCount >= standstill.dead + Int64(table.segmentByteCount / 16)
    }

    /// Notes that the cleaner found nothing more to gain.
    func noteStandstill() {
        writeStandstill = table.standstill
        if isShort(for: .removal) { removalStandstill = table.standstill }
    }

    func forgetStandstill() { (writeStandstill, removalStandstill) = (nil, nil) }

    /// Notes the free bytes of the host and the size of the index file. Its free pages count too: the index will use
    /// them again.
    func note(hostAvailableByteCount: UInt64, indexByteCount: Int) {
        self.hostAvailableByteCount = hostAvailableByteCount
        withheldSegmentCount = min(indexByteCount / table.segmentByteCount, table.countLimit / 4)
        if isHostFull, hostAvailableByteCount > UInt64(table.segmentByteCount) * 2 { isHostFull = false }
    }

    // MARK: Live bytes

    /// How many live bytes the store may hold. The cleaner works with the rest.
    var liveByteCountLimit: Int64 { liveByteCountLimit(ofSegments: table.countLimit) }

    func liveByteCountLimit(ofSegments count: Int) -> Int64 {
        let count = max(0, count - keptSegmentCount(.write))
        // On average half a batch is lost at the end of a segment. 62 of 64: so that the cleaner need not gain the very
        // last byte.
        let filled = table.segmentByteCount - geometry.batchByteCountLimit / 2
        return Int64(count) * Int64(filled) / 64 * 62
    }

    /// The room that reserved bytes may need when they are written, records included. A block that is written alone,
    /// between two that stay reserved, needs a twentieth more than its bytes.
    static func byteCount(ofReserved byteCount: UInt64) -> Int64 {
        Int64(clamping: min(byteCount, Change.reservedByteCountLimit << 8)) / 16 * 17
    }

    /// The inverse: how many bytes, in whole blocks, may be reserved in this much room.
    static func reservableByteCount(in byteCount: UInt64) -> UInt64 {
        let block = UInt64(blockByteCount)
        return byteCount / 17 * 16 / block * block
    }

    /// How many segments reserved bytes may need. The end of each may stay unused.
    func segmentCount(ofReserved byteCount: UInt64) -> Int {
        let needed = Self.byteCount(ofReserved: byteCount)
        guard needed > 0 else { return 0 }
        let usable = Int64(table.segmentByteCount - SegmentHeader.byteCount - geometry.batchByteCountLimit)
        return Int(clamping: (needed + usable - 1) / usable)
    }

    /// Whether `byteCount` more bytes may be live, while `reserved` bytes are reserved in all. Sets `owedSegmentCount`.
    /// `isComing`: pending removals will make room.
    @inline(__always)
    func room(
        for byteCount: Int, _ tier: SpaceTier, _ claim: RoomClaim, reserved: UInt64, isComing: @autoclosure () -> Bool
    ) -> RoomAnswer {
        owedSegmentCount = claim.usesReservations ? -withheldSegmentCount : segmentCount(ofReserved: reserved)
        guard tier == .write else { return .fits }
        let live = table.liveByteCount + Int64(byteCount)
        switch claim {
        case .joining: return .fits
        case .none:
            if live <= liveByteCountLimit - Self.byteCount(ofReserved: reserved) { return .fits }
            return isComing() ? .wait : .full
        case .allocated(_, let released):
            let rest = reserved - min(released, reserved)
            // Room that was reserved stays usable though the index has grown since: hence the withheld segments. Some
            // room beyond the limit, so that pieces are not joined for each write. A write that releases no reserved
            // bytes gets less of it.
            let limit = liveByteCountLimit(ofSegments: table.countLimit + withheldSegmentCount)
            let beyond = Int64(table.segmentByteCount / (released > 0 ? 4 : 8))
            if live + Self.byteCount(ofReserved: rest) <= limit + beyond { return .fits }
            return isComing() ? .wait : .crowded
        }
    }

    /// Whether `byteCount` more bytes may be reserved, of `available` bytes.
    func roomToReserve(_ byteCount: UInt64, available: UInt64, isComing: @autoclosure () -> Bool) -> RoomAnswer {
        if byteCount <= available { return .fits }
        // Pending removals free their bytes step by step.
        return isComing() && byteCount <= UInt64(max(0, liveByteCountLimit)) ? .wait : .full
    }

    /// Whether two more writes of the largest size might find no room.
    func isNearlyFull(reserved: UInt64, writeByteCountLimit: Int) -> Bool {
        table.liveByteCount + Int64(2 * writeByteCountLimit)
            > liveByteCountLimit - Self.byteCount(ofReserved: reserved) || isShort(for: .write)
    }

    /// The bytes that are live or reserved, without those that pending removals (`removing`) will free.
    func neededByteCount(reserved: UInt64, removing: Int64) -> Int64 {
        max(0, table.liveByteCount - removing) + Self.byteCount(ofReserved: reserved)
    }

    /// How many bytes files may use in all, and how many of them are free. No more is free than the host can provide.
    func totalAndFree(reserved: UInt64, removing: Int64) -> (total: UInt64, free: UInt64) {
        let total = UInt64(liveByteCountLimit)
        let free = total - min(total, UInt64(neededByteCount(reserved: reserved, removing: removing)))
        let makeable = isHostFull ? 0 : hostAvailableByteCount
        // Dead bytes in segments count as free: the cleaner can reclaim them.
        let own = UInt64(table.pool.count * table.segmentByteCount) + UInt64(table.reclaimableByteCount)
        return (total, min(free, makeable >= UInt64.max - own ? .max : makeable + own))
    }

    // MARK: Other capacities

    /// The smallest number of segments that can hold `neededByteCount`, with the segments that are kept back and one
    /// more to work with.
    func leastSegmentCount(for neededByteCount: Int64, capacityMinimum: UInt64) -> Int {
        let size = UInt64(table.segmentByteCount)
        let least = max(8, Int((capacityMinimum + size - 1) / size))
        let perSegment = max(1, liveByteCountLimit(ofSegments: keptSegmentCount(.write) + 1))
        let filled = Int((neededByteCount + perSegment - 1) / perSegment)
        return max(least, keptSegmentCount(.write) + filled + 1)
    }

    // MARK: Cleaning

    /// With fewer free segments than this, beyond those kept back, writes will soon be short of room.
    var fewSegmentCount: Int { max(2, table.countLimit / 64) }

    /// Whether free segments are so few that dead ones are worth a checkpoint of their own.
    var isRoomLow: Bool { table.freeCount - keptSegmentCount(.write) <= fewSegmentCount / 2 }

    /// How many segments background cleaning should free. Not above 0: none.
    var missingSegmentCount: Int {
        // Dead segments become free without cleaning.
        fewSegmentCount - (table.freeCount - keptSegmentCount(.write)) - table.deadSegmentCount
    }

    /// Whether there is room to move the live bytes out of a segment. What does not fit in the heads needs a segment
    /// for blocks and one for the log, beyond those that are kept for removals. A victim that gives back at least a
    /// quarter may borrow one of these.
    func mayClean(_ victim: Segment, cleanersHeadRoom: Int) -> Bool {
        let live = Int(victim.live)
        // For payload blocks the records of moves are small. For small entries they are most of what is written.
        let recordByteCount = victim.role == .cold ? live / 16 : live / 2 * 3
        let needed = (cleanersHeadRoom < live ? 1 : 0) + (headRoom < recordByteCount ? 1 : 0)
        let borrowed = live <= table.segmentByteCount / 4 * 3 ? 1 : 0
        let kept = isShort(for: .removal) || isHostFull ? 0 : keptSegmentCount(.removal) - borrowed
        return availableSegmentCount >= kept + needed
    }

    /// How long each 4 KiB of a write is held back, in nanoseconds: the less room, the longer. 0 while there is enough
    /// room, or nothing to gain by cleaning.
    func pace(longest: Int) -> Int {
        let few = fewSegmentCount * table.segmentByteCount
        let free = availableSegmentCount - keptSegmentCount(.write)
        let room = max(0, free * table.segmentByteCount + headRoom)
        guard room < few, !isHostFull else { return 0 }
        // Each segment loses some bytes at its end, which no cleaning brings back.
        let worthwhile = Int64(table.segmentByteCount) * Int64(max(2, table.inUseCount / 16))
        guard isSpaceComing, table.reclaimableByteCount > worthwhile else { return 0 }
        let used = 1 - Double(room) / Double(few)
        return Int(Double(longest) * used * used * used * used)
    }
}

/// The live and dead bytes of the store when the cleaner found nothing more to gain.
struct Standstill {
    let live: Int64
    let dead: Int64
}

extension SegmentTable {
    var standstill: Standstill { Standstill(live: liveByteCount, dead: deadByteCount) }
}
