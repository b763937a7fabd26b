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
        format.segmentByteCount = (arguments.size("segment-size") ?? environmentSize("segment-size")).map { Int($0) }
        if let size = format.segmentByteCount, size & (size - 1) != 0 {
            throw CommandError("--segment-size: \(ByteSize.text(UInt64(size))) is not a power of two")
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
            if state == .store || state == .incomplete || state == .unfinished {
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
        let readsData: Bool
        let rebuilds: Bool
        let path: String
        do throws(CommandError) {
            let arguments = try Arguments(typed, options)
            for later in ["repair", "new-uuid"] where arguments.has(later) {
                throw CommandError("--\(later): not in this version")
            }
            path = StoreDirectory.path(ofSource: try arguments.operands("STORE")[0])
            readsData = arguments.has("data")
            rebuilds = arguments.has("rebuild-index")
        } catch {
            throw CommandError(error.message, exitCode: 16)
        }
        do throws(CommandError) {
            return try check(path, readsData: readsData, rebuilds: rebuilds)
        } catch {
            throw CommandError(error.message, exitCode: 8)
        }
    }

    private static func check(_ path: String, readsData: Bool, rebuilds: Bool) throws(CommandError) -> Int32 {
        let store = try OpenStore(existing: path, DeviceOptions(readOnly: !rebuilds))
        defer { store.device.shutDown() }
        let report: CheckReport
        do throws(MountError) {
            if rebuilds {
                let count = try IndexRebuilder.rebuild(store.device) { print("\(path): \($0)") }
                print("\(path): the index was made anew from \(count) records")
            }
            report = try Checker.check(store.device, readsData: readsData)
        } catch {
            guard error.kind == .damaged else { throw CommandError("\(path): \(error)") }
            print("\(path): \(error)")
            return 4
        }
        for note in report.notes { print("\(path): \(note)") }
        for problem in report.problems { print("\(path): \(problem)") }
        let data = readsData ? ", \(report.dataBlockCount) pieces of data read" : ""
        let found =
            "\(report.inodeCount) inodes, \(report.entryCount) index entries, \(report.recordCount) records\(data)"
        print("\(path): \(report.isClean ? "clean" : "\(report.problems.count) errors"): \(found)")
        if !report.isClean { return 4 }
        return rebuilds ? 1 : 0
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
        let subjects = ["segment", "inode", "index", "superblock"].filter(arguments.has)
        guard subjects.count <= 1 else { throw CommandError("--segment, --inode, --index, --superblock: choose one") }
        let store = try OpenStore(existing: path, DeviceOptions(readOnly: true))
        defer { store.device.shutDown() }
        do throws(MountError) {
            if let number = arguments.number("segment") {
                try Dump.segment(store.device, UInt32(number)) { print($0) }
            } else if let number = arguments.number("inode") {
                try Dump.inode(store.device, UInt64(number)) { print($0) }
            } else if arguments.has("index") {
                try Dump.index(store.device) { print($0) }
            } else {
                try Dump.superblock(store.device) { print($0) }
            }
        } catch {
            throw CommandError("\(path): \(error)")
        }
        return 0
    }
}
