// Listing directories. Entries are encoded into memory of the thread, bounded by what the kernel asked for.

import CFuse3
import Glibc

/// READDIR and READDIRPLUS.
struct ListOperation: Operation {
    let inode: InodeNumber
    let cookie: UInt64
    let byteLimit: Int
    let withAttributes: Bool

    /// The bytes of the answer, in a buffer that `finish` frees.
    func run(
        _ volume: HostVolume, _ context: RequestContext, _ reply: borrowing Reply
    ) throws(Stop) -> UnsafeMutableRawBufferPointer {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: byteLimit, alignment: 8)
        var filled = 0
        do throws(Stop) {
            try volume.run { (core) throws(Stop) in
                if withAttributes {
                    try core.readDirectoryPlus(inode, after: cookie, isAccess: true) { entry, attributes in
                        add(entry, attributes, reply, buffer, &filled)
                    }
                } else {
                    try core.readDirectory(inode, after: cookie, isAccess: true) { entry in
                        add(entry, nil, reply, buffer, &filled)
                    }
                }
            }
        } catch {
            buffer.deallocate()
            throw error
        }
        return UnsafeMutableRawBufferPointer(rebasing: buffer[..<filled])
    }

    func finish(_ answer: UnsafeMutableRawBufferPointer, _ reply: consuming Reply, _ server: FuseServer) {
        let isTaken = reply.bytes(UnsafeRawBufferPointer(answer))
        if !isTaken && withAttributes { Self.takeBackLookups(answer, server.volume) }
        answer.baseAddress?.deallocate()
    }

    private func add(
        _ entry: DirectoryEntry, _ attributes: Attributes?, _ reply: borrowing Reply,
        _ buffer: UnsafeMutableRawBufferPointer, _ filled: inout Int
    ) -> Bool {
        let room = UnsafeMutableRawBufferPointer(rebasing: buffer[filled...])
        let isDot = entry.name.count <= 2 && entry.name.allSatisfy { $0 == UInt8(ascii: ".") }
        let byteCount = withUnsafeTemporaryAllocation(byteCount: entry.name.count + 1, alignment: 1) { name in
            name.copy(entry.name, to: 0)
            name[entry.name.count] = 0
            let text = name.baseAddress!.assumingMemoryBound(to: CChar.self)
            guard let attributes else { return reply.add(entry, name: text, to: room) }
            return reply.add(entry, attributes, isKnown: !isDot, name: text, to: room)
        }
        guard byteCount <= room.count else { return false }
        filled += byteCount
        return true
    }

    /// The kernel did not take the answer (the request was interrupted): the lookups in it never happened.
    ///
    /// struct fuse_direntplus: fuse_entry_out (128 bytes, node id first), then ino, off, namelen (u32), type, name.
    /// Padded to 8.
    private static func takeBackLookups(_ answer: UnsafeMutableRawBufferPointer, _ volume: HostVolume) {
        var offset = 0
        while offset + 152 <= answer.count {
            let inode: UInt64 = answer.load(offset)
            let nameByteCount: UInt32 = answer.load(offset + 144)
            if inode != 0 { volume.forget(InodeNumber(inode), 1) }
            offset += (152 + Int(nameByteCount) + 7) & ~7
        }
    }
}

extension FuseServer {
    static func addDirectoryCallbacks(_ table: inout fuse_lowlevel_ops) {
        table.readdir = { request, inode, byteLimit, cookie, _ in
            FuseServer.list(request, inode, byteLimit, cookie, withAttributes: false)
        }
        table.readdirplus = { request, inode, byteLimit, cookie, _ in
            FuseServer.list(request, inode, byteLimit, cookie, withAttributes: true)
        }
    }

    private static func list(
        _ request: fuse_req_t?, _ inode: fuse_ino_t, _ byteLimit: Int, _ cookie: off_t, withAttributes: Bool
    ) {
        let operation = ListOperation(
            inode: InodeNumber(inode), cookie: UInt64(bitPattern: Int64(cookie)), byteLimit: min(byteLimit, 1 << 20),
            withAttributes: withAttributes)
        FuseServer.of(request).perform(operation, Reply(request!))
    }
}
