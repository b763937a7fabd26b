// `mount -o remount`: the kernel's flags of a mount that is there. Everything else stays as it was mounted. What was mounted read-only and
// is to be written to is mounted anew: the process that serves it has not recovered the store, which it only read.

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
        // Not among the words before: `sync` chooses for a mount that begins.
        if mounted.words.contains("sync"), !words.contains("async") { options.flags.isSynchronous = true }
        // Of a process of an older version nothing is known.
        if let text = try? MountedStore.attribute(VirtualXattr.options, of: mountPoint),
            let word = try options.firstDifference(from: text)
        {
            throw CommandError(
                "\(typed): \(word): cannot be changed by a remount; unmount it and mount it again", exitCode: 32)
        }
        // The kernel's flag alone would promise what the serving process refuses.
        if !options.flags.isReadOnly, try MountedStore.attribute(VirtualXattr.readOnly, of: mountPoint) == "1" {
            return try mountAnew(mounted, words)
        }
        do throws(Errno) {
            try mountPoint.remount(mounted.source, mounted.type, options.flags.bits)
        } catch {
            throw CommandError("\(typed): cannot be remounted: \(error)", exitCode: 32)
        }
        if options.flags.isReadOnly {
            // Of a file system in the kernel nothing can be lost any more then. It has written back what it held, and passes nothing else on.
            do throws(Errno) { try MountedStore.makeDurable(mountPoint) } catch {
                throw CommandError(
                    "\(typed): is read-only now, but what was written before could not be made durable: \(error)",
                    exitCode: 32)
            }
        }
        return 0
    }

    /// Takes a mount that only reads away and mounts the store again, with the same options and for writing; read-only again where that
    /// cannot be done.
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

    /// The flags that a mount has, in words that later ones change.
    private static func flagWords(of mounted: MountedFileSystem) -> [String] {
        let known: Set<String> = [
            "ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow",
        ]
        // That every access counts is shown by nothing.
        let rule = mounted.words.contains { $0 == "relatime" || $0 == "noatime" } ? "relatime" : "strictatime"
        return ["suid", "dev", rule] + mounted.words.filter { known.contains($0) }
    }
}

extension MountOptions {
    /// What was chosen for the serving process, a line for each option: "ack=durable".
    var chosenText: String { chosen.map { "\($0.key)=\($0.value)\n" }.sorted().joined() }

    /// The first option chosen here that is not as it is in a mount with those; nil where there is none.
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
