// The index part of a scrub: goes through the tree as it is at each moment, in the order of its keys. Each page that is
// on disk is read and validated there, even if the cache has it. The cache is not filled and keeps nothing for the
// scrub.

/// The pages that a scrub has read last, one for each level.
struct ScrubPath {
    /// By level: the page that was read and is valid.
    private var pointers: [PagePointer?] = Array(repeating: nil, count: Index.pathCapacity)
    private var buffers: [AlignedBuffer?] = Array(repeating: nil, count: Index.pathCapacity)
    /// Pages that are damaged on disk. Each is reported once.
    var damaged: Set<PagePointer> = []

    mutating func buffer(_ level: Int) -> UnsafeMutableRawBufferPointer {
        if buffers[level] == nil { buffers[level] = AlignedBuffer(byteCount: IndexPage.byteCount) }
        pointers[level] = nil
        return buffers[level]!.bytes
    }

    mutating func accept(_ pointer: PagePointer, level: Int) { pointers[level] = pointer }

    func page(_ pointer: PagePointer, level: Int) -> IndexPage? {
        guard pointers[level] == pointer else { return nil }
        return IndexPage(buffers[level]!.bytes.baseAddress!)
    }

    mutating func forget() {
        for level in pointers.indices { pointers[level] = nil }
        damaged.removeAll()
    }
}

/// The result of a descent through the index.
private enum Descent {
    case leaf(IndexPage, upper: IndexKey)
    /// This page must be read first.
    case page(PageMiss)
    /// A damaged page is in the way. The keys behind it begin at `upper`.
    case blocked(upper: IndexKey)
}

extension Scrub {
    // MARK: The walk

    /// Goes through entries in order. Calls `visit` for each entry, under the lock, and `after` at the end of each
    /// leaf, without it.
    func forEachEntry(
        from first: IndexKey, through last: IndexKey,
        _ visit: (VolumeState, IndexKey, UnsafeRawBufferPointer) -> Void, after: () throws(ScrubStop) -> Void
    ) throws(ScrubStop) {
        var cursor = first
        while cursor <= last {
            let start = cursor
            let reached = try locked { state -> Descent in
                let descent = self.descend(to: start, state.core.index.tree)
                guard case .leaf(let page, _) = descent else { return descent }
                for position in page.leafPosition(of: start)..<page.count {
                    let key = page.leafKey(position)
                    if key > last { break }
                    visit(state, key, UnsafeRawBufferPointer(page.value(position)))
                }
                return descent
            }
            switch reached {
            case .page(let miss): try verify(miss)
            case .leaf(_, let upper):
                try after()
                if upper == .max { return }
                cursor = upper
            case .blocked(let upper):
                if upper == .max { return }
                cursor = upper
            }
        }
    }

    /// Looks at one entry under the lock. `body` gets nil if there is none. Gives nil if damage is in the way.
    func withValue<Result>(
        of key: IndexKey, _ body: (VolumeState, UnsafeRawBufferPointer?) -> Result
    ) throws(ScrubStop) -> Result? {
        while true {
            var result: Result?
            let reached = try locked { state -> Descent in
                let descent = self.descend(to: key, state.core.index.tree)
                guard case .leaf(let page, _) = descent else { return descent }
                let position = page.leafPosition(of: key)
                let isThere = position < page.count && page.leafKey(position) == key
                result = body(state, isThere ? UnsafeRawBufferPointer(page.value(position)) : nil)
                return descent
            }
            switch reached {
            case .page(let miss): try verify(miss)
            case .leaf: return result
            case .blocked: return nil
            }
        }
    }

    /// Goes down to a key's leaf. Stops at a page that is on disk and was not read for this descent yet.
    private func descend(to key: IndexKey, _ tree: Index) -> Descent {
        var pointer = tree.root
        var level = tree.rootLevel
        var lower = IndexKey.min
        var upper = IndexKey.max
        while true {
            let page: IndexPage
            switch tree.residence(pointer, level: level) {
            case .changed(let resident): page = resident
            case .clean(let resident):
                guard path.page(pointer, level: level) != nil || path.damaged.contains(pointer) else {
                    return .page(miss(pointer, level, lower, upper, tree))
                }
                page = resident
            case .absent:
                if path.damaged.contains(pointer) { return .blocked(upper: upper) }
                guard let own = path.page(pointer, level: level) else {
                    return .page(miss(pointer, level, lower, upper, tree))
                }
                page = own
            }
            if level == 0 { return .leaf(page, upper: upper) }
            let position = page.childPosition(of: key)
            if position > 0 { lower = page.innerKey(position) }
            if position + 1 < page.count { upper = page.innerKey(position + 1) }
            pointer = page.child(position)
            level -= 1
        }
    }

