// The accounting of space: who may use how much of a store, what is kept back for whom, when to wait for room, and when to say that there is
// none. All of it is decided here, from the numbers of the segment table and from what others note here.
//
// Free segments, of `table.countLimit` in all:
//
// | who asks              | leaves alone                                                                                           |
// |-----------------------|--------------------------------------------------------------------------------------------------------|
// | `.recovery`           | nothing: the cleaner, and the replay of a dead mount's staging                                         |
// | `.removal`            | two for the cleaner, and what the replay of staging takes                                              |
// | `.write`              | those, one more, two for the cleaner again, and what the index fills (`withheldSegmentCount`)          |
// | `.write`, unclaimed   | also what reserved ranges may come to need (`RoomClaim.none`)                                          |
// | `.write`, claimed     | less what the index has come to fill: that is not at the cost of what was reserved                     |
// | on a full host        | of those the cleaner's two at most, and removals nothing; only prepared segments can be opened         |
//
// Live bytes:
//
// | what                  | limit                                                                                                  |
// |-----------------------|--------------------------------------------------------------------------------------------------------|
// | all files             | `liveByteCountLimit`: the segments beyond those that writes leave, less half a batch each, 62 of 64    |
// | an unclaimed write    | that, less what is reserved                                                                            |
// | a claimed write       | that with the index's part, and an eighth of a segment (a quarter where it uses up a reservation)      |
// | joining               | none: it takes less room in the end                                                                    |
//
// Where there is no room, an operation waits as long as removals under way, recycling or cleaning may bring some, and fails then.

/// Who asks for room. Each leaves a part of the last free segments to those after it, so that a full store can always be emptied,
/// cleaned and mounted.
enum SpaceTier: CaseIterable {
    case write
    /// What frees space in the end: removing, truncating, replacing.
    case removal
    /// The cleaner, and the replay of a dead mount's staging.
    case recovery
}

/// What an append takes its room from, besides what is free for all.
enum RoomClaim {
    case none
    /// From what a range of a file has: so many bytes of it are reserved no more afterwards.
    case allocated(InodeNumber, releasedByteCount: UInt64)
    /// It puts pieces together, which takes less room in the end.
    case joining

    /// Whether room that was reserved may be used.
    var usesReservations: Bool { if case .none = self { false } else { true } }
}

/// What becomes of a wish for room.
enum RoomAnswer: Equatable {
    case fits
    /// Some may come.
    case wait
    /// None will: ENOSPC.
    case full
    /// The pieces of the file must be joined first.
    case crowded
}

/// Decides about the space of a store. Owned by its log, and used under the volume's lock.
final class SpaceAccounting {
    /// Replaced when the log was written again elsewhere.
    var table: SegmentTable
    let geometry: StagingGeometry
    /// Where the head of the log goes on, in bytes of its segment; nil where the next batch begins another.
    var headOffset: Int?
    /// The host has no room for another segment.
    var isHostFull = false
    /// What the host has left, in bytes, when it was asked last.
    var hostAvailableByteCount: UInt64 = .max
    /// The last checkpoint found no room on the host: nobody waits for what only the next one can bring.
    var isCheckpointStuck = false
    /// Segments that are counted as used up though they are free: the index fills their part of the capacity.
    var withheldSegmentCount = 0
    /// Free segments that the write that asked last leaves to reserved ranges, or, where it claims one, may take of those that the index
    /// came to fill (below 0). The housekeeper makes room for it.
    private(set) var owedSegmentCount = 0
    /// When the cleaner found nothing to gain for writes, and for removals; nil while it may gain something.
    var writeStandstill: Standstill?
    var removalStandstill: Standstill?

    init(table: SegmentTable, geometry: StagingGeometry) {
        self.table = table
        self.geometry = geometry
    }

    // MARK: Segments

    /// What the cleaner needs to begin: one segment for what it moves, one for the log.
    static let cleanerSegmentCount = 2

    /// Free segments that a tier leaves alone.
    func keptSegmentCount(_ tier: SpaceTier) -> Int {
        if tier == .recovery { return 0 }
        // A dead mount's staging is appended again before anything can be freed.
        let batches = (table.segmentByteCount - SegmentHeader.byteCount) / geometry.batchByteCountLimit
        let replay = (geometry.slotCount + batches - 1) / batches
        if tier == .removal { return Self.cleanerSegmentCount + replay }
        // Cleaning for writes begins while there is enough for it besides what is kept for removals.
        return Self.cleanerSegmentCount + replay + 1 + Self.cleanerSegmentCount + withheldSegmentCount
    }

    /// Segments that can be opened now: none but the prepared ones where the host is full.
    var availableSegmentCount: Int { isHostFull ? table.pool.count : table.freeCount }

    /// Whether no more segments are left than a tier leaves to those after it.
    func isShort(for tier: SpaceTier) -> Bool {
        // A full host has kept less ready than that: what is there is for whoever frees space.
        let kept = isHostFull ? min(keptSegmentCount(tier), Self.cleanerSegmentCount) : keptSegmentCount(tier)
        let owed = tier == .write ? owedSegmentCount : 0
        return availableSegmentCount <= (isHostFull && tier == .removal ? 0 : kept + owed)
    }

