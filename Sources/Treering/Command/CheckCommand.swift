// `treering check`: what a check found, in words, and the exit codes of fsck(8).

import Glibc

enum CheckCommand {
    static let options = [
        CommandOption("data", .flag, "", "read and verify every byte, not only what names it"),
        CommandOption("rebuild-index", .flag, "", "write the index anew from the segments"),
        CommandOption("repair", .flag, "", "mend what can be mended; says what is lost. Reads all data"),
        CommandOption("new-uuid", .flag, "", "not in this version"),
    ]
    static let usage = """
        treering check STORE [--data] [--repair] [--rebuild-index]

        Checks a store that is not mounted. Without --repair or --rebuild-index nothing is changed. A repair mends the
        superblock, the index, the log (what was damaged in it is left out, the rest kept), names, links and inodes; what
        has no name any more goes to /lost+found; data that cannot be read is listed by path and gives EIO from then on.

        Exit codes as fsck(8): 0 no errors, 1 errors corrected, 4 errors left, 8 the check could not be made, 16 wrong usage.
        """

    static func run(_ typed: [String]) throws(CommandError) -> Int32 {
        let arguments: Arguments
        let path: String
        do throws(CommandError) {
            arguments = try Arguments(typed, options)
            if arguments.has("new-uuid") { throw CommandError("--new-uuid: not in this version") }
            path = StoreDirectory.path(ofSource: try arguments.operands("STORE")[0])
        } catch {
            throw CommandError(error.message, exitCode: 16)
        }
        do throws(CommandError) {
            if arguments.has("repair") { return try repair(path) }
            return try check(path, readsData: arguments.has("data"), rebuilds: arguments.has("rebuild-index"))
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
            return try failed(error, path)
        }
        show(report, path, readsData: readsData)
        if !report.isClean {
            print("\(path): `treering check --repair` mends what can be mended")
            return 4
        }
        return rebuilds ? 1 : 0
    }

    /// Damage that not even a check can see behind is an error that is left; all else means that there was no check.
    private static func failed(_ error: MountError, _ path: String) throws(CommandError) -> Int32 {
        guard error.kind == .damaged else { throw CommandError("\(path): \(error)") }
        print("\(path): \(error)")
        return 4
    }

    private static func show(_ report: CheckReport, _ path: String, readsData: Bool) {
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

    private static func repair(_ path: String) throws(CommandError) -> Int32 {
        guard try StoreDirectory.state(path) == .store else {
            throw CommandError("\(path): is not a Treering store (it has no superblock)")
        }
        let lock = try StoreLock(path)
        // Open files belong to a device, and each step of a repair has its own.
        let open: () throws(MountError) -> HostDevice = { () throws(MountError) in
            do throws(CommandError) {
                return try OpenStore(path, lock, .posix, DeviceOptions()).device
            } catch { throw MountError(.host, error.message) }
        }
        let log: @Sendable (String) -> Void = { print("\(path): \($0)") }
        let report: RepairReport
        do throws(MountError) {
            report = try Repairer.repair(log: log, open: open) { (device, options) throws(MountError) in
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
