// Draws operations from a seed, over what the model says is there: mostly sensible, sometimes not.

import Glibc

@testable import Treering

struct OperationGenerator {
    private var random: SimulatedRandom
    /// A file that gets many small writes for a while: apart from each other, or line by line with other operations between.
    private var strided: (inode: UInt64, left: Int, offset: UInt64, isLog: Bool)?
    /// Above this many inodes it rather removes.
    var inodeTarget = 60
    /// Removes whatever it can.
    var isPurging = false
    let writeLimit: Int

    init(seed: UInt64, writeLimit: Int) {
        random = SimulatedRandom(seed: seed)
        self.writeLimit = writeLimit
    }

    mutating func below(_ limit: Int) -> Int { Int(random.next() % UInt64(max(1, limit))) }
    mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
    mutating func seed() -> UInt64 { random.next() }
    private mutating func pick<C: RandomAccessCollection>(_ items: C) -> C.Element where C.Index == Int {
        items[items.startIndex + below(items.count)]
    }

    private static let longName = String(repeating: "long", count: 63) + "end"
    private static let namePool: [String] =
        (0..<24).map { "n\($0)" } + [longName, "ä ö ü", "with space", ".hidden", longName + "x"]
    private static let xattrPool = [
        "user.a", "user.b", "user.long" + String(repeating: "x", count: 240), "security.capability",
    ]

    // MARK: Choosing

    /// All inodes in a fixed order, so that the same seed gives the same run.
    private func numbers(_ model: ModelFileSystem, where fits: (ModelInode) -> Bool) -> [UInt64] {
        model.inodes.filter { fits($0.value) }.keys.sorted()
    }

    private mutating func directory(_ model: ModelFileSystem) -> UInt64 {
        if chance(2), let any = numbers(model, where: { _ in true }).randomElement(using: &random) { return any }
        return pick(numbers(model) { $0.isDirectory })
    }

    private mutating func file(_ model: ModelFileSystem) -> UInt64 {
        let files = numbers(model) { $0.isRegular }
        return files.isEmpty || chance(2) ? any(model) : pick(files)
    }

    private mutating func any(_ model: ModelFileSystem) -> UInt64 { pick(numbers(model) { _ in true }) }

    private mutating func name() -> String { pick(Self.namePool) }

    /// Mostly one that is there.
    private mutating func existing(_ model: ModelFileSystem, _ directory: UInt64) -> String {
        let names = (model.inodes[directory]?.entries.keys).map { $0.sorted() } ?? []
        return names.isEmpty || chance(10) ? name() : pick(names)
    }

    private mutating func byteCount() -> Int {
        switch below(10) {
        case 0...3: return 1 + below(300)
        case 4...6: return 1 + below(9000)
        case 7: return 4096 * (1 + below(4))
        case 8: return 3070 + below(5)
        default: return 1 + below(writeLimit)
        }
    }

    private mutating func offset(_ model: ModelFileSystem, _ inode: UInt64) -> UInt64 {
        let size = model.inodes[inode]?.byteCount ?? 0
        switch below(12) {
        case 0...3: return size < 2 << 20 ? size : 0
        case 4...7: return UInt64(below(Int(min(size, 1 << 20)) + 1))
        case 8: return UInt64(below(64)) * 4096
        case 9: return UInt64(below(1 << 20))
        case 10: return chance(5) ? ModelFileSystem.sizeLimit - UInt64(below(10_000)) : UInt64(below(300_000))
        default: return chance(5) ? 1 << 40 + UInt64(below(100_000)) : 0
        }
    }

    // MARK: Drawing

    mutating func next(_ model: ModelFileSystem) -> Operation {
        if let burst = nextStrided(model) { return burst }
        if isPurging, let removal = purge(model) { return removal }
        let isCrowded = model.inodes.count > inodeTarget
        switch below(100) {
        case 0...12: return isCrowded ? remove(model) : make(model)
        case 13...20: return remove(model)
        case 21...24:
            let directory = directory(model)
            return .link(any(model), directory, name())
        case 25...31: return rename(model)
        case 32...48: return write(model)
        case 49...54: return range(model)
        case 55...60: return truncateOrSet(model)
        case 61...70: return read(model)
        case 71...77: return xattr(model)
        case 78...80: return access(model)
        case 81...86:
            let directory = directory(model)
            return .lookup(directory, existing(model, directory))
        case 87...89: return .readDirectory(directory(model), step: 1 + below(10))
        case 90...91: return .readDirectoryPlus(directory(model), step: 1 + below(10))
        case 92: return .readLink(any(model))
        case 93: return .attributes(any(model))
        case 94...96: return range(model)
        default: return forget(model)
        }
    }

