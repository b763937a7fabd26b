// The cleaner's moves in the index: which entries have their origin in a segment, and the change that establishes such
// an entry again in a newer record.

extension IndexKey {
    /// The key of the entry that a change of this age establishes.
    init(establishedBy change: Change, _ sequence: RecordSequence) {
        switch change {
        case .inode(let inode): self = InodeEntry.key(inode.inode)
        case .dirent(let directory, let cookie, _, _, _, _): self = DirentEntry.key(directory, cookie)
        case .removeDirent(let directory, let cookie, _): self = TombstoneEntry.key(directory, .dirent, cookie)
        case .xattr(let inode, let cookie, _, _, _): self = XattrEntry.key(inode, cookie)
        case .removeXattr(let inode, let cookie, _): self = TombstoneEntry.key(inode, .xattr, cookie)
        case .payload(let payload): self = PayloadEntry.key(payload.id)
        case .extent(let inode, let offset, _, _, _): self = ExtentEntry.key(inode, offset)
        case .reserve(let inode, let from, _): self = ExtentEntry.key(inode, from)
        case .removeRange(let inode, _, _, _): self = TombstoneEntry.key(inode, .rangeTombstone, sequence.rawValue)
        case .removeInode(let inode, _): self = TombstoneEntry.key(inode, .inode, 0)
        case .orphan(let inode): self = OrphanEntry.key(inode)
        case .move(let move): self.init(establishedBy: move.change, move.sequence)
        case .skipped: self = .min
        }
    }
}

extension MovedChange {
    /// The key of the entry that the change establishes.
    var key: IndexKey { IndexKey(establishedBy: change, sequence) }
}

extension RecordIndex {
    // MARK: Applying

    /// Whether the index holds the very entry that moves. It always does in a running mount, and in the replay after a
    /// checkpoint. In a rebuild the older record may be gone; the move then establishes the entry.
    func establishes(_ move: MovedChange) throws(PageMiss) -> Bool {
        let change = move.change
        return try tree.withValue(of: move.key) { value in
            guard let value, value.count >= Origin.byteCount, Origin(decoding: value).sequence == move.sequence else {
                return false
            }
            switch change {
            case .inode(let inode): return InodeEntry(inode: inode.inode, decoding: value)?.record.mode != 0
            case .extent(_, _, let payload, let payloadOffset, let count):
                guard let entry = ExtentEntry(decoding: value) else { return false }
                return entry.length == count && entry.payload == payload && entry.payloadOffset == payloadOffset
            case .reserve(_, let from, let to):
                guard let entry = ExtentEntry(decoding: value) else { return false }
                return entry.isReserved && UInt64(entry.length) == to - from
            default: return true
            }
        }
    }

    /// Applies a move that begins at `offset` of the record at `place`.
    func apply(_ move: MovedChange, at place: RecordPlace, _ offset: Int) {
        let change = move.change
        if case .payload(let payload) = change {
            if pass != .names { apply(move, payload, at: place, offset) }
            return
        }
        guard pass != .payloads else { return }
        guard found({ () throws(PageMiss) in try self.establishes(move) }) else {
            let origin = Origin(sequence: move.sequence, segment: place.segment)
            return apply(change, origin, until: move.until == .zero ? nil : move.until)
        }
        let key = move.key
        let byteCount = found { () throws(PageMiss) in
            try self.tree.withValue(of: key) { value -> Int in
                let charge = Self.charge(key, value!)!
                self.discharge(charge)
                return charge.byteCount
            }
        }
        tree.update(key) { $0[Origin.layout.segment] = place.segment }
        table.charge(place.segment, byteCount)
    }

    private func apply(_ move: MovedChange, _ payload: PayloadRecord, at place: RecordPlace, _ offset: Int) {
        let inlinePosition = place.recordPosition + UInt32(offset + Change.moveOverheadByteCount + payload.inlineOffset)
        let segment = payload.isInline ? place.segment : move.blocksSegmentID.number
        let position = payload.isInline ? inlinePosition : payload.position
        if pass == .payloads { return putUnreferenced(payload, place.segment, segment, position) }
        let origin = Origin(sequence: move.sequence, segment: place.segment)
        replacePayload(payload.id) { entry in
            entry.encodeMoved(payload, origin: origin, blocksSegment: segment, position: position, into: scratch)
        }
    }

    // MARK: Finding what is live

    /// A range of keys; what lies in it and has its origin in one segment is to be moved.
    struct Candidate: Hashable {
        var first: IndexKey
        var last: IndexKey

        init(_ key: IndexKey) {
            first = key
            last = key
        }

        init(first: IndexKey, last: IndexKey) {
            self.first = first
            self.last = last
        }
    }

