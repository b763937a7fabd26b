// `treering mount`: checks everything, locks the store, formats it if it is empty, and serves it until it is unmounted.

import Glibc

enum MountCommand {
    static let usage = """
        treering mount STORE MOUNTPOINT [-f] [-d] [--supervise] [-o OPTIONS]

        Mounts a store; one that is missing or empty is formatted first. The prompt is back when the mount is usable.
        Unmount with `fusermount3 -u MOUNTPOINT`.

          -f           stay in the foreground, log to stderr
          -d           log every request (implies -f)
          --supervise  start the serving process again should it die (as -o supervise)
          -o OPTIONS   options of the table below and those of mount(8), separated by commas; \\, is a comma in a value

        Each option is also an environment variable: TREERING_ENGINE=posix. The command line wins.
        """

    static func run(_ typed: [HostString]) throws(CommandError) -> Int32 {
        // mount.treering -s asks with this which words it must leave out.
        if typed.count == 2 && typed[0] == "--understands" { return MountOptions.understands(typed[1]) ? 0 : 1 }
        let arguments = try Arguments(
            typed, [CommandOption("supervise", .flag, "", "")], letters: "fdrw", takesMountOptions: true)
        var words = arguments.mountWords
        if arguments.letters.contains("r") { words.append("ro") }
        if arguments.letters.contains("w") { words.append("rw") }
        if arguments.has("supervise") { words.append("supervise") }
        var options = try MountOptions(words: words)
        let names = try arguments.operands("STORE", "MOUNTPOINT")
        if options.isRemount { return try Remount.run(names[1], words) }
        let plan = try MountPlan(source: names[0], mountPoint: names[1], isReadOnly: options.flags.isReadOnly)
        options.fuse.isDebug = arguments.letters.contains("d")
        if options.fuse.fsname.isEmpty { options.fuse.fsname = names[0] }
        let isForeground = arguments.letters.contains("f") || options.fuse.isDebug
        let daemon = isForeground ? nil : try Daemon.fork()
        let log = CommandLog(isForeground: isForeground, isDebug: options.fuse.isDebug)
        let code =
            options.isSupervised
            ? supervise(plan, options, log, daemon)
            : serve(plan, options, log) {
                log.detach()
                daemon?.succeed()
            }
        daemon?.fail(code)
        return code
    }

    /// Serves in a child process, which is replaced when it dies.
    private static func supervise(
        _ plan: MountPlan, _ options: MountOptions, _ log: CommandLog, _ daemon: Daemon?
    ) -> Int32 {
        let supervisor = Supervisor(source: plan.source, mountPoint: plan.mountPoint, log: log.sink) {
            log.detach()
            daemon?.succeed()
        } serve: { start, connection, sender in
            daemon?.leaveTellingToParent()
            var plan = plan
            var options = options
            options.volume.connection = connection?.state
            // A later process makes no directory, and removes nothing on failure.
            if !start.isFirst { plan.state = .store }
            if start.hasBecomeWritable { options.setReadOnly(false) }
            return serve(plan, options, log, handover: connection.map { ($0, sender) }) {
                log.detach()
                if daemon != nil { Daemon.leaveTerminal() }
                sender.sendReady()
            }
        }
        return supervisor.run()
    }

    /// Runs in the serving process. Gives the exit code; errors were printed.
    private static func serve(
        _ plan: MountPlan, _ options: MountOptions, _ log: CommandLog,
        handover: (connection: HeldConnection, sender: HandoverSender)? = nil, onReady: () -> Void
    ) -> Int32 {
        MountService.prepareSignals()
        FuseLog.send(to: log.sink)
        do throws(CommandError) {
            try ProcessLimits.checkMemory(options)
            var (store, volume) = try open(plan, options, log.sink)
            // This gives up the lock. It must come last, when nothing of this process can touch the store any more.
            defer { store.device.shutDown() }
            let service = MountService(
                volume, options.fuse, mountPoint: plan.mountPoint, log: log.sink, handover: handover
            ) { isReadOnly throws(CommandError) in
                var options = options
                options.setReadOnly(isReadOnly)
                store.device.shutDown()
                store = try OpenStore(store.path, store.lock, options.engine, options.device)
                return try store.mount(options.volume, log.sink)
            }
            return try service.run {
                log.sink.info("\(plan.source) is mounted on \(plan.mountPoint)")
                onReady()
            }
        } catch {
            StandardError.print("treering: " + error.message)
            log.sink.error(error.message)
            return error.exitCode
        }
    }

