// Reads the files of a store that nobody has mounted, through its index or through one made from the log. For `export`,
// for the paths in reports of `check`, and for repair. Changes nothing.

/// A range of a file that cannot be read, and why.
struct UnreadableRange {
    var offset: UInt64
    var byteCount: UInt64
    var reason: CorruptionReport
    /// An earlier repair has marked the range as lost.
    var isKnownLost = false
}

/// Reads files offline.
final class StoreView<D: Device> {
    let device: D
    let index: RecordIndex
    let table: SegmentTable
    private let loader: PageLoader<D>
    /// Payloads that lie only in the staging of a killed mount.
    var residents: [PayloadID: [UInt8]] = [:]
    /// The view borrows from these, so they must live as long as it does.
    var allStaged: [StagedRecords] = []
    var keeper: Recovery<D>?
    private let buffer = AlignedBuffer(byteCount: PayloadRecord.byteCountLimit + 2 * blockByteCount)

    init(_ recovery: Recovery<D>) {
        (device, index, table) = (recovery.device, recovery.index, recovery.table)
        loader = recovery.loader
    }

    init(_ rebuild: RebuiltIndex<D>, _ device: D) {
        (self.device, index, table) = (device, rebuild.index, rebuild.table)
        loader = rebuild.builder.loader
    }

    /// Views the files of a volume. Nobody else may use the volume, or write to it while this reads.
    init(_ volume: Volume<D>) {
        let state = volume.state.heldState
        (device, index, table) = (volume.device, state.core.index, state.core.table)
        loader = PageLoader(device, state.indexFile, index.tree)
    }

    /// Runs a query, fetching the pages that it misses.
    func run<Result>(_ body: () throws(PageMiss) -> Result) throws(MountError) -> Result {
        defer { index.tree.evict() }
        return try loader.run(body)
    }

    /// Calls `body` for each entry of one key space of the index, in order.
    func forEach(_ space: KeySpace, _ body: (IndexKey, UnsafeRawBufferPointer) -> Void) throws(MountError) {
        try loader.forEach(space, body)
    }

    // MARK: Inodes and names

    func inode(_ number: InodeNumber) throws(MountError) -> InodeEntry? {
        try run { () throws(PageMiss) in try index.inode(number) }
    }

    struct Name {
        var cookie: UInt64
        var inode: InodeNumber
        var type: UInt8
        var bytes: [UInt8]
    }

    /// The next entry of a directory after a cookie; 0 begins at the first.
    func name(in directory: InodeNumber, after cookie: UInt64) throws(MountError) -> Name? {
        guard cookie < .max else { return nil }
        return try run { () throws(PageMiss) in
            guard let found = try index.tree.next(atOrAfter: DirentEntry.key(directory, cookie + 1)),
                found.key.space == .tree, found.key.object == directory.rawValue, found.key.kind == .dirent,
                let entry = DirentEntry(decoding: found.value)
            else { return nil }
            return Name(cookie: found.key.subkey, inode: entry.inode, type: entry.type, bytes: Array(entry.name))
        }
    }

    struct Attribute {
        var cookie: UInt64
        var name: [UInt8]
        /// Nil where the value cannot be read.
        var value: [UInt8]?
        var isKnownLost = false
    }

    func attribute(of inode: InodeNumber, after cookie: UInt64) throws(MountError) -> Attribute? {
        guard cookie < .max else { return nil }
        var payload: (PayloadID, UInt32)?
        var found: Attribute? = try run { () throws(PageMiss) in
            guard let entry = try index.tree.next(atOrAfter: XattrEntry.key(inode, cookie + 1)),
                entry.key.space == .tree, entry.key.object == inode.rawValue, entry.key.kind == .xattr,
                let value = XattrEntry(decoding: entry.value)
            else { return nil }
            var attribute = Attribute(cookie: entry.key.subkey, name: Array(value.name), value: nil)
            switch value.value {
            case .inline(let bytes): attribute.value = Array(bytes)
            case .payload(let id, let count): payload = (id, count)
            }
            return attribute
        }
        if let (id, count) = payload, count <= PayloadRecord.byteCountLimit {
            var bytes = [UInt8](repeating: 0, count: Int(count))
            var isWhole = true
            try read(id, 0, count) { offset, part in
                if let part {
                    bytes.withUnsafeMutableBytes { $0.copy(part, to: offset) }
                } else {
                    isWhole = false
                    found?.isKnownLost = lastDamage.isKnownLost
                }
            }
            if isWhole { found?.value = bytes }
        }
        return found
    }

