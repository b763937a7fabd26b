// The command `treering`: finds the subcommand, prints help and errors, and gives the exit code.

import Glibc

/// What the executable runs.
public enum TreeringCommand {
    static let version = "0.1.0"

    private struct Subcommand: Sendable {
        let name: String
        let summary: String
        let usage: String
        let options: [CommandOption]
        let run: @Sendable ([HostString]) throws(CommandError) -> Int32
    }

    private static let subcommands: [Subcommand] = [
        Subcommand(
            name: "format", summary: "make an empty store", usage: FormatCommand.usage, options: FormatCommand.options,
            run: FormatCommand.run),
        Subcommand(
            name: "mount", summary: "mount a store on a directory", usage: MountCommand.usage,
            options: MountOptions.table,
            run: MountCommand.run),
        Subcommand(
            name: "check", summary: "check a store", usage: CheckCommand.usage, options: CheckCommand.options,
            run: CheckCommand.run),
        Subcommand(
            name: "stats", summary: "numbers of a mount or a store", usage: StatsCommand.usage,
            options: StatsCommand.options, run: StatsCommand.run),
        Subcommand(
            name: "dump", summary: "show a store's structures", usage: DumpCommand.usage, options: DumpCommand.options,
            run: DumpCommand.run),
        Subcommand(
            name: "export", summary: "copy a store's files out", usage: ExportCommand.usage,
            options: ExportCommand.options, run: ExportCommand.run),
        Subcommand(
            name: "sync", summary: "make a mount durable now", usage: SyncCommand.usage, options: [],
            run: SyncCommand.run),
        Subcommand(
            name: "clean", summary: "give free space back to the host", usage: CleanCommand.usage, options: [],
            run: CleanCommand.run),
        Subcommand(
            name: "defrag", summary: "join the pieces of files", usage: DefragCommand.usage, options: [],
            run: DefragCommand.run),
        Subcommand(
            name: "resize", summary: "make a store larger or smaller", usage: ResizeCommand.usage, options: [],
            run: ResizeCommand.run),
        Subcommand(
            name: "probe", summary: "what this kernel offers", usage: ProbeCommand.usage, options: [],
            run: ProbeCommand.run),
    ]
    /// Planned subcommands that do not exist yet.
    private static let later = ["bench", "repair"]

    /// Runs this process's command line and returns the exit code.
    public static func main() -> Int32 {
        // Before anything else is opened: no file may get the number of a standard descriptor.
        StandardDescriptors.open()
        ProcessLimits.prepare()
        return run(HostString.arguments)
    }

    static func run(_ arguments: [HostString]) -> Int32 {
        guard let first = arguments.first else {
            StandardError.print(overview)
            return 1
        }
        switch first {
        case "--help", "-h", "help":
            let topic = arguments.dropFirst().first.flatMap { name in subcommands.first { HostString($0.name) == name }
            }
            print(topic.map(help) ?? overview)
            return 0
        case "--version", "-V", "version":
            print(versionText)
            return 0
        case HostString(NotifyHelper.subcommand): return NotifyHelperCommand.run(Array(arguments.dropFirst()))
        default: break
        }
        guard let subcommand = subcommands.first(where: { HostString($0.name) == first }) else {
            let reason = later.contains(first.description) ? "not in this version" : "unknown command"
            let names = subcommands.map(\.name).joined(separator: ", ")
            StandardError.print("treering: \(first): \(reason); there are \(names). See `treering --help`.")
            return 1
        }
        let rest = Array(arguments.dropFirst())
        if rest.contains("--help") || rest == ["-h"] {
            print(help(subcommand))
            return 0
        }
        if rest.contains("--version") {
            print(versionText)
            return 0
        }
        do throws(CommandError) {
            return try subcommand.run(rest)
        } catch {
            StandardError.print("treering \(subcommand.name): " + error.message)
            return error.exitCode
        }
    }

    private static var versionText: String { "treering \(version) (libfuse \(FuseLibrary.version))" }

    private static func help(_ subcommand: Subcommand) -> String {
        let options = CommandOption.help(subcommand.options, prefix: subcommand.name == "mount" ? "" : "--")
        return subcommand.usage + (options.isEmpty ? "" : "\n\n" + options)
    }

    private static var overview: String {
        let list = subcommands.map {
            $0.name.count < 8 ? "  " + $0.name + String(repeating: " ", count: 8 - $0.name.count) + $0.summary : ""
        }
        return """
            treering: a log-structured file system in user space

              treering mount STORE MOUNTPOINT     and you have a file system; fusermount3 -u MOUNTPOINT ends it

            \(list.joined(separator: "\n"))

            `treering COMMAND --help` tells more; `treering --version` the version.
            """
    }
}
