// How an inode of the index looks to stat(2).

extension Attributes {
    init(_ entry: InodeEntry) {
        let record = entry.record
        self.init(
            inode: record.inode, mode: record.mode, linkCount: record.linkCount, uid: record.uid, gid: record.gid,
            deviceNumber: record.deviceNumber, byteCount: record.size, storedByteCount: entry.derived,
            accessed: record.accessed, modified: record.modified, changed: record.changed, born: record.born,
            flags: record.inodeFlags.intersection(.settable))
        if isDirectory {
            byteCount = min(entry.derived, InodeEntry.derivedLimit(mode)) * 32
            storedByteCount = 0
        }
    }
}
