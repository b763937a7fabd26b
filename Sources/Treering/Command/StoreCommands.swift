// Commands on a store that is not mounted: format, dump. CheckCommand and ExportCommand have their own files.

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

    static func run(_ typed: [HostString]) throws(CommandError) -> Int32 {
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
        guard let variable = option.environmentName, let text = HostString.environment(variable) else { return nil }
        return ByteSize.parse(text.description)
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

    static func run(_ typed: [HostString]) throws(CommandError) -> Int32 {
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
