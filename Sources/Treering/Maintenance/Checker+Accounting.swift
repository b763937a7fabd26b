// Compares what names, links, extents and payloads say of each other, and the accounting of the segments with the
// entries. Goes over the index in several passes if it is large, so that memory is bounded.

extension Checker {
    /// How many objects one pass keeps in memory.
    private static var objectsPerPass: UInt64 { 1 << 20 }

    mutating func checkAccounting(_ view: StoreView<D>, readsUsage: Bool) throws(MountError) {
        let count = view.index.tree.entryCount / 2
        let passCount = min(max(1, count / Self.objectsPerPass), 1024)
        for pass in 0..<passCount {
            var accounting = Accounting(pass: pass, passCount: passCount)
            for space in [KeySpace.tree, .payloads, .orphans, .tombstones] {
                try view.forEach(space) { key, value in accounting.take(key, value, &report) }
            }
            accounting.compare(&report)
            if pass == 0, readsUsage { accounting.compareUsage(view.index, view.table, &report) }
        }
        try checkReach(view)
    }

    /// Checks that every directory leads to the root by its parents. One bit per inode number marks those that do.
    private mutating func checkReach(_ view: StoreView<D>) throws(MountError) {
        var highest: UInt64 = 0
        var directories: [UInt64] = []
        var reached = BitSet()
        // When a directory leads to the root, its parents on the way are marked with it.
        var lost: [UInt64] = []
        var cursor: UInt64 = 0
        while true {
            directories.removeAll(keepingCapacity: true)
            try view.someInodes(after: cursor, limit: 4096, isDirectory: true) { directories.append($0.rawValue) }
            guard let last = directories.last else { break }
            for number in directories {
                highest = max(highest, number)
                guard highest < BitSet.limit else { return }
                var way: [UInt64] = []
                var here = number
                while here != InodeNumber.root.rawValue, !reached.contains(here), way.count < 1 << 16 {
                    way.append(here)
                    guard here < BitSet.limit, let entry = try view.inode(InodeNumber(here)), entry.record.isDirectory,
                        entry.record.parent.rawValue != 0, entry.record.linkCount > 0
                    else {
                        here = 0
                        break
                    }
                    here = entry.record.parent.rawValue
                }
                if here == InodeNumber.root.rawValue || reached.contains(here) {
                    for step in way { reached.insert(step) }
                } else if lost.count < CheckReport.problemLimit {
                    lost.append(number)
                }
            }
            cursor = last
        }
        for number in lost {
            guard let entry = try view.inode(InodeNumber(number)), entry.record.linkCount > 0 else { continue }
            report.add(.unreachable(number))
            report.add(
                .tree, "directory", "its parents do not lead to the root", inode: number,
                effect: "a repair puts it into /lost+found")
        }
    }
}

/// A set of numbers, one bit each. Its memory grows with the highest number in it.
struct BitSet {
    private var words: [UInt64] = []
    /// Callers must not insert numbers at or above this. No honest store has that many inodes.
    static let limit: UInt64 = 1 << 33

    mutating func insert(_ number: UInt64) {
        let word = Int(number >> 6)
        if word >= words.count { words += repeatElement(0, count: word + 1 - words.count) }
        words[word] |= 1 << (number & 63)
    }

    func contains(_ number: UInt64) -> Bool {
        number >> 6 < UInt64(words.count) && words[Int(number >> 6)] >> (number & 63) & 1 != 0
    }
}

/// What is counted of the objects of one pass.
private struct Accounting {
    let pass: UInt64
    let passCount: UInt64
    private struct Node {
        var mode: UInt32 = 0
        var linkCount: UInt32 = 0
        var derived: UInt64 = 0
        var flags: InodeFlags = []
        var parent: UInt64 = 0
        var isThere = false
        var names: UInt32 = 0
        var namedIn: UInt64 = 0
        var subdirectories: UInt32 = 0
        var entries: UInt64 = 0
        var extents: UInt64 = 0
        var isOrphan = false
        /// Which access control lists exist.
        var accessLists: InodeFlags = []
    }
    private var nodes: [UInt64: Node] = [:]
    /// Referenced bytes of each payload: as the entries name them, and as the payload itself counts them.
    private var payloads: [UInt64: (named: UInt64, counted: UInt64?)] = [:]
    private var live: [UInt32: Int64] = [:]
    private var reserved: UInt64 = 0
    private var shared: UInt64 = 0

