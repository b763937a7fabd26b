// The oracle: what POSIX says that a file system does, as plainly as it can be written. Knows nothing of logs and indexes.

import Glibc

@testable import Treering

/// One inode of the model.
struct ModelInode: Equatable {
    var mode: UInt32
    var linkCount: UInt32
    var uid: UInt32
    var gid: UInt32
    var deviceNumber: UInt32 = 0
    /// Files and symbolic links: the length.
    var byteCount: UInt64 = 0
    var accessed: Timestamp
    var modified: Timestamp
    var changed: Timestamp
    var born: Timestamp
    var bytes = ModelBytes()
    var entries: [String: UInt64] = [:]
    var xattrs: [String: [UInt8]] = [:]
    /// Those of chattr(1).
    var flags: InodeFlags = []
    /// Directories: what ".." is.
    var parent: UInt64 = 0

    var type: UInt32 { mode & UInt32(S_IFMT) }
    var isDirectory: Bool { type == UInt32(S_IFDIR) }
    var isRegular: Bool { type == UInt32(S_IFREG) }
    var isSymbolicLink: Bool { type == UInt32(S_IFLNK) }
    var isSealed: Bool { !flags.isDisjoint(with: [.immutable, .appendOnly]) }

    /// What stat shows of it and the model can know.
    func attributes(_ number: UInt64) -> ModelAttributes {
        ModelAttributes(
            inode: number, mode: mode, linkCount: linkCount, uid: uid, gid: gid, deviceNumber: deviceNumber,
            byteCount: isDirectory ? UInt64(entries.count) * 32 : byteCount, accessed: accessed, modified: modified,
            changed: changed, born: born, flags: flags)
    }
}

/// The attributes that both sides know: all but how much is stored.
struct ModelAttributes: Equatable {
    var inode: UInt64
    var mode: UInt32
    var linkCount: UInt32
    var uid: UInt32
    var gid: UInt32
    var deviceNumber: UInt32
    var byteCount: UInt64
    var accessed: Timestamp
    var modified: Timestamp
    var changed: Timestamp
    var born: Timestamp
    var flags: InodeFlags

    init(
        inode: UInt64, mode: UInt32, linkCount: UInt32, uid: UInt32, gid: UInt32, deviceNumber: UInt32,
        byteCount: UInt64,
        accessed: Timestamp, modified: Timestamp, changed: Timestamp, born: Timestamp,
        flags: InodeFlags
    ) {
        self.inode = inode
        self.mode = mode
        self.linkCount = linkCount
        self.uid = uid
        self.gid = gid
        self.deviceNumber = deviceNumber
        self.byteCount = byteCount
        self.accessed = accessed
        self.modified = modified
        self.changed = changed
        self.born = born
        self.flags = flags
    }

    init(_ found: Attributes) {
        self.init(
            inode: found.inode.rawValue, mode: found.mode, linkCount: found.linkCount, uid: found.uid, gid: found.gid,
            deviceNumber: found.deviceNumber, byteCount: found.byteCount, accessed: found.accessed,
            modified: found.modified, changed: found.changed, born: found.born, flags: found.flags)
    }
}

/// A whole file system as a value: a copy is a snapshot.
struct ModelFileSystem {
    static let root: UInt64 = 1
    var inodes: [UInt64: ModelInode]
    /// How often "the kernel" knows each inode.
    var lookups: [UInt64: UInt64] = [:]
    var time: Timestamp
    /// No inode from here on was ever given out.
    var nextInode: UInt64 = 2

    init(time: Timestamp) {
        self.time = time
        inodes = [
            Self.root: ModelInode(
                mode: 0o040755, linkCount: 2, uid: 0, gid: 0, accessed: time, modified: time, changed: time, born: time)
        ]
    }

    // MARK: What operations share

    func inode(_ number: UInt64) throws(Errno) -> ModelInode {
        guard let inode = inodes[number] else { throw .stale }
        return inode
    }

    func directory(_ number: UInt64) throws(Errno) -> ModelInode {
        let inode = try inode(number)
        guard inode.isDirectory else { throw .notDirectory }
        return inode
    }

    func liveDirectory(_ number: UInt64) throws(Errno) -> ModelInode {
        let inode = try directory(number)
        guard inode.linkCount > 0 else { throw .noEntry }
        guard !inode.flags.contains(.immutable) else { throw .notPermitted }
        return inode
    }

    func attributes(_ number: UInt64) throws(Errno) -> ModelAttributes { try inode(number).attributes(number) }

    /// A new name or one less: the directory's times.
    mutating func touchDirectory(_ number: UInt64) {
        inodes[number]!.modified = time
        inodes[number]!.changed = time
    }

    mutating func raiseLookups(_ number: UInt64) { lookups[number, default: 0] += 1 }

    /// An inode lost a name.
    mutating func dropName(_ number: UInt64) {
        var inode = inodes[number]!
        inode.linkCount = inode.isDirectory ? 0 : inode.linkCount - 1
        inode.changed = time
        inodes[number] = inode.linkCount == 0 && lookups[number] == nil ? nil : inode
    }

    // MARK: Life

    mutating func forget(_ number: UInt64, _ count: UInt64) {
        guard let known = lookups[number] else { return }
        lookups[number] = known > count ? known - count : nil
        if lookups[number] == nil, inodes[number]?.linkCount == 0 { inodes[number] = nil }
    }

    /// The kernel forgets everything; what has no name goes.
    mutating func remount() {
        lookups = [:]
        for (number, inode) in inodes where inode.linkCount == 0 { inodes[number] = nil }
    }

    /// Whether `number` is `ancestor` or lies below it.
    func isBelow(_ number: UInt64, _ ancestor: UInt64) -> Bool {
        var number = number
        while number != ancestor {
            guard number != Self.root, let inode = inodes[number], inode.parent != number else { return false }
            number = inode.parent
        }
        return true
    }
}
