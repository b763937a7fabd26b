// `treering export`: the files of a store without FUSE.

import Glibc

enum ExportCommand {
    static let options = [
        CommandOption("force", .flag, "", "also into a directory that is not empty; what is there stays as it is")
    ]
    static let usage = """
        treering export STORE DIR [--force]

        Copies the files of a store that is not mounted into DIR, as far as they can be read: contents, modes, owners (as
        root), times, hard and symbolic links, special files, extended attributes. The store is not changed. Blocks that
        are damaged become zeros and are listed.

        Exit codes: 0 everything was exported, 4 not everything, 1 nothing.
        """

    static func run(_ typed: [HostString]) throws(CommandError) -> Int32 {
        let arguments = try Arguments(typed, options)
        let operands = try arguments.operands("STORE", "DIR")
        let path = StoreDirectory.path(ofSource: operands[0])
        let store = try OpenStore(existing: path, DeviceOptions(readOnly: true), salvages: true)
        defer { store.device.shutDown() }
        let target = try openTarget(operands[1], isForced: arguments.has("force"))
        defer { close(target) }
        let report: ExportReport
        do throws(MountError) {
            let log: @Sendable (String) -> Void = { StandardError.print("\(path): \($0)") }
            let pair = try SuperblockPair.readOrDerive(
                store.device, staging: { HostStaging.headers(directory: path, uuid: $0) })
            let staging = try? HostStaging(directory: path, uuid: pair.newest().uuid, log: log)
            let view = try StoreView.open(
                store.device, pair,
                allStaged: {
                    do { try staging?.findStaged(isReadOnly: true) } catch { log("\(error)") }
                    return staging?.allStaged.map(\.tail) ?? []
                }, log: log)
            report = try Exporter.export(view, into: target)
        } catch {
            throw CommandError("\(path): \(error)")
        }
        return tell(report, path, operands[1])
    }

    private static func openTarget(_ path: HostString, isForced: Bool) throws(CommandError) -> Int32 {
        do throws(Errno) { try path.makeDirectory() } catch {
            if error != .exists { throw CommandError("\(path): cannot be made: \(error)") }
        }
        let target = path.openDirectory()
        guard target >= 0 else { throw CommandError("\(path): \(Errno.last)") }
        let names: [HostString]
        do throws(Errno) { names = try path.names() } catch {
            close(target)
            throw CommandError("\(path): \(error)")
        }
        guard isForced || names.isEmpty else {
            close(target)
            throw CommandError(
                "\(path): is not empty; nothing was exported. Name an empty or a new directory, or use --force")
        }
        return target
    }

    private static func tell(_ report: ExportReport, _ path: HostString, _ target: HostString) -> Int32 {
        for problem in report.problems { StandardError.print("\(path): \(problem)") }
        if report.problemCount > report.problems.count {
            StandardError.print("\(path): \(report.problemCount - UInt64(report.problems.count)) more of these")
        }
        if report.foreignOwnerCount > 0 {
            StandardError.print(
                "\(path): \(report.foreignOwnerCount) files belong to you now, without set-user-ID and set-group-ID bits: only root can give files to others"
            )
        }
        print(
            "\(target): \(report.fileCount) files with \(report.byteCount) bytes, \(report.directoryCount) directories, \(report.linkCount) further links, \(report.otherCount) others"
        )
        return report.problemCount == 0 ? 0 : 4
    }
}
