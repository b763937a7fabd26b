// What is asked of a mounted store whose entries somebody has made up: every operation, and of every answer what the kernel is told.

import Glibc

@testable import Treering

/// Runs everything on a volume. Any error will do; what counts is that every operation ends with one or an answer.
struct HostileOperations {
    private let volume: Volume<SimulatedDevice>
    private let caller = Caller(uid: 0, gid: 0, umask: 0, identity: .privileged)

    init(_ volume: Volume<SimulatedDevice>) { self.volume = volume }

    /// A name and what it leads to.
    private struct Name: Hashable {
        var parent: UInt64
        var text: String
        var inode: UInt64
    }

    private func perform(_ operation: Operation) {
        guard let reply = try? volume.perform(operation.body(caller)) else { return }
        if case .plan(let plan) = reply.value { _ = volume.outcome(of: plan, mayWait: true) }
    }

    /// As FuseServer turns them into what the kernel takes.
    private func answer(_ attributes: Attributes) {
        _ = attributes.status
        withUnsafeTemporaryAllocation(byteCount: 256, alignment: 8) {
            StatxLayout.encode(attributes, into: UnsafeMutableRawBufferPointer(rebasing: $0[...]))
        }
    }

    /// Reads what there is; gives the names found.
    private func read(_ inodes: ClosedRange<UInt64>) -> [Name] {
        var names: [Name] = []
        if let status = try? volume.perform({ (core) throws(Stop) in core.status() }) { _ = status.figures }
        for inode in inodes {
            if let attributes = try? volume.perform({ (core) throws(Stop) in try core.attributes(InodeNumber(inode)) })
            {
                answer(attributes)
            }
            for plan in [
                Operation.read(inode, offset: 0, byteCount: 65_536), .read(inode, offset: 1 << 62, byteCount: 4096),
                .readLink(inode), .xattrNames(inode), .xattr(inode, "user.x0"), .seek(inode, .data, from: 0),
                .seek(inode, .hole, from: 0), .access(inode), .readDirectory(inode, step: 3),
            ] { perform(plan) }
            _ = try? volume.perform { (core) throws(Stop) in
                try core.readDirectoryPlus(InodeNumber(inode), after: 0, isAccess: false) { entry, attributes in
                    answer(attributes)
                    _ = off_t(clamping: entry.cookie)
                    let text = String(decoding: entry.name, as: UTF8.self)
                    if names.count < 500 { names.append(Name(parent: inode, text: text, inode: entry.inode.rawValue)) }
                    return true
                }
            }
        }
        return names.filter { $0.text != "." && $0.text != ".." }
    }

    /// Has the cleaner, and the search for dead blocks, go through every segment.
    private func clean() {
        guard (try? volume.syncAndWait()) != nil else { return }
        let sealed = volume.state.withLock { state in
            let table = state.core.table
            return table.segments.indices.map { table.id(of: SegmentNumber(UInt32($0))) }
                .filter { table.isInUse($0) && table[$0.number].isSealed }
        }
        for segmentID in sealed {
            try? volume.housekeeper.empty(segmentID)
            _ = volume.housekeeper.findDeadBlocks()
        }
    }

    /// Reads, then changes everything, then takes it all away. `isWritten`: only where the mount takes it.
    func run(_ inodes: ClosedRange<UInt64>, isWritten: Bool) {
        let names = read(inodes)
        for name in names { perform(.lookup(name.parent, name.text)) }
        guard isWritten else { return }
        clean()
        var changes = AttributeChanges()
        changes.mode = 0o700
        changes.modified = .now
        for inode in inodes {
            var size = AttributeChanges()
            size.byteCount = inode * 100
            for operation in [
                Operation.setAttributes(inode, changes), .write(inode, offset: inode * 900, byteCount: 5000, seed: 1),
                .copyRange(inode, from: 0, inode, to: 1 << 20, byteCount: 8192),
                .allocate(inode, [], offset: 0, byteCount: 70_000),
                .allocate(inode, [.punchesHole, .keepsSize], offset: 4096, byteCount: 4096),
                .setAttributes(inode, size), .setXattr(inode, "user.new", byteCount: 2000, seed: 1, []),
                .removeXattr(inode, "user.x0"), .make(inode, "made", mode: 0o100600, deviceNumber: 0, target: nil),
                .make(inode, "below", mode: 0o040700, deviceNumber: 0, target: nil), .removeDirectory(inode, "below"),
            ] { perform(operation) }
        }
        for (number, name) in names.enumerated() {
            perform(.link(name.inode, 1, "linked\(number)"))
            perform(.rename(name.parent, name.text, 1, "renamed\(number)", []))
            if number > 0 { perform(.rename(1, "renamed\(number)", 1, "renamed\(number - 1)", .exchange)) }
        }
        volume.housekeeper.housekeep(commits: true, checkpoints: true)
        for number in names.indices.reversed() {
            for text in ["linked\(number)", "renamed\(number)"] {
                perform(.unlink(1, text))
                perform(.removeDirectory(1, text))
            }
        }
        for inode in inodes { perform(.forget(inode, 100)) }
        for _ in 0..<2 { volume.housekeeper.housekeep(commits: true, checkpoints: true) }
    }
}