    init(pass: UInt64, passCount: UInt64) {
        self.pass = pass
        self.passCount = passCount
    }

    private func isMine(_ number: UInt64) -> Bool { passCount == 1 || number % passCount == pass }

    mutating func take(_ key: IndexKey, _ value: UnsafeRawBufferPointer, _ report: inout CheckReport) {
        guard let charge = RecordIndex.charge(key, value) else {
            if pass == 0 { report.add(.index, "\(key)", "malformed entry", effect: "a repair makes the index anew") }
            return
        }
        if pass == 0 {
            shared &+= charge.sharedByteCount
            live[charge.segment.rawValue, default: 0] &+= Int64(charge.byteCount)
            if charge.blocksByteCount > 0 {
                live[charge.blocksSegment.rawValue, default: 0] &+= Int64(charge.blocksByteCount)
            }
        }
        switch (key.space, key.kind) {
        case (.tree, .inode):
            guard isMine(key.object), let entry = InodeEntry(inode: InodeNumber(key.object), decoding: value) else {
                return
            }
            nodes[key.object, default: Node()].isThere = true
            nodes[key.object]!.mode = entry.record.mode
            nodes[key.object]!.linkCount = entry.record.linkCount
            nodes[key.object]!.derived = entry.derived
            nodes[key.object]!.flags = entry.record.inodeFlags
            nodes[key.object]!.parent = entry.record.parent.rawValue
        case (.tree, .dirent): take(DirentEntry(decoding: value), in: key.object)
        case (.tree, .extent):
            guard let entry = ExtentEntry(decoding: value) else { return }
            if isMine(key.object) { nodes[key.object, default: Node()].extents &+= UInt64(entry.length) }
            if !entry.isReserved { name(entry.payload, entry.length) } else { reserved &+= UInt64(entry.length) }
        case (.tree, .xattr): if let entry = XattrEntry(decoding: value) { take(entry, of: key, &report) }
        case (.payloads, .payload):
            guard isMine(key.object), let entry = PayloadEntry(decoding: value) else { return }
            payloads[key.object, default: (0, nil)].counted = entry.referencedByteCount
        case (.orphans, _): if isMine(key.object) { nodes[key.object, default: Node()].isOrphan = true }
        default: break
        }
    }

    private mutating func take(_ entry: DirentEntry?, in directory: UInt64) {
        guard let entry else { return }
        if isMine(entry.inode.rawValue) {
            nodes[entry.inode.rawValue, default: Node()].names &+= 1
            nodes[entry.inode.rawValue]!.namedIn = directory
        }
        if isMine(directory) {
            nodes[directory, default: Node()].entries &+= 1
            if entry.type == 4 { nodes[directory]!.subdirectories &+= 1 }
        }
    }

    private mutating func take(_ entry: XattrEntry, of key: IndexKey, _ report: inout CheckReport) {
        if case .payload(let id, let count) = entry.value { name(id, count) }
        guard isMine(key.object) else { return }
        let lists: [(StaticString, InodeFlags)] = [
            (XattrName.accessListName, .hasAccessList), (XattrName.defaultListName, .hasDefaultList),
        ]
        for (name, flag) in lists where entry.name.elementsEqual(XattrName.bytes(name)) {
            if case .inline(let bytes) = entry.value, AccessControlList(decoding: bytes) != nil {
                nodes[key.object, default: Node()].accessLists.insert(flag)
                continue
            }
            report.add(.malformedList(key.object, cookie: key.subkey))
            report.add(
                .tree, "inode", "a malformed access control list", inode: key.object,
                effect: "a repair removes it, and gives nobody but the owner what it may have refused")
        }
    }

    private mutating func name(_ id: PayloadID, _ byteCount: UInt32) {
        if isMine(id.rawValue) { payloads[id.rawValue, default: (0, nil)].named &+= UInt64(byteCount) }
    }

    // MARK: Comparing

    func compare(_ report: inout CheckReport) {
        for (number, node) in nodes.sorted(by: { $0.key < $1.key }) {
            if node.isThere { compare(number, node, &report) } else { compareLost(number, node, &report) }
        }
        if isMine(InodeNumber.root.rawValue), nodes[InodeNumber.root.rawValue]?.isThere != true {
            report.add(.noRoot)
            report.add(.tree, "inode 1", "there is no root directory", effect: "a repair makes a new one")
        }
        for (id, counts) in payloads.sorted(by: { $0.key < $1.key }) {
            if counts.named == 0 {
                report.add(.index, "payload \(id)", "nothing names it", effect: "its space is lost until a repair")
            } else if counts.counted == nil {
                report.add(.missingPayload(id))
                report.add(
                    .tree, "payload \(id)", "\(counts.named) bytes of it are named, but it is not there",
                    effect: "they give EIO; a repair marks them as lost")
            } else if counts.counted != counts.named {
                report.add(
                    .index, "payload \(id)", "\(counts.named) bytes of it are named, it counts \(counts.counted!)",
                    effect: "a repair counts again")
            }
        }
    }

