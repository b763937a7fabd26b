// Finds the files that show damaged data, with offsets and paths, for a scrub's report. It takes one more pass over the
// names and extents of the index, and others for the paths. Only where there is damage.

extension Scrub {
    /// An extent or attribute that names a damaged payload.
    private struct Namer {
        var inode: InodeNumber
        var key: IndexKey
        var payload: PayloadID
        /// Which part of the payload it shows.
        var payloadOffset: UInt32
        var length: UInt32
        /// The name of an extended attribute; nil for an extent.
        var name: String?

        init(
            inode: InodeNumber, key: IndexKey, payload: PayloadID, payloadOffset: UInt32, length: UInt32,
            name: String? = nil
        ) {
            (self.inode, self.key, self.payload) = (inode, key, payload)
            (self.payloadOffset, self.length, self.name) = (payloadOffset, length, name)
        }

        init(_ key: IndexKey, _ extent: ExtentEntry) {
            self.init(
                inode: InodeNumber(key.object), key: key, payload: extent.payload,
                payloadOffset: extent.payloadOffset, length: extent.length)
        }
    }

    /// Findings. Only the first are kept; all are counted.
    private struct Findings {
        var kept: [Finding] = []
        var count: UInt64 = 0

        mutating func add(_ finding: Finding) {
            count += 1
            if kept.count < ScrubStatus.findingLimit { kept.append(finding) }
        }
    }

    func nameDamage() throws(ScrubStop) {
        var findings = Findings()
        for (inode, count) in lostEntries.sorted(by: { $0.key < $1.key }) {
            findings.add(
                Finding(
                    place: "\(count) entries", reason: "the part of the log that made them is damaged",
                    effect: "the index remembers them; a repair, of the store unmounted, writes them to the log again",
                    inode: inode))
        }
        var named: Set<PayloadID> = []
        for namer in damaged.isEmpty ? [] : try namers() {
            for finding in try self.findings(of: namer) {
                named.insert(namer.payload)
                findings.add(finding)
            }
        }
        for (payload, blocks) in damaged.sorted(by: { $0.key.rawValue < $1.key.rawValue })
        where !named.contains(payload) {
            // What named the payload has gone meanwhile, or cannot be found.
            guard try isNamedStill(payload) else { continue }
            for block in blocks {
                findings.add(
                    Finding(
                        place: block.place.place, reason: block.place.reason,
                        effect: "no file shows it any more; it goes with what is being removed"))
            }
        }
        let paths = try self.paths(of: Set(findings.kept.compactMap(\.inode)))
        for var finding in findings.kept {
            finding.path = finding.inode.flatMap { paths[$0] }
            report(finding)
        }
        // Count the findings that were not kept.
        let rest =
            findings.count - UInt64(findings.kept.count) + UInt64(max(0, damagedCount - Self.damagedLimit))
            + UInt64(max(0, misplacedCount - ScrubStatus.findingLimit))
        volume.state.withLock { $0.scrub?.findingCount += rest }
    }

    /// The extents and attributes that name damaged payloads.
    private func namers() throws(ScrubStop) -> [Namer] {
        // What replaces many extents stands beside the tree, and may get into it meanwhile.
        var namers = try locked { state in
            state.core.index.replacements.filter { self.damaged[$0.extent.payload] != nil }.map {
                Namer($0.key, $0.extent)
            }
        }
        let known = Set(namers.map(\.key))
        let first = IndexKey(space: .tree, object: 0, kind: 0, subkey: 0)
        let last = IndexKey(space: .tree, object: .max, kind: UInt8.max, subkey: .max)
        try forEachEntry(from: first, through: last) { _, key, value in
            guard namers.count < Self.damagedLimit, key.subkey <= UInt64(Int64.max) else { return }
            if key.kind == .extent, let extent = ExtentEntry(decoding: value), self.damaged[extent.payload] != nil {
                if !known.contains(key) { namers.append(Namer(key, extent)) }
            } else if key.kind == .xattr, let attribute = XattrEntry(decoding: value),
                case .payload(let payload, let count) = attribute.value, self.damaged[payload] != nil
            {
                namers.append(
                    Namer(
                        inode: InodeNumber(key.object), key: key, payload: payload, payloadOffset: 0, length: count,
                        name: attribute.name.plainOrQuoted))
            }
        } after: { () throws(ScrubStop) in
        }
        return namers
    }