    /// Removals and the cleaner live on what writes leave alone. The head may be one of those segments then, and writes that went on in
    /// it would eat up what the cleaner gains.
    private var isReserveInUse: Bool {
        !isHostFull && table.freeCount < keptSegmentCount(.write) + min(0, owedSegmentCount)
    }

    /// Whether what was asked for last found no segment to go on in.
    var isShortOfSegments: Bool { isShort(for: .write) && (headOffset == nil || isReserveInUse) }

    /// How many segments should be prepared: one for the next head, and with it what the cleaner needs, so that it can work when
    /// the host is full. A fresh store has no more than its head.
    var preparedSegmentGoal: Int {
        if table.inUseCount > 1 { return min(Self.cleanerSegmentCount, table.inUseCount - 1) + 1 }
        return (headOffset ?? .max) > table.segmentByteCount / 4 ? 1 : 0
    }

    var wantsPreparedSegment: Bool {
        table.freeCount > table.pool.count && table.pool.count < preparedSegmentGoal && !isHostFull
    }

    // MARK: The head

    /// How much the head still has room for, as long as it is the head.
    var headRoom: Int { headOffset.map { table.segmentByteCount - $0 - geometry.batchByteCountLimit } ?? 0 }

    /// Where the part of a head begins that is kept for operations that free space, as long as no other segment is prepared: it may
    /// turn out that the host has no room for one, and removing must be possible then.
    private var keptOffset: Int {
        table.segmentByteCount - max(table.segmentByteCount / 8, 2 * geometry.batchByteCountLimit)
    }

    /// Whether a tier may begin a batch in the head.
    func roomInHead(_ tier: SpaceTier) -> RoomAnswer {
        guard tier == .write, let headOffset else { return .fits }
        // The rest of the head is the reserve of those that free space.
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
        // The cleaner cannot wait for itself.
        if tier == .recovery { return false }
        guard let standstill = tier == .write ? writeStandstill : removalStandstill else { return table.inUseCount > 1 }
        // A head that was sealed since then may be worth cleaning, and so may what was overwritten.
        return table.liveByteCount < standstill.live
            || table.deadByteCount >= standstill.dead + Int64(table.segmentByteCount / 16)
    }

    /// The cleaner has found nothing more to gain.
    func noteStandstill() {
        writeStandstill = table.standstill
        if isShort(for: .removal) { removalStandstill = table.standstill }
    }

    func forgetStandstill() { (writeStandstill, removalStandstill) = (nil, nil) }

    /// Asks of the host how much it has, and counts what the index uses; pages that it does not use now it will use again.
    func note(hostAvailableByteCount: UInt64, indexByteCount: Int) {
        self.hostAvailableByteCount = hostAvailableByteCount
        withheldSegmentCount = min(indexByteCount / table.segmentByteCount, table.countLimit / 4)
        if isHostFull, hostAvailableByteCount > UInt64(table.segmentByteCount) * 2 { isHostFull = false }
    }

    // MARK: Live bytes

    /// Live bytes that the store may hold. The rest is for the cleaner to work with.
    var liveByteCountLimit: Int64 { liveByteCountLimit(ofSegments: table.countLimit) }

    func liveByteCountLimit(ofSegments count: Int) -> Int64 {
        let count = max(0, count - keptSegmentCount(.write))
        // On average half a batch is lost at the end of a segment; and the cleaner must not have to look for the last byte.
        let filled = table.segmentByteCount - geometry.batchByteCountLimit / 2
        return Int64(count) * Int64(filled) / 64 * 62
    }

    /// Room that so many reserved bytes may take when they are written: records are counted in. A block that is written alone, between two
    /// that stay reserved, takes a twentieth more than its bytes.
    static func byteCount(ofReserved byteCount: UInt64) -> Int64 {
        Int64(clamping: min(byteCount, Change.reservedByteCountLimit << 8)) / 16 * 17
    }

    /// The other way round: how many bytes of whole blocks may be reserved in so much room.
    static func reservableByteCount(in byteCount: UInt64) -> UInt64 {
        let block = UInt64(blockByteCount)
        return byteCount / 17 * 16 / block * block
    }

    /// Segments that what is reserved may take: their ends may stay unused.
    func segmentCount(ofReserved byteCount: UInt64) -> Int {
        let needed = Self.byteCount(ofReserved: byteCount)
        guard needed > 0 else { return 0 }
        let usable = Int64(table.segmentByteCount - SegmentHeader.byteCount - geometry.batchByteCountLimit)
        return Int(clamping: (needed + usable - 1) / usable)
    }