    private func compareLost(_ number: UInt64, _ node: Node, _ report: inout CheckReport) {
        if node.names > 0 {
            report.add(.namesOfNothing(number))
            report.add(
                .tree, "inode", "a name leads to it, but it is not there", inode: number,
                effect: "its contents are lost; a repair removes the name")
        }
        if node.isOrphan {
            report.add(.orphanOfNothing(number))
            report.add(.tree, "orphan \(number)", "it is not there", effect: "a repair forgets it")
        }
        if node.extents > 0 || node.entries > 0 {
            report.add(.noRecord(number))
            report.add(.tree, "inode \(number)", "it has contents but is not there")
        }
    }

    private func compare(_ number: UInt64, _ node: Node, _ report: inout CheckReport) {
        let isDirectory = node.mode & 0o170000 == 0o040000
        let isRoot = number == InodeNumber.root.rawValue
        let expected =
            !isDirectory ? node.names : node.names == 0 && !isRoot ? 0 : 2 &+ node.subdirectories
        if node.mode == 0 {
            report.add(.noRecord(number))
            report.add(
                .tree, "inode", "it has entries but no record", inode: number,
                effect: "a repair gives it one with the safest permissions")
            return
        }
        if node.linkCount != expected {
            report.add(expected == 0 ? .nameless(number) : .linkCount(number, expected))
            report.add(
                .tree, "inode", "its link count is \(node.linkCount), but \(expected) by its names", inode: number,
                effect: expected == 0 ? "a repair puts it into /lost+found" : "a repair sets it")
        }
        if node.linkCount == 0, expected == 0, !node.isOrphan {
            report.add(.nameless(number))
            report.add(
                .tree, "inode", "it has no name and is no orphan", inode: number,
                effect: "a repair puts it into /lost+found")
        }
        if node.flags.intersection([.hasAccessList, .hasDefaultList]) != node.accessLists {
            report.add(.accessLists(number, node.accessLists))
            report.add(
                .tree, "inode", "its flags and its access control lists do not agree", inode: number,
                effect: "a repair goes by the lists; where one is lost, only the owner is let in")
        }
        if isDirectory, !isRoot, node.names > 1 {
            report.add(.severalNames(number))
            report.add(
                .tree, "directory", "it has \(node.names) names", inode: number,
                effect: "a repair keeps the one in its parent")
        } else if isDirectory, !isRoot, node.names == 1, node.parent != node.namedIn {
            report.add(.parent(number, node.namedIn))
            report.add(
                .tree, "directory", "its parent is inode \(node.parent), but its name is in inode \(node.namedIn)",
                inode: number, effect: "a repair goes by the name")
        }
        if node.isOrphan, node.linkCount != 0 {
            report.add(.orphanOfNothing(number))
            report.add(.tree, "orphan \(number)", "it has names", inode: number)
        }
        let derived = isDirectory ? node.entries : node.extents
        if derived != node.derived {
            report.add(
                .index, "inode",
                "it counts \(node.derived) \(isDirectory ? "entries" : "bytes"), there are \(derived)", inode: number,
                effect: "a repair counts again")
        }
    }

    func compareUsage(_ index: RecordIndex, _ table: SegmentTable, _ report: inout CheckReport) {
        if let counted = index.sharedByteCount, counted != shared {
            report.add(
                .index, "shared bytes", "\(counted) by the accounting, \(shared) by the entries",
                effect: "a repair counts again")
        }
        if reserved != index.reservedByteCount {
            report.add(
                .index, "reservations",
                "\(index.reservedByteCount) bytes by the accounting, \(reserved) by the extents",
                effect: "a repair counts again")
        }
        for index in table.segments.indices {
            let stored = table.segments[index].live
            let counted = live[UInt32(index)] ?? 0
            if stored != counted {
                report.add(
                    .index, "segment \(index)", "\(stored) live bytes by the accounting, \(counted) by the entries",
                    effect: "a repair counts again")
            }
        }
    }
}
