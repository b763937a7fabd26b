// The index entry of an inode without a name.

/// An inode without a name that is still in use. Key: (orphans, inode, orphan, 0). Value: the origin.
enum OrphanEntry {
    static let charge = OrphanChange.byteCount + Change.moveOverheadByteCount

    static func key(_ inode: InodeNumber) -> IndexKey {
        IndexKey(space: .orphans, object: inode.rawValue, kind: .orphan, subkey: 0)
    }
}
