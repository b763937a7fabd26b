// The options of `treering mount -o` in one table, and where each of them goes.

import Glibc

/// All options of a mount, in parts for those who need them.
struct MountOptions: Sendable {
    var volume = VolumeOptions()
    var device = DeviceOptions()
    var engine = EngineChoice.auto
    var fuse = FuseOptions()
    var format = FormatOptions()
    /// Whether a supervisor starts the serving process again when it dies.
    var isSupervised = false
    /// `-o remount`: change the flags of a mount that is there.
    var isRemount = false
    /// The kernel's flags, as mount(8) names them.
    var flags = KernelFlags()
    /// The options that were chosen, except the kernel's flags, each value in its normal form.
    private(set) var chosen: [String: String] = [:]

    /// Flags of mount(2) that were asked for; nil: not mentioned.
    struct KernelFlags: Sendable {
        var isReadOnly = false
        var allowsSetuid = false
        var allowsDevices = false
        var allowsExecution = true
        var isSynchronous = false
        var isDirectorySynchronous = false
        var followsSymlinks = true
        var keepsAccessTimes = false
        var keepsDirectoryAccessTimes = false
        var updatesEveryAccessTime = false
        var allowOther = false
        var allowRoot = false
        var defaultPermissions = true
    }

    static let table: [CommandOption] =
        [
            CommandOption(
                "engine", .choice(EngineChoice.allCases.map(\.rawValue)), "auto", "how the store is read and written"),
            CommandOption(
                "transport", .choice(TransportChoice.allCases.map(\.rawValue)), "auto", "how requests come in"),
            CommandOption("queue_depth", .number(1...4096), "256", "operations on the store in flight"),
            CommandOption("max_inflight", .number(16...65536), "1024", "requests handled or waiting at a time"),
            CommandOption("readers", .number(1...64), "4", "threads that read requests"),
            CommandOption("sqpoll", .flag, "", "a kernel thread picks up submissions (engine=ring)"),
            CommandOption("iopoll", .flag, "", "wait for the disk by polling (engine=ring)"),
            CommandOption("direct", .choice(["auto", "on", "off"]), "auto", "O_DIRECT for aligned reads and writes"),
            CommandOption("commit", .number(1...3600), "5", "seconds until what was acknowledged is on disk"),
            CommandOption(
                "ack", .choice(VolumeOptions.Acknowledgement.allCases.map(\.rawValue)), "staged",
                "answer when staged in memory, written to disk, or durable"),
            CommandOption("staging", .size(1 << 20...4 << 30), "16M", "memory for what is not on disk yet"),
            CommandOption("index_cache", .size(4 << 20...1 << 40), "256M", "memory for the index"),
            CommandOption(
                "open", .choice(OpenMode.allCases.map(\.rawValue)), "none", "whether the kernel tells of open and close"
            ),
            CommandOption("writeback_cache", .choice(["on", "off"]), "off", "the kernel collects small writes"),
            CommandOption(
                "async_direct", .choice(["on", "off"]), "on",
                "a thread's asynchronous O_DIRECT reads and writes overlap"),
            CommandOption(
                "clean", .choice(CleaningPolicy.allCases.map(\.rawValue)), "auto",
                "when segments are cleaned: as needed, only when full, whenever something is dead"),
            CommandOption(
                "defrag", .choice(DefragmentPolicy.allCases.map(\.rawValue)), "auto",
                "when pieces of files are joined: in the background, on request, at once"),
            CommandOption("supervise", .flag, "", "start the serving process again should it die"),
            CommandOption("capacity", .size(64 << 20...1 << 50), "", "size of the store, if it is formatted now"),
            CommandOption("segment_size", .size(1 << 20...64 << 20), "", "size of a segment, if it is formatted now"),
            CommandOption("fsname", .text("NAME"), "the store", "source shown in /proc/mounts"),
            CommandOption("subtype", .text("NAME"), "treering", "accepted only as treering"),
            CommandOption("allow_other", .flag, "", "other users may use the mount"),
            CommandOption("allow_root", .flag, "", "root may use the mount"),
            CommandOption("default_permissions", .flag, "on", "the kernel checks permissions"),
            CommandOption("no_default_permissions", .flag, "", "nobody checks permissions"),
            CommandOption("ro", .flag, "", "read only"),
            CommandOption("suid", .flag, "", "heed set-user-ID bits (root)"),
            CommandOption("dev", .flag, "", "heed device files (root)"),
            CommandOption("noexec", .flag, "", "run no programs from the mount"),
            CommandOption("noatime", .flag, "", "reads do not change the time of the last access"),
            CommandOption("noacl", .flag, "", "take no POSIX access control lists and heed none"),
        ] + genericWords.map { CommandOption($0, .generic, "", "") }