    /// Locks the store and opens its volume; formats it first if it is empty. On failure removes what it created.
    private static func open(
        _ plan: MountPlan, _ options: MountOptions, _ log: LogSink
    ) throws(CommandError) -> (OpenStore, HostVolume) {
        let isNew = plan.state != .store
        var locked: (lock: StoreLock, wasEmpty: Bool)?
        var opened: OpenStore?
        do throws(CommandError) {
            if isNew { try OpenStore.makeDirectory(plan.store) }
            let lock = try StoreLock(plan.store)
            // Another process may have formatted it meanwhile.
            let state = try StoreDirectory.state(plan.store)
            let isEmpty = state == .empty || state == .unfinished
            if state == .unfinished {
                log.notice("\(plan.source): an interrupted format is begun again")
                StoreDirectory.clear(plan.store, andDirectory: false)
                try OpenStore.makeDirectory(plan.store)
            }
            locked = (lock, isEmpty)
            let store = try OpenStore(plan.store, lock, options.engine, options.device)
            opened = store
            log.notice(store.device.sentence)
            for warning in ProcessLimits.warnings(store.device.files) { log.warning("\(plan.source): \(warning)") }
            if isEmpty {
                try store.format(options.format)
                log.notice("\(plan.source) was formatted")
            }
            if !options.volume.isReadOnly { try store.endFormat() }
            return (store, try store.mount(options.volume, log))
        } catch {
            opened?.device.shutDown()
            if isNew, let locked, locked.wasEmpty {
                StoreDirectory.clear(plan.store, andDirectory: plan.state == .missing)
            }
            throw CommandError(error.message, exitCode: error.exitCode == 1 ? 32 : error.exitCode)
        }
    }
}

/// A store that this process has locked and opened.
struct OpenStore {
    let path: HostString
    let lock: StoreLock
    let device: HostDevice

    /// Makes the directory of a new store.
    static func makeDirectory(_ path: HostString) throws(CommandError) {
        do throws(Errno) { try HostDevice.create(directory: path) } catch {
            throw CommandError("\(path): the directory of the store cannot be made: \(error)")
        }
    }

    /// Locks a directory that must be a store, and opens its device. With `salvages`, the file `superblock` may be
    /// missing.
    init(existing path: HostString, _ options: DeviceOptions, salvages: Bool = false) throws(CommandError) {
        switch try StoreDirectory.state(path) {
        case .store: break
        case .incomplete where salvages: break
        case .missing: throw CommandError("\(path): there is no such directory")
        default: throw CommandError("\(path): is not a Treering store (it has no superblock)")
        }
        try self.init(path, try StoreLock(path), .posix, options)
    }

    /// Opens the device of a directory that this process has locked.
    init(_ path: HostString, _ lock: StoreLock, _ engine: EngineChoice, _ options: DeviceOptions) throws(CommandError) {
        if !options.readOnly { try ProcessLimits.checkFileSize() }
        self.path = path
        self.lock = lock
        var options = options
        options.lockDescriptor = lock.descriptor
        do throws(DeviceError) {
            device = try HostDevice.open(directory: path, engine: engine, options: options)
        } catch {
            throw CommandError(error.description)
        }
    }

    func format(_ options: FormatOptions) throws(CommandError) {
        // The root directory belongs to the user who formats.
        var options = options
        options.uid = geteuid()
        options.gid = getegid()
        do throws(Errno) { try StoreDirectory.beginFormat(path) } catch {
            throw CommandError("\(path): cannot be formatted: \(error)")
        }
        do throws(MountError) { try HostVolume.format(device, options) } catch {
            throw CommandError("\(path): cannot be formatted: \(error)")
        }
        try endFormat()
    }

    func endFormat() throws(CommandError) {
        do throws(Errno) { try StoreDirectory.endFormat(path) } catch {
            throw CommandError("\(path)/formatting: cannot be removed: \(error)")
        }
    }

    func mount(_ options: VolumeOptions, _ log: LogSink) throws(CommandError) -> HostVolume {
        do throws(MountError) { return try HostVolume.mount(device, options, directory: path, log: log) } catch {
            let advice = error.isShortage && !options.isReadOnly ? ". Reading needs no room: mount it with -o ro" : ""
            throw CommandError("\(path): cannot be mounted: \(error)\(advice)")
        }
    }
}