    private func miss(
        _ pointer: PagePointer, _ level: Int, _ lower: IndexKey, _ upper: IndexKey, _ tree: Index
    ) -> PageMiss {
        PageMiss(pointer: pointer, level: UInt8(level), lower: lower, upper: upper, isRoot: level == tree.rootLevel)
    }

    // MARK: One page

    /// Reads a page and validates it. A valid page stays in the path. A damaged one is read twice, and reported unless
    /// the tree has dropped or changed it meanwhile.
    private func verify(_ miss: PageMiss) throws(ScrubStop) {
        var damage: CorruptionReport?
        for attempt in 0..<2 {
            let expected = try locked { state -> (PageExpectation, DeviceFile)? in
                let tree = state.core.index.tree
                // Read it again only if the tree still has it.
                guard attempt == 0 || self.isNamed(miss, tree) else { return nil }
                return (tree.expectation(miss), state.indexFile)
            }
            guard let (expectation, file) = expected else { return }
            let start = monotonicNanoseconds()
            damage = read(miss, expectation, file)
            if attempt == 0 { estimate.index.add(UInt64(IndexPage.byteCount)) }
            try paced(IndexPage.byteCount, since: start)
            if damage == nil { return }
        }
        let state = try locked { state -> (isNamed: Bool, isResident: Bool) in
            let tree = state.core.index.tree
            var isResident = true
            if case .absent = tree.residence(miss.pointer, level: Int(miss.level)) { isResident = false }
            return (self.isNamed(miss, tree), isResident)
        }
        guard let damage, state.isNamed else { return }
        path.damaged.insert(miss.pointer)
        report(
            Finding(
                place: damage.place, reason: damage.reason,
                effect: state.isResident
                    ? "the mount has the page in memory and goes on; a repair makes the index anew from the log"
                    : "what it leads to gives EIO; nothing is lost while the log is whole: a repair makes the index anew"
            ))
    }

    private func read(_ miss: PageMiss, _ expectation: PageExpectation, _ file: DeviceFile) -> CorruptionReport? {
        let buffer = path.buffer(Int(miss.level))
        let completion = device.perform(Submission(.read, file, offset: miss.address.offsetInFile, buffer, tag: 0))
        afterRead()
        guard completion.result == buffer.count else {
            let reason = completion.error.map { "it cannot be read: \($0)" } ?? "the file ends inside it"
            return CorruptionReport(place: "index page \(miss.address.rawValue)", reason: reason)
        }
        do throws(CorruptionReport) { try IndexPage.validate(buffer, expectation) } catch { return error }
        path.accept(miss.pointer, level: Int(miss.level))
        return nil
    }

    /// Whether the tree still has this page in this place, unchanged.
    private func isNamed(_ miss: PageMiss, _ tree: Index) -> Bool {
        var pointer = tree.root
        var level = tree.rootLevel
        while level > Int(miss.level) {
            let page: IndexPage
            switch tree.residence(pointer, level: level) {
            case .clean(let resident), .changed(let resident): page = resident
            case .absent:
                guard let own = path.page(pointer, level: level) else { return false }
                page = own
            }
            pointer = page.child(page.childPosition(of: miss.lower))
            level -= 1
        }
        guard level == Int(miss.level), pointer == miss.pointer else { return false }
        if case .changed = tree.residence(pointer, level: level) { return false }
        return true
    }

    // MARK: Everything

    /// Verifies the whole index, and all data that its payload entries name.
    func verifyIndexAndData() throws(ScrubStop) {
        var pieces: [ScrubPiece] = []
        // The extents of unfinished replacements lie beside the tree, and may enter it meanwhile.
        let replacements = try locked { state in
            let replacements = state.core.index.replacements
            for (key, extent) in replacements { self.noteIfLost(key, extent.origin) }
            return Set(replacements.map(\.key))
        }
        try forEachEntry(from: .min, through: .max) { state, key, value in
            if key.space == .tree, value.count >= Origin.byteCount, !replacements.contains(key) {
                self.noteIfLost(key, Origin(decoding: value))
            }
            if key.space == .payloads { self.take(key, value, state.core, into: &pieces) }
        } after: { () throws(ScrubStop) in
            try self.verify(&pieces)
        }
        estimate.index.isOver = true
        estimate.data.isOver = true
    }
}