    /// Words of fstab(5) that have their usual meaning, or none here.
    private static let genericWords = [
        "defaults", "rw", "nosuid", "nodev", "exec", "sync", "dirsync", "async", "atime", "diratime", "nodiratime",
        "relatime",
        "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "user", "users", "nouser", "group",
        "nogroup", "acl", "owner", "noowner", "auto", "noauto", "nofail", "_netdev", "comment", "remount", "silent",
        "loud", "nosymfollow", "symfollow",
        "mand", "nomand", "iversion", "noiversion",
    ]

    /// Takes options from the environment, then from the words of `-o`. The words win.
    init(words: [HostString]) throws(CommandError) {
        for option in Self.table {
            guard let name = option.environmentName, let text = HostString.environment(name) else {
                continue
            }
            try set(option, try option.value(text, place: name))
        }
        for word in words { try take(word) }
        try finish()
    }

    /// Whether `word` alone would be accepted by `-o`.
    static func understands(_ word: HostString) -> Bool {
        var options = Self()
        do throws(CommandError) {
            try options.take(word)
            return true
        } catch {
            return false
        }
    }

    private init() {}

    private mutating func take(_ word: HostString) throws(CommandError) {
        // Words for programs that read fstab; ignored here.
        if word.hasPrefix("x-") || word.hasPrefix("X-") { return }
        let parts = word.split("=", atMost: 2)
        let name = parts[0].description
        guard let option = Self.table.first(where: { $0.name == name }) else {
            throw CommandError("-o \(word): unknown option; `treering mount --help` lists them")
        }
        try set(option, try option.value(parts.count > 1 ? parts[1] : nil, place: "-o"))
    }

    /// Options that a remount can change, or that say nothing once a store is mounted.
    private static let changeable: Set<String> = [
        "ro", "suid", "dev", "noexec", "noatime", "capacity", "segment_size", "fsname", "subtype", "supervise",
    ]

    /// What the options are where nothing is said, as far as that is not the machine's to say.
    static var defaults: [String: String] {
        var options = Self()
        for option in table where !option.defaultText.isEmpty && !changeable.contains(option.name) {
            if let value = try? option.value(HostString(option.defaultText), place: "") { options.note(option, value) }
        }
        for option in table {
            if case .flag = option.kind, options.chosen[option.name] == nil { options.note(option, .flag(false)) }
        }
        return options.chosen
    }

    private mutating func note(_ option: CommandOption, _ value: OptionValue) {
        if case .generic = option.kind { return }
        guard !Self.changeable.contains(option.name) else { return }
        switch value {
        case .flag(let isOn): chosen[option.name] = isOn ? "on" : "off"
        case .number(let number): chosen[option.name] = "\(number)"
        case .size(let byteCount): chosen[option.name] = "\(byteCount)"
        case .word(let word): chosen[option.name] = word
        case .text(let text): chosen[option.name] = text.description
        }
    }

    private mutating func set(_ option: CommandOption, _ value: OptionValue) throws(CommandError) {
        note(option, value)
        switch value {
        case .flag(let isOn): setFlag(option.name, isOn)
        case .number(let number): setNumber(option.name, number)
        case .size(let byteCount): setSize(option.name, byteCount)
        case .word(let word):
            if case .generic = option.kind { setGeneric(option.name) } else { setChoice(option.name, word) }
        case .text(let text): try setText(option.name, text)
        }
    }

