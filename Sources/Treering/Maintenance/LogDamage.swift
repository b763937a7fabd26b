// What a damaged log has lost, and what of the index stands on it: for reports of `check`, and for repair.

/// Which records the log has lost.
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

    /// Whether the record that established an entry is lost.
    func covers(_ origin: Origin) -> Bool {
        if missing.contains(origin.segment) { return true }
        // Moved here by the cleaner: the record that did it may be a lost one.
        if let first = lossy[origin.segment], origin.sequence.rawValue < first { return true }
        var low = 0
        var high = lost.count
        while low < high {
            let middle = (low + high) / 2
            if lost[middle].upperBound < origin.sequence.rawValue { low = middle + 1 } else { high = middle }
        }
        return low < lost.count && lost[low].contains(origin.sequence.rawValue)
    }

    /// Whether an entry of the tree or its data stands in lost records; `payloads` are those that do.
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
    /// Payloads that the index knows and the log has lost. What names them may be older (the cleaner has moved them) or younger
    /// (a copy shares them).
    func payloads(in damage: LogDamage) throws(MountError) -> Set<UInt64> {
        var found: Set<UInt64> = []
        guard !damage.isEmpty else { return found }
        try forEach(.payloads) { key, value in
            if value.count >= Origin.byteCount, damage.covers(Origin(decoding: value)) { found.insert(key.object) }
        }
        return found
    }
}
