// Attributes, extended attributes, and the state of the whole file system.

extension Core {
    /// The greatest size of a file: the greatest off_t.
    static let sizeLimit = UInt64(Int64.max)

    func attributes(_ number: InodeNumber) throws(Stop) -> Attributes { Attributes(try inode(number)) }

    /// chmod(2), chown(2), truncate(2), utimensat(2).
    func setAttributes(
        _ number: InodeNumber, _ changes: AttributeChanges, _ context: RequestContext
    ) throws(Stop) -> Attributes {
        let entry = try inode(number)
        var inode = entry.record
        try checkSeal(inode, changes)
        let time = now()
        inode.changed = time
        if changes.killsPrivileges || changes.isChownOfNothing { try inode.killPrivileges(context.caller) }
        if let mode = changes.mode { inode.mode = inode.type | mode & 0o7777 }
        if let uid = changes.uid { inode.uid = uid }
        if let gid = changes.gid { inode.gid = gid }
        if let accessed = changes.accessed { inode.accessed = accessed.resolved(time) }
        if let modified = changes.modified { inode.modified = modified.resolved(time) }
        if let changed = changes.changed { inode.changed = changed.resolved(time) }
        let list = changes.mode == nil ? nil : try accessListAfterChangingMode(inode)
        var removesTail = false
        if let size = changes.byteCount {
            guard inode.isRegular else { throw .failed(inode.isDirectory ? .isDirectory : .invalid) }
            guard size <= Self.sizeLimit else { throw .failed(.fileTooBig) }
            // Reserved bytes behind the end go too, even if the size stays the same.
            if size <= inode.size {
                removesTail = try find { () throws(PageMiss) in try index.isAllocated(number, size, .max) }
            }
            inode.size = size
            if changes.modified == nil { inode.modified = time }
        }
        // The new inode takes the place of the old one, so this works on a full store.
        try commit(.removal, context) { writer in
            if removesTail { writer.removeRange(inode: number, from: inode.size, to: .max, since: inode.since) }
            if let (list, place) = list { write(list, XattrName.accessListName, of: number, place, to: &writer) }
            writer.inode(inode)
        }
        return Attributes(try self.inode(number))
    }

    /// Throws unless a protected inode allows the changes. An append-only inode allows times to be set to now. With the
    /// writeback cache the kernel names the time of modification, and sends a time of change with it. Source: the
    /// kernel's may_setattr.
    private func checkSeal(_ inode: InodeRecord, _ changes: AttributeChanges) throws(Stop) {
        guard inode.isProtected else { return }
        func isNow(_ time: AttributeChanges.Time?) -> Bool {
            switch time {
            case .at: return false
            case .now, nil: return true
            }
        }
        let touches =
            changes.mode == nil && changes.uid == nil && changes.gid == nil && changes.byteCount == nil
            && isNow(changes.accessed) && (isNow(changes.modified) || changes.changed != nil)
        if inode.isImmutable || !touches { throw .failed(.notPermitted) }
    }

    // MARK: Extended attributes

    static let xattrByteCountLimit = XattrEntry.valueByteCountLimit

    /// What getxattr(2) gives: bytes, or a plan to read them.
    func xattr(_ inode: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) -> XattrValue {
        let kind = try classify(name)
        if !kind.flag.isEmpty, !(try self.inode(inode)).record.inodeFlags.contains(kind.flag) { throw .failed(.noData) }
        guard case .found(let found) = try find({ () throws(PageMiss) in try index.xattr(inode, name, nameHash) })
        else { throw .failed(.noData) }
        let cookie = found.cookie
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
        let plan = ReadPlan(inode, at: 0, byteCount: Int(payload.1), bounds, buffers: &readBuffers)
        try planned(plan) { () throws(Stop) in
            let whole = FilePiece(offset: 0, byteCount: UInt64(payload.1), payload: payload.0, payloadOffset: 0)
            let taken = try self.find { () throws(PageMiss) in try self.add(whole, to: plan) }
            guard taken != nil else { throw .failed(.ioError) }
            precondition(plan.isWhole, "a value is one piece")
            plan.allotScratch(&readBuffers)
        }
        return .plan(plan)
    }

    /// listxattr(2): names, each ended by a NUL. Only administrators see trusted.*. After `blocked`, run it again with
    /// the same walk: it goes on where it was. It stops when the list is longer than XATTR_LIST_MAX, which no caller
    /// can take.
    func xattrNames(
        _ inode: InodeNumber, _ walk: XattrListWalk, _ context: RequestContext
    ) throws(Stop) -> [UInt8] {
        _ = try self.inode(inode)
        var budget = bounds.attributeCount
        var needsIdentity = false
        var isOver = false
        do throws(PageMiss) {
            isOver = try index.tree.scan(from: XattrEntry.key(inode, walk.next), through: XattrEntry.key(inode, .max)) {
                key, value in
                guard budget > 0, walk.names.count <= Self.xattrByteCountLimit else { return false }
                budget -= 1
                if let entry = XattrEntry(decoding: value) {
                    let isTrusted = entry.name.starts(with: "trusted.".utf8)
                    needsIdentity = isTrusted && context.caller.identity == nil
                    if needsIdentity { return false }
                    if !isTrusted || context.caller.identity?.isAdministrator == true {
                        walk.names.append(contentsOf: entry.name)
                        walk.names.append(0)
                    }
                }
                walk.next = key.subkey + 1
                return true
            }
        } catch { throw .blocked(.pageAhead(error)) }
        if needsIdentity { throw .blocked(.identity) }
        if !isOver, walk.names.count <= Self.xattrByteCountLimit { throw .blocked(.turn) }
        return walk.names
    }