    private mutating func setFlag(_ name: String, _ isOn: Bool) {
        switch name {
        case "supervise": isSupervised = isOn
        case "sqpoll": device.sqpoll = isOn
        case "iopoll": device.iopoll = isOn
        case "allow_other": flags.allowOther = isOn
        case "allow_root": flags.allowRoot = isOn
        case "default_permissions": flags.defaultPermissions = isOn
        case "no_default_permissions": flags.defaultPermissions = !isOn
        case "ro": flags.isReadOnly = isOn
        case "suid": flags.allowsSetuid = isOn
        case "dev": flags.allowsDevices = isOn
        case "noexec": flags.allowsExecution = !isOn
        case "noatime": flags.keepsAccessTimes = isOn
        case "noacl": fuse.accessLists = !isOn
        default: preconditionFailure("the option \(name) goes nowhere")
        }
    }

    private mutating func setNumber(_ name: String, _ number: Int) {
        switch name {
        case "queue_depth": device.queueDepth = number
        case "max_inflight": fuse.inflightLimit = number
        case "readers": fuse.readerCount = number
        case "commit": volume.commitIntervalNanoseconds = UInt64(number) * 1_000_000_000
        default: preconditionFailure("the option \(name) goes nowhere")
        }
    }

    private mutating func setSize(_ name: String, _ byteCount: UInt64) {
        switch name {
        case "staging": volume.stagingByteCount = Int(byteCount)
        case "index_cache": volume.indexCacheByteCount = Int(byteCount)
        case "capacity": format.capacityByteCount = byteCount
        case "segment_size": format.segmentByteCount = Int(byteCount)
        default: preconditionFailure("the option \(name) goes nowhere")
        }
    }

    private mutating func setChoice(_ name: String, _ text: String) {
        switch name {
        case "engine": engine = EngineChoice(rawValue: text)!
        case "transport": fuse.transport = TransportChoice(rawValue: text)!
        case "direct": device.direct = DirectMode(rawValue: text)!
        case "ack": volume.acknowledgement = VolumeOptions.Acknowledgement(rawValue: text)!
        case "clean": volume.cleaning = CleaningPolicy(rawValue: text)!
        case "defrag": volume.defragmenting = DefragmentPolicy(rawValue: text)!
        case "open": fuse.open = OpenMode(rawValue: text)!
        case "writeback_cache": fuse.writebackCache = text == "on"
        case "async_direct": fuse.asyncDirect = text == "on"
        default: preconditionFailure("the option \(name) goes nowhere")
        }
    }

    private mutating func setText(_ name: String, _ text: HostString) throws(CommandError) {
        switch name {
        case "fsname": fuse.fsname = text
        case "subtype":
            if text != "treering" { throw CommandError("-o subtype=\(text): is treering, or left out") }
        default: preconditionFailure("the option \(name) goes nowhere")
        }
    }

    private mutating func setGeneric(_ name: String) {
        switch name {
        case "rw": flags.isReadOnly = false
        case "nosuid": flags.allowsSetuid = false
        case "nodev": flags.allowsDevices = false
        case "exec": flags.allowsExecution = true
        case "sync": flags.isSynchronous = true
        case "dirsync": flags.isDirectorySynchronous = true
        case "async": (flags.isSynchronous, flags.isDirectorySynchronous) = (false, false)
        case "nosymfollow": flags.followsSymlinks = false
        case "symfollow": flags.followsSymlinks = true
        case "atime", "relatime", "strictatime":
            flags.keepsAccessTimes = false
            flags.updatesEveryAccessTime = name == "strictatime"
        case "nostrictatime": flags.updatesEveryAccessTime = false
        case "acl": fuse.accessLists = true
        case "nodiratime": flags.keepsDirectoryAccessTimes = true
        case "diratime": flags.keepsDirectoryAccessTimes = false
        // fstab(5): letting users mount implies these three unless a later word says otherwise.
        case "user", "users":
            flags.allowsSetuid = false
            flags.allowsDevices = false
            flags.allowsExecution = false
        case "owner", "group":
            flags.allowsSetuid = false
            flags.allowsDevices = false
        case "remount": isRemount = true
        default: break
        }
    }

