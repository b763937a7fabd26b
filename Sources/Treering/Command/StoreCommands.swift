// Commands on a store that is not mounted: format, check, dump.

import Glibc

enum FormatCommand {
    static let options = [
        CommandOption("capacity", .size(64 << 20...1 << 50), "the host's free space", "how much the store may hold"),
        CommandOption("segment-size", .size(1 << 20...64 << 20), "from the capacity", "a power of two"),
        CommandOption("force", .flag, "", "replace a store that is there; its files are lost"),
    ]
    static let usage = """
        treering format STORE [--capacity SIZE] [--segment-size SIZE] [--force]

        Makes an empty store in a directory that is new or empty. Other people's files are never touched.
        """

    static func run(_ typed: [String]) throws(CommandError) -> Int32 {
        let arguments = try Arguments(typed, options)
        let source = try arguments.operands("STORE")[0]
        let path = StoreDirectory.path(ofSource: source)
        var format = FormatOptions()
        format.capacityByteCount = arguments.size("capacity") ?? environmentSize("capacity")
        format.segmentByteCount = arguments.size("segment-size") ?? environmentSize("segment-size")
        if let size = format.segmentByteCount, size & (size - 1) != 0 {
            throw CommandError("--segment-size: \(ByteSize.text(size)) is not a power of two")
        }
        let state = try StoreDirectory.state(path)
        switch state {
        case .foreign(let names): throw StoreDirectory.refusal(path, names)
        case .store where !arguments.has("force"):
            throw CommandError("\(path): is a store already; --force replaces it and deletes its files")
        case .incomplete where !arguments.has("force"):
            throw CommandError("\(path): holds parts of a store; --force deletes them")
        default: break
        }
        var lock: StoreLock?
        do throws(CommandError) {
            try OpenStore.makeDirectory(path)
            let taken = try StoreLock(path)
            lock = taken
            if state == .store || state == .incomplete {
                StoreDirectory.clear(path, andDirectory: false)
                try OpenStore.makeDirectory(path)
            }
            let store = try OpenStore(path, taken, .posix, DeviceOptions())
            defer { store.device.shutDown() }
            try store.format(format)
        } catch {
            if lock != nil { StoreDirectory.clear(path, andDirectory: state == .missing) }
            throw error
        }
        return 0
    }

    private static func environmentSize(_ name: String) -> UInt64? {
        let option = options.first { $0.name == name }!
        guard let variable = option.environmentName, let text = getenv(variable) else { return nil }
        return ByteSize.parse(String(cString: text))
    }
}

enum CheckCommand {
    static let options = [
        CommandOption("data", .flag, "", "read and verify every byte, not only what names it"),
        CommandOption("rebuild-index", .flag, "", "write the index anew from the segments"),
        CommandOption("repair", .flag, "", "not in this version"),
        CommandOption("new-uuid", .flag, "", "not in this version"),
    ]
    static let usage = """
        treering check STORE [--data] [--rebuild-index]

        Checks a store that is not mounted. Exit codes as fsck(8): 0 no errors, 1 errors corrected, 4 errors left,
        8 the check could not be made, 16 wrong usage.
        """

    static func run(_ typed: [String]) throws(CommandError) -> Int32 {
        let checks: Checker.Options
        let path: String
        do throws(CommandError) {
            let arguments = try Arguments(typed, options)
            for later in ["repair", "new-uuid"] where arguments.has(later) {
                throw CommandError("--\(later): not in this version")
            }
            path = StoreDirectory.path(ofSource: try arguments.operands("STORE")[0])
            checks = Checker.Options(
                verifiesData: arguments.has("data"), rebuildsIndex: arguments.has("rebuild-index"),
                isReadOnly: !arguments.has("rebuild-index"))
        } catch {
            throw CommandError(error.message, exitCode: 16)
        }
        do throws(CommandError) {
            return try check(path, checks)
        } catch {
            throw CommandError(error.message, exitCode: 8)
        }
    }

    private static func check(_ path: String, _ checks: Checker.Options) throws(CommandError) -> Int32 {
        let device = DeviceOptions(readOnly: checks.isReadOnly)
        let store = try OpenStore(existing: path, device)
        defer { store.device.shutDown() }
        let outcome: Checker.Outcome
        do throws(MountError) {
            outcome = try Checker.check(store.device, checks) { print($0) }
        } catch {
            throw CommandError("\(path): \(error)")
        }
        let left = outcome.damageCount - outcome.repairedCount
        print("\(path): " + (outcome.damageCount == 0 ? "clean" : "\(outcome.damageCount) errors, \(left) left"))
        if left > 0 { return 4 }
        return outcome.repairedCount > 0 ? 1 : 0
    }
}

enum DumpCommand {
    static let options = [
        CommandOption("segment", .number(0...Int(UInt32.max)), "", "one segment's header, batches and records"),
        CommandOption("inode", .number(1...Int.max), "", "everything about one inode"),
        CommandOption("index", .flag, "", "every entry of the index"),
        CommandOption("superblock", .flag, "", "both slots of the superblock"),
    ]
    static let usage = """
        treering dump STORE [--segment N | --inode N | --index | --superblock]

        Shows a store's structures as text. The store may not be mounted.
        """

    static func run(_ typed: [String]) throws(CommandError) -> Int32 {
        let arguments = try Arguments(typed, options)
        let path = StoreDirectory.path(ofSource: try arguments.operands("STORE")[0])
        var subjects: [Dump.Subject] = []
        if let number = arguments.number("segment") { subjects.append(.segment(SegmentNumber(UInt32(number)))) }
        if let number = arguments.number("inode") { subjects.append(.inode(InodeNumber(UInt64(number)))) }
        if arguments.has("index") { subjects.append(.index) }
        if arguments.has("superblock") { subjects.append(.superblock) }
        guard subjects.count <= 1 else { throw CommandError("--segment, --inode, --index, --superblock: choose one") }
        let store = try OpenStore(existing: path, DeviceOptions(readOnly: true))
        defer { store.device.shutDown() }
        do throws(MountError) {
            try Dump.dump(store.device, subjects.first ?? .all) { print($0) }
        } catch {
            throw CommandError("\(path): \(error)")
        }
        return 0
    }
}
