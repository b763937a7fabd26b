// Contents and attributes in the model. Sources: POSIX.1-2017, xattr(7).

import Glibc

@testable import Treering

extension ModelFileSystem {
    static let sizeLimit = UInt64(Int64.max)

    mutating func setAttributes(
        _ number: UInt64, _ changes: AttributeChanges, _ caller: Caller
    ) throws(Errno) -> ModelAttributes {
        var inode = try inode(number)
        guard !inode.isSealed || inode.flags.isDisjoint(with: .immutable) && changes.isTouch else {
            throw .notPermitted
        }
        inode.changed = time
        if changes.killsPrivileges || changes.isChownOfNothing { inode.killPrivileges(caller) }
        if let mode = changes.mode { inode.mode = inode.type | mode & 0o7777 }
        if let uid = changes.uid { inode.uid = uid }
        if let gid = changes.gid { inode.gid = gid }
        if let accessed = changes.accessed { inode.accessed = resolved(accessed) }
        if let modified = changes.modified { inode.modified = resolved(modified) }
        if let changed = changes.changed { inode.changed = resolved(changed) }
        if let size = changes.byteCount {
            guard inode.isRegular else { throw inode.isDirectory ? .isDirectory : .invalid }
            guard size <= Self.sizeLimit else { throw .fileTooBig }
            if size < inode.byteCount { inode.bytes.clear(size, .max) }
            inode.byteCount = size
            if changes.modified == nil { inode.modified = time }
        }
        if changes.mode != nil { inode.xattrs[Self.accessList]?.takeMode(inode.mode) }
        inodes[number] = inode
        return inode.attributes(number)
    }

    private func resolved(_ wanted: AttributeChanges.Time) -> Timestamp {
        switch wanted {
        case .now: return time
        case .at(let time): return time
        }
    }

    mutating func write(_ number: UInt64, at offset: UInt64, _ bytes: [UInt8]) throws(Errno) {
        guard !bytes.isEmpty else { return }
        guard offset <= Self.sizeLimit - UInt64(bytes.count) else { throw .fileTooBig }
        let inode = try inode(number)
        guard inode.isRegular else { throw inode.isDirectory ? .isDirectory : .invalid }
        guard !inode.isSealed else { throw .notPermitted }
        inodes[number]!.bytes.write(bytes, at: offset)
        inodes[number]!.byteCount = max(inode.byteCount, offset + UInt64(bytes.count))
        inodes[number]!.modified = time
        inodes[number]!.changed = time
    }

    func read(_ number: UInt64, at offset: UInt64, _ byteCount: Int) throws(Errno) -> [UInt8] {
        let inode = try inode(number)
        guard !inode.isDirectory else { throw .isDirectory }
        guard offset < inode.byteCount else { return [] }
        return inode.bytes.read(at: offset, Int(min(UInt64(byteCount), inode.byteCount - offset)))
    }

    func readLink(_ number: UInt64) throws(Errno) -> [UInt8] {
        let inode = try inode(number)
        guard inode.isSymbolicLink else { throw .invalid }
        return inode.bytes.read(at: 0, Int(inode.byteCount))
    }

    // MARK: Extended attributes

    mutating func setXattr(
        _ number: UInt64, _ name: String, _ value: [UInt8], _ flags: SetXattrFlags, limit: Int
    ) throws(Errno) {
        guard !name.isEmpty, name.utf8.count <= 255 else { throw .range }
        guard value.count <= limit else { throw .tooBig }
        let inode = try inode(number)
        guard !inode.isSealed else { throw .notPermitted }
        if inode.xattrs[name] != nil {
            if flags.contains(.create) { throw .exists }
        } else if flags.contains(.replace) {
            throw .noData
        }
        inodes[number]!.xattrs[name] = value
        inodes[number]!.changed = time
    }

    func xattr(_ number: UInt64, _ name: String) throws(Errno) -> [UInt8] {
        guard let value = inodes[number]?.xattrs[name] else { throw .noData }
        return value
    }

    func xattrNames(_ number: UInt64) throws(Errno) -> [String] { try inode(number).xattrs.keys.sorted() }

    mutating func removeXattr(_ number: UInt64, _ name: String) throws(Errno) {
        guard !(try inode(number).isSealed) else { throw .notPermitted }
        guard try inode(number).xattrs[name] != nil else { throw .noData }
        inodes[number]!.xattrs[name] = nil
        inodes[number]!.changed = time
    }
}
