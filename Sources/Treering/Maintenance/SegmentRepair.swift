// Replaces segment files that are gone by empty ones. Then what the index knows of them can be written to the log
// again, and the log behind them can be followed. Part of a repair.

struct SegmentRepair<D: Device> {
    private let device: D
    private let recovery: Recovery<D>

    init(_ device: D, _ cacheByteCount: Int, hasIndex: Bool) throws(MountError) {
        self.device = device
        if hasIndex {
            recovery = try Recovery(device, indexCacheByteCount: cacheByteCount, salvages: true) { _ in }
            try recovery.replay()
        } else {
            recovery = try Checker.openLog(device)
        }
    }

    /// Makes the missing segments. Gives what was done, in words.
    func run() throws(MountError) -> [String] {
        var steps: [String] = []
        do throws(Errno) {
            for (number, usage) in recovery.missingSegments.sorted(by: { $0.key < $1.key }) {
                // The incarnation before is used: so the header counts as damaged, until the repair restores what the
                // index knows.
                try make(number, incarnation: usage.incarnation - 1)
                steps.append("segment \(number.rawValue): its file was gone and was made anew, empty")
            }
            if let gap = recovery.gap, steps.isEmpty {
                let present = Set(
                    try device.list().compactMap { file -> SegmentNumber? in
                        if case .segment(let number) = file { number } else { nil }
                    })
                let numbers = (0..<UInt32(recovery.table.countLimit)).lazy.map { SegmentNumber($0) }
                guard let number = numbers.first(where: { !present.contains($0) && !recovery.isNamed($0) }) else {
                    throw .noSpace
                }
                try make(number, incarnation: 1, gap)
                steps.append(
                    "segment \(number.rawValue): stands for the batches from \(gap.first.rawValue) on, whose file is gone"
                )
            }
        } catch { throw MountError("a segment that is gone cannot be replaced", error) }
        return steps
    }

    private func make(_ number: SegmentNumber, incarnation: UInt32, _ gap: LogGap? = nil) throws(Errno) {
        let file = try device.makeSegment(
            number, recovery.superblock.blockUUID, incarnation, recovery.table.segmentByteCount)
        defer { device.close(file) }
        guard let gap else { return }
        let header = SegmentHeader(
            state: .inUse, uuid: recovery.superblock.blockUUID, number: number, incarnation: incarnation,
            epoch: gap.epoch, firstBatch: gap.first, segmentByteCount: UInt32(recovery.table.segmentByteCount))
        try device.write(header, to: file)
        try device.wait(Submission(.sync, file, tag: 0))
    }
}