    private mutating func nextStrided(_ model: ModelFileSystem) -> Operation? {
        if var burst = strided, model.inodes[burst.inode]?.isRegular == true {
            if burst.isLog, chance(30) { return nil }
            burst.left -= 1
            if !burst.isLog { burst.offset += 500 }
            let write = Operation.write(burst.inode, offset: burst.offset, byteCount: 1 + below(200), seed: seed())
            if burst.isLog, case .write(_, _, let byteCount, _) = write {
                burst.offset += UInt64(byteCount)
                // Some of it is written again.
                if chance(10) { burst.offset -= min(burst.offset, UInt64(below(500))) }
            }
            strided = burst.left > 0 ? burst : nil
            return write
        }
        strided = nil
        if below(300) == 0, !isPurging {
            strided = (file(model), 40 + below(160), UInt64(below(10_000)), isLog: chance(60))
        }
        return nil
    }

    private mutating func make(_ model: ModelFileSystem) -> Operation {
        let parent = directory(model)
        let mode = UInt32(below(0o1000)) | (chance(10) ? 0o4000 : 0)
        switch below(10) {
        case 0...1:
            return .make(
                parent, name(), mode: 0o040000 | mode | (chance(20) ? 0o2000 : 0), deviceNumber: 0, target: nil)
        case 2:
            let target = String(repeating: "t", count: pick([1, 10, 100, 3000, 4095]))
            return .make(parent, name(), mode: 0o120777, deviceNumber: 0, target: target)
        case 3: return .make(parent, name(), mode: 0o010000 | mode, deviceNumber: 0, target: nil)
        case 4: return .make(parent, name(), mode: 0o020000 | mode, deviceNumber: UInt32(below(1 << 20)), target: nil)
        case 5: return .makeUnnamed(parent, mode: mode)
        default: return .make(parent, name(), mode: 0o100000 | mode, deviceNumber: 0, target: nil)
        }
    }

    /// Access control lists, flags of chattr(1), and reads that were seen.
    private mutating func access(_ model: ModelFileSystem) -> Operation {
        // What is sealed does not stay so for long.
        if let sealed = numbers(model, where: { $0.isSealed }).first, chance(50) { return .setFlags(sealed, []) }
        let isDefault = chance(40)
        let inode = isDefault ? directory(model) : any(model)
        switch below(10) {
        case 0...3:
            let count = pick([3, 4, 5, 7])
            return .setAccessList(inode, isDefault: isDefault, (0..<count).map { _ in UInt16(below(8)) })
        case 4...5: return .removeAccessList(inode, isDefault: isDefault)
        case 6...7: return .access(any(model))
        default:
            let flags: [InodeFlags] = [[], .noDump, .noAccessTime, [.noDump, .noAccessTime], .immutable, .appendOnly]
            return .setFlags(any(model), pick(flags))
        }
    }

    private mutating func remove(_ model: ModelFileSystem) -> Operation {
        let parent = directory(model)
        let name = existing(model, parent)
        let isDirectory = model.inodes[parent]?.entries[name].flatMap { model.inodes[$0]?.isDirectory } ?? chance(50)
        return isDirectory != chance(5) ? .removeDirectory(parent, name) : .unlink(parent, name)
    }

    private mutating func purge(_ model: ModelFileSystem) -> Operation? {
        if let sealed = numbers(model, where: { $0.isSealed }).first { return .setFlags(sealed, []) }
        if chance(20), let known = model.lookups.keys.sorted().randomElement(using: &random) {
            return .forget(known, model.lookups[known]!)
        }
        let full = numbers(model) { $0.isDirectory && !$0.entries.isEmpty }
        guard !full.isEmpty else {
            guard let known = model.lookups.keys.min() else { return nil }
            return .forget(known, model.lookups[known]!)
        }
        let parent = pick(full)
        let name = pick(model.inodes[parent]!.entries.keys.sorted())
        let child = model.inodes[parent]!.entries[name]!
        return model.inodes[child]!.isDirectory ? .removeDirectory(parent, name) : .unlink(parent, name)
    }

