// `treering check --repair`: repairs what a check found, in rounds of check and repair, until nothing is left or
// nothing helps. A step is an ordinary mount with ordinary operations, a new index beside the old one, or a patch that
// changes only damaged bytes. So a repair may be interrupted anywhere and begun again.

/// What a repair did.
struct RepairReport: Sendable {
    /// What was wrong before the repair.
    var found: CheckReport
    /// What is wrong after the repair.
    var left: CheckReport
    /// What was done, in words for a person.
    var steps: [String] = []
    /// Data that is lost for good.
    var lost: [LostRange] = []
}

/// A range of a file that gives EIO from now on.
struct LostRange: Hashable, Sendable, CustomStringConvertible {
    var inode: UInt64
    /// Nil for an extended attribute.
    var bytes: Range<UInt64>?
    var path: String?

    var description: String {
        let file = path.map { "\($0) (inode \(inode))" } ?? "inode \(inode)"
        guard let bytes else { return "\(file): an extended attribute is lost and gives EIO" }
        return
            "\(file): bytes \(bytes.lowerBound)..<\(bytes.upperBound) are lost and give EIO until they are written again"
    }
}

/// Repairs a store that nobody has mounted.
struct Repairer<D: Device> {
    /// Opens the store's device. A mount ends its device, so each step opens its own.
    private let open: () throws(MountError) -> D
    private let mount: (D, VolumeOptions) throws(MountError) -> Volume<D>
    private let cacheByteCount: Int
    private let staging: (StoreUUID) -> [StagingHeader]
    private let log: @Sendable (String) -> Void
    private(set) var steps: [String] = []
    private var lost: [LostRange] = []

    static var roundLimit: Int { 8 }

    static func repair(
        indexCacheByteCount: Int = 256 << 20, log: @escaping @Sendable (String) -> Void,
        staging: @escaping (StoreUUID) -> [StagingHeader] = { _ in [] },
        open: @escaping () throws(MountError) -> D,
        mount: @escaping (D, VolumeOptions) throws(MountError) -> Volume<D>
    ) throws(MountError) -> RepairReport {
        var repairer = Repairer(
            open: open, mount: mount, cacheByteCount: indexCacheByteCount, staging: staging, log: log)
        return try repairer.run()
    }

    private init(
        open: @escaping () throws(MountError) -> D,
        mount: @escaping (D, VolumeOptions) throws(MountError) -> Volume<D>, cacheByteCount: Int,
        staging: @escaping (StoreUUID) -> [StagingHeader], log: @escaping @Sendable (String) -> Void
    ) {
        self.open = open
        self.staging = staging
        self.mount = mount
        self.cacheByteCount = cacheByteCount
        self.log = log
    }

    private mutating func run() throws(MountError) -> RepairReport {
        var found: CheckReport?
        var hasReadData = false
        var isDerived = false
        for _ in 0..<Self.roundLimit {
            let report = try check(readsData: false)
            found = found ?? report
            if let derived = report.derived {
                guard derived.isComplete else { break }
                try write(derived)
                isDerived = true
                continue
            }
            if !report.isClean || report.needs.contains(.superblock) {
                if try !salvage(report) { break }
                continue
            }
            if isDerived {
                // The staging of the mount whose superblock was lost belongs to this store: an ordinary mount replays
                // it.
                try withVolume { _ in }
                isDerived = false
                continue
            }
            if hasReadData { break }
            // Data is read only when all else is in order: only then is it known which file a damaged block belongs to.
            let data = try check(readsData: true)
            hasReadData = true
            if data.isClean { break }
            found!.merge(data)
            if try !salvage(data) { break }
        }
        var result = RepairReport(found: found!, left: try check(readsData: false))
        result.steps = steps
        result.lost = try withPaths(lost)
        return result
    }

