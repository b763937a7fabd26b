// Writes to the log again what the index knows of lost records, so that the log alone again holds the whole file
// system. Part of a repair; runs in an ordinary mount.

/// An entry that only the log shows: the record that removed it is lost.
struct Surplus {
    var key: IndexKey
    /// The stamp of the segment that holds the entry.
    var since: BatchSequence
    /// The length of an extent; 0 for other entries.
    var byteCount: UInt64

    static let limit = 1_000_000

    /// Finds the entries of the tree that only the rebuilt index has, or that reach further there.
    static func find<D: Device>(
        _ live: Recovery<D>, _ rebuild: RebuiltIndex<D>, _ device: D
    ) throws(MountError) -> [Surplus] {
        var found: [Surplus] = []
        let view = StoreView(live)
        var failure: MountError?
        try StoreView(rebuild, device).forEach(.tree) { key, value in
            guard failure == nil, found.count < limit, value.count >= Origin.byteCount else { return }
            do throws(MountError) {
                let other = try view.run { () throws(PageMiss) in
                    try live.index.tree.withValue(of: key) { bytes -> UInt64? in
                        bytes.map { ExtentEntry(decoding: $0).map { UInt64($0.length) } ?? 0 }
                    }
                }
                let stamp = rebuild.table[Origin(decoding: value).segment].firstBatch
                let length = key.kind == .extent ? ExtentEntry(decoding: value).map { UInt64($0.length) } ?? 0 : 0
                if other == nil || other! < length {
                    found.append(Surplus(key: key, since: stamp, byteCount: length))
                }
            } catch { failure = error }
        }
        if let failure { throw failure }
        return found
    }
}

/// Writes to the log again what only the index has.
struct LogRepair<D: Device> {
    private let volume: Volume<D>
    private let damage: LogDamage
    private let view: StoreView<D>
    private(set) var steps: [String] = []
    private(set) var lost: [LostRange] = []

    init(_ volume: Volume<D>, _ damage: LogDamage) {
        self.volume = volume
        self.damage = damage
        view = StoreView(volume)
    }

    mutating func run(_ surplus: [Surplus]) throws(MountError) {
        // Removals come first. As long as an entry of the index depends on lost records, an interrupted repair is known
        // to be needed.
        for item in surplus { try remove(item) }
        var entries: [(IndexKey, [UInt8])] = []
        let damage = self.damage
        let payloads = try view.payloads(in: damage)
        for space in [KeySpace.tombstones, .tree] {
            try view.forEach(space) { key, value in
                guard damage.covers(key, value, payloads) else { return }
                entries.append((key, Array(value)))
            }
        }
        for (key, value) in entries { try restore(key, value) }
        if !entries.isEmpty {
            steps.append("\(entries.count) entries that the log had lost were written to it again from the index")
        }
    }

    private func commit(_ write: (inout RecordWriter) -> Void) throws(MountError) {
        try volume.repairing(write)
    }

    private func remove(_ item: Surplus) throws(MountError) {
        let inode = InodeNumber(item.key.object)
        switch item.key.kind {
        case .inode:
            try commit { $0.removeInode(inode, since: item.since) }
        case .dirent:
            try commit { writer in
                writer.removeDirent(directory: inode, cookie: item.key.subkey, since: item.since)
            }
        case .xattr:
            try commit { writer in
                writer.removeXattr(inode: inode, cookie: item.key.subkey, since: item.since)
            }
        case .extent:
            try clear(inode, item.key.subkey, item.key.subkey + item.byteCount, item.since)
        default: break
        }
    }

    /// Removes the parts of a range that the index does not show.
    private func clear(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64, _ since: BatchSequence) throws(MountError) {
        guard try view.inode(inode) != nil else { return }
        var cursor = from
        while cursor < to {
            let start = cursor
            let next = try view.run { () throws(PageMiss) in
                try view.index.extent(inode, endingAfter: start, before: to)
            }
            let low = next?.0 ?? to
            if low > cursor {
                try commit { writer in
                    writer.removeRange(inode: inode, from: start, to: min(low, to), since: since)
                }
            }
            guard let next else { return }
            cursor = max(cursor + 1, next.0 + UInt64(next.1.length))
        }
    }

    private mutating func restore(_ key: IndexKey, _ value: [UInt8]) throws(MountError) {
        let inode = InodeNumber(key.object)
        switch (key.space, key.kind) {
        case (.tombstones, let kind):
            guard let entry = value.withUnsafeBytes({ TombstoneEntry(decoding: $0) }) else { return }
            try restore(entry, kind, inode, key.subkey)
        case (.tree, .inode):
            guard let entry = value.withUnsafeBytes({ InodeEntry(inode: inode, decoding: $0) }), entry.record.mode != 0
            else { return }
            try commit { $0.inode(entry.record) }
        case (.tree, .dirent):
            try commit { writer in
                value.withUnsafeBytes { bytes in
                    guard let entry = DirentEntry(decoding: bytes) else { return }
                    writer.dirent(
                        directory: inode, cookie: key.subkey, since: entry.since, inode: entry.inode,
                        mode: UInt32(entry.type) << 12, name: entry.name)
                }
            }
        case (.tree, .xattr): try restoreXattr(inode, key.subkey, value)
        case (.tree, .extent):
            guard let entry = value.withUnsafeBytes({ ExtentEntry(decoding: $0) }) else { return }
            guard !entry.isReserved else {
                let end = key.subkey + UInt64(entry.length)
                return try commit { writer in
                    writer.reserve(inode: inode, from: key.subkey, to: end)
                }
            }
            lost += try volume.rewrite(view, inode, key.subkey, key.subkey + UInt64(entry.length))
        default: break
        }
    }

