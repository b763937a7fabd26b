// `check --data`: reads every byte that a file or an extended attribute shows, and verifies its checksum.

extension Checker {
    mutating func verifyData(_ view: StoreView<D>) throws(MountError) {
        var files: [InodeNumber] = []
        var cursor: UInt64 = 0
        while true {
            files.removeAll(keepingCapacity: true)
            try view.someInodes(after: cursor, limit: 1024) { files.append($0) }
            guard let last = files.last else { return }
            for file in files { try verify(file, view) }
            cursor = last.rawValue
        }
    }

    private mutating func verify(_ inode: InodeNumber, _ view: StoreView<D>) throws(MountError) {
        var found = report
        try view.read(inode, 0, UInt64(Int64.max)) { (_, _) throws(MountError) in
            found.dataBlockCount += 1
        } _: { range in
            found.noteUnreadable(inode, range)
        }
        var cookie: UInt64 = 0
        while let attribute = try view.attribute(of: inode, after: cookie) {
            cookie = attribute.cookie
            guard attribute.value == nil else { continue }
            let name = attribute.name.withUnsafeBytes { $0.plainOrQuoted }
            if attribute.isKnownLost {
                found.knownLostCount += 1
            } else {
                found.unreadableAttributes.append((inode, attribute.cookie))
                found.add(
                    .data, "extended attribute \(name)", "the checksum of its value does not match",
                    inode: inode.rawValue, effect: "reading it gives EIO")
            }
        }
        report = found
    }
}

extension CheckReport {
    fileprivate mutating func noteUnreadable(_ inode: InodeNumber, _ range: UnreadableRange) {
        guard !range.isKnownLost else {
            knownLostCount += 1
            return
        }
        unreadableCount += 1
        if unreadable.count < Self.unreadableLimit { unreadable.append((inode, range)) }
        add(
            .data, "bytes \(range.offset)..<\(range.offset + range.byteCount)",
            "\(range.reason.reason) (\(range.reason.place))", inode: inode.rawValue,
            effect: "reading them gives EIO, the rest of the file is readable")
    }
}

extension StoreView {
    /// Gives the next inodes, or directories alone, after an inode number, `limit` at most.
    func someInodes(
        after number: UInt64, limit: Int, isDirectory: Bool = false, _ body: (InodeNumber) -> Void
    ) throws(MountError) {
        var cursor = number
        var count = 0
        while count < limit {
            let start = cursor
            let found: (number: InodeNumber, isWanted: Bool)? = try run { () throws(PageMiss) in
                guard start < .max,
                    let entry = try index.tree.next(atOrAfter: InodeEntry.key(InodeNumber(start + 1))),
                    entry.key.space == .tree
                else { return nil }
                let number = InodeNumber(entry.key.object)
                guard isDirectory else { return (number, true) }
                let record = InodeEntry(inode: number, decoding: entry.value)?.record
                return (number, entry.key.kind == .inode && record?.isDirectory == true)
            }
            guard let found else { return }
            cursor = found.number.rawValue
            guard found.isWanted else { continue }
            body(found.number)
            count += 1
        }
    }
}