    private func withPaths(_ lost: [LostRange]) throws(MountError) -> [LostRange] {
        guard !lost.isEmpty else { return lost }
        let paths = try withDevice { (device) throws(MountError) in
            let recovery = try Recovery(device, indexCacheByteCount: cacheByteCount, log: { _ in })
            try recovery.replay()
            return try PathFinder(StoreView(recovery), Set(lost.map(\.inode))).paths
        }
        return lost.map { LostRange(inode: $0.inode, bytes: $0.bytes, path: paths[$0.inode]) }
    }

    private func check(readsData: Bool) throws(MountError) -> CheckReport {
        try withDevice { (device) throws(MountError) in
            try Checker.check(
                device, readsData: readsData, indexCacheByteCount: cacheByteCount, staging: staging)
        }
    }

    private func withDevice<Result>(_ body: (D) throws(MountError) -> Result) throws(MountError) -> Result {
        let device = try open()
        defer { device.shutDown() }
        return try body(device)
    }

    private mutating func write(_ derived: DerivedSuperblock) throws(MountError) {
        try withDevice { (device) throws(MountError) in
            do throws(Errno) { try SuperblockPair.renewSlots(derived.superblock, device) } catch {
                throw MountError("the superblock cannot be written", error)
            }
        }
        steps.append("the superblock was made anew from \(derived.source)")
    }

    /// One step of repair. The log comes first, since the index is made from it; the tree comes last. False if nothing
    /// can be done.
    private mutating func salvage(_ report: CheckReport) throws(MountError) -> Bool {
        if report.needs.contains(.log) || report.needs.contains(.restore) {
            return try salvageLog(hasIndex: report.hasIndex)
        }
        if report.needs.contains(.index) {
            let count = try withDevice { (device) throws(MountError) in
                try IndexRebuild.rebuild(device, indexCacheByteCount: cacheByteCount, log: log)
            }
            steps.append("the index was made anew from \(count) records")
            return true
        }
        var done: [String] = []
        var lost: [LostRange] = []
        try withVolume { (volume) throws(MountError) in
            var tree = TreeRepair(volume)
            try tree.salvage(report.faults)
            for (inode, range) in report.unreadable { try tree.giveUp(inode, range) }
            for inode in report.unreadableAttributes { try tree.giveUpAttribute(inode.0, cookie: inode.1) }
            done = tree.steps
            lost = tree.lost
        }
        self.lost += lost
        if report.needs == [.superblock] { done.append("both slots of the superblock were written") }
        steps += done
        return !report.needs.isEmpty
    }

    /// Mounts the store in the ordinary way, runs `body`, and unmounts it.
    private func withVolume(_ body: (Volume<D>) throws(MountError) -> Void) throws(MountError) {
        var options = VolumeOptions()
        options.indexCacheByteCount = cacheByteCount
        let device = try open()
        let volume: Volume<D>
        do throws(MountError) { volume = try mount(device, options) } catch {
            device.shutDown()
            throw error
        }
        var failure: MountError?
        do throws(MountError) { try body(volume) } catch { failure = error }
        do throws(Errno) { try volume.unmount() } catch {
            throw failure ?? MountError("what was repaired could not be made durable", error)
        }
        if let failure { throw failure }
    }

    // MARK: The log

    /// The patches of the log, and what only the index still has.
    private struct Plan {
        var early: [Salvage] = []
        var late: [Salvage] = []
        var damage = LogDamage([], missing: [])
        var surplus: [Surplus] = []
        var isDone = false
    }

