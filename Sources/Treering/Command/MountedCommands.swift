// Commands that talk to a running mount through its file system: stats, sync, clean. And probe, which asks the kernel.

import CLinux
import Glibc

enum StatsCommand {
    static let options = [
        CommandOption("json", .flag, "", "as JSON"),
        CommandOption("prometheus", .flag, "", "as Prometheus reads it"),
        CommandOption("watch", .flag, "", "again every second"),
    ]
    static let usage = """
        treering stats MOUNTPOINT|STORE [--json|--prometheus] [--watch]

        Shows what a mount has done and how its store is filled; of a store that is not mounted, the latter.
        """

    static func run(_ typed: [HostString]) throws(CommandError) -> Int32 {
        let arguments = try Arguments(typed, options)
        if arguments.has("json") && arguments.has("prometheus") {
            throw CommandError("--json, --prometheus: choose one")
        }
        let target = try arguments.operands("MOUNTPOINT or STORE")[0]
        while true {
            let text = try text(of: target, isPrometheus: arguments.has("prometheus"))
            let isRaw = arguments.has("json") || arguments.has("prometheus")
            let shown = isRaw ? text : JSONLines.lines(text).joined(separator: "\n")
            print(shown.hasSuffix("\n") ? String(shown.dropLast()) : shown)
            guard arguments.has("watch") else { return 0 }
            print("")
            fflush(nil)
            sleep(1)
        }
    }

    private static func text(of target: HostString, isPrometheus: Bool) throws(CommandError) -> String {
        if let mountPoint = try? MountedStore.mountPoint(target) {
            let name = isPrometheus ? VirtualXattr.statisticsPrometheus : VirtualXattr.statistics
            return try MountedStore.attribute(name, of: mountPoint)
        }
        let path = StoreDirectory.path(ofSource: target)
        guard try StoreDirectory.state(path) == .store else {
            throw CommandError("\(target): is neither a mounted Treering store nor a store")
        }
        let store = try OpenStore(existing: path, DeviceOptions(readOnly: true))
        defer { store.device.shutDown() }
        do throws(MountError) {
            let figures = try HostVolume.offlineFigures(store.device)
            return isPrometheus ? figures.prometheus : figures.json
        } catch {
            throw CommandError("\(target): \(error)")
        }
    }
}

enum SyncCommand {
    static let usage = """
        treering sync MOUNTPOINT

        Returns when everything that was acknowledged so far is on disk. sync(1) does not do that: the kernel does not
        pass it on.
        """

    static func run(_ typed: [HostString]) throws(CommandError) -> Int32 {
        let target = try Arguments(typed, []).operands("MOUNTPOINT")[0]
        let mountPoint = try MountedStore.mountPoint(target)
        do throws(Errno) { try MountedStore.makeDurable(mountPoint) } catch {
            throw CommandError("\(target): could not be made durable: \(error)")
        }
        return 0
    }
}

enum CleanCommand {
    static let usage = """
        treering clean MOUNTPOINT

        Empties segments that hold much that is dead and gives free ones back to the host, as fstrim(8) does, and says how much. A mount
        does so by itself when it is idle or short of space.
        """

    static func run(_ typed: [HostString]) throws(CommandError) -> Int32 {
        let target = try Arguments(typed, []).operands("MOUNTPOINT")[0]
        let descriptor = try MountedStore.open(target)
        defer { close(descriptor) }
        var range: (start: UInt64, length: UInt64, least: UInt64) = (0, .max, 0)
        guard ioctl(descriptor, UInt(Control.trim), &range) == 0 else { throw CommandError("\(target): \(Errno.last)") }
        print("\(target): \(range.length >> 20) MiB came free on the host")
        return 0
    }
}

/// A store that some process serves.
enum MountedStore {
    /// The real path of a mount of ours.
    static func mountPoint(_ typed: HostString) throws(CommandError) -> HostString {
        let real: HostString
        do throws(Errno) { real = try typed.realPath() } catch { throw CommandError("\(typed): \(error)") }
        guard let mounted = MountTable.mount(at: real), mounted.isTreering else {
            throw CommandError("\(typed): no Treering store is mounted there")
        }
        return real
    }

    /// A descriptor of the root of a mount of ours.
    static func open(_ typed: HostString) throws(CommandError) -> Int32 {
        let descriptor = try mountPoint(typed).openDirectory()
        guard descriptor >= 0 else { throw CommandError("\(typed): \(Errno.last)") }
        return descriptor
    }

    /// Returns when everything that was acknowledged is on disk.
    static func makeDurable(_ mountPoint: HostString) throws(Errno) {
        let descriptor = mountPoint.openDirectory()
        guard descriptor >= 0 else { throw .last }
        defer { close(descriptor) }
        // What the kernel holds in its own cache goes first.
        guard syncfs(descriptor) == 0, fsync(descriptor) == 0 else { throw .last }
    }

    /// The value of an extended attribute of the root.
    static func attribute(_ name: String, of mountPoint: HostString) throws(CommandError) -> String {
        do throws(Errno) {
            return String(decoding: try mountPoint.attribute(name), as: UTF8.self)
        } catch { throw CommandError("\(mountPoint): \(error)") }
    }
}

enum ProbeCommand {
    static let usage = """
        treering probe [DIRECTORY]

        What this kernel offers, what the DIRECTORY's file system does, and what `auto` would choose.
        """

    static func run(_ typed: [HostString]) throws(CommandError) -> Int32 {
        let arguments = try Arguments(typed, [])
        guard arguments.operands.count <= 1 else {
            throw CommandError("'\(arguments.operands[1])': one argument too many")
        }
        let probe = EngineProbe(directory: arguments.operands.first)
        for line in probe.lines { print(line) }
        print("libfuse: \(FuseLibrary.version)")
        print("/dev/fuse: \(deviceState())")
        print(
            "fusermount3: \(HostFile.executable("fusermount3")?.description ?? "not installed (only root can mount)")")
        let switchText = HostString("/sys/module/fuse/parameters/enable_uring").text()
        let isOn = switchText?.hasPrefix("Y") ?? false
        let overRing = switchText == nil ? "not in this kernel" : isOn ? "enabled" : "off (fuse.enable_uring=N)"
        print("FUSE over io_uring: \(overRing)")
        print("transport=auto chooses: classic (uring is not in this version)")
        return 0
    }

    private static func deviceState() -> String {
        let descriptor = HostString("/dev/fuse").open(O_RDWR)
        guard descriptor >= 0 else { return "cannot be opened: \(Errno.last)" }
        close(descriptor)
        return "usable"
    }
}
