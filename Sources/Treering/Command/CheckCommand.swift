// `treering check`: what a check found, in words, and the exit codes of fsck(8).

import Glibc

enum CheckCommand {
    static let options = [
        CommandOption("data", .flag, "", "read and verify every byte, not only what names it"),
        CommandOption("rebuild-index", .flag, "", "write the index anew from the segments"),
        CommandOption("repair", .flag, "", "repair what can be repaired; says what is lost. Reads all data"),
        CommandOption("new-uuid", .flag, "", "give the store, a copy of another, a uuid of its own; checks nothing"),
        CommandOption(
            "rate", .size(0...1 << 50), ByteSize.text(ScrubCommand.defaultRate),
            "of a mounted store: how much to read in a second; 0 for no limit"),
    ]
    static let usage = """
        treering check STORE [--data] [--repair] [--rebuild-index]
        treering check MOUNTPOINT|STORE [--rate SIZE]
        treering check STORE --new-uuid

        Checks a store. Without --repair or --rebuild-index nothing is changed. A repair salvages the superblock, the index, the
        log (what was damaged in it is left out, the rest kept), names, links and inodes; what has no name any more goes to
        /lost+found; data that cannot be read is listed by path and gives EIO from then on.

        A store that is mounted is checked by the process that serves it, beside its work: everything that lives in it is read
        from the disk and verified: superblock, log, index and all data. It is for root and the user who serves the mount;
        ending the command ends the check. What needs the store to itself (repairs, another uuid, the comparison of index and
        log) is for a store that is not mounted.

        Exit codes as fsck(8): 0 no errors, 1 errors corrected, 4 errors left, 8 the check could not be made, 16 wrong usage,
        32 ended on request.
        """

    static func run(_ typed: [HostString]) throws(CommandError) -> Int32 {
        let arguments: Arguments
        let target: HostString
        do throws(CommandError) {
            arguments = try Arguments(typed, options)
            target = try arguments.operands("MOUNTPOINT or STORE")[0]
            if arguments.has("new-uuid"), let other = ["data", "repair", "rebuild-index"].first(where: arguments.has) {
                throw CommandError("--new-uuid, --\(other): one after the other")
            }
        } catch {
            throw CommandError(error.message, exitCode: 16)
        }
        let path = StoreDirectory.path(ofSource: target)
        if let mountPoint = (try? MountedStore.mountPoint(target)) ?? MountedStore.mountPoint(ofStore: path) {
            return try check(mountPoint: mountPoint, target, arguments)
        }
        if arguments.size("rate") != nil {
            throw CommandError(
                "--rate: \(target) is not mounted; an unmounted store is checked at full speed", exitCode: 16)
        }
        do throws(CommandError) {
            if arguments.has("new-uuid") { return try renew(path) }
            if arguments.has("repair") { return try repair(path) }
            return try check(path, readsData: arguments.has("data"), rebuilds: arguments.has("rebuild-index"))
        } catch {
            throw CommandError(error.message, exitCode: 8)
        }
    }

    private static func check(
        mountPoint: HostString, _ target: HostString, _ arguments: Arguments
    ) throws(CommandError) -> Int32 {
        if let option = ["repair", "rebuild-index", "new-uuid"].first(where: arguments.has) {
            throw CommandError(
                "\(target): is mounted on \(mountPoint), and --\(option) needs the store to itself: unmount it first",
                exitCode: 8)
        }
        do throws(CommandError) {
            return try ScrubCommand.run(
                mountPoint: mountPoint, target, rate: arguments.size("rate") ?? ScrubCommand.defaultRate)
        } catch {
            throw CommandError(error.message, exitCode: 8)
        }
    }

    // MARK: Another uuid

    private static func renew(_ path: HostString) throws(CommandError) -> Int32 {
        guard try StoreDirectory.state(path) == .store else {
            throw CommandError("\(path): is not a Treering store (it has no superblock)")
        }
        let lock = try StoreLock(path)
        do throws(MountError) {
            var device = try open(path, lock)
            if try !SuperblockPair.read(device).newest().isClean {
                // What the last mount left in the log and in staging is found only under the old uuid, so replay it
                // first.
                let log = LogSink { StandardError.print("\(path): \($1)") }
                let volume = try HostVolume.mount(
                    device, VolumeOptions(), directory: path, log: log, isServed: false)
                do throws(Errno) { try volume.unmount() } catch {
                    throw MountError("the store cannot be closed", error)
                }
                device = try open(path, lock)
            }
            defer { device.shutDown() }
            let uuid = StoreUUID(high: HostStaging.randomWord(), low: HostStaging.randomWord())
            let (old, new) = try StoreIdentity.renew(device, to: uuid)
            print("\(path): its uuid is \(new) now; it was \(old)")
            return 0
        } catch {
            return try failed(error, path)
        }
    }