    /// Whether so many bytes more may live, where `reserved` are reserved in all; notes for whom the segments that are left are. `isComing`:
    /// removals under way make room.
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
            // What the index has come to need since then is not at the cost of what was reserved; and pieces are not joined for each write.
            // Overwriting leaves some of that to what was reserved.
            let limit = liveByteCountLimit(ofSegments: table.countLimit + withheldSegmentCount)
            let beyond = Int64(table.segmentByteCount / (released > 0 ? 4 : 8))
            if live + Self.byteCount(ofReserved: rest) <= limit + beyond { return .fits }
            return isComing() ? .wait : .crowded
        }
    }

    /// Whether so much more may be reserved where `available` bytes are free for that.
    func roomToReserve(_ byteCount: UInt64, available: UInt64, isComing: @autoclosure () -> Bool) -> RoomAnswer {
        if byteCount <= available { return .fits }
        // What was removed comes free step by step.
        return isComing() && byteCount <= UInt64(max(0, liveByteCountLimit)) ? .wait : .full
    }

    /// Whether two more writes of that size may find no room.
    func isNearlyFull(reserved: UInt64, writeByteCountLimit: Int) -> Bool {
        table.liveByteCount + Int64(2 * writeByteCountLimit)
            > liveByteCountLimit - Self.byteCount(ofReserved: reserved) || isShort(for: .write)
    }

    /// What is live and what is reserved, without what removals under way will take out.
    func neededByteCount(reserved: UInt64, removing: Int64) -> Int64 {
        max(0, table.liveByteCount - removing) + Self.byteCount(ofReserved: reserved)
    }

    /// What files may use in all, and what of it is free, no more than the host has; in bytes.
    func totalAndFree(reserved: UInt64, removing: Int64) -> (total: UInt64, free: UInt64) {
        let total = UInt64(liveByteCountLimit)
        let free = total - min(total, UInt64(neededByteCount(reserved: reserved, removing: removing)))
        let makeable = isHostFull ? 0 : hostAvailableByteCount
        // What lies dead in segments is as good as free: the cleaner makes it so.
        let own = UInt64(table.pool.count * table.segmentByteCount) + UInt64(table.reclaimableByteCount)
        return (total, min(free, makeable >= UInt64.max - own ? .max : makeable + own))
    }

    // MARK: Other capacities

    /// The least number of segments that holds so many bytes, with the reserve and one segment to work with.
    func leastSegmentCount(for neededByteCount: Int64, capacityMinimum: UInt64) -> Int {
        let size = UInt64(table.segmentByteCount)
        let least = max(8, Int((capacityMinimum + size - 1) / size))
        let perSegment = max(1, liveByteCountLimit(ofSegments: keptSegmentCount(.write) + 1))
        let filled = Int((neededByteCount + perSegment - 1) / perSegment)
        return max(least, keptSegmentCount(.write) + filled + 1)
    }

    // MARK: Cleaning

    /// Free segments beyond those kept back, below which there soon will be need.
    var fewSegmentCount: Int { max(2, table.countLimit / 64) }

    /// Whether dead segments are worth a checkpoint of their own.
    var isRoomLow: Bool { table.freeCount - keptSegmentCount(.write) <= fewSegmentCount / 2 }

    /// How many segments the background must gain so that there is no need soon.
    var missingSegmentCount: Int {
        // Few are left to write to, and few will be when those that are dead as a whole are free.
        fewSegmentCount - (table.freeCount - keptSegmentCount(.write)) - table.deadSegmentCount
    }

    /// Whether there is room for what is moved out of a segment: what the heads do not hold takes a segment for blocks and one for the log,
    /// besides what removals may need next. A victim that gives back a quarter may borrow one of those.
    func mayClean(_ victim: Segment, cleanersHeadRoom: Int) -> Bool {
        let live = Int(victim.live)
        // Records of moves are a small part of what is live in blocks, but of small things they are the greater part.
        let recordByteCount = victim.role == .cold ? live / 16 : live / 2 * 3
        let needed = (cleanersHeadRoom < live ? 1 : 0) + (headRoom < recordByteCount ? 1 : 0)
        let borrowed = live <= table.segmentByteCount / 4 * 3 ? 1 : 0
        let kept = isShort(for: .removal) || isHostFull ? 0 : keptSegmentCount(.removal) - borrowed
        return availableSegmentCount >= kept + needed
    }

    /// How long 4 KiB of a write are held back, in nanoseconds: nothing as long as there is room, or nothing to gain by cleaning; the less
    /// room, the longer.
    func pace(longest: Int) -> Int {
        let few = fewSegmentCount * table.segmentByteCount
        let free = availableSegmentCount - keptSegmentCount(.write)
        let room = max(0, free * table.segmentByteCount + headRoom)
        guard room < few, !isHostFull else { return 0 }
        // A little is lost in every segment, also where all of it is live. This looks at every segment, and only where room is short.
        let worthwhile = Int64(table.segmentByteCount) * Int64(max(2, table.inUseCount / 16))
        guard isSpaceComing, table.reclaimableByteCount > worthwhile else { return 0 }
        let used = 1 - Double(room) / Double(few)
        return Int(Double(longest) * used * used * used * used)
    }
}

/// What lived and what was dead when the cleaner found nothing more to gain.
struct Standstill {
    let live: Int64
    let dead: Int64
}

extension SegmentTable {
    var standstill: Standstill { Standstill(live: liveByteCount, dead: deadByteCount) }
}
