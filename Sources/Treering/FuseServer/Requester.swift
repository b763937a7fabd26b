// Who stands behind a request, beyond what the kernel sends along: groups and privileges, from /proc. Asked for rarely
// (a file has the set-group-ID bit, an attribute is for administrators only), never under the volume's lock.

import CFuse3
import CLinux
import Glibc

/// The thread that made a request.
struct Requester {
    /// Its number as this process sees it; 0 where it does not (another PID namespace).
    let pid: pid_t

    private static let setGroupIDCapability: UInt64 = 1 << 4
    private static let administrationCapability: UInt64 = 1 << 21

    /// What /proc says. Empty if the thread has gone or cannot be seen.
    var identity: Identity {
        guard pid > 0, let text = HostString("/proc/\(pid)/status").text() else { return Identity() }
        var identity = Identity()
        // Capabilities of another user namespace are worth nothing here.
        let isOurs = HostString("/proc/\(pid)/ns/user").linkTarget() == HostString("/proc/self/ns/user").linkTarget()
        for line in text.split(separator: "\n") {
            let words = line.split(whereSeparator: { $0 == "\t" || $0 == " " })
            switch words.first {
            case "Gid:":
                // Real, effective, saved, and the one that counts for files.
                if words.count > 4, let group = UInt32(words[4]) { identity.groups.insert(group) }
            case "Groups:": identity.groups.formUnion(words.dropFirst().compactMap { UInt32($0) })
            case "CapEff:":
                guard isOurs, words.count > 1, let mask = UInt64(words[1], radix: 16) else { continue }
                identity.keepsSetGroupID = mask & Self.setGroupIDCapability != 0
                identity.isAdministrator = mask & Self.administrationCapability != 0
            default: continue
            }
        }
        return identity
    }

    /// Whether it runs as the user who serves the mount.
    var isServer: Bool { user == geteuid() }

    /// The user that counts for files; nil where it cannot be seen.
    var user: UInt32? {
        guard pid > 0, let text = HostString("/proc/\(pid)/status").text() else { return nil }
        let line = text.split(separator: "\n").first { $0.hasPrefix("Uid:") }
        let words = line?.split(whereSeparator: { $0 == "\t" || $0 == " " }) ?? []
        return words.count > 4 ? UInt32(words[4]) : nil
    }

    /// Reads a number from the thread's memory: the argument of an ioctl whose number says that it has none to give.
    /// Nil if it cannot be read.
    func word(at address: UInt) -> UInt32? {
        var value: UInt32 = 0
        let isRead = withUnsafeMutableBytes(of: &value) { bytes -> Bool in
            var mine = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
            var theirs = iovec(iov_base: UnsafeMutableRawPointer(bitPattern: address), iov_len: bytes.count)
            return pid > 0 && process_vm_readv(pid, &mine, 1, &theirs, 1, 0) == bytes.count
        }
        return isRead ? value : nil
    }
}
