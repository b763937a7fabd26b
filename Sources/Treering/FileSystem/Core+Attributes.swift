// Attributes, extended attributes, and the state of the whole file system.

extension Core {
    /// The size limit of a file: what off_t can say.
    static let sizeLimit = UInt64(Int64.max)

    func attributes(_ number: InodeNumber) throws(Stop) -> Attributes { Attributes(try inode(number)) }

    /// chmod(2), chown(2), truncate(2), utimensat(2).
    func setAttributes(_ number: InodeNumber, _ changes: AttributeChanges, _ caller: Caller) throws(Stop) -> Attributes
    {
        let entry = try inode(number)
        var inode = entry.record
        let time = now()
        inode.changed = time
        if changes.killsPrivileges { inode.killPrivileges() }
        if let mode = changes.mode { inode.mode = inode.type | mode & 0o7777 }
        if let uid = changes.uid { inode.uid = uid }
        if let gid = changes.gid { inode.gid = gid }
        if let accessed = changes.accessed { inode.accessed = accessed.resolved(time) }
        if let modified = changes.modified { inode.modified = modified.resolved(time) }
        if let changed = changes.changed { inode.changed = changed.resolved(time) }
        writer.reset()
        if let size = changes.byteCount {
            guard inode.isRegular else { throw .failed(inode.isDirectory ? .isDirectory : .invalid) }
            guard size <= Self.sizeLimit else { throw .failed(.fileTooBig) }
            if size < inode.size,
                try find({ () throws(PageMiss) in try index.extent(number, endingAfter: size, before: .max) }) != nil
            {
                writer.removeRange(inode: number, from: size, to: .max, since: inode.since)
            }
            inode.size = size
            if changes.modified == nil { inode.modified = time }
        }
        writer.inode(inode)
        // What replaces an inode takes no space for good: it works on a full store.
        try commit(freesSpace: true)
        return Attributes(try self.inode(number))
    }

    // MARK: Extended attributes

    static let xattrByteCountLimit = 65_536

    /// What getxattr(2) gives: bytes, or a plan to read them.
    func xattr(_ inode: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) -> XattrValue {
        guard case .found(let cookie, _) = try find({ () throws(PageMiss) in try index.xattr(inode, name, nameHash) })
        else {
            throw .failed(.noData)
        }
        var bytes: [UInt8] = []
        var payload: (PayloadID, UInt32)?
        try find { () throws(PageMiss) in
            try index.tree.withValue(of: XattrEntry.key(inode, cookie)) { value in
                switch value.flatMap({ XattrEntry(decoding: $0) })?.value {
                case .inline(let value): bytes = Array(value)
                case .payload(let id, let count): payload = (id, count)
                case nil: break
                }
            }
        }
        guard let payload else { return .bytes(bytes) }
        let plan = ReadPlan(byteCount: Int(payload.1), buffers: &readBuffers)
        try planned(plan) { () throws(Stop) in
            try self.add(to: plan, at: 0, payload.0, 0, payload.1)
        }
        return .plan(plan)
    }

    /// listxattr(2): names, each ended by a NUL.
    func xattrNames(_ inode: InodeNumber) throws(Stop) -> [UInt8] {
        _ = try self.inode(inode)
        var names: [UInt8] = []
        try find { () throws(PageMiss) in
            try index.tree.scan(from: XattrEntry.key(inode, 0), through: XattrEntry.key(inode, .max)) { _, value in
                if let entry = XattrEntry(decoding: value) {
                    names.append(contentsOf: entry.name)
                    names.append(0)
                }
                return true
            }
        }
        return names
    }

    /// setxattr(2).
    func setXattr(
        _ number: InodeNumber, _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, _ flags: SetXattrFlags
    ) throws(Stop) {
        guard name.count > 0, name.count <= 255 else { throw .failed(.range) }
        guard value.count <= min(Self.xattrByteCountLimit, writeByteCountLimit) else { throw .failed(.tooBig) }
        var inode = try self.inode(number).record
        var since = BatchSequence.zero
        let cookie: UInt64
        switch try find({ () throws(PageMiss) in try index.xattr(number, name, nameHash) }) {
        case .found(let found, let foundSince):
            if flags.contains(.create) { throw .failed(.exists) }
            cookie = found
            since = foundSince
        case .free(let free):
            if flags.contains(.replace) { throw .failed(.noData) }
            cookie = free
            since = try find { () throws(PageMiss) in try index.sinceOfTombstone(number, .xattr, free) }
        case .none: throw .failed(.noSpace)
        }
        inode.changed = now()
        let inPayload = value.count > XattrEntry.inlineByteCountLimit
        writer.reset()
        if inPayload { writer.payload(value) }
        writer.xattr(inode: number, cookie: cookie, since: since, name: name, value: value, inPayload: inPayload)
        writer.inode(inode)
        try commit()
    }

    /// removexattr(2).
    func removeXattr(_ number: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) {
        var inode = try self.inode(number).record
        guard
            case .found(let cookie, let since) = try find({ () throws(PageMiss) in
                try index.xattr(number, name, nameHash)
            })
        else { throw .failed(.noData) }
        inode.changed = now()
        writer.reset()
        writer.removeXattr(inode: number, cookie: cookie, since: since)
        writer.inode(inode)
        try commit(freesSpace: true)
    }

    // MARK: The whole file system

    /// statvfs(3): the size is what living data can fill; free is what of it is not filled, no more than the host has.
    func status() -> FileSystemStatus {
        let segment = UInt64(table.segmentByteCount)
        let total = UInt64(log.livingByteCountLimit)
        let free = total - min(total, UInt64(max(0, table.livingByteCount)))
        let makeable = log.isHostFull ? 0 : hostAvailableByteCount
        // What lies dead in segments is as good as free: the cleaner makes it so.
        let own = UInt64(table.pool.count) * segment + UInt64(table.reclaimableByteCount)
        let host = makeable >= UInt64.max - own ? UInt64.max : makeable + own
        let available = min(free, host)
        return FileSystemStatus(
            totalByteCount: total, freeByteCount: available, availableByteCount: available,
            inodeCount: index.inodeCount + available / 512, freeInodeCount: available / 512)
    }
}

/// The value of an extended attribute.
enum XattrValue {
    case bytes([UInt8])
    case plan(ReadPlan)
}

extension AttributeChanges.Time {
    func resolved(_ now: Timestamp) -> Timestamp {
        switch self {
        case .now: return now
        case .at(let time): return time
        }
    }
}
