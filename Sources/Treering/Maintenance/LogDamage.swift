// Which records a damaged log has lost, and which entries of the index depend on them. For reports of `check` and for
// repair.

/// The records that the log has lost: ranges of sequences, and all records of missing segments. `lossy` maps a segment
/// that has lost some to its first record: older entries there were moved by the cleaner.
struct LogDamage {
    private var lost: [ClosedRange<UInt64>]
    private let missing: Set<SegmentNumber>
    private let lossy: [SegmentNumber: UInt64]

    init(_ lost: [ClosedRange<UInt64>], missing: Set<SegmentNumber>, lossy: [SegmentNumber: UInt64] = [:]) {
        self.lossy = lossy
        self.lost = lost.sorted { $0.lowerBound < $1.lowerBound }
        self.missing = missing
    }

    var isEmpty: Bool { lost.isEmpty && missing.isEmpty }

    /// Whether the record that made an entry is lost.
    func covers(_ origin: Origin) -> Bool {
        if missing.contains(origin.segment) { return true }
        // The cleaner has moved this entry here. The record that moved it may be lost.
        if let first = lossy[origin.segment], origin.sequence.rawValue < first { return true }
        var low = 0
        var high = lost.count
        while low < high {
            let middle = (low + high) / 2
            if lost[middle].upperBound < origin.sequence.rawValue { low = middle + 1 } else { high = middle }
        }
        return low < lost.count && lost[low].contains(origin.sequence.rawValue)
    }

    /// Whether an entry of the tree, or its data, depends on lost records. `payloads`: the payloads that do.
    func covers(_ key: IndexKey, _ value: UnsafeRawBufferPointer, _ payloads: Set<UInt64>) -> Bool {
        guard value.count >= Origin.byteCount else { return false }
        if covers(Origin(decoding: value)) { return true }
        guard !payloads.isEmpty, key.space == .tree else { return false }
        switch key.kind {
        case .extent: return ExtentEntry(decoding: value).map { payloads.contains($0.payload.rawValue) } ?? false
        case .xattr:
            guard case .payload(let id, _)? = XattrEntry(decoding: value)?.value else { return false }
            return payloads.contains(id.rawValue)
        default: return false
        }
    }
}

extension StoreView {
    /// The payloads that the index knows and the log has lost. The extents that name them may be older (the cleaner has
    /// moved the payload) or younger (a copy shares it).
    func payloads(in damage: LogDamage) throws(MountError) -> Set<UInt64> {
        var found: Set<UInt64> = []
        guard !damage.isEmpty else { return found }
        try forEach(.payloads) { key, value in
            if value.count >= Origin.byteCount, damage.covers(Origin(decoding: value)) { found.insert(key.object) }
        }
        return found
    }
}