    private func restore(
        _ entry: TombstoneEntry, _ kind: EntryKind?, _ inode: InodeNumber, _ subkey: UInt64
    ) throws(MountError) {
        switch kind {
        case .dirent:
            try commit { writer in
                writer.removeDirent(directory: inode, cookie: subkey, since: entry.since)
            }
        case .xattr:
            try commit { writer in
                writer.removeXattr(inode: inode, cookie: subkey, since: entry.since)
            }
        case .inode: try commit { $0.removeInode(inode, since: entry.since) }
        case .rangeTombstone: try clear(inode, entry.from, entry.to, entry.since)
        default: break
        }
    }

    private mutating func restoreXattr(_ inode: InodeNumber, _ cookie: UInt64, _ value: [UInt8]) throws(MountError) {
        guard let attribute = try view.attribute(of: inode, after: cookie - 1), attribute.cookie == cookie else {
            return
        }
        try volume.setAttribute(inode, attribute, value)
        if attribute.value == nil { lost.append(LostRange(inode: inode.rawValue)) }
    }
}

extension Volume {
    /// Commits one record that `write` fills, waiting for what it needs. Nothing if it stays empty.
    func repairing(_ write: (inout RecordWriter) -> Void) throws(MountError) {
        do throws(Errno) {
            try perform { (core) throws(Stop) in try core.commitUnlessEmpty(.removal, .nobody, write) }
        } catch { throw MountError("a repair cannot be written to the log", error) }
    }

    /// Writes the contents of a range of a file again, as new data. Parts that cannot be read become lost for good;
    /// gives these.
    func rewrite(
        _ view: StoreView<D>, _ inode: InodeNumber, _ from: UInt64, _ to: UInt64
    ) throws(MountError) -> [LostRange] {
        let limit = maxWriteByteCount
        var pieces: [(offset: UInt64, bytes: [UInt8])] = []
        var holes: [UnreadableRange] = []
        var lost: [LostRange] = []
        func flush() throws(MountError) {
            for piece in pieces {
                for start in stride(from: 0, to: piece.bytes.count, by: limit) {
                    let count = min(limit, piece.bytes.count - start)
                    try repairing { writer in
                        piece.bytes.withUnsafeBytes { writer.payload($0.part(start, count)) }
                        writer.extent(
                            inode: inode, offset: piece.offset + UInt64(start), byteCount: UInt32(count))
                    }
                }
            }
            for hole in holes { try giveUp(inode, hole.offset, hole.byteCount) }
            pieces.removeAll()
            holes.removeAll()
        }
        // An extent is no larger than a payload, so little is collected here.
        try view.read(inode, from, to) { (offset, bytes) throws(MountError) in
            if let last = pieces.last, last.offset + UInt64(last.bytes.count) == offset {
                pieces[pieces.count - 1].bytes.append(contentsOf: bytes)
            } else {
                pieces.append((offset, Array(bytes)))
            }
        } _: { range in
            lost.append(LostRange(inode: inode.rawValue, bytes: range.offset..<range.offset + range.byteCount))
            holes.append(range)
        }
        try flush()
        return lost
    }

    /// Marks a range of a file as lost: it gives EIO until it is written again.
    func giveUp(_ inode: InodeNumber, _ offset: UInt64, _ byteCount: UInt64) throws(MountError) {
        var done: UInt64 = 0
        while done < byteCount {
            let count = Int(min(UInt64(maxWriteByteCount), byteCount - done))
            let place = offset + done
            try repairing { writer in
                writer.lostPayload(byteCount: count)
                writer.extent(inode: inode, offset: place, byteCount: UInt32(count))
            }
            done += UInt64(count)
        }
    }

    /// Writes an attribute again under its cookie. If its value cannot be read, the value becomes lost for good.
    func setAttribute(
        _ inode: InodeNumber, _ attribute: StoreView<D>.Attribute, _ entry: [UInt8]
    ) throws(MountError) {
        let limit = maxWriteByteCount
        try repairing { writer in
            entry.withUnsafeBytes { bytes in
                guard let entry = XattrEntry(decoding: bytes) else { return }
                var count = attribute.value?.count ?? 0
                var inPayload = count > XattrEntry.inlineByteCountLimit
                if case .payload(_, let length) = entry.value, attribute.value == nil {
                    count = Int(length)
                    inPayload = true
                }
                guard count <= limit else { return }
                let value = attribute.value ?? [UInt8](repeating: 0, count: count)
                value.withUnsafeBytes { value in
                    if inPayload {
                        if attribute.value == nil {
                            writer.lostPayload(byteCount: count)
                        } else {
                            writer.payload(value)
                        }
                    }
                    writer.xattr(
                        inode: inode, cookie: attribute.cookie, since: entry.since, name: entry.name, value: value,
                        inPayload: inPayload)
                }
            }
        }
    }
}
