// One request as a file system gets it, as a value that prints itself; and what came of it.

import Glibc

@testable import Treering

/// An operation on inode numbers and names.
enum Operation {
    case lookup(UInt64, String)
    case make(UInt64, String, mode: UInt32, deviceNumber: UInt32, target: String?)
    /// A file without a name.
    case makeUnnamed(UInt64, mode: UInt32)
    case link(UInt64, UInt64, String)
    case unlink(UInt64, String)
    case removeDirectory(UInt64, String)
    case rename(UInt64, String, UInt64, String, RenameFlags)
    case setAttributes(UInt64, AttributeChanges)
    case write(UInt64, offset: UInt64, byteCount: Int, seed: UInt64)
    case allocate(UInt64, AllocateMode, offset: UInt64, byteCount: UInt64)
    case copyRange(UInt64, from: UInt64, UInt64, to: UInt64, byteCount: UInt64)
    case seek(UInt64, SeekTarget, from: UInt64)
    case read(UInt64, offset: UInt64, byteCount: Int)
    case readLink(UInt64)
    case readDirectory(UInt64, step: Int)
    case readDirectoryPlus(UInt64, step: Int)
    case attributes(UInt64)
    case setXattr(UInt64, String, byteCount: Int, seed: UInt64, SetXattrFlags)
    case xattr(UInt64, String)
    case xattrNames(UInt64)
    case removeXattr(UInt64, String)
    /// An access control list with these permissions: of the owner, of some users, of the group, the mask, of others.
    case setAccessList(UInt64, isDefault: Bool, [UInt16])
    case removeAccessList(UInt64, isDefault: Bool)
    case setFlags(UInt64, InodeFlags)
    /// A read that the kernel told of.
    case access(UInt64)
    case forget(UInt64, UInt64)

    /// The bytes of a write or of a value.
    static func bytes(_ byteCount: Int, seed: UInt64) -> [UInt8] {
        var random = SimulatedRandom(seed: seed)
        var word: UInt64 = 0
        return [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, count in
            for index in 0..<byteCount {
                if index % 8 == 0 { word = random.next() }
                buffer[index] = UInt8(truncatingIfNeeded: word >> UInt64(index % 8 * 8))
            }
            count = byteCount
        }
    }

    /// Whether it may run beside others: those that count lookups step by step, or that end an inode, may not.
    var mayOverlap: Bool {
        switch self {
        case .readDirectoryPlus, .forget: return false
        case .rename: return false
        // More than one record, maybe.
        case .allocate, .copyRange: return false
        default: return true
        }
    }

    /// Whether it must succeed on a full store.
    var freesSpace: Bool {
        switch self {
        case .unlink, .removeDirectory, .removeXattr, .removeAccessList: return true
        case .setFlags(_, let flags): return flags.isEmpty
        default: return false
        }
    }
}