    /// Opens a device for one step. Open files belong to their device, so each step has its own.
    private static func open(_ path: HostString, _ lock: StoreLock) throws(MountError) -> HostDevice {
        do throws(CommandError) {
            return try OpenStore(path, lock, .posix, DeviceOptions()).device
        } catch { throw MountError(.host, error.message) }
    }

    private static func check(_ path: HostString, readsData: Bool, rebuilds: Bool) throws(CommandError) -> Int32 {
        let store = try OpenStore(existing: path, DeviceOptions(readOnly: !rebuilds), salvages: true)
        defer { store.device.shutDown() }
        let report: CheckReport
        do throws(MountError) {
            if rebuilds {
                let count = try IndexRebuild.rebuild(store.device) { print("\(path): \($0)") }
                print("\(path): the index was made anew from \(count) records")
            }
            report = try Checker.check(
                store.device, readsData: readsData,
                staging: { HostStaging.headers(directory: path, uuid: $0) })
        } catch {
            return try failed(error, path)
        }
        show(report, path, readsData: readsData)
        if !report.isClean {
            print("\(path): `treering check --repair` mends what can be repaired")
            return 4
        }
        return rebuilds ? 1 : 0
    }

    /// The exit code after a check has thrown. Damage that a check cannot get past counts as an error that is left (4).
    /// Any other error means that there was no check.
    private static func failed(_ error: MountError, _ path: HostString) throws(CommandError) -> Int32 {
        guard error.kind == .damaged else { throw CommandError("\(path): \(error)") }
        print("\(path): \(error)")
        return 4
    }

    private static func show(_ report: CheckReport, _ path: HostString, readsData: Bool) {
        for note in report.notes { print("\(path): \(note)") }
        for problem in report.problems { print("\(path): \(problem)") }
        if report.problemCount > report.problems.count {
            print("\(path): \(report.problemCount - report.problems.count) more of these")
        }
        if report.knownLostCount > 0 {
            print("\(path): \(report.knownLostCount) pieces of data were lost before and give EIO")
        }
        let data = readsData ? ", \(report.dataBlockCount) pieces of data read" : ""
        let found =
            "\(report.inodeCount) inodes, \(report.entryCount) index entries, \(report.recordCount) records\(data)"
        print("\(path): \(report.isClean ? "clean" : "\(report.problemCount) errors"): \(found)")
    }

    // MARK: Repair

    private static func repair(_ path: HostString) throws(CommandError) -> Int32 {
        switch try StoreDirectory.state(path) {
        case .store, .incomplete: break
        default: throw CommandError("\(path): is not a Treering store (it has no superblock)")
        }
        let lock = try StoreLock(path)
        let open: () throws(MountError) -> HostDevice = { () throws(MountError) in try Self.open(path, lock) }
        let log: @Sendable (String) -> Void = { print("\(path): \($0)") }
        let report: RepairReport
        do throws(MountError) {
            report = try Repairer.repair(
                log: log, staging: { HostStaging.headers(directory: path, uuid: $0) }, open: open
            ) { (device, options) throws(MountError) in
                try HostVolume.mount(device, options, directory: path, log: LogSink { log($1) }, isServed: false)
            }
        } catch {
            return try failed(error, path)
        }
        if report.found.isClean {
            show(report.left, path, readsData: true)
            return 0
        }
        show(report.found, path, readsData: true)
        for step in report.steps { print("\(path): repaired: \(step)") }
        for range in report.lost { print("\(path): \(range.description)") }
        guard report.left.isClean else {
            print("\(path): what is left:")
            show(report.left, path, readsData: false)
            return 4
        }
        print("\(path): \(report.found.problemCount) errors corrected")
        return 1
    }
}
