// Sets what a process inherits and must not depend on: signals, umask, limits. Every command calls `prepare` first. A
// limit that is too low for a mount is refused before anything is created.

import CLinux
import Glibc

enum ProcessLimits {
    /// The limit of a resource, after raising it as far as is allowed; nil if there is none.
    private static func limit(_ resource: Int) -> UInt64? {
        let limit = linux_raise_limit(Int32(resource))
        return limit == UInt64.max ? nil : limit
    }

    /// Ignored signals: their default is to end the process, but the call returns an error as well, or nobody means
    /// them for it.
    private static let ignored = [SIGXFSZ, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO]

    /// A thread with less could overflow its stack.
    private static let threadStackByteCount = 2 << 20

    static func prepare() {
        for number in ignored { signal(number, SIG_IGN) }
        // Some parents leave this signal ignored; then children could not be waited for.
        signal(SIGCHLD, SIG_DFL)
        // The umask must not take the owner's bits: a segment of mode 000 could not be opened again.
        umask(umask(0o077) & 0o077)
        for resource in [
            LINUX_LIMIT_CPU, LINUX_LIMIT_FILE_SIZE, LINUX_LIMIT_DATA, LINUX_LIMIT_LOCKED, LINUX_LIMIT_ADDRESSES,
        ] {
            _ = linux_raise_limit(Int32(resource))
        }
        linux_raise_thread_stack(threadStackByteCount)
    }

    /// Refuses to write a store if the limit of file sizes forbids the largest segment.
    static func checkFileSize() throws(CommandError) {
        let needed = UInt64(FormatOptions.segmentByteCountLimit)
        guard let limit = limit(LINUX_LIMIT_FILE_SIZE), limit < needed else { return }
        throw CommandError(
            "no file may become larger than \(limit >> 10) KiB (ulimit -f), and a segment may have \(needed >> 10) KiB: raise the limit of file sizes (RLIMIT_FSIZE)",
            exitCode: 32)
    }

    /// Refuses a mount for which there would not be enough memory.
    static func checkMemory(_ options: MountOptions) throws(CommandError) {
        let used = UInt64(options.volume.indexCacheByteCount + options.volume.stagingByteCount)
        // Threads take addresses beyond what is used: stacks, and arenas of 64 MiB of the C library.
        for (resource, name, needed) in [
            (LINUX_LIMIT_DATA, "ulimit -d", used + 256 << 20), (LINUX_LIMIT_ADDRESSES, "ulimit -v", used + 1 << 30),
        ] {
            guard let limit = limit(Int(resource)), limit < needed else { continue }
            throw CommandError(
                "no more than \(limit >> 20) MiB of memory may be used (\(name)), and a mount with these options may need \(needed >> 20) MiB: raise the limit, or lower index_cache= and staging=",
                exitCode: 32)
        }
    }

    /// Warns of limits that allow a mount but make it slow or short-lived.
    static func warnings(_ files: HostFiles) -> [String] {
        var warnings: [String] = []
        if files.table.placeCount < 256 {
            warnings.append(
                "only \(files.descriptorLimit) files may be open (ulimit -n): segments are opened again and again")
        }
        if let limit = limit(LINUX_LIMIT_FILE_SIZE) {
            warnings.append(
                "no file may become larger than \(limit >> 20) MiB (ulimit -f): the store is full when its index has grown to that"
            )
        }
        if let limit = limit(LINUX_LIMIT_CPU) {
            warnings.append("this process is killed when it has used \(limit) s of processor time (ulimit -t)")
        }
        return warnings
    }
}