    /// setxattr(2).
    func setXattr(
        _ number: InodeNumber, _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer,
        _ flags: SetXattrFlags, _ context: RequestContext
    ) throws(Stop) {
        guard name.count > 0, name.count <= 255 else { throw .failed(.range) }
        let kind = try classify(name)
        guard value.count <= min(Self.xattrByteCountLimit, writeByteCountLimit) else { throw .failed(.tooBig) }
        var inode = try self.inode(number).record
        try inode.requireUnprotected()
        guard case .ordinary = kind else { return try setAccessList(kind, inode, name, value, context) }
        var since = BatchSequence.zero
        let cookie: UInt64
        switch try find({ () throws(PageMiss) in try index.xattr(number, name, nameHash) }) {
        case .found(let found):
            if flags.contains(.create) { throw .failed(.exists) }
            cookie = found.cookie
            since = found.since
        case .free(let free):
            if flags.contains(.replace) { throw .failed(.noData) }
            cookie = free
            since = try find { () throws(PageMiss) in try index.sinceOfTombstone(number, .xattr, free) }
        case .none: throw .failed(.noSpace)
        }
        inode.changed = now()
        let inPayload = value.count > XattrEntry.inlineByteCountLimit
        try commit(.write, context) { writer in
            if inPayload { writer.payload(value) }
            writer.xattr(inode: number, cookie: cookie, since: since, name: name, value: value, inPayload: inPayload)
            writer.inode(inode)
        }
    }

    /// removexattr(2).
    func removeXattr(
        _ number: InodeNumber, _ name: UnsafeRawBufferPointer, _ context: RequestContext
    ) throws(Stop) {
        let kind = try classify(name)
        var inode = try self.inode(number).record
        try inode.requireUnprotected()
        guard case .ordinary = kind else { return try removeAccessList(kind, inode, name, context) }
        guard case .found(let found) = try find({ () throws(PageMiss) in try index.xattr(number, name, nameHash) })
        else { throw .failed(.noData) }
        inode.changed = now()
        try commit(.removal, context) { writer in
            writer.removeXattr(inode: number, cookie: found.cookie, since: found.since)
            writer.inode(inode)
        }
    }

    // MARK: Access times

    /// Records an access after the kernel has read contents, names or a link's target. The kernel does not keep access
    /// times of FUSE files, and does not tell of reads from its cache. A time that cannot be written now is left out,
    /// so that no read fails because of it.
    func noteAccess(_ number: InodeNumber) {
        do throws(Stop) { try recordAccess(number) } catch { return }
    }

    /// Whether a read would move the access time: because of a change since the last access, or because that is a day
    /// old.
    func isAccessDue(_ number: InodeNumber) throws(Stop) -> Bool {
        guard accessTimes.rule == .relative, !isReadOnly else { return false }
        let inode = try self.inode(number).record
        return !inode.inodeFlags.contains(.noAccessTime) && accessTimes.needsUpdate(inode, now())
    }

    func recordAccess(_ number: InodeNumber) throws(Stop) {
        guard accessTimes.rule != .never, !isReadOnly else { return }
        var inode = try self.inode(number).record
        if inode.inodeFlags.contains(.noAccessTime) || inode.isDirectory && !accessTimes.ofDirectories { return }
        let time = now()
        guard accessTimes.needsUpdate(inode, time) else { return }
        inode.accessed = time
        try commit(.write, .nobody) { $0.inode(inode) }
    }

    // MARK: The whole file system

    /// statvfs(3). The total is what live data can fill. Free is the rest, but no more than the host has. Available is
    /// the part of it that can be written or reserved; the rest is kept back for the records.
    func status() -> FileSystemStatus {
        let (total, room) = log.space.totalAndFree(
            reserved: index.reservedByteCount, removing: index.removingByteCount)
        return FileSystemStatus(
            totalByteCount: total, freeByteCount: room,
            availableByteCount: SpaceAccounting.reservableByteCount(in: room),
            inodeCount: index.inodeCount &+ room / 512, freeInodeCount: room / 512)
    }
}

/// How far listxattr(2) has come. It belongs to one request.
final class XattrListWalk: @unchecked Sendable {
    /// The cookie to go on with.
    fileprivate(set) var next: UInt64 = 0
    fileprivate(set) var names: [UInt8] = []
}

/// The value of an extended attribute.
enum XattrValue {
    case bytes([UInt8])
    case plan(ReadPlan)
}