    /// Calls `body` with the keys of what a record may have established, and with the bytes of a payload that it
    /// brought inline.
    static func forEachCandidate(_ record: Record, _ body: (Candidate, _ inline: UnsafeRawBufferPointer) -> Void) {
        record.forEachChange { change, _, _ in
            var (change, sequence) = (change, record.sequence)
            if case .move(let move) = change { (change, sequence) = (move.change, move.sequence) }
            let none = UnsafeRawBufferPointer(start: nil, count: 0)
            switch change {
            case .skipped: break
            case .extent(let inode, let offset, _, _, let count):
                // The extent may have been cut since. Each of its pieces begins within the range of the whole.
                let last = ExtentEntry.key(inode, offset + UInt64(count) - 1)
                body(Candidate(first: ExtentEntry.key(inode, offset), last: last), none)
            case .reserve(let inode, let from, let to):
                body(Candidate(first: ExtentEntry.key(inode, from), last: ExtentEntry.key(inode, to - 1)), none)
            case .payload(let payload):
                body(Candidate(PayloadEntry.key(payload.id)), payload.inlineBytes)
            default: body(Candidate(IndexKey(establishedBy: change, sequence)), none)
            }
        }
    }

    /// The first entry in a range that has its origin in a segment; nil when there is none.
    func live(in candidate: Candidate, from segment: SegmentNumber) throws(PageMiss) -> IndexKey? {
        var result: IndexKey?
        try tree.scan(from: candidate.first, through: candidate.last) { key, value in
            guard value.count >= Origin.byteCount, Origin(decoding: value).segment == segment else { return true }
            result = key
            return false
        }
        return result
    }

    /// Writes the move of an entry. `inline`: the bytes of an inline payload.
    func writeMove(of key: IndexKey, inline: UnsafeRawBufferPointer, into writer: inout RecordWriter) throws(PageMiss) {
        try tree.withValue(of: key) { value in
            guard let value, value.count >= Origin.byteCount else { return }
            let sequence = Origin(decoding: value).sequence
            let object = InodeNumber(key.object)
            switch (key.space, key.kind) {
            case (.tree, .inode):
                guard let entry = InodeEntry(inode: object, decoding: value), entry.record.mode != 0 else { return }
                writer.move(sequence) { $0.inode(entry.record) }
            case (.tree, .dirent):
                guard let entry = DirentEntry(decoding: value) else { return }
                writer.move(sequence) {
                    $0.dirent(
                        directory: object, cookie: key.subkey, since: entry.since, inode: entry.inode,
                        mode: UInt32(entry.type) << 12, name: entry.name)
                }
            case (.tree, .xattr):
                guard let entry = XattrEntry(decoding: value) else { return }
                writer.move(sequence) {
                    switch entry.value {
                    case .inline(let bytes):
                        $0.xattr(
                            inode: object, cookie: key.subkey, since: entry.since, name: entry.name, value: bytes,
                            inPayload: false)
                    case .payload(let id, let count):
                        $0.xattr(
                            inode: object, cookie: key.subkey, since: entry.since, name: entry.name, payload: id,
                            byteCount: count)
                    }
                }
            case (.tree, .extent):
                guard let entry = ExtentEntry(decoding: value) else { return }
                if entry.isReserved {
                    let end = key.subkey + UInt64(entry.length)
                    writer.move(sequence) { $0.reserve(inode: object, from: key.subkey, to: end) }
                    return
                }
                writer.move(sequence) {
                    $0.extent(
                        inode: object, offset: key.subkey, payload: entry.payload, payloadOffset: entry.payloadOffset,
                        byteCount: entry.length)
                }
            case (.payloads, .payload):
                guard let entry = PayloadEntry(decoding: value), table.contains(entry.blocksSegment) else { return }
                let word = entry.isInline ? 0 : MovedChange.word(table.id(of: entry.blocksSegment))
                writer.move(sequence, word: word) {
                    $0.payload(
                        PayloadID(key.object), entry, blocks: nil, position: entry.position, inline: inline)
                }
            case (.orphans, _): writer.move(sequence) { $0.orphan(object) }
            case (.tombstones, _):
                guard let entry = TombstoneEntry(decoding: value) else { return }
                writer.move(sequence, word: entry.until.rawValue) { entry.encodeChange(key, into: &$0) }
            default: break
            }
        }
    }
}

extension TombstoneEntry {
    /// Writes the change that leaves this tombstone.
    fileprivate func encodeChange(_ key: IndexKey, into writer: inout RecordWriter) {
        let inode = InodeNumber(key.object)
        switch key.kind {
        case .dirent: writer.removeDirent(directory: inode, cookie: key.subkey, since: since)
        case .xattr: writer.removeXattr(inode: inode, cookie: key.subkey, since: since)
        case .rangeTombstone: writer.removeRange(inode: inode, from: from, to: to, since: since)
        default: writer.removeInode(inode, since: since)
        }
    }
}
