// Ranges of files in the model. Sources: fallocate(2), copy_file_range(2), lseek(2).

import Glibc

@testable import Treering

extension ModelFileSystem {
    private func regular(_ number: UInt64, else error: Int32) throws(Errno) -> ModelInode {
        let inode = try inode(number)
        guard inode.isRegular else { throw inode.isDirectory ? .isDirectory : Errno(error) }
        return inode
    }

    mutating func allocate(
        _ number: UInt64, _ mode: AllocateMode, at offset: UInt64, _ byteCount: UInt64
    ) throws(Errno) {
        let inode = try regular(number, else: ENODEV)
        if inode.isSealed, inode.flags.contains(.immutable) || !mode.isSubset(of: .keepsSize) { throw .notPermitted }
        guard byteCount > 0 else { throw .invalid }
        guard offset <= Self.sizeLimit - byteCount else { throw .fileTooBig }
        let end = offset + byteCount
        switch mode {
        case [], .keepsSize: break
        case .zeroes, [.zeroes, .keepsSize], [.punchesHole, .keepsSize]: inodes[number]!.bytes.clear(offset, end)
        default: throw .notSupported
        }
        if !mode.contains(.keepsSize) { inodes[number]!.byteCount = max(inode.byteCount, end) }
        inodes[number]!.modified = time
        inodes[number]!.changed = time
    }

    mutating func copyRange(
        _ source: UInt64, at from: UInt64, _ target: UInt64, at to: UInt64, _ byteCount: UInt64
    ) throws(Errno) -> UInt64 {
        let origin = try regular(source, else: EINVAL)
        let inode = try regular(target, else: EINVAL)
        if inode.isSealed, inode.flags.contains(.immutable) || to < inode.byteCount { throw .notPermitted }
        guard from < origin.byteCount, byteCount > 0 else { return 0 }
        let count = min(byteCount, origin.byteCount - from)
        guard to < Self.sizeLimit, to <= Self.sizeLimit - count else { throw .fileTooBig }
        if source == target, from < to + count, to < from + count { throw .invalid }
        inodes[target]!.bytes.copy(origin.bytes, from: from, to: to, count)
        inodes[target]!.byteCount = max(inode.byteCount, to + count)
        inodes[target]!.modified = time
        inodes[target]!.changed = time
        return count
    }

    func seek(_ number: UInt64, _ target: SeekTarget, from offset: UInt64) throws(Errno) -> UInt64 {
        let inode = try inode(number)
        guard inode.isRegular else { throw .invalid }
        guard offset < inode.byteCount else { throw Errno(ENXIO) }
        if target == .hole { return min(inode.byteCount, inode.bytes.hole(from: offset)) }
        guard let data = inode.bytes.data(from: offset) else { throw Errno(ENXIO) }
        return data
    }
}
