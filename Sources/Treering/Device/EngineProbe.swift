// Asks the kernel what it offers, instead of assuming it. For the choice of an engine at mount, and for `treering
// probe`.

import CLinux
import Glibc

#if Liburing
    import CUring
#endif

/// What was found out about the kernel, this process's limits and a directory.
struct EngineProbe: Sendable {
    /// The outcome of setting up a ring.
    enum RingOutcome: Sendable, Equatable {
        /// The operations found, and the entries of the largest ring tried that fits the limits.
        case usable(operations: [String], entryCount: Int)
        /// The kernel has a ring, but not all that storage needs.
        case missing([String])
        /// io_uring_setup said no; the reason with its error.
        case refused(String)
        /// Treering was built without liburing.
        case notBuilt
    }

    /// "Linux 6.18.44".
    let kernel: String
    let ring: RingOutcome
    /// RLIMIT_MEMLOCK in bytes; nil: unlimited.
    let memoryLockByteCount: UInt64?
    /// Support of direct I/O in the directory that was asked about.
    let direct: DirectSupport?

    /// Asks the kernel and, with a directory, its host about direct I/O. Errors such as ENOENT become the explanation.
    init(directory: HostString? = nil, queueDepth: Int = DeviceOptions().queueDepth) {
        kernel = Self.kernelName()
        ring = Self.tryRing(queueDepth)
        let limit = linux_memory_lock_limit()
        memoryLockByteCount = limit == UInt64.max ? nil : limit
        guard let directory else {
            direct = nil
            return
        }
        let descriptor = directory.openDirectory()
        direct = DirectSupport(descriptor, isReadOnly: false)
        if descriptor >= 0 { Glibc.close(descriptor) }
    }

    /// What `treering probe` prints, a line for each finding.
    var lines: [String] {
        var lines = [kernel]
        switch ring {
        case .usable(let operations, let entryCount):
            lines.append("io_uring: usable, \(entryCount) entries, operations \(operations.joined(separator: " "))")
        case .missing, .refused, .notBuilt:
            lines.append("io_uring: \(ring.reason ?? "")")
        }
        let limit = memoryLockByteCount.map { "\($0 / 1024) KiB" } ?? "unlimited"
        lines.append("locked memory (RLIMIT_MEMLOCK): \(limit)")
        if let direct { lines.append("direct I/O: \(direct.isUsable ? "yes" : "no"), \(direct.explanation)") }
        lines.append("engine=auto chooses: \(ring.reason == nil ? "ring" : "posix")")
        return lines
    }

    static func kernelName() -> String {
        var name = utsname()
        guard uname(&name) == 0 else { return "unknown kernel" }
        func text<Tuple>(_ tuple: Tuple) -> String {
            withUnsafeBytes(of: tuple) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        }
        return text(name.sysname) + " " + text(name.release)
    }

    private static func tryRing(_ queueDepth: Int) -> RingOutcome {
        #if Liburing
            do throws(Errno) {
                let ring = try Ring(entryCount: queueDepth, sqpoll: false)
                let missing = ring.missing
                if !missing.isEmpty { return .missing(missing) }
                return .usable(operations: Ring.operations.map(\.0), entryCount: ring.entryCount)
            } catch {
                return .refused(refusal(error))
            }
        #else
            return .notBuilt
        #endif
    }

    /// Why io_uring_setup fails, as far as the error and the kernel's switch tell.
    static func refusal(_ error: Errno, disabled: Int? = Self.disabledSetting()) -> String {
        let text = "io_uring_setup refused with \(error.name)"
        switch error.rawValue {
        case EPERM where (disabled ?? 0) != 0: return text + " (kernel.io_uring_disabled=\(disabled ?? 0))"
        case EPERM, EACCES: return text + " (a seccomp filter or security module forbids it)"
        case ENOSYS: return text + " (a kernel without io_uring, or a seccomp filter hides it)"
        case ENOMEM: return text + " (RLIMIT_MEMLOCK is \(linux_memory_lock_limit() / 1024) KiB)"
        default: return text
        }
    }

    /// The value of /proc/sys/kernel/io_uring_disabled, nil where there is none.
    static func disabledSetting() -> Int? {
        let descriptor = HostString("/proc/sys/kernel/io_uring_disabled").open(O_RDONLY)
        guard descriptor >= 0 else { return nil }
        defer { Glibc.close(descriptor) }
        var digit: UInt8 = 0
        guard read(descriptor, &digit, 1) == 1, (48...57).contains(digit) else { return nil }
        return Int(digit) - 48
    }
}

extension EngineProbe.RingOutcome {
    /// Why the ring engine cannot be had; nil: it can.
    var reason: String? {
        switch self {
        case .usable: return nil
        case .missing(let names): return "this kernel's io_uring lacks \(names.joined(separator: ", "))"
        case .refused(let text): return text
        case .notBuilt: return "treering was built without io_uring (package trait Liburing)"
        }
    }
}

extension Errno {
    /// The symbol of the errors that setting up a ring or a directory ends with, else the number.
    fileprivate var name: String {
        switch rawValue {
        case EPERM: return "EPERM"
        case EACCES: return "EACCES"
        case ENOSYS: return "ENOSYS"
        case ENOMEM: return "ENOMEM"
        case EINVAL: return "EINVAL"
        case EMFILE: return "EMFILE"
        default: return "error \(rawValue)"
        }
    }
}
