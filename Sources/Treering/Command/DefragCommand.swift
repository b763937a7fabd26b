// `treering defrag`: joins the pieces of files now, instead of when the mount finds time for it.

import Glibc

enum DefragCommand {
    static let usage = """
        treering defrag PATH...

        Joins the pieces of files in a mount, so that they are read faster and take less room, and says what was done. Of a directory: of all
        files below it. A mount does so by itself when it is idle (see the option `defrag`). What instant copies share stays shared.
        """

    /// What was done so far.
    private struct Sum {
        var fileCount = 0
        var pieceCount: UInt64 = 0
        var byteCount: UInt64 = 0
        var failureCount = 0
    }

    static func run(_ typed: [HostString]) throws(CommandError) -> Int32 {
        let paths = try Arguments(typed, []).operands
        guard !paths.isEmpty else { throw CommandError("PATH is missing: which files?") }
        var failureCount = 0
        for path in paths {
            let device: dev_t
            do throws(Errno) { device = try path.linkStatus().st_dev } catch {
                throw CommandError("\(path): \(error)")
            }
            var sum = Sum()
            visit(path, device, &sum)
            let written = (sum.byteCount + 1023) >> 10
            print("\(path): \(sum.fileCount) files: \(sum.pieceCount) pieces were joined, which wrote \(written) KiB")
            failureCount += sum.failureCount
        }
        return failureCount == 0 ? 0 : 1
    }

    private static func visit(_ path: HostString, _ device: dev_t, _ sum: inout Sum) {
        do throws(Errno) {
            let status = try path.linkStatus()
            guard status.st_dev == device else { return }
            switch status.st_mode & S_IFMT {
            case S_IFREG: try defragment(path, &sum)
            case S_IFDIR: for name in try path.names() { visit(path.appending(name), device, &sum) }
            default: break
            }
        } catch {
            sum.failureCount += 1
            let reason = error.rawValue == ENOTTY ? "is not in a Treering mount" : error.description
            StandardError.print("treering: \(path): \(reason)")
        }
    }

    private static func defragment(_ path: HostString, _ sum: inout Sum) throws(Errno) {
        let descriptor = path.open(O_RDONLY | O_NOFOLLOW)
        guard descriptor >= 0 else { throw .last }
        defer { close(descriptor) }
        let before = sum.pieceCount
        var from: UInt64 = 0
        let isTold = isatty(1) != 0
        repeat {
            var numbers: (next: UInt64, pieceCount: UInt64, byteCount: UInt64) = (from, 0, 0)
            guard ioctl(descriptor, UInt(Control.defragment), &numbers) == 0 else { throw .last }
            // The mount has more urgent work.
            if numbers.next == from { usleep(100_000) }
            from = numbers.next
            sum.pieceCount += numbers.pieceCount
            sum.byteCount += numbers.byteCount
            if isTold, from != .max {
                print("\r\(path): \(from >> 20) MiB, \(sum.pieceCount - before) pieces", terminator: "")
                fflush(nil)
            }
        } while from != .max
        if isTold, sum.pieceCount > before { print("\r\u{1B}[K", terminator: "") }
        sum.fileCount += 1
    }
}