    // MARK: Contents

    /// Reads the stored bytes of a range of a file, in order. Holes are left out.
    func read(
        _ inode: InodeNumber, _ from: UInt64, _ to: UInt64,
        _ onBytes: (UInt64, UnsafeRawBufferPointer) throws(MountError) -> Void,
        _ onDamage: (UnreadableRange) -> Void
    ) throws(MountError) {
        var cursor = from
        while cursor < to {
            // A bounded number of pieces at a time, so that memory does not grow with their number.
            var pieces: [FilePiece] = []
            var walk = PieceWalk(cursor, to)
            try run { () throws(PageMiss) in
                walk.budget = PieceWalk.extentLimit
                try index.walk(inode, &walk) { piece in
                    pieces.append(piece)
                    return pieces.count < PieceWalk.extentLimit
                }
            }
            for piece in pieces {
                var failure: MountError?
                try read(piece.payload, piece.payloadOffset, UInt32(piece.byteCount)) { offset, bytes in
                    guard failure == nil else { return }
                    if let bytes {
                        do throws(MountError) { try onBytes(piece.offset + UInt64(offset), bytes) } catch {
                            failure = error
                        }
                    } else {
                        onDamage(
                            UnreadableRange(
                                offset: piece.offset + UInt64(offset), byteCount: UInt64(lastDamage.byteCount),
                                reason: lastDamage.reason, isKnownLost: lastDamage.isKnownLost))
                    }
                }
                if let failure { throw failure }
            }
            cursor = walk.cursor
        }
    }

    private var lastDamage = (byteCount: 0, reason: CorruptionReport(place: "", reason: ""), isKnownLost: false)

    /// Reads a part of a payload, block by block. `body` gets the offset from the part's start, and nil for bytes that
    /// cannot be read; `lastDamage` then says why.
    private func read(
        _ id: PayloadID, _ offset: UInt32, _ byteCount: UInt32, _ body: (Int, UnsafeRawBufferPointer?) -> Void
    ) throws(MountError) {
        func damaged(_ start: Int, _ count: Int, _ place: String, _ reason: String, isKnownLost: Bool = false) {
            lastDamage = (count, CorruptionReport(place: place, reason: reason), isKnownLost)
            body(start, nil)
        }
        if let bytes = residents[id] {
            let end = min(bytes.count, Int(offset) + Int(byteCount))
            guard Int(offset) < end else { return }
            bytes.withUnsafeBytes { body(0, $0.part(Int(offset), end - Int(offset))) }
            return
        }
        let value = try run { () throws(PageMiss) in
            try index.tree.withValue(of: PayloadEntry.key(id)) { $0.map { Array($0) } }
        }
        guard let value, let entry = value.withUnsafeBytes({ PayloadPlace($0) }),
            UInt64(offset) + UInt64(byteCount) <= UInt64(entry.length)
        else { return damaged(0, Int(byteCount), "payload \(id.rawValue)", "it is not there") }
        guard table.contains(entry.segment), let file = table[entry.segment].file else {
            return damaged(0, Int(byteCount), "segment \(entry.segment.rawValue)", "its file is not there")
        }
        for piece in entry.pieces(offset, byteCount) {
            guard let position = piece.position else {
                damaged(piece.target, piece.wanted.count, "payload \(id.rawValue)", "this block of it is not stored")
                continue
            }
            let place = "segment \(entry.segment.rawValue) at \(position)"
            let start = position / blockByteCount * blockByteCount
            let lead = position - start
            let count = (lead + piece.byteCount + blockByteCount - 1) / blockByteCount * blockByteCount
            let target = buffer.bytes.part(0, count)
            let completion = device.perform(Submission(.read, file, offset: UInt64(start), target, tag: 0))
            guard completion.result >= lead + piece.byteCount else {
                let reason = completion.error.map { "it cannot be read: \($0)" } ?? "the file ends before it"
                damaged(piece.target, piece.wanted.count, place, reason)
                continue
            }
            let bytes = UnsafeRawBufferPointer(target).part(lead, piece.byteCount)
            guard Checksum.crc32c(bytes) == piece.checksum else {
                let isLost = piece.checksum == Checksum.ofLostBlock
                damaged(
                    piece.target, piece.wanted.count, place,
                    isLost ? "it was lost and marked as such by a repair" : "the checksum of the data does not match",
                    isKnownLost: isLost)
                continue
            }
            body(piece.target, bytes.part(piece.wanted.lowerBound, piece.wanted.count))
        }
    }