    /// A rename that the kernel would let through: never a directory into itself, never exchanged with what is above it.
    private mutating func rename(_ model: ModelFileSystem) -> Operation {
        let from = directory(model)
        let name = existing(model, from)
        let to = chance(40) ? from : directory(model)
        let newName = chance(50) ? existing(model, to) : self.name()
        var flags = RenameFlags()
        if chance(20) { flags = chance(50) ? .noReplace : .exchange }
        if chance(10), !flags.contains(.exchange) { flags.insert(.whiteout) }
        if let moved = model.inodes[from]?.entries[name], model.inodes[moved]?.isDirectory == true,
            model.isBelow(to, moved)
        {
            return .lookup(from, name)
        }
        if let other = model.inodes[to]?.entries[newName], model.inodes[other]?.isDirectory == true,
            model.isBelow(from, other)
        {
            return .lookup(to, newName)
        }
        return .rename(from, name, to, newName, flags)
    }

    private mutating func write(_ model: ModelFileSystem) -> Operation {
        let inode = file(model)
        return .write(inode, offset: offset(model, inode), byteCount: byteCount(), seed: seed())
    }

    /// fallocate, copy_file_range, lseek.
    private mutating func range(_ model: ModelFileSystem) -> Operation {
        let inode = file(model)
        let offset = chance(50) ? offset(model, inode) / 4096 * 4096 : offset(model, inode)
        let count = UInt64(chance(30) ? 4096 * (1 + below(6)) : chance(3) ? 0 : 1 + below(30_000))
        switch below(10) {
        case 0...2:
            let modes: [AllocateMode] = [[], .keepsSize, .punchesHole, .zeroes, [.zeroes, .keepsSize]]
            return .allocate(
                inode, chance(96) ? pick(modes) : [.zeroes, .punchesHole], offset: offset, byteCount: count)
        case 3...4: return .allocate(inode, [.punchesHole, .keepsSize], offset: offset, byteCount: count)
        case 5...7:
            let target = chance(30) ? inode : file(model)
            let to = chance(30) ? self.offset(model, target) / 4096 * 4096 : self.offset(model, target)
            return .copyRange(inode, from: offset, target, to: to, byteCount: count)
        default: return .seek(inode, chance(50) ? .data : .hole, from: offset)
        }
    }

    private mutating func read(_ model: ModelFileSystem) -> Operation {
        let inode = file(model)
        return .read(inode, offset: offset(model, inode), byteCount: chance(20) ? 1 << 17 : byteCount())
    }

    private mutating func truncateOrSet(_ model: ModelFileSystem) -> Operation {
        var changes = AttributeChanges()
        if chance(60) {
            let inode = file(model)
            changes.byteCount = chance(30) ? 0 : offset(model, inode)
            changes.killsPrivileges = chance(20)
            if chance(5) { changes.byteCount = ModelFileSystem.sizeLimit + UInt64(below(2)) }
            return .setAttributes(inode, changes)
        }
        changes.killsPrivileges = chance(20)
        if chance(40) { changes.mode = UInt32(below(0o10000)) }
        if chance(30) { changes.uid = UInt32(below(2000)) }
        if chance(30) { changes.gid = UInt32(below(2000)) }
        if chance(30) {
            changes.accessed = .at(
                Timestamp(seconds: Int64(below(1 << 40)) - 1 << 39, nanoseconds: UInt32(below(1_000_000_000))))
        }
        if chance(30) { changes.modified = chance(50) ? .now : .at(Timestamp(seconds: -1, nanoseconds: 999_999_999)) }
        return .setAttributes(any(model), changes)
    }

    private mutating func xattr(_ model: ModelFileSystem) -> Operation {
        let inode = any(model)
        let name = pick(Self.xattrPool)
        switch below(10) {
        case 0...4:
            let sizes = [0, 1, 20, 1023, 1024, 1025, 3072, 3073, 5000, 65_536]
            let count = chance(2) ? 65_537 : pick(sizes)
            let flags = chance(70) ? SetXattrFlags() : chance(50) ? .create : .replace
            return .setXattr(inode, name, byteCount: count, seed: seed(), flags)
        case 5...6: return .xattr(inode, name)
        case 7: return .xattrNames(inode)
        default: return .removeXattr(inode, name)
        }
    }

    private mutating func forget(_ model: ModelFileSystem) -> Operation {
        guard let inode = model.lookups.keys.sorted().randomElement(using: &random) else {
            return .attributes(any(model))
        }
        let known = model.lookups[inode]!
        return .forget(inode, chance(70) ? known : 1 + UInt64(below(Int(known))))
    }
}