    private func findings(of namer: Namer) throws(ScrubStop) -> [Finding] {
        let blocks = damaged[namer.payload] ?? []
        if let name = namer.name {
            return blocks.prefix(1).map { _ in
                Finding(
                    place: "extended attribute \(name)", reason: "the checksum of its value does not match",
                    effect: "reading it gives EIO", inode: namer.inode.rawValue)
            }
        }
        // Data that is being removed stays in the index for a while but is not shown.
        var shown: [(offset: UInt64, byteCount: UInt64, payloadOffset: UInt32)] = []
        let from = namer.key.subkey
        var walk = PieceWalk(from, from + UInt64(namer.length), budget: 0)
        let isKnown: Void? = try? volume.perform { (core) throws(Stop) in
            walk.budget = core.bounds.extentCount
            try core.goOn(&walk, in: namer.inode) { piece in
                if piece.payload == namer.payload {
                    shown.append((piece.offset, piece.byteCount, piece.payloadOffset))
                }
                return true
            } after: { _ in
            }
            guard walk.isOver else { throw .blocked(.turn) }
        }
        if isKnown == nil { shown = [(from, UInt64(namer.length), namer.payloadOffset)] }
        let length = try payloadLength(namer.payload)
        return shown.flatMap { piece -> [Finding] in
            let pieceRange = UInt64(piece.payloadOffset)..<UInt64(piece.payloadOffset) + piece.byteCount
            return blocks.compactMap { block in
                let start = UInt64(block.block * blockByteCount)
                // Inline bytes count as one block of any length.
                let end = length.isInline ? length.byteCount : min(start + UInt64(blockByteCount), length.byteCount)
                let low = max(start, pieceRange.lowerBound)
                let high = min(end, pieceRange.upperBound)
                guard low < high else { return nil }
                let offset = piece.offset + (low - pieceRange.lowerBound)
                return Finding(
                    place: "bytes \(offset)..<\(offset + (high - low))",
                    reason: "\(block.place.reason) (\(block.place.place))",
                    effect: "reading them gives EIO, the rest of the file is readable", inode: namer.inode.rawValue)
            }
        }
    }

    private func payloadLength(_ payload: PayloadID) throws(ScrubStop) -> (byteCount: UInt64, isInline: Bool) {
        let found = try withValue(of: PayloadEntry.key(payload)) { _, value in
            value.flatMap { PayloadEntry(decoding: $0) }.map { (UInt64($0.length), $0.isInline) }
        }
        return (found ?? nil) ?? (0, false)
    }

    private func isNamedStill(_ payload: PayloadID) throws(ScrubStop) -> Bool {
        let blocks = damaged[payload] ?? []
        let isNamed = try withValue(of: PayloadEntry.key(payload)) { _, value -> Bool in
            guard let entry = value.flatMap({ PayloadEntry(decoding: $0) }) else { return false }
            return blocks.contains { block in
                entry.storedIndex(ofBlock: block.block).map {
                    entry.referenceCount(ofStored: $0, block: block.block) > 0
                }
                    ?? false
            }
        }
        return isNamed ?? false
    }

    // MARK: Paths

    /// Finds one path for each of some inodes, if it has one.
    private func paths(of wanted: Set<UInt64>) throws(ScrubStop) -> [UInt64: String] {
        var paths: [UInt64: String] = [:]
        if wanted.contains(InodeNumber.root.rawValue) { paths[InodeNumber.root.rawValue] = "/" }
        // One pass over all names for each level of directories, upwards.
        var places: [UInt64: (directory: UInt64, name: String)] = [:]
        var missing = wanted.subtracting([InodeNumber.root.rawValue])
        while !missing.isEmpty, places.count < 16 * ScrubStatus.findingLimit {
            let found = try names(of: missing)
            if found.isEmpty { break }
            places.merge(found) { old, _ in old }
            missing = Set(found.values.map(\.directory)).subtracting(places.keys)
                .subtracting([InodeNumber.root.rawValue])
        }
        for inode in wanted where inode != InodeNumber.root.rawValue {
            paths[inode] = Self.path(of: inode, places)
        }
        return paths
    }

    private static func path(of inode: UInt64, _ places: [UInt64: (directory: UInt64, name: String)]) -> String? {
        var names: [String] = []
        var here = inode
        while here != InodeNumber.root.rawValue {
            guard let place = places[here], names.count < 4096 else {
                return names.isEmpty ? nil : "(inode \(here))/" + names.reversed().joined(separator: "/")
            }
            names.append(place.name)
            here = place.directory
        }
        return "/" + names.reversed().joined(separator: "/")
    }

    private func names(of wanted: Set<UInt64>) throws(ScrubStop) -> [UInt64: (directory: UInt64, name: String)] {
        var found: [UInt64: (directory: UInt64, name: String)] = [:]
        let first = IndexKey(space: .tree, object: 0, kind: 0, subkey: 0)
        let last = IndexKey(space: .tree, object: .max, kind: UInt8.max, subkey: .max)
        try forEachEntry(from: first, through: last) { _, key, value in
            guard key.kind == .dirent, let entry = DirentEntry(decoding: value),
                wanted.contains(entry.inode.rawValue), found[entry.inode.rawValue] == nil
            else { return }
            found[entry.inode.rawValue] = (key.object, entry.name.plainOrQuoted)
        } after: { () throws(ScrubStop) in
        }
        return found
    }
}