    /// Repairs damaged places of the log. If the index is whole, what it has of lost records is first written to the
    /// log again.
    private mutating func salvageLog(hasIndex: Bool) throws(MountError) -> Bool {
        let replaced = try withDevice { (device) throws(MountError) in
            try SegmentRepair(device, cacheByteCount, hasIndex: hasIndex).run()
        }
        steps += replaced
        if !replaced.isEmpty { return true }
        let plan = try withDevice { (device) throws(MountError) in try survey(device, hasIndex: hasIndex) }
        // Without these patches the store cannot be mounted, and the index has nothing that could replace what they
        // lose.
        try write(plan.early)
        if hasIndex, !plan.damage.isEmpty {
            var done: [String] = []
            var lost: [LostRange] = []
            try withVolume { (volume) throws(MountError) in
                var restore = LogRepair(volume, plan.damage)
                try restore.run(plan.surplus)
                done = restore.steps
                lost = restore.lost
            }
            self.lost += lost
            steps += done
        }
        try write(plan.late)
        for salvage in plan.early + plan.late {
            steps.append(
                "segment \(salvage.segment.rawValue) at \(salvage.range.lowerBound): repaired, \(salvage.savedRecordCount) operations saved, \(salvage.lostRecordCount) lost"
            )
        }
        return !plan.early.isEmpty || !plan.late.isEmpty || !plan.damage.isEmpty
    }

    private func survey(_ device: D, hasIndex: Bool) throws(MountError) -> Plan {
        var plan = Plan()
        let live: Recovery<D>
        if hasIndex {
            live = try Recovery(device, indexCacheByteCount: cacheByteCount, salvages: true, log: log)
            try live.replay()
            try live.index.settle(live.loader)
        } else {
            live = try Checker.openLog(device)
        }
        plan.early = live.salvager!.salvages
        let rebuild = try RebuiltIndex(
            device, live.reader, live.rebuildSources(), uuid: live.superblock.blockUUID,
            segmentCountLimit: live.table.countLimit, through: live.position, salvager: live.salvager,
            .init(cacheByteCount: cacheByteCount))
        plan.late = Array(live.salvager!.salvages.dropFirst(plan.early.count))
        plan.damage = LogDamage(rebuild.lost, missing: rebuild.lostSegments, lossy: rebuild.lossySegments)
        if hasIndex, !plan.damage.isEmpty { plan.surplus = try Surplus.find(live, rebuild, device) }
        return plan
    }

    /// Writes patches in place. Each write is of whole blocks; outside the patches their bytes stay the same.
    private func write(_ salvages: [Salvage]) throws(MountError) {
        guard !salvages.isEmpty else { return }
        try withDevice { (device) throws(MountError) in
            do throws(Errno) {
                for salvage in salvages { try Self.write(salvage, device) }
            } catch { throw MountError("a damaged place of the log cannot be written", error) }
        }
    }

    private static func write(_ salvage: Salvage, _ device: D) throws(Errno) {
        let file = try device.open(.segment(salvage.segment), create: false)
        defer { device.close(file) }
        let reader = BatchReader(
            device: device, uuid: StoreUUID(high: 0, low: 0), segmentByteCount: salvage.range.upperBound)
        reader.isTolerant = true
        reader.patches[file] = salvage.patches.map { .init(offset: $0.offset, bytes: $0.bytes) }
        var blocks: Set<Int> = []
        for patch in salvage.patches where !patch.bytes.isEmpty {
            blocks.formUnion(patch.offset / blockByteCount...(patch.offset + patch.bytes.count - 1) / blockByteCount)
        }
        let block = AlignedBuffer(byteCount: blockByteCount)
        for number in blocks.sorted() {
            let bytes = try reader.bytes(file, number * blockByteCount, blockByteCount)
            guard bytes.count == blockByteCount else { throw .ioError }
            block.bytes.copy(bytes, to: 0)
            try device.wait(
                Submission(.write, file, offset: UInt64(number * blockByteCount), block.bytes, tag: 0))
        }
        try device.wait(Submission(.sync, file, tag: 0))
    }
}

extension CheckReport {
    /// Adds the findings of a later check that has read the data.
    fileprivate mutating func merge(_ other: CheckReport) {
        for problem in other.problems { add(problem) }
        problemCount += max(0, other.problemCount - other.problems.count)
        needs.formUnion(other.needs)
        unreadable += other.unreadable
        unreadableCount += other.unreadableCount
        dataBlockCount = other.dataBlockCount
    }
}
