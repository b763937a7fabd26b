// Repairs names, links and inodes that do not agree, by ordinary records in an ordinary mount. An inode without a name
// goes to /lost+found under its number. Part of a repair.

import Glibc

struct TreeRepair<D: Device> {
    private let volume: Volume<D>
    private let view: StoreView<D>
    private(set) var steps: [String] = []
    private(set) var lost: [LostRange] = []
    private var names: [UInt64: [Place]] = [:]

    /// A name that leads to an inode.
    private struct Place {
        var directory: InodeNumber
        var cookie: UInt64
        var since: BatchSequence
        var type: UInt8
        var name: [UInt8]
        var shown: String { name.withUnsafeBytes { $0.quoted } }
    }

    /// The time. Asking takes the lock, so ask before an operation that holds it.
    private var now: Timestamp { volume.state.withLock { $0.core.now() } }

    static var lostName: [UInt8] { Array("lost+found".utf8) }

    init(_ volume: Volume<D>) {
        self.volume = volume
        view = StoreView(volume)
    }

    mutating func salvage(_ faults: [TreeFault]) throws(MountError) {
        guard !faults.isEmpty else { return }
        let names = try NamesOf(view, faults)
        self.names = names.places.mapValues { places in
            places.map {
                Place(directory: $0.directory, cookie: $0.cookie, since: $0.since, type: $0.type, name: $0.name)
            }
        }
        if faults.contains(.noRoot) { try makeRoot() }
        for fault in faults { try salvage(fault) }
        let payloads = Set(faults.compactMap { if case .missingPayload(let id) = $0 { id } else { nil } })
        if !payloads.isEmpty { try giveUp(payloads) }
    }

    private mutating func salvage(_ fault: TreeFault) throws(MountError) {
        switch fault {
        case .noRoot, .missingPayload: break
        case .namesOfNothing(let number):
            for place in names[number] ?? [] {
                try remove(place)
                steps.append("the name \(place.shown) in inode \(place.directory.rawValue) led nowhere and was removed")
            }
        case .noRecord(let number): try makeRecord(InodeNumber(number))
        case .linkCount(let number, let count):
            try change(InodeNumber(number)) { $0.linkCount = count }
            steps.append("inode \(number): its link count was set to \(count)")
        case .parent(let number, let parent):
            try change(InodeNumber(number)) { $0.parent = InodeNumber(parent) }
            steps.append("inode \(number): its parent was set to inode \(parent)")
        case .severalNames(let number): try keepOneName(InodeNumber(number))
        case .nameless(let number): try adopt(InodeNumber(number))
        case .unreachable(let number):
            guard try view.path(ofDirectory: InodeNumber(number)) == nil else { return }
            for place in names[number] ?? [] { try remove(place) }
            try adopt(InodeNumber(number))
        case .orphanOfNothing(let number):
            guard try view.inode(InodeNumber(number)) == nil else { return }
            try volume.repairing { writer in
                writer.removeInode(InodeNumber(number), since: BatchSequence(1))
            }
        case .accessLists(let number, let lists): try setLists(InodeNumber(number), lists)
        case .malformedList(let number, let cookie): try removeList(InodeNumber(number), cookie)
        }
    }

    private func change(_ inode: InodeNumber, _ body: (inout InodeRecord) -> Void) throws(MountError) {
        guard var record = try view.inode(inode)?.record else { return }
        body(&record)
        try volume.repairing { $0.inode(record) }
    }

    private func remove(_ place: Place) throws(MountError) {
        try volume.repairing { writer in
            writer.removeDirent(directory: place.directory, cookie: place.cookie, since: place.since)
        }
    }

    // MARK: Inodes

    private mutating func makeRoot() throws(MountError) {
        let now = now
        try volume.repairing { writer in
            writer.inode(
                InodeRecord(
                    inode: .root, mode: 0o040755, linkCount: 2, uid: geteuid(), gid: getegid(), deviceNumber: 0,
                    size: 0,
                    since: BatchSequence(1), now: now))
        }
        steps.append("there was no root directory: a new one was made")
    }

