// The index as records see it: applies their changes to the tree, keeps the accounting on live bytes, tombstones and
// removals. Owned by the core and used under its lock. Queries are in RecordIndex+Queries.swift.

/// The tree of entries together with the segment table that its entries are charged to.
///
/// Applying a record needs every page that it changes in memory: `touch` brings them or throws, and `apply` under the
/// same lock then cannot fail. A record's changes therefore happen wholly or not at all.
final class RecordIndex {
    let tree: Index
    let table: SegmentTable
    /// Removals whose entries are not all taken out yet, by inode.
    var removals: [InodeNumber: [PendingRemoval]] = [:]
    /// How many of those are replacements (see RecordIndex+Replacement.swift).
    var replacementCount = 0
    /// Range tombstones of files that have very many (see RangeTombstones.swift).
    var rangeTombstones: [InodeNumber: RangeTombstones] = [:]
    /// A write over more extents than this replaces them in steps.
    var replacedExtentLimit = 256
    /// Range tombstones that one hold of the lock looks at or learns. Unbounded in a recovery, which holds it alone.
    var tombstoneWalkLimit = Int.max
    /// Bytes of all replacements.
    var replacedByteCount: UInt64 = 0
    /// About how many bytes the removals under way will free.
    var removingByteCount: Int64 { removals.values.reduce(0) { $1.reduce($0) { $0 + $1.byteCount } } }
    var inodeCount: UInt64 = 0
    /// Bytes of all reserved extents.
    var reservedByteCount: UInt64 = 0
    /// Bytes that files show beyond those stored for them. Nil in a store that does not count them.
    var sharedByteCount: UInt64? = 0
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 16)
    private var unreferencedPayload: (record: PayloadRecord, place: RecordPlace, position: UInt32)?
    /// How `apply` treats payloads. Only a rebuild changes it (see `RebuiltIndex`).
    var pass = Pass.live

    /// What `apply` does with payloads.
    enum Pass {
        /// A payload comes in the record that references it first.
        case live
        /// First pass of a rebuild: only payloads are taken in, without references, each where it was moved last.
        case payloads
        /// Second pass of a rebuild: all but payloads. A reference may come before the last move of its payload.
        case names
    }

    /// More entries than this are taken out in steps.
    static let immediateEntryLimit = 64

    init(tree: Index, table: SegmentTable) {
        self.tree = tree
        self.table = table
    }

    deinit { scratch.deallocate() }

    // MARK: Touching

    /// Brings every page that `apply` of this record will change.
    func touch(_ record: Record) throws(PageMiss) {
        try record.forEachChange { change, _, _ throws(PageMiss) in try touch(change, record.sequence) }
    }

    /// Brings every page that applying a change of this age will change.
    func touch(_ change: Change, _ sequence: RecordSequence) throws(PageMiss) {
        switch change {
        case .inode(let inode): try tree.touch(InodeEntry.key(inode.inode))
        case .dirent(let directory, let cookie, _, let inode, _, _):
            // A name may end an inode's life as an orphan.
            try tree.touch(OrphanEntry.key(inode))
            try touchDirent(directory, cookie)
        case .removeDirent(let directory, let cookie, _): try touchDirent(directory, cookie)
        case .xattr(let inode, let cookie, _, _, _), .removeXattr(let inode, let cookie, _):
            try tree.touch(TombstoneEntry.key(inode, .xattr, cookie))
            try touchXattr(inode, cookie)
        case .payload(let payload): try tree.touch(PayloadEntry.key(payload.id))
        case .extent(let inode, let offset, let payload, _, let count):
            try tree.touch(ExtentEntry.key(inode, offset))
            try tree.touch(PayloadEntry.key(payload))
            try tree.touch(InodeEntry.key(inode))
            if try isReplacedInSteps(inode, offset, offset + UInt64(count)) { return }
            _ = try touchExtents(inode, offset, offset + UInt64(count), limit: .max)
        case .reserve(let inode, let from, let to):
            try tree.touch(InodeEntry.key(inode))
            var low = from
            while low < to {
                try tree.touch(ExtentEntry.key(inode, low))
                low = min(to, low + ExtentEntry.reservedByteCountLimit)
            }
            _ = try touchExtents(inode, from, to, limit: .max)
        case .removeRange(let inode, let from, let to, _):
            try tree.touch(InodeEntry.key(inode))
            try tree.touch(TombstoneEntry.key(inode, .rangeTombstone, sequence.rawValue))
            try tree.touch(RemovalEntry.key(inode, sequence))
            try touchCovered(inode, from, to, before: sequence)
            _ = try touchExtents(inode, from, to, limit: Self.immediateEntryLimit)
        case .removeInode(let inode, _): try touchRemoval(of: inode, sequence)
        case .orphan(let inode): try tree.touch(OrphanEntry.key(inode))
        case .move(let move):
            if try establishes(move) {
                try tree.touch(move.key)
            } else {
                try touch(move.change, move.sequence)
            }
        case .skipped: break
        }
    }

    private func touchDirent(_ directory: InodeNumber, _ cookie: UInt64) throws(PageMiss) {
        try tree.touch(DirentEntry.key(directory, cookie))
        try tree.touch(TombstoneEntry.key(directory, .dirent, cookie))
        try tree.touch(InodeEntry.key(directory))
    }

    private func touchXattr(_ inode: InodeNumber, _ cookie: UInt64) throws(PageMiss) {
        let key = XattrEntry.key(inode, cookie)
        try tree.touch(key)
        if let payload = try xattrPayload(key) { try tree.touch(PayloadEntry.key(payload)) }
    }

    func xattrPayload(_ key: IndexKey) throws(PageMiss) -> PayloadID? {
        try tree.withValue(of: key) { bytes in
            guard let bytes, let entry = XattrEntry(decoding: bytes), case .payload(let id, _) = entry.value else {
                return nil
            }
            return id
        }
    }

    /// Touches what taking out the extents of a range changes; false when there are more than `limit` of them.
    private func touchExtents(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64, limit: Int) throws(PageMiss) -> Bool {
        var count = 0
        try forEachExtent(inode, from, to) { offset, extent throws(PageMiss) in
            count += 1
            if count > limit { return false }
            if !extent.isReserved { try tree.touch(PayloadEntry.key(extent.payload)) }
            if offset + UInt64(extent.length) > to { try tree.touch(ExtentEntry.key(inode, to)) }
            return true
        }
        return count <= limit
    }

    private func touchRemoval(of inode: InodeNumber, _ sequence: RecordSequence) throws(PageMiss) {
        try tree.touch(InodeEntry.key(inode))
        try tree.touch(OrphanEntry.key(inode))
        try tree.touch(TombstoneEntry.key(inode, .inode, 0))
        try tree.touch(RemovalEntry.key(inode, sequence))
        for pending in removals[inode] ?? [] { try tree.touch(RemovalEntry.key(inode, pending.sequence)) }
        guard let keys = try contents(of: inode, limit: Self.immediateEntryLimit) else { return }
        for key in keys { try touchEntry(key) }
    }

    /// Touches what taking out one entry changes.
    func touchEntry(_ key: IndexKey) throws(PageMiss) {
        try tree.touch(key)
        if key.kind == .extent, key.space == .tree, let extent = try extentEntry(key) {
            if !extent.isReserved { try tree.touch(PayloadEntry.key(extent.payload)) }
        } else if key.kind == .xattr, key.space == .tree, let payload = try xattrPayload(key) {
            try tree.touch(PayloadEntry.key(payload))
        }
    }

    // MARK: Applying

    /// Applies a record that lies at `place`. Every page it changes must be in memory (see `touch`).
    func apply(_ record: Record, at place: RecordPlace) {
        let origin = Origin(sequence: record.sequence, segment: place.segment)
        record.forEachChange { change, offset, _ in
            switch change {
            case .payload(let payload):
                let position =
                    payload.isInline
                    ? place.recordPosition + UInt32(offset + payload.inlineOffset)
                    : place.payloadAreaPosition + payload.position
                switch pass {
                case .live: unreferencedPayload = (payload, place, position)
                case .payloads: putUnreferenced(payload, place.segment, place.segment, position)
                case .names: break
                }
            case .move(let move): apply(move, at: place, offset)
            default: if pass != .payloads { apply(change, origin, until: nil) }
            }
        }
        unreferencedPayload = nil
    }

    /// Applies a change that is neither a payload nor a move. `until`: of a tombstone that was moved.
    func apply(_ change: Change, _ origin: Origin, until: BatchSequence?) {
        let stamp = table[origin.segment].firstBatch
        switch change {
        case .inode(var inode):
            if inode.since == .zero { inode.since = stamp }
            put(inode, origin)
        case .dirent(let directory, let cookie, let since, let inode, let type, let name):
            let entry = DirentEntry(
                origin: origin, type: type, since: since == .zero ? stamp : since, inode: inode, name: name)
            put(entry, directory, cookie)
        case .removeDirent(let directory, let cookie, let since):
            if removeKeyed(DirentEntry.key(directory, cookie)) { adjustDerived(directory, by: -1) }
            putTombstone(directory, .dirent, cookie, since, until, origin, charge: 32)
        case .xattr(let inode, let cookie, let since, let name, let value):
            let entry = XattrEntry(origin: origin, since: since == .zero ? stamp : since, name: name, value: value)
            put(entry, inode, cookie)
        case .removeXattr(let inode, let cookie, let since):
            _ = removeKeyed(XattrEntry.key(inode, cookie))
            putTombstone(inode, .xattr, cookie, since, until, origin, charge: 32)
        case .extent(let inode, let offset, let payload, let payloadOffset, let count):
            let entry = ExtentEntry(origin: origin, length: count, payload: payload, payloadOffset: payloadOffset)
            put(entry, inode, offset)
        case .reserve(let inode, let from, let to): reserve(inode, from, to, origin)
        case .removeRange(let inode, let from, let to, let since):
            removeRange(inode, from, to, since, until, origin)
        case .removeInode(let inode, let since):
            remove(inode, since, until, origin)
        case .orphan(let inode):
            _ = removeKeyed(OrphanEntry.key(inode))
            scratch[Origin.field] = origin
            tree.put(OrphanEntry.key(inode), UnsafeRawBufferPointer(scratch.part(0, Origin.byteCount)))
            table.charge(origin.segment, OrphanEntry.charge)
        case .payload, .move, .skipped: break
        }
    }

    private func put(_ inode: InodeRecord, _ origin: Origin) {
        let key = InodeEntry.key(inode.inode)
        var derived: UInt64 = 0
        var isNew = true
        var mayBeOrphan = pass != .live
        if let old = found({ () throws(PageMiss) in try self.inode(inode.inode, includingStubs: true) }) {
            derived = old.derived
            if old.record.mode != 0 {
                isNew = false
                mayBeOrphan = old.record.linkCount == 0
                table.charge(old.origin.segment, -InodeEntry.charge)
            }
        }
        if isNew { inodeCount &+= 1 }
        // linkat(2) may give a name to a file made without one. Every later record of the inode has the same effect,
        // because a rebuild may find any of them, and the record that made the inode an orphan without the inode's own.
        if mayBeOrphan, inode.linkCount > 0 { _ = removeKeyed(OrphanEntry.key(inode.inode)) }
        InodeEntry(origin: origin, record: inode, derived: derived).encode(into: scratch)
        tree.put(key, UnsafeRawBufferPointer(scratch.part(0, InodeEntry.byteCount)))
        table.charge(origin.segment, InodeEntry.charge)
    }

    private func put(_ entry: DirentEntry, _ directory: InodeNumber, _ cookie: UInt64) {
        let key = DirentEntry.key(directory, cookie)
        if !removeCharge(key) { adjustDerived(directory, by: 1) }
        _ = removeKeyed(TombstoneEntry.key(directory, .dirent, cookie))
        entry.encode(into: scratch)
        tree.put(key, UnsafeRawBufferPointer(scratch.part(0, entry.byteCount)))
        table.charge(entry.origin.segment, entry.charge)
    }

    private func put(_ entry: XattrEntry, _ inode: InodeNumber, _ cookie: UInt64) {
        let key = XattrEntry.key(inode, cookie)
        _ = removeKeyed(key)
        _ = removeKeyed(TombstoneEntry.key(inode, .xattr, cookie))
        if case .payload(let id, let count) = entry.value { name(id, 0, count) }
        entry.encode(into: scratch)
        tree.put(key, UnsafeRawBufferPointer(scratch.part(0, entry.byteCount)))
        table.charge(entry.origin.segment, entry.charge)
    }

    private func put(_ entry: ExtentEntry, _ inode: InodeNumber, _ offset: UInt64) {
        let end = offset + UInt64(entry.length)
        if found({ () throws(PageMiss) in try self.isReplacedInSteps(inode, offset, end) }) {
            name(entry.payload, entry.payloadOffset, entry.length)
            table.charge(entry.origin.segment, ExtentEntry.charge)
            return replaceInSteps(inode, offset, by: entry)
        }
        // While an index is rebuilt, a piece may meet the whole that it was cut from.
        removeExtents(inode, offset, end, before: entry.origin.sequence.next)
        name(entry.payload, entry.payloadOffset, entry.length)
        entry.encode(into: scratch)
        tree.put(ExtentEntry.key(inode, offset), UnsafeRawBufferPointer(scratch.part(0, ExtentEntry.byteCount)))
        table.charge(entry.origin.segment, ExtentEntry.charge)
        adjustDerived(inode, by: Int64(entry.length))
    }

    private func reserve(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64, _ origin: Origin) {
        removeExtents(inode, from, to, before: origin.sequence.next)
        var low = from
        while low < to {
            let length = min(to - low, ExtentEntry.reservedByteCountLimit)
            ExtentEntry(origin: origin, length: UInt32(length), payload: PayloadID(0), payloadOffset: 0)
                .encode(into: scratch)
            tree.put(ExtentEntry.key(inode, low), UnsafeRawBufferPointer(scratch.part(0, ExtentEntry.byteCount)))
            table.charge(origin.segment, ExtentEntry.charge)
            low += length
        }
        adjustDerived(inode, by: Int64(to - from))
        reservedByteCount &+= to - from
    }

    // MARK: Payloads

    /// Adds a reference to a range of a payload. A payload of this record that is referenced whole is put in one step.
    private func name(_ id: PayloadID, _ offset: UInt32, _ byteCount: UInt32) {
        if let (record, place, position) = unreferencedPayload, record.id == id {
            unreferencedPayload = nil
            let isWhole = offset == 0 && byteCount == record.length
            put(record, place.segment, place.segment, position, named: isWhole)
            if isWhole { return }
        }
        changeNaming(id, offset, byteCount, more: true)
    }

    /// Drops an extent's reference to bytes of a payload, or what it has reserved (payload 0).
    func dropReference(_ id: PayloadID, _ offset: UInt32, _ byteCount: UInt32) {
        guard id.rawValue != 0 else {
            if reservedByteCount < UInt64(byteCount) {
                table.noteImpossible("more is reserved than the superblock says")
            }
            reservedByteCount -= min(reservedByteCount, UInt64(byteCount))
            return
        }
        changeNaming(id, offset, byteCount, more: false)
    }

    private func put(
        _ record: PayloadRecord, _ segment: SegmentNumber, _ blocksSegment: SegmentNumber, _ position: UInt32,
        named: Bool
    ) {
        // Records from disk were refused if a payload in blocks lies elsewhere.
        precondition(record.isInline || position % UInt32(blockByteCount) == 0, "blocks of a payload begin on a block")
        let origin = Origin(sequence: RecordSequence(record.id.rawValue), segment: segment)
        let count = PayloadEntry.encode(
            record, origin: origin, blocksSegment: blocksSegment, position: position, named: named, into: scratch)
        let value = UnsafeRawBufferPointer(scratch.part(0, count))
        tree.put(PayloadEntry.key(record.id), value)
        charge(Self.charge(PayloadEntry.key(record.id), value)!)
    }

    /// Takes in a payload that nothing references yet. Takes the place of an older entry of it.
    func putUnreferenced(
        _ record: PayloadRecord, _ segment: SegmentNumber, _ blocksSegment: SegmentNumber, _ position: UInt32
    ) {
        _ = removeCharge(PayloadEntry.key(record.id))
        put(record, segment, blocksSegment, position, named: false)
    }

    /// A payload that is not there is ignored in a rebuild, where its record may be lost.
    private func changeNaming(_ id: PayloadID, _ offset: UInt32, _ byteCount: UInt32, more: Bool) {
        var isThere = false
        defer {
            if !isThere, more, pass == .live {
                table.noteImpossible("payload \(id.rawValue) is named and is not there")
            }
        }
        replacePayload(id) { entry in
            isThere = true
            let count = entry.encodeNaming(
                offset, byteCount, more: more, keepsDead: self.pass != .live, into: self.scratch)
            if count == nil { self.table.noteImpossible("payload \(id.rawValue) is named more often than it says") }
            return count
        }
    }

    /// Replaces a payload's entry by what `body` wrote to `scratch`, charges too. Length 0 removes it, nil keeps it.
    func replacePayload(_ id: PayloadID, _ body: (PayloadEntry) -> Int?) {
        let key = PayloadEntry.key(id)
        var count: Int?
        var old: Charge?
        found { () throws(PageMiss) in
            try self.tree.withValue(of: key) { bytes in
                guard let bytes, let entry = PayloadEntry(decoding: bytes) else { return }
                old = Self.charge(key, bytes)
                count = body(entry)
            }
        }
        guard let count, let old else { return }
        discharge(old)
        if count == 0 {
            _ = tree.remove(key)
        } else {
            let value = UnsafeRawBufferPointer(scratch.part(0, count))
            charge(Self.charge(key, value)!)
            tree.put(key, value)
        }
    }

    /// Whether more than one extent shows some byte of a payload.
    func isShared(_ id: PayloadID) throws(PageMiss) -> Bool {
        guard id.rawValue != 0 else { return false }
        return try tree.withValue(of: PayloadEntry.key(id)) { bytes in
            bytes.flatMap { PayloadEntry(decoding: $0) }.map { $0.sharedByteCount > 0 } ?? false
        }
    }

    /// A payload's batch was closed, so its position is final. An inline payload whose entry names another place than
    /// `provisional` was moved there before.
    func place(_ id: PayloadID, _ segment: SegmentNumber, from provisional: UInt32, _ position: UInt32) {
        let key = PayloadEntry.key(id)
        // The entry was put in this generation, whose pages stay in memory. If a page is missing, the entry is gone.
        let exists: Bool
        do throws(PageMiss) { exists = try tree.contains(key) } catch { return }
        guard exists else { return }
        tree.update(key) { bytes in
            let isInline = bytes[PayloadEntry.layout.storage] == PayloadStorage.inline.rawValue
            precondition(isInline || position % UInt32(blockByteCount) == 0, "blocks of a payload begin on a block")
            if isInline, bytes[PayloadEntry.layout.position] != provisional { return }
            precondition(
                bytes[PayloadEntry.layout.blocksSegment] == segment, "a payload's place is in the segment of its batch")
            bytes[PayloadEntry.layout.position] = position
        }
    }

    // MARK: Removing single entries

    /// Runs a query whose pages are known to be in memory.
    @inline(__always)
    func found<Result>(_ body: () throws(PageMiss) -> Result) -> Result {
        while true {
            do throws(PageMiss) { return try body() } catch {
                guard tree.fetchNow?(error) == true else {
                    preconditionFailure("page \(error.address.rawValue) was not touched before use")
                }
            }
        }
    }

    /// Takes an entry's charge back; false when there is no entry.
    private func removeCharge(_ key: IndexKey) -> Bool {
        let charge = found { () throws(PageMiss) in
            try self.tree.withValue(of: key) { bytes in
                bytes.map { Self.charge(key, $0) ?? Charge(segment: SegmentNumber(0), byteCount: 0) }
            }
        }
        guard let charge else { return false }
        discharge(charge)
        return true
    }

    /// Takes an entry out, with its charge and its reference to a payload; false when there is no entry.
    func removeKeyed(_ key: IndexKey) -> Bool {
        if key.kind == .xattr, key.space == .tree,
            let payload = found({ () throws(PageMiss) in try self.xattrPayload(key) })
        {
            let length = found { () throws(PageMiss) in
                try self.tree.withValue(of: key) { bytes -> UInt32 in
                    guard case .payload(_, let count)? = bytes.flatMap({ XattrEntry(decoding: $0) })?.value else {
                        return 0
                    }
                    return count
                }
            }
            dropReference(payload, 0, length)
        }
        forgetRangeTombstone(key)
        guard removeCharge(key) else { return false }
        _ = tree.remove(key)
        return true
    }

    /// Adds to the derived number of an inode. In a rebuild, makes a stub if the inode's record comes later.
    func adjustDerived(_ inode: InodeNumber, by difference: Int64) {
        let key = InodeEntry.key(inode)
        let exists = found { () throws(PageMiss) in try self.tree.withValue(of: key) { $0 != nil } }
        if exists {
            tree.update(key) { bytes in
                let derived = bytes[InodeEntry.layout.derived]
                var sum = derived &+ UInt64(bitPattern: difference)
                // A rebuild meets the changes in another order.
                if pass == .live, sum > UInt64(Int64.max) {
                    table.noteImpossible("inode \(inode.rawValue) has more or less than it counts")
                    sum = difference < 0 ? 0 : derived
                }
                bytes[InodeEntry.layout.derived] = sum
            }
            return
        }
        scratch.zero(0, InodeEntry.byteCount)
        scratch[InodeEntry.layout.derived] = UInt64(bitPattern: difference)
        tree.put(key, UnsafeRawBufferPointer(scratch.part(0, InodeEntry.byteCount)))
    }
}
