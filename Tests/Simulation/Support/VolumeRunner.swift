// Operations on a volume, as one closure each, for both ways of running them: waiting, or parked and resumed.

@testable import Treering

/// What one successful run of an operation gave.
struct VolumeReply {
    enum Value {
        case outcome(Outcome)
        case plan(ReadPlan)
    }

    var value: Value
    /// The inode that a `make` made.
    var made: UInt64 = 0
    /// The log's next sequence right after it.
    var nextSequence: UInt64 = 0
}

extension Operation {
    typealias Body = (Core) throws(Stop) -> VolumeReply

    /// The operation as the core runs it; it may be run again after it was blocked.
    func body(_ caller: Caller) -> Body {
        let operation = self
        let listing = Listing()
        let context = RequestContext.by(caller)
        return { (core) throws(Stop) in
            var reply = try operation.perform(core, context, listing)
            reply.nextSequence = core.log.nextSequence.rawValue
            return reply
        }
    }

    private func perform(_ core: Core, _ context: RequestContext, _ listing: Listing) throws(Stop) -> VolumeReply {
        switch self {
        case .lookup(let parent, let name):
            return Self.reply(
                try Self.withName(name) { (name) throws(Stop) in try core.lookup(InodeNumber(parent), name) })
        case .make: return try make(core, context)
        case .link(let inode, let parent, let name):
            return Self.reply(
                try Self.withName(name) { (name) throws(Stop) in
                    try core.link(InodeNumber(inode), InodeNumber(parent), name, .nobody)
                })
        case .unlink(let parent, let name):
            try Self.withName(name) { (name) throws(Stop) in try core.unlink(InodeNumber(parent), name, .nobody) }
        case .removeDirectory(let parent, let name):
            try Self.withName(name) { (name) throws(Stop) in
                try core.removeDirectory(InodeNumber(parent), name, .nobody)
            }
        case .rename(let parent, let name, let newParent, let newName, let flags):
            let next = core.log.nextInode
            try Self.withName(name) { (name) throws(Stop) in
                try Self.withName(newName) { (newName) throws(Stop) in
                    try core.rename(InodeNumber(parent), name, InodeNumber(newParent), newName, flags, context)
                }
            }
            // A whiteout takes the next number; there is none where nothing was to be done.
            return VolumeReply(value: .outcome(.done), made: core.log.nextInode > next ? next.rawValue : 0)
        case .makeUnnamed(let parent, let mode):
            let found = try core.makeUnnamed(InodeNumber(parent), mode, context)
            var reply = Self.reply(found)
            reply.made = found.inode.rawValue
            return reply
        case .setAttributes(let inode, let changes):
            return Self.reply(try core.setAttributes(InodeNumber(inode), changes, context))
        case .attributes(let inode): return Self.reply(try core.attributes(InodeNumber(inode)))
        case .forget(let inode, let count): core.forget(InodeNumber(inode), count)
        case .setFlags(let inode, let flags): try core.setInodeFlags(InodeNumber(inode), flags, .nobody)
        case .access(let inode): try core.recordAccess(InodeNumber(inode))
        case .setAccessList, .removeAccessList: try performOnAccessList(core, context)
        default: return try performOnData(core, context, listing)
        }
        return VolumeReply(value: .outcome(.done))
    }

    private func performOnAccessList(_ core: Core, _ context: RequestContext) throws(Stop) {
        func name(_ isDefault: Bool) -> String {
            isDefault ? ModelFileSystem.defaultList : ModelFileSystem.accessList
        }
        switch self {
        case .setAccessList(let inode, let isDefault, let list):
            try Self.withName(name(isDefault)) { (name) throws(Stop) in
                try Self.withBytes(ModelFileSystem.listBytes(list)) { (bytes) throws(Stop) in
                    try core.setXattr(InodeNumber(inode), name, bytes, [], context)
                }
            }
        case .removeAccessList(let inode, let isDefault):
            try Self.withName(name(isDefault)) { (name) throws(Stop) in
                try core.removeXattr(InodeNumber(inode), name, .nobody)
            }
        default: preconditionFailure("not an operation on an access control list: \(self)")
        }
    }