    /// Makes a record for an inode that has lost it. Its contents tell its type. Only its owner gets permissions.
    private mutating func makeRecord(_ number: InodeNumber) throws(MountError) {
        guard number != .root else { return }
        let last = try view.run { () throws(PageMiss) -> (UInt64, ExtentEntry)? in
            guard let entry = try view.index.tree.previous(before: ExtentEntry.key(number, .max)),
                entry.key.space == .tree, entry.key.object == number.rawValue, entry.key.kind == .extent
            else { return nil }
            return ExtentEntry(decoding: entry.value).map { (entry.key.subkey, $0) }
        }
        let isDirectory = try view.name(in: number, after: 0) != nil
        let place = names[number.rawValue]?.first
        let size = isDirectory ? 0 : last.map { $0.0 + UInt64($0.1.length) } ?? 0
        let isSymlink = place?.type == 10 && last != nil && size <= InodeRecord.targetByteCountLimit
        let mode: UInt32 = isDirectory ? 0o040700 : isSymlink ? 0o120777 : 0o100600
        let now = now
        try volume.repairing { writer in
            var record = InodeRecord(
                inode: number, mode: mode, linkCount: isDirectory ? 2 : 1, uid: geteuid(), gid: getegid(),
                deviceNumber: 0, size: size, since: BatchSequence(1), now: now)
            if isDirectory { record.parent = place?.directory ?? .root }
            writer.inode(record)
        }
        steps.append("inode \(number.rawValue): its owner, mode and times were lost; it has new ones")
        if place == nil { try adopt(number) }
    }

    // MARK: Access control lists

    /// Sets the flags to the access control lists that exist. A lost list may have refused what the mode allows, so
    /// then only the owner keeps permissions.
    private mutating func setLists(_ number: InodeNumber, _ lists: InodeFlags) throws(MountError) {
        guard let flags = try view.inode(number)?.record.inodeFlags else { return }
        let isLost = flags.contains(.hasAccessList) && !lists.contains(.hasAccessList)
        try change(number) {
            $0.inodeFlags = flags.subtracting([.hasAccessList, .hasDefaultList]).union(lists)
            if isLost { $0.mode &= ~0o077 }
        }
        steps.append(
            isLost
                ? "inode \(number.rawValue): its access control list was lost; only its owner is let in now"
                : "inode \(number.rawValue): its flags were set by its access control lists")
    }

    private func removeList(_ number: InodeNumber, _ cookie: UInt64) throws(MountError) {
        let since = try view.run { () throws(PageMiss) in
            try view.index.tree.withValue(of: XattrEntry.key(number, cookie)) {
                $0.flatMap { XattrEntry(decoding: $0)?.since }
            }
        }
        guard let since else { return }
        try volume.repairing { writer in
            writer.removeXattr(inode: number, cookie: cookie, since: since)
        }
    }

    // MARK: Names

    private mutating func keepOneName(_ number: InodeNumber) throws(MountError) {
        guard let parent = try view.inode(number)?.record.parent, let places = names[number.rawValue],
            let kept = places.firstIndex(where: { $0.directory == parent }) ?? places.indices.first
        else { return }
        for (index, place) in places.enumerated() where index != kept {
            try remove(place)
            steps.append("the name \(place.shown) of the directory \(number.rawValue) was removed: it has another")
        }
    }

    /// Gives an inode without a name one in /lost+found.
    private mutating func adopt(_ number: InodeNumber) throws(MountError) {
        guard number != .root, let entry = try view.inode(number) else { return }
        let home = try lostAndFound()
        let name = Array("#\(number.rawValue)".utf8)
        var record = entry.record
        do throws(Errno) {
            try volume.perform { (core) throws(Stop) in
                var isNamed = false
                var cookie: UInt64 = 0
                try name.withBytes { (name) throws(Stop) in
                    switch try core.slot(home, name) {
                    case .free(let free): cookie = free
                    default: isNamed = true
                    }
                }
                guard !isNamed else { return }
                var directory = try core.inode(home).record
                directory.changed = core.now()
                directory.modified = directory.changed
                if record.isDirectory {
                    record.parent = home
                    record.linkCount = max(record.linkCount, 2)
                    try core.addLink(to: &directory)
                } else {
                    record.linkCount = 1
                }
                try core.commit(.removal, .nobody) { writer in
                    writer.inode(record)
                    name.withUnsafeBytes {
                        writer.dirent(
                            directory: home, cookie: cookie, since: .zero, inode: number, mode: record.mode, name: $0)
                    }
                    writer.inode(directory)
                }
            }
        } catch { throw MountError("inode \(number.rawValue) cannot be put into /lost+found", error) }
        steps.append("inode \(number.rawValue) had no name: it is /lost+found/#\(number.rawValue) now")
    }