extension Operation: CustomStringConvertible {
    var description: String {
        switch self {
        case .lookup(let parent, let name): return "lookup \(parent)/\(Self.short(name))"
        case .make(let parent, let name, let mode, let device, let target):
            let more = target.map { " to \($0.utf8.count) bytes" } ?? (device == 0 ? "" : " device \(device)")
            return "make \(parent)/\(Self.short(name)) 0\(String(mode, radix: 8))\(more)"
        case .makeUnnamed(let parent, let mode): return "tmpfile \(parent) 0\(String(mode, radix: 8))"
        case .link(let inode, let parent, let name): return "link \(inode) \(parent)/\(Self.short(name))"
        case .unlink(let parent, let name): return "unlink \(parent)/\(Self.short(name))"
        case .removeDirectory(let parent, let name): return "rmdir \(parent)/\(Self.short(name))"
        case .rename(let parent, let name, let newParent, let newName, let flags):
            return "rename \(parent)/\(Self.short(name)) \(newParent)/\(Self.short(newName)) flags \(flags.rawValue)"
        case .setAttributes(let inode, let changes): return "setattr \(inode) \(Self.text(changes))"
        case .write(let inode, let offset, let count, let seed):
            return "write \(inode) @\(offset) \(count) seed \(seed)"
        case .allocate(let inode, let mode, let offset, let count):
            return "fallocate \(inode) mode \(mode.rawValue) @\(offset) \(count)"
        case .copyRange(let source, let from, let target, let to, let count):
            return "copy_file_range \(source) @\(from) to \(target) @\(to) \(count)"
        case .seek(let inode, let target, let offset): return "seek \(target) \(inode) @\(offset)"
        case .read(let inode, let offset, let count): return "read \(inode) @\(offset) \(count)"
        case .readLink(let inode): return "readlink \(inode)"
        case .readDirectory(let inode, let step): return "readdir \(inode) by \(step)"
        case .readDirectoryPlus(let inode, let step): return "readdirplus \(inode) by \(step)"
        case .attributes(let inode): return "getattr \(inode)"
        case .setXattr(let inode, let name, let count, let seed, let flags):
            return "setxattr \(inode) \(Self.short(name)) \(count) seed \(seed) flags \(flags.rawValue)"
        case .xattr(let inode, let name): return "getxattr \(inode) \(Self.short(name))"
        case .xattrNames(let inode): return "listxattr \(inode)"
        case .removeXattr(let inode, let name): return "removexattr \(inode) \(Self.short(name))"
        case .setAccessList(let inode, let isDefault, let list):
            return "set \(isDefault ? "default" : "access") list \(inode) \(list)"
        case .removeAccessList(let inode, let isDefault):
            return "remove \(isDefault ? "default" : "access") list \(inode)"
        case .setFlags(let inode, let flags): return "chattr \(inode) 0x\(String(flags.rawValue, radix: 16))"
        case .access(let inode): return "access \(inode)"
        case .forget(let inode, let count): return "forget \(inode) \(count)"
        }
    }

    private static func short(_ name: String) -> String {
        name.utf8.count > 20 ? "\(name.prefix(8))…(\(name.utf8.count) bytes)" : name
    }

    private static func text(_ changes: AttributeChanges) -> String {
        var parts: [String] = []
        if let mode = changes.mode { parts.append("mode 0\(String(mode, radix: 8))") }
        if let uid = changes.uid { parts.append("uid \(uid)") }
        if let gid = changes.gid { parts.append("gid \(gid)") }
        if let size = changes.byteCount { parts.append("size \(size)") }
        if let accessed = changes.accessed { parts.append("atime \(accessed)") }
        if let modified = changes.modified { parts.append("mtime \(modified)") }
        return parts.joined(separator: " ")
    }
}

/// An entry of a directory, as both sides tell it.
struct ListedEntry: Equatable {
    var name: String
    var inode: UInt64
    var type: UInt32
    var attributes: ModelAttributes?
}

/// What an operation gave.
enum Outcome: Equatable {
    case done
    case attributes(ModelAttributes)
    case bytes([UInt8])
    case number(UInt64)
    case names([String])
    case entries([ListedEntry])
    case failed(Int32)
}

extension Outcome: CustomStringConvertible {
    var description: String {
        switch self {
        case .done: return "done"
        case .attributes(let attributes): return "\(attributes)"
        case .bytes(let bytes): return "\(bytes.count) bytes beginning \(bytes.prefix(16))"
        case .number(let number): return "\(number)"
        case .names(let names): return "\(names)"
        case .entries(let entries): return "\(entries.map { "\($0.name)=\($0.inode)" })"
        case .failed(let error): return "error \(error) (\(String(cString: strerror(error))))"
        }
    }

    /// Where two outcomes of bytes differ first.
    func difference(from other: Outcome) -> String {
        guard case .bytes(let mine) = self, case .bytes(let theirs) = other else { return "\(self), not \(other)" }
        if mine.count != theirs.count { return "\(mine.count) bytes, not \(theirs.count)" }
        let place = zip(mine, theirs).enumerated().first { $0.element.0 != $0.element.1 }?.offset ?? 0
        return "byte \(place) of \(mine.count) is \(mine[place]), not \(theirs[place])"
    }
}