    private static let privileged = RequestContext.by(Caller(uid: 0, gid: 0, umask: 0, identity: .privileged))

    private func performOnData(_ core: Core, _ context: RequestContext, _ listing: Listing) throws(Stop) -> VolumeReply
    {
        switch self {
        case .write(let inode, let offset, let count, let seed):
            _ = try Self.withBytes(Self.bytes(count, seed: seed)) { (bytes) throws(Stop) in
                try core.write(InodeNumber(inode), at: offset, bytes, [], context)
            }
        case .allocate(let inode, let mode, let offset, let count):
            try core.allocate(InodeNumber(inode), mode, at: offset, count, Self.privileged, listing.allocation)
        case .copyRange(let source, let from, let target, let to, let count):
            // Within one file the source may grow by what is copied: what counts is where it ended before.
            if listing.cursor == 0, let size = try? core.inode(InodeNumber(source)).record.size {
                listing.limit = size > from ? min(count, size - from) : 0
            }
            repeat {
                let result = try core.copyRange(
                    InodeNumber(source), at: from + listing.cursor, InodeNumber(target), at: to + listing.cursor,
                    listing.cursor == 0 ? count : listing.limit - listing.cursor, Self.privileged)
                precondition(result.byteCount > 0 || listing.limit == 0, "a copy must go on")
                listing.cursor += result.byteCount
            } while listing.cursor < listing.limit
            return VolumeReply(value: .outcome(.number(listing.cursor)))
        case .seek(let inode, let target, let offset):
            guard let found = try core.seek(InodeNumber(inode), listing.seek(target, from: offset)).offset else {
                throw .failed(.noAddress)
            }
            return VolumeReply(value: .outcome(.number(found)))
        case .read(let inode, let offset, let count):
            return VolumeReply(value: .plan(try core.planRead(InodeNumber(inode), at: offset, count)))
        case .readLink(let inode): return VolumeReply(value: .plan(try core.planReadLink(InodeNumber(inode))))
        case .readDirectory(let inode, let step): return try Self.list(core, InodeNumber(inode), step)
        case .readDirectoryPlus(let inode, let step): return try Self.listPlus(core, InodeNumber(inode), step, listing)
        case .setXattr(let inode, let name, let count, let seed, let flags):
            try Self.withName(name) { (name) throws(Stop) in
                try Self.withBytes(Self.bytes(count, seed: seed)) { (bytes) throws(Stop) in
                    try core.setXattr(InodeNumber(inode), name, bytes, flags, context)
                }
            }
        case .xattr(let inode, let name):
            let value = try Self.withName(name) { (name) throws(Stop) in try core.xattr(InodeNumber(inode), name) }
            switch value {
            case .bytes(let bytes): return VolumeReply(value: .outcome(.bytes(bytes)))
            case .plan(let plan): return VolumeReply(value: .plan(plan))
            }
        case .xattrNames(let inode):
            let names = try core.xattrNames(InodeNumber(inode), listing.names, context).split(separator: 0).map {
                String(decoding: $0, as: UTF8.self)
            }
            return VolumeReply(value: .outcome(.names(names.sorted())))
        case .removeXattr(let inode, let name):
            try Self.withName(name) { (name) throws(Stop) in try core.removeXattr(InodeNumber(inode), name, .nobody) }
        default: preconditionFailure("not an operation on data: \(self)")
        }
        return VolumeReply(value: .outcome(.done))
    }

    private func make(_ core: Core, _ context: RequestContext) throws(Stop) -> VolumeReply {
        guard case .make(let parent, let name, let mode, let device, let target) = self else { preconditionFailure() }
        let found = try Self.withName(name) { (name) throws(Stop) in
            guard let target else {
                return try core.make(InodeNumber(parent), name, NewInode(mode: mode, deviceNumber: device), context)
            }
            return try Self.withName(target) { (target) throws(Stop) in
                try core.make(InodeNumber(parent), name, NewInode(mode: mode, target: target), context)
            }
        }
        var reply = Self.reply(found)
        reply.made = found.inode.rawValue
        return reply
    }

