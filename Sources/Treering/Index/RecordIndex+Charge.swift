// What an index entry is charged with: the bytes of the log that it keeps live.

extension RecordIndex {
    /// How many bytes an entry keeps live, and in which segments.
    struct Charge {
        /// The segment of the record that established the entry.
        var segment: SegmentNumber
        var byteCount: Int
        /// The segment that holds a payload's blocks.
        var blocksSegment = SegmentNumber(0)
        var blocksByteCount = 0
        var sharedByteCount: UInt64 = 0
    }

    /// What an entry is charged with: a function of the entry alone. Nil when it is malformed.
    static func charge(_ key: IndexKey, _ value: UnsafeRawBufferPointer) -> Charge? {
        guard value.count >= Origin.byteCount else { return nil }
        let segment = Origin(decoding: value).segment
        switch (key.space, key.kind) {
        case (.tree, .inode):
            guard let entry = InodeEntry(inode: InodeNumber(key.object), decoding: value) else { return nil }
            return Charge(segment: segment, byteCount: entry.record.mode == 0 ? 0 : InodeEntry.charge)
        case (.tree, .dirent):
            return DirentEntry(decoding: value).map { Charge(segment: segment, byteCount: $0.charge) }
        case (.tree, .xattr):
            return XattrEntry(decoding: value).map { Charge(segment: segment, byteCount: $0.charge) }
        case (.tree, .extent):
            guard key.subkey <= UInt64(Int64.max), ExtentEntry(decoding: value) != nil else { return nil }
            return Charge(segment: segment, byteCount: ExtentEntry.charge)
        case (.payloads, .payload):
            return PayloadEntry(decoding: value).map {
                Charge(
                    segment: segment, byteCount: $0.charge, blocksSegment: $0.blocksSegment,
                    blocksByteCount: $0.blocksCharge, sharedByteCount: $0.sharedByteCount)
            }
        case (.orphans, .orphan): return Charge(segment: segment, byteCount: OrphanEntry.charge)
        case (.tombstones, _):
            return TombstoneEntry(decoding: value).map { Charge(segment: segment, byteCount: Int($0.charge)) }
        default: return nil
        }
    }

    func charge(_ charge: Charge) {
        table.charge(charge.segment, charge.byteCount)
        if charge.blocksByteCount != 0 { table.charge(charge.blocksSegment, charge.blocksByteCount) }
        sharedByteCount? &+= charge.sharedByteCount
    }

    func discharge(_ charge: Charge) {
        table.charge(charge.segment, -charge.byteCount)
        if charge.blocksByteCount != 0 { table.charge(charge.blocksSegment, -charge.blocksByteCount) }
        sharedByteCount? &-= charge.sharedByteCount
    }
}
