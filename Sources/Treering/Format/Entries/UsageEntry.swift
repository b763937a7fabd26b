// The index entry of a segment.

/// The copy of a segment's state that the index keeps. Key: (usage, segment, usage, 0).
struct UsageEntry: Hashable {
    struct Layout: DiskLayout {
        let firstBatch = Field<BatchSequence>(0, "first batch", "its sequence: the segment's stamp")
        let lastBatch = Field<BatchSequence>(8, "last batch", "its sequence; 0 while the segment is the head")
        let epoch = Field<MountEpoch>(16, "mount epoch")
        let live = Field<Int64>(24, "live bytes")
        let incarnation = Field<UInt32>(32, "incarnation")
        let end = Field<UInt32>(36, "end", "as in the segment's header")
        let state = Field<UInt8>(40, "state", "1 free, 2 in use")
        let role = Field<UInt8>(41, "role", "0 hot, 1 cold")
        static let byteCount = 48
    }

    static let layout = Layout()
    static let byteCount = Layout.byteCount

    var firstBatch: BatchSequence
    var lastBatch: BatchSequence
    var epoch: MountEpoch
    var live: Int64
    var incarnation: UInt32
    var end: UInt32
    var state: SegmentHeader.State
    var role: SegmentHeader.Role

    static func key(_ segment: SegmentNumber) -> IndexKey {
        IndexKey(space: .usage, object: UInt64(segment.rawValue), kind: .usage, subkey: 0)
    }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        bytes.zero(0, Self.byteCount)
        let field = Self.layout
        bytes[field.firstBatch] = firstBatch
        bytes[field.lastBatch] = lastBatch
        bytes[field.epoch] = epoch
        bytes[field.live] = live
        bytes[field.incarnation] = incarnation
        bytes[field.end] = end
        bytes[field.state] = state.rawValue
        bytes[field.role] = role.rawValue
    }

    init(
        firstBatch: BatchSequence, lastBatch: BatchSequence, epoch: MountEpoch, live: Int64, incarnation: UInt32,
        end: UInt32, state: SegmentHeader.State, role: SegmentHeader.Role
    ) {
        self.firstBatch = firstBatch
        self.lastBatch = lastBatch
        self.epoch = epoch
        self.live = live
        self.incarnation = incarnation
        self.end = end
        self.state = state
        self.role = role
    }

    /// More than the entries of a segment can be charged with. The sum over all segments still fits in 64 bits.
    static let liveByteCountLimit: Int64 = 1 << 36

    init?(decoding bytes: UnsafeRawBufferPointer) {
        let field = Self.layout
        guard bytes.count == Self.byteCount, let state = SegmentHeader.State(rawValue: bytes[field.state]),
            let role = SegmentHeader.Role(rawValue: bytes[field.role])
        else { return nil }
        firstBatch = bytes[field.firstBatch]
        lastBatch = bytes[field.lastBatch]
        epoch = bytes[field.epoch]
        live = bytes[field.live]
        incarnation = bytes[field.incarnation]
        end = bytes[field.end]
        self.state = state
        self.role = role
        guard firstBatch.isPossible, lastBatch.isPossible, epoch.rawValue <= counterLimit,
            incarnation <= UInt32(Int32.max), end <= UInt32(SegmentHeader.byteCountLimit),
            (-Self.liveByteCountLimit...Self.liveByteCountLimit).contains(live)
        else { return nil }
    }
}