extension ModelFileSystem {
    /// Runs an operation. `number`: what the other side says it made; `valueLimit`: its longest attribute value.
    mutating func run(_ operation: Operation, number: UInt64, caller: Caller, valueLimit: Int) -> Outcome {
        do throws(Errno) {
            return try perform(operation, number, caller, valueLimit)
        } catch { return .failed(error.rawValue) }
    }

    private mutating func perform(
        _ operation: Operation, _ number: UInt64, _ caller: Caller, _ limit: Int
    ) throws(Errno) -> Outcome {
        switch operation {
        case .lookup(let parent, let name): return .attributes(try lookup(parent, name))
        case .make(let parent, let name, let mode, let device, let target):
            return .attributes(
                try make(
                    parent, name, number: number, mode: mode, deviceNumber: device,
                    target: target.map { Array($0.utf8) },
                    caller: caller))
        case .makeUnnamed(let parent, let mode):
            return .attributes(try makeUnnamed(parent, number: number, mode: mode, caller: caller))
        case .link(let inode, let parent, let name): return .attributes(try link(inode, parent, name))
        case .unlink(let parent, let name): try unlink(parent, name)
        case .removeDirectory(let parent, let name): try removeDirectory(parent, name)
        case .rename(let parent, let name, let newParent, let newName, let flags):
            try rename(parent, name, newParent, newName, flags, number: number, caller: caller)
        case .setAttributes(let inode, let changes): return .attributes(try setAttributes(inode, changes, caller))
        case .write(let inode, let offset, let count, let seed):
            try write(inode, at: offset, Operation.bytes(count, seed: seed))
        case .allocate(let inode, let mode, let offset, let count):
            try allocate(inode, mode, at: offset, count)
        case .copyRange(let source, let from, let target, let to, let count):
            return .number(try copyRange(source, at: from, target, at: to, count))
        case .seek(let inode, let target, let offset): return .number(try seek(inode, target, from: offset))
        case .read(let inode, let offset, let count): return .bytes(try read(inode, at: offset, count))
        case .readLink(let inode): return .bytes(try readLink(inode))
        case .readDirectory(let inode, _): return .entries(try list(inode, withAttributes: false))
        case .readDirectoryPlus(let inode, _): return .entries(try list(inode, withAttributes: true))
        case .attributes(let inode): return .attributes(try attributes(inode))
        case .setXattr(let inode, let name, let count, let seed, let flags):
            try setXattr(inode, name, Operation.bytes(count, seed: seed), flags, limit: limit)
        case .xattr(let inode, let name): return .bytes(try xattr(inode, name))
        case .xattrNames(let inode): return .names(try xattrNames(inode))
        case .removeXattr(let inode, let name): try removeXattr(inode, name)
        case .setAccessList(let inode, let isDefault, let list): try setAccessList(inode, isDefault, list, caller)
        case .removeAccessList(let inode, let isDefault): try removeAccessList(inode, isDefault)
        case .setFlags(let inode, let flags): try setFlags(inode, flags)
        case .access(let inode): try noteAccess(inode)
        case .forget(let inode, let count): forget(inode, count)
        }
        return .done
    }

    /// A directory's entries by name; with attributes they count as looked up.
    private mutating func list(_ number: UInt64, withAttributes: Bool) throws(Errno) -> [ListedEntry] {
        let directory = try directory(number)
        var entries: [ListedEntry] = []
        for (name, inode) in directory.entries.sorted(by: { $0.key < $1.key }) {
            let found = try self.inode(inode)
            if withAttributes { raiseLookups(inode) }
            entries.append(
                ListedEntry(
                    name: name, inode: inode, type: found.type,
                    attributes: withAttributes ? found.attributes(inode) : nil))
        }
        return entries
    }
}