    private func lostAndFound() throws(MountError) -> InodeNumber {
        let name = Self.lostName
        do throws(Errno) {
            return try volume.perform { (core) throws(Stop) in
                try name.withBytes { (name) throws(Stop) in
                    if case .found(let entry) = try core.slot(.root, name) {
                        guard try core.inode(entry.inode).record.isDirectory else { throw .failed(.notDirectory) }
                        return entry.inode
                    }
                    let caller = Caller(uid: geteuid(), gid: getegid(), umask: 0)
                    return try core.make(.root, name, NewInode(mode: 0o040700), .by(caller)).inode
                }
            }
        } catch { throw MountError("/lost+found cannot be made", error) }
    }

    // MARK: Data

    /// Marks the extents and attributes as lost that name missing payloads.
    private mutating func giveUp(_ payloads: Set<UInt64>) throws(MountError) {
        var found: [(InodeNumber, UInt64, UInt64)] = []
        var attributes: [(InodeNumber, UInt64, [UInt8])] = []
        try view.forEach(.tree) { key, value in
            if key.kind == .extent, let entry = ExtentEntry(decoding: value), payloads.contains(entry.payload.rawValue)
            {
                found.append((InodeNumber(key.object), key.subkey, UInt64(entry.length)))
            } else if key.kind == .xattr, let entry = XattrEntry(decoding: value),
                case .payload(let id, _) = entry.value, payloads.contains(id.rawValue)
            {
                attributes.append((InodeNumber(key.object), key.subkey, Array(value)))
            }
        }
        for (inode, offset, count) in found {
            try volume.giveUp(inode, offset, count)
            lost.append(LostRange(inode: inode.rawValue, bytes: offset..<offset + count))
        }
        for (inode, cookie, value) in attributes {
            try volume.setAttribute(inode, .init(cookie: cookie, name: [], value: nil), value)
        }
    }

    /// Marks a range that cannot be read as lost.
    mutating func giveUp(_ inode: InodeNumber, _ range: UnreadableRange) throws(MountError) {
        try volume.giveUp(inode, range.offset, range.byteCount)
        lost.append(LostRange(inode: inode.rawValue, bytes: range.offset..<range.offset + range.byteCount))
    }

    mutating func giveUpAttribute(_ inode: InodeNumber, cookie: UInt64) throws(MountError) {
        let value = try view.run { () throws(PageMiss) in
            try view.index.tree.withValue(of: XattrEntry.key(inode, cookie)) { $0.map { Array($0) } }
        }
        guard let value else { return }
        try volume.setAttribute(inode, .init(cookie: cookie, name: [], value: nil), value)
        lost.append(LostRange(inode: inode.rawValue))
    }
}

/// All names of the inodes that faults concern.
private struct NamesOf {
    typealias Found = (directory: InodeNumber, cookie: UInt64, since: BatchSequence, type: UInt8, name: [UInt8])
    private(set) var places: [UInt64: [Found]] = [:]

    init<D: Device>(_ view: StoreView<D>, _ faults: [TreeFault]) throws(MountError) {
        var wanted: Set<UInt64> = []
        for fault in faults {
            switch fault {
            case .namesOfNothing(let number), .noRecord(let number), .severalNames(let number),
                .unreachable(let number):
                wanted.insert(number)
            default: break
            }
        }
        guard !wanted.isEmpty else { return }
        var found: [UInt64: [Found]] = [:]
        try view.forEach(.tree) { key, value in
            guard key.kind == .dirent, let entry = DirentEntry(decoding: value), wanted.contains(entry.inode.rawValue)
            else { return }
            found[entry.inode.rawValue, default: []].append(
                (InodeNumber(key.object), key.subkey, entry.since, entry.type, Array(entry.name)))
        }
        places = found
    }
}

extension [UInt8] {
    /// `withUnsafeBytes` for bodies that throw one type.
    fileprivate func withBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let outcome = withUnsafeBytes { bytes -> Swift.Result<Result, Failure> in
            do throws(Failure) { return .success(try body(bytes)) } catch { return .failure(error) }
        }
        return try outcome.get()
    }
}