    private static func reply(_ attributes: Attributes) -> VolumeReply {
        VolumeReply(value: .outcome(.attributes(ModelAttributes(attributes))))
    }

    // MARK: Directories

    /// What a listing with lookups, a copy, or a walk has reached: what is done is not done again.
    final class Listing {
        var cursor: UInt64 = 0
        /// Where a copy ends.
        var limit: UInt64 = 0
        var entries: [ListedEntry] = []
        let names = XattrListWalk()
        let allocation = AllocationWalk()
        private var walk: SeekWalk?

        func seek(_ target: SeekTarget, from offset: UInt64) -> SeekWalk {
            if walk == nil { walk = SeekWalk(target, from: offset) }
            return walk!
        }
    }

    /// A whole directory, by so many entries at a time, each time from the cookie before.
    private static func list(_ core: Core, _ inode: InodeNumber, _ step: Int) throws(Stop) -> VolumeReply {
        var cursor: UInt64 = 0
        var entries: [ListedEntry] = []
        while true {
            var count = 0
            try core.readDirectory(inode, after: cursor, isAccess: false) { (entry) throws(Stop) in
                guard count < step else { return false }
                count += 1
                precondition(entry.cookie > cursor && entry.cookie < 1 << 63, "cookies must rise")
                cursor = entry.cookie
                add(entry, nil, &entries)
                return true
            }
            if count == 0 { break }
        }
        entries.sort { $0.name < $1.name }
        return VolumeReply(value: .outcome(.entries(entries)))
    }

    private static func listPlus(
        _ core: Core, _ inode: InodeNumber, _ step: Int, _ listing: Listing
    ) throws(Stop) -> VolumeReply {
        while true {
            var count = 0
            try core.readDirectoryPlus(inode, after: listing.cursor, isAccess: false) { entry, attributes in
                guard count < step else { return false }
                count += 1
                listing.cursor = entry.cookie
                add(entry, ModelAttributes(attributes), &listing.entries)
                return true
            }
            if count == 0 { break }
        }
        return VolumeReply(value: .outcome(.entries(listing.entries.sorted { $0.name < $1.name })))
    }

    private static func add(_ entry: DirectoryEntry, _ attributes: ModelAttributes?, _ entries: inout [ListedEntry]) {
        guard entry.cookie > Core.cookieOfParent else { return }
        entries.append(
            ListedEntry(
                name: String(decoding: entry.name, as: UTF8.self), inode: entry.inode.rawValue, type: entry.type,
                attributes: attributes))
    }

    // MARK: Borrowed bytes

    static func withName<R>(_ name: String, _ body: (UnsafeRawBufferPointer) throws(Stop) -> R) throws(Stop) -> R {
        try withBytes(Array(name.utf8), body)
    }

    static func withBytes<R>(_ bytes: [UInt8], _ body: (UnsafeRawBufferPointer) throws(Stop) -> R) throws(Stop) -> R {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, bytes.count), alignment: 8)
        defer { memory.deallocate() }
        memory.copyBytes(from: bytes)
        return try body(UnsafeRawBufferPointer(rebasing: memory[0..<bytes.count]))
    }
}

extension Volume {
    /// Carries out a plan; completions come by `wait`.
    func outcome(of plan: ReadPlan, mayWait: Bool) -> Outcome {
        let box = OutcomeBox()
        finish(plan, mayWait: mayWait) { box.outcome = $0 }
        wait { _ in box.outcome != nil }
        return box.outcome!
    }

    /// Carries out a plan and tells what it gave, now or later.
    func finish(_ plan: ReadPlan, mayWait: Bool, _ done: @escaping @Sendable (Outcome) -> Void) {
        execute(plan, mayWait: mayWait) { [weak self] plan, error, _ in
            let outcome: Outcome = error.map { .failed($0.rawValue) } ?? .bytes(Array(plan.bytes))
            self?.recycle(plan)
            done(outcome)
        }
    }
}

final class OutcomeBox: @unchecked Sendable {
    var outcome: Outcome?
}
