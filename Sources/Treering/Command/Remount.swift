// `mount -o remount`: changes the kernel's flags of a mount; all else stays. But a read-only mount that shall become
// writable opens its store anew: its serving process has not recovered the store, it only reads it.

import Glibc

enum Remount {
    static func run(_ typed: HostString, _ words: [HostString]) throws(CommandError) -> Int32 {
        let mountPoint: HostString
        do throws(Errno) { mountPoint = try typed.realPath() } catch {
            throw CommandError("\(typed): \(error)")
        }
        guard let mounted = MountTable.mount(at: mountPoint), mounted.isTreering else {
            throw CommandError(
                "\(typed): no Treering store is mounted there, so there is nothing to remount", exitCode: 32)
        }
        var options = try MountOptions(words: flagWords(of: mounted).map { HostString($0) } + words)
        // Not among `flagWords`: for a new mount, the word `sync` would also choose `ack`.
        if mounted.words.contains("sync"), !words.contains("async") { options.flags.isSynchronous = true }
        // An older version does not tell its options, so they are not compared.
        if let text = try? MountedStore.attribute(VirtualXattr.options, of: mountPoint),
            let word = try options.firstDifference(from: text)
        {
            throw CommandError(
                "\(typed): \(word): cannot be changed by a remount; unmount it and mount it again", exitCode: 32)
        }
        // Changing only the kernel's flag would promise writes that the serving process refuses.
        if !options.flags.isReadOnly, try MountedStore.attribute(VirtualXattr.readOnly, of: mountPoint) == "1",
            try !becomeWritable(mountPoint)
        {
            return try mountAnew(mounted, words)
        }
        do throws(Errno) {
            try mountPoint.remount(mounted.source, mounted.type, options.flags.bits)
        } catch {
            throw CommandError("\(typed): cannot be remounted: \(error)", exitCode: 32)
        }
        if options.flags.isReadOnly {
            // As with a kernel's own file system, what was written before must be durable now. The kernel has written
            // back its cache, and will not ask for a sync any more.
            do throws(Errno) { try MountedStore.makeDurable(mountPoint) } catch {
                throw CommandError(
                    "\(typed): is read-only now, but what was written before could not be made durable: \(error)",
                    exitCode: 32)
            }
        }
        return 0
    }

    /// Has the serving process open the store for writing. False if the store must be mounted anew for that: it would
    /// show something else then, or the serving process is of an older version.
    private static func becomeWritable(_ mountPoint: HostString) throws(CommandError) -> Bool {
        let descriptor = mountPoint.openDirectory()
        guard descriptor >= 0 else { throw CommandError("\(mountPoint): \(Errno.last)", exitCode: 32) }
        defer { close(descriptor) }
        var reason = [CChar](repeating: 0, count: 512)
        guard ioctl(descriptor, UInt(Control.becomeWritable), &reason) == 0 else {
            if errno == EBUSY || errno == ENOTTY || errno == EROFS { return false }
            throw CommandError("\(mountPoint): cannot become writable: \(Errno.last)", exitCode: 32)
        }
        if reason[0] == 0 { return true }
        throw CommandError(
            "\(mountPoint): cannot become writable: \(HostString(cString: &reason).description)", exitCode: 32)
    }

    /// Unmounts a read-only mount and mounts the store again for writing, with the same options. If that fails, mounts
    /// it read-only again.
    private static func mountAnew(
        _ mounted: MountedFileSystem, _ words: [HostString]
    ) throws(CommandError) -> Int32 {
        let mountPoint = mounted.mountPoint
        let store = StoreDirectory.path(ofSource: mounted.source)
        guard mounted.words.contains("ro"), (try? StoreDirectory.state(store)) == .store else {
            throw CommandError(
                "\(mountPoint): has become read-only after a failure, or its source is no path; "
                    + "unmount it and mount it again",
                exitCode: 32)
        }
        let chosen = try MountedStore.attribute(VirtualXattr.options, of: mountPoint)
        var all = flagWords(of: mounted).filter { $0 != "ro" } + chosen.split(separator: "\n").map(String.init)
        if StoreLock.isSupervised(store) { all.append("supervise") }
        let given = all.map { HostString($0) } + words.filter { $0 != "remount" }
        var arguments: [HostString] = ["mount", mounted.source, mountPoint]
        for word in given { arguments += ["-o", word] }
        do throws(Errno) { try mountPoint.unmount(0) } catch {
            let reason = error.rawValue == EBUSY ? "is in use, and would have to be mounted anew" : "\(error)"
            throw CommandError("\(mountPoint): \(reason)", exitCode: 32)
        }
        let program: HostString = "/proc/self/exe"
        if program.run(arguments, title: "treering") { return 0 }
        program.run(arguments + ["-o", "ro"], title: "treering")
        throw CommandError("\(mountPoint): could not be mounted for writing", exitCode: 32)
    }

    /// The flags of a mount, as words that later words can change.
    private static func flagWords(of mounted: MountedFileSystem) -> [String] {
        let known: Set<String> = [
            "ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow",
        ]
        // The table of mounts has no word for strictatime: the other two are missing then.
        let rule = mounted.words.contains { $0 == "relatime" || $0 == "noatime" } ? "relatime" : "strictatime"
        return ["suid", "dev", rule] + mounted.words.filter { known.contains($0) }
    }
}

extension MountOptions {
    /// The chosen options, one line for each: "ack=durable".
    var chosenText: String { chosen.map { "\($0.key)=\($0.value)\n" }.sorted().joined() }

    /// The first option chosen here whose value is another in the running mount, whose options are `text`; nil if there
    /// is none.
    func firstDifference(from text: String) throws(CommandError) -> String? {
        var running = Self.defaults
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { running[String(parts[0])] = String(parts[1]) }
        }
        for (name, value) in chosen.sorted(by: { $0.key < $1.key }) where running[name] != value {
            return "-o \(name)=\(value)"
        }
        return nil
    }
}
