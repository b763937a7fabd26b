// What a check of a store found: each finding with its place, the file that it concerns, and what it means for its owner.

/// What a check found.
struct CheckReport: Sendable {
    /// The first problems, `problemLimit` at most.
    var problems: [Finding] = []
    var problemCount = 0
    /// Things worth knowing that are not damage ("recovered 12 operations from the log").
    var notes: [String] = []
    var inodeCount: UInt64 = 0
    var entryCount: UInt64 = 0
    var recordCount = 0
    /// Whether the index is whole in itself.
    var hasIndex = false
    var liveByteCount: Int64 = 0
    var dataBlockCount = 0
    /// The first ranges of files that cannot be read; those that an earlier repair has marked as lost are only in
    /// `knownLostCount`.
    var unreadable: [(inode: InodeNumber, range: UnreadableRange)] = []
    var unreadableCount = 0
    /// Inode and cookie of each extended attribute that cannot be read.
    var unreadableAttributes: [(InodeNumber, UInt64)] = []
    var knownLostCount = 0
    /// What is wrong with names, links and inodes, for a repair. The first `faultLimit` of them.
    var faults: [TreeFault] = []
    static let faultLimit = 1_000_000
    /// The superblock that was derived, if both slots are lost.
    var derived: DerivedSuperblock?
    /// What a repair has to do.
    var needs: Set<Need> = []

    enum Need: Sendable {
        case superblock
        case index
        case log
        /// The index has entries whose records the log has lost.
        case restore
        /// Names, links or inodes do not agree.
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

    /// Fills in the paths of the files that findings concern, with one walk over all names.
    mutating func fillPaths<D: Device>(_ view: StoreView<D>) {
        let wanted = Set(problems.compactMap(\.inode))
        let paths = (try? PathFinder(view, wanted).paths) ?? [:]
        for index in problems.indices { problems[index].path = problems[index].inode.flatMap { paths[$0] } }
    }
}

/// What is wrong with the tree, as a repair needs it.
enum TreeFault: Hashable, Sendable {
    case noRoot
    /// Names lead to an inode that does not exist.
    case namesOfNothing(UInt64)
    /// An inode has contents but no record.
    case noRecord(UInt64)
    case linkCount(UInt64, UInt32)
    case parent(UInt64, UInt64)
    /// A directory has several names. A repair keeps only the one in its parent.
    case severalNames(UInt64)
    case nameless(UInt64)
    case unreachable(UInt64)
    case orphanOfNothing(UInt64)
    case missingPayload(UInt64)
    /// The inode's flags do not agree with its access control lists. The second value tells which lists exist.
    case accessLists(UInt64, InodeFlags)
    case malformedList(UInt64, cookie: UInt64)
}

/// Finds one path for each of some inodes.
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
