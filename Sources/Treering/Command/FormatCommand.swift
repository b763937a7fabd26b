// `treering format`: makes an empty store.

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