    // MARK: Paths

    /// The path of a directory, for a person; nil if it has none. It searches directories, so do not use it for many.
    func path(ofDirectory number: InodeNumber) throws(MountError) -> String? {
        var names: [String] = []
        var here = number
        while here != .root {
            guard names.count < 4096, let entry = try inode(here), entry.record.isDirectory else { return nil }
            let parent = entry.record.parent
            guard let name = try self.name(of: here, in: parent) else { return nil }
            names.append(name)
            here = parent
        }
        return "/" + names.reversed().joined(separator: "/")
    }

    private func name(of inode: InodeNumber, in directory: InodeNumber) throws(MountError) -> String? {
        var cookie: UInt64 = 0
        while let name = try name(in: directory, after: cookie) {
            if name.inode == inode { return name.bytes.withUnsafeBytes { $0.plainOrQuoted } }
            cookie = name.cookie
        }
        return nil
    }
}

/// The place of a payload, copied from its entry.
private struct PayloadPlace {
    let segment: SegmentNumber
    let length: UInt32
    private let isInline: Bool
    /// The stored blocks, by their numbers in the payload.
    private let stored: [Int: (position: Int, checksum: UInt32)]

    struct Piece {
        /// The offset in the segment; nil if the block is not stored any more.
        var position: Int?
        /// The length that the checksum covers.
        var byteCount: Int
        var checksum: UInt32
        /// `wanted`: the part of it that is asked for. `target`: where that part goes.
        var wanted: Range<Int>
        var target: Int
    }

    init?(_ bytes: UnsafeRawBufferPointer) {
        guard let entry = PayloadEntry(decoding: bytes) else { return nil }
        segment = entry.blocksSegment
        length = entry.length
        isInline = entry.isInline
        var stored: [Int: (position: Int, checksum: UInt32)] = [:]
        entry.forEachStored { index, block, _ in
            stored[block] = (Int(entry.position(ofStored: index)), entry.checksum(ofStored: index))
        }
        self.stored = stored
    }

    func pieces(_ offset: UInt32, _ byteCount: UInt32) -> [Piece] {
        let start = Int(offset)
        let end = start + Int(byteCount)
        if isInline {
            return [
                Piece(
                    position: stored[0]?.position, byteCount: Int(length), checksum: stored[0]?.checksum ?? 0,
                    wanted: start..<end, target: 0)
            ]
        }
        guard end > start else { return [] }
        return (start / blockByteCount...(end - 1) / blockByteCount).map { block in
            let low = max(start, block * blockByteCount)
            let high = min(end, (block + 1) * blockByteCount)
            return Piece(
                position: stored[block]?.position, byteCount: blockByteCount, checksum: stored[block]?.checksum ?? 0,
                wanted: low - block * blockByteCount..<high - block * blockByteCount, target: low - start)
        }
    }
}

extension UnsafeRawBufferPointer {
    /// The name itself if it is plain, otherwise in quotation marks.
    var plainOrQuoted: String {
        let text = quoted
        let inner = text.dropFirst().dropLast()
        return inner.contains("\\") ? text : String(inner)
    }
}
