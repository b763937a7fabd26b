// Names in the model: lookup, make, link, unlink, rmdir, rename. Sources: POSIX.1-2017, rename(2).

import Glibc

@testable import Treering

extension ModelFileSystem {
    private func check(name: String) throws(Errno) {
        guard name.utf8.count <= 255 else { throw .nameTooLong }
        guard !name.isEmpty, !name.utf8.contains(UInt8(ascii: "/")) else { throw .invalid }
    }

    mutating func lookup(_ parent: UInt64, _ name: String) throws(Errno) -> ModelAttributes {
        let directory = try directory(parent)
        guard name.utf8.count <= 255 else { throw .nameTooLong }
        guard let found = directory.entries[name] else { throw .noEntry }
        raiseLookups(found)
        return try attributes(found)
    }

    /// What would keep `make` from making this name.
    func checkMake(_ parent: UInt64, _ name: String) throws(Errno) {
        try check(name: name)
        let directory = try liveDirectory(parent)
        guard directory.entries[name] == nil else { throw .exists }
    }

    /// Makes an inode under the number that the other side gave it.
    mutating func make(
        _ parent: UInt64, _ name: String, number: UInt64, mode: UInt32, deviceNumber: UInt32, target: [UInt8]?,
        caller: Caller
    ) throws(Errno) -> ModelAttributes {
        try checkMake(parent, name)
        var inode = newInode(in: inodes[parent]!, mode: mode, deviceNumber: deviceNumber, caller)
        if inode.isDirectory {
            inode.linkCount = 2
            inode.parent = parent
            inodes[parent]!.linkCount += 1
        }
        if let target {
            inode.byteCount = UInt64(target.count)
            inode.bytes.write(target, at: 0)
        }
        inodes[number] = inode
        nextInode = max(nextInode, number + 1)
        inodes[parent]!.entries[name] = number
        touchDirectory(parent)
        raiseLookups(number)
        return inode.attributes(number)
    }

    mutating func makeUnnamed(
        _ parent: UInt64, number: UInt64, mode: UInt32, caller: Caller
    ) throws(Errno) -> ModelAttributes {
        let directory = try directory(parent)
        guard !directory.flags.contains(.immutable), directory.linkCount > 0 else { throw .notPermitted }
        var inode = newInode(in: directory, mode: 0o100000 | mode, deviceNumber: 0, caller)
        inode.linkCount = 0
        inodes[number] = inode
        nextInode = max(nextInode, number + 1)
        raiseLookups(number)
        return inode.attributes(number)
    }

    mutating func link(_ target: UInt64, _ parent: UInt64, _ name: String) throws(Errno) -> ModelAttributes {
        try check(name: name)
        let inode = try inode(target)
        guard !inode.isDirectory else { throw .notPermitted }
        guard !inode.isSealed else { throw .notPermitted }
        try checkMake(parent, name)
        inodes[target]!.linkCount += 1
        inodes[target]!.changed = time
        inodes[parent]!.entries[name] = target
        touchDirectory(parent)
        raiseLookups(target)
        return try attributes(target)
    }

    mutating func unlink(_ parent: UInt64, _ name: String) throws(Errno) {
        guard let found = try directory(parent).entries[name] else { throw .noEntry }
        guard !(try inode(found).isDirectory) else { throw .isDirectory }
        try checkRemoval(parent, found)
        inodes[parent]!.entries[name] = nil
        dropName(found)
        touchDirectory(parent)
    }

    mutating func removeDirectory(_ parent: UInt64, _ name: String) throws(Errno) {
        guard let found = try directory(parent).entries[name] else { throw .noEntry }
        let inode = try inode(found)
        try checkRemoval(parent, found)
        guard inode.isDirectory else { throw .notDirectory }
        guard inode.entries.isEmpty else { throw .notEmpty }
        inodes[parent]!.entries[name] = nil
        inodes[parent]!.linkCount -= 1
        dropName(found)
        touchDirectory(parent)
    }

    mutating func rename(
        _ parent: UInt64, _ name: String, _ newParent: UInt64, _ newName: String, _ flags: RenameFlags,
        number: UInt64, caller: Caller
    ) throws(Errno) {
        try renameWithoutWhiteout(parent, name, newParent, newName, flags)
        guard flags.contains(.whiteout), number != 0 else { return }
        inodes[number] = newInode(in: inodes[parent]!, mode: 0o020000, deviceNumber: 0, caller)
        nextInode = max(nextInode, number + 1)
        inodes[parent]!.entries[name] = number
    }

    /// Neither the directory nor what the name leads to may be sealed.
    private func checkRemoval(_ parent: UInt64, _ number: UInt64) throws(Errno) {
        if inodes[parent]!.isSealed || inodes[number]!.isSealed { throw .notPermitted }
    }

    private mutating func renameWithoutWhiteout(
        _ parent: UInt64, _ name: String, _ newParent: UInt64, _ newName: String, _ flags: RenameFlags
    ) throws(Errno) {
        try check(name: newName)
        let from = try directory(parent)
        let to = parent == newParent ? from : try liveDirectory(newParent)
        guard let moved = from.entries[name] else { throw .noEntry }
        try checkRemoval(parent, moved)
        let existing = to.entries[newName]
        guard let existing else {
            if flags.contains(.exchange) { throw .noEntry }
            move(moved, parent, name, newParent, newName)
            return
        }
        if flags.contains(.noReplace) { throw .exists }
        if existing == moved { return }
        try checkRemoval(newParent, existing)
        if flags.contains(.exchange) {
            exchange(moved, parent, name, existing, newParent, newName)
            return
        }
        let victim = try inode(existing)
        if try inode(moved).isDirectory {
            guard victim.isDirectory else { throw .notDirectory }
            guard victim.entries.isEmpty else { throw .notEmpty }
            inodes[newParent]!.linkCount -= 1
        } else if victim.isDirectory {
            throw .isDirectory
        }
        dropName(existing)
        move(moved, parent, name, newParent, newName)
    }

    private mutating func move(
        _ moved: UInt64, _ parent: UInt64, _ name: String, _ newParent: UInt64, _ newName: String
    ) {
        inodes[parent]!.entries[name] = nil
        inodes[newParent]!.entries[newName] = moved
        settle(moved, parent, newParent)
        touchDirectory(parent)
        touchDirectory(newParent)
    }

    private mutating func exchange(
        _ moved: UInt64, _ parent: UInt64, _ name: String, _ other: UInt64, _ newParent: UInt64, _ newName: String
    ) {
        inodes[parent]!.entries[name] = other
        inodes[newParent]!.entries[newName] = moved
        settle(moved, parent, newParent)
        settle(other, newParent, parent)
        touchDirectory(parent)
        touchDirectory(newParent)
    }

    /// An inode has moved from one directory to another.
    private mutating func settle(_ moved: UInt64, _ parent: UInt64, _ newParent: UInt64) {
        inodes[moved]!.changed = time
        guard inodes[moved]!.isDirectory else { return }
        inodes[moved]!.parent = newParent
        inodes[parent]!.linkCount -= 1
        inodes[newParent]!.linkCount += 1
    }
}
