// `treering dump`: shows what lies on disk.

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