    private mutating func finish() throws(CommandError) {
        if fuse.transport == .uring {
            throw CommandError("-o transport=uring: not in this version; use transport=auto or transport=classic")
        }
        if device.iopoll { throw CommandError("-o iopoll: not in this version; leave it out") }
        if device.sqpoll && engine == .posix {
            throw CommandError("-o sqpoll: needs a ring, but engine=posix has none; leave one of them out")
        }
        if flags.allowOther && flags.allowRoot { throw CommandError("-o allow_other and allow_root: choose one") }
        // The kernel's flag makes only write(2) wait. This makes names, truncations and all other operations wait as
        // well.
        if (flags.isSynchronous || flags.isDirectorySynchronous) && chosen["ack"] == nil {
            volume.acknowledgement = .durable
            chosen["ack"] = VolumeOptions.Acknowledgement.durable.rawValue
        }
        if !flags.followsSymlinks && !isRemount && geteuid() != 0 {
            throw CommandError("-o nosymfollow: only root can have it")
        }
        noteReadOnly()
        let rule: AccessTimes.Rule = flags.updatesEveryAccessTime ? .always : .relative
        volume.accessTimes = AccessTimes(
            rule: flags.keepsAccessTimes ? .never : rule, ofDirectories: !flags.keepsDirectoryAccessTimes,
            slackNanoseconds: fuse.writebackCache ? 10_000_000 : 0)
        // Access control lists and mapped ids need the kernel to check permissions. With allow_root, libfuse must know
        // the true caller.
        if !flags.defaultPermissions { fuse.accessLists = false }
        fuse.idmappedMounts = flags.defaultPermissions && !flags.allowRoot
        volume.chosenText = chosenText
    }

    /// What was begun read-only is writable, or the other way round.
    mutating func setReadOnly(_ isReadOnly: Bool) {
        flags.isReadOnly = isReadOnly
        noteReadOnly()
    }

    private mutating func noteReadOnly() {
        volume.isReadOnly = flags.isReadOnly
        device.readOnly = flags.isReadOnly
        fuse.mountFlags = flags.words
        fuse.mountBits = flags.needsBits ? flags.bits : 0
    }
}

extension MountOptions.KernelFlags {
    /// The flags as words for libfuse, which assumes nosuid and nodev.
    var words: [String] {
        var words: [String] = []
        if isReadOnly { words.append("ro") }
        if allowsSetuid { words.append("suid") }
        if allowsDevices { words.append("dev") }
        if !allowsExecution { words.append("noexec") }
        if isSynchronous { words.append("sync") }
        if keepsAccessTimes { words.append("noatime") }
        if allowOther { words.append("allow_other") }
        if allowRoot { words.append("allow_root") }
        if defaultPermissions { words.append("default_permissions") }
        return words
    }

    /// Whether libfuse does not know some of the flags.
    var needsBits: Bool { !followsSymlinks || keepsDirectoryAccessTimes || updatesEveryAccessTime }

    /// The flags as bits of mount(2), for a remount.
    var bits: UInt {
        var bits: UInt = 0
        if isReadOnly { bits |= UInt(MS_RDONLY) }
        if !allowsSetuid { bits |= UInt(MS_NOSUID) }
        if !allowsDevices { bits |= UInt(MS_NODEV) }
        if !allowsExecution { bits |= UInt(MS_NOEXEC) }
        if isSynchronous { bits |= UInt(MS_SYNCHRONOUS) }
        if keepsAccessTimes { bits |= UInt(MS_NOATIME) }
        if keepsDirectoryAccessTimes { bits |= UInt(MS_NODIRATIME) }
        if updatesEveryAccessTime { bits |= UInt(MS_STRICTATIME) }
        if isDirectorySynchronous { bits |= UInt(MS_DIRSYNC) }
        if !followsSymlinks { bits |= 256 }  // MS_NOSYMFOLLOW (Linux 5.10)
        return bits
    }
}
