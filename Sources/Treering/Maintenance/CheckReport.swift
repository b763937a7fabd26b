// What a check of a store found: each finding with its place, the file that it concerns, and what it means for its owner.

/// What a check found.
struct CheckReport: Sendable {
    /// The first of them.
    var problems: [Finding] = []
    var problemCount = 0
    /// Things worth knowing that are no damage ("recovered 12 operations from the log").
    var notes: [String] = []
    var inodeCount: UInt64 = 0
    var entryCount: UInt64 = 0
    var recordCount = 0
    /// Whether the index is whole in itself.
    var hasIndex = false
    var liveByteCount: Int64 = 0
    var dataBlockCount = 0
    /// Ranges of files that cannot be read, and those of them that a repair has marked as lost.
    var unreadable: [(inode: InodeNumber, range: UnreadableRange)] = []
    var unreadableCount = 0
    /// Inode and cookie of extended attributes that cannot be read.
    var unreadableAttributes: [(InodeNumber, UInt64)] = []
    var knownLostCount = 0
    /// What is wrong with names, links and inodes, for a repair to repair.
    var faults: [TreeFault] = []
    static let faultLimit = 1_000_000
    /// Where both slots of the superblock are lost: what they must have held.
    var derived: DerivedSuperblock?
    /// What a repair has to do.
    var needs: Set<Need> = []

    enum Need: Sendable {
        case superblock
        case index
        case log
        /// What the index knows and the log has lost.
        case restore
        /// Names, links, lost inodes.
        case tree
        case data
    }

    var isClean: Bool { problemCount == 0 }

    static let problemLimit = 100
    static let unreadableLimit = 100_000

    mutating func add(_ finding: Finding) {
        problemCount += 1
        if problems.count < Self.problemLimit { problems.append(finding) }
    }

    mutating func add(_ fault: TreeFault) {
        needs.insert(.tree)
        if faults.count < Self.faultLimit { faults.append(fault) }
    }

    mutating func add(
        _ need: Need, _ place: String, _ reason: String, inode: UInt64? = nil, effect: String? = nil
    ) {
        needs.insert(need)
        add(Finding(place: place, reason: reason, effect: effect, inode: inode))
    }

    /// Puts paths to the inodes of findings, with one walk over all names.
    mutating func fillPaths<D: Device>(_ view: StoreView<D>) {
        let wanted = Set(problems.compactMap(\.inode))
        let paths = (try? PathFinder(view, wanted).paths) ?? [:]
        for index in problems.indices { problems[index].path = problems[index].inode.flatMap { paths[$0] } }
    }
}

/// What a repair can do about the tree.
enum TreeFault: Hashable, Sendable {
    case noRoot
    /// Names lead to an inode that is not there.
    case namesOfNothing(UInt64)
    /// Contents without an inode record; whether a name leads there.
    case noRecord(UInt64)
    case linkCount(UInt64, UInt32)
    case parent(UInt64, UInt64)
    /// Only the name in the parent is kept.
    case severalNames(UInt64)
    case nameless(UInt64)
    case unreachable(UInt64)
    case orphanOfNothing(UInt64)
    case missingPayload(UInt64)
    /// The access control lists that there are, which the inode's flags do not tell.
    case accessLists(UInt64, InodeFlags)
    case malformedList(UInt64, cookie: UInt64)
}

/// One path for each of some inodes.
struct PathFinder<D: Device> {
    private(set) var paths: [UInt64: String] = [:]

    init(_ view: StoreView<D>, _ wanted: Set<UInt64>) throws(MountError) {
        guard !wanted.isEmpty else { return }
        var places: [UInt64: (directory: UInt64, name: String)] = [:]
        try view.forEach(.tree) { key, value in
            guard key.kind == .dirent, let entry = DirentEntry(decoding: value),
                wanted.contains(entry.inode.rawValue), places[entry.inode.rawValue] == nil
            else { return }
            places[entry.inode.rawValue] = (key.object, entry.name.plainOrQuoted)
        }
        if wanted.contains(InodeNumber.root.rawValue) { paths[InodeNumber.root.rawValue] = "/" }
        for (inode, place) in places {
            guard let directory = try view.path(ofDirectory: InodeNumber(place.directory)) else {
                paths[inode] = "(inode \(place.directory))/\(place.name)"
                continue
            }
            paths[inode] = directory == "/" ? "/\(place.name)" : "\(directory)/\(place.name)"
        }
    }
}

extension StoreView {
    /// Walks one space of the index.
    func forEach(_ space: KeySpace, _ body: (IndexKey, UnsafeRawBufferPointer) -> Void) throws(MountError) {
        var cursor = IndexKey(space: space, object: 0, kind: 0, subkey: 0)
        let last = IndexKey(space: space, object: .max, kind: UInt8.max, subkey: .max)
        while true {
            var next: IndexKey?
            let start = cursor
            try run { () throws(PageMiss) in
                // A leaf at a time: what it calls `body` for is not seen again after a miss.
                guard let first = try index.tree.next(atOrAfter: start), first.key <= last else {
                    next = nil
                    return
                }
                let range = try index.tree.leaf(for: first.key)
                var position = range.page.leafPosition(of: first.key)
                var key = first.key
                while position < range.page.count {
                    key = range.page.leafKey(position)
                    if key > last { break }
                    body(key, UnsafeRawBufferPointer(range.page.value(position)))
                    position += 1
                }
                next = key > last ? nil : key.successor
            }
            guard let next else { return }
            cursor = next
        }
    }
}

extension IndexKey {
    /// The next possible key; nil behind the greatest.
    var successor: IndexKey? {
        var key = self
        key.word2 &+= 1
        if key.word2 == 0 {
            key.word1 &+= 1
            if key.word1 == 0 { key.word0 &+= 1 }
        }
        return key == .min ? nil : key
    }
}
