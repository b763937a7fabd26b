// The ioctls by which `treering check` has a mounted store verified: begin, ask how far it is, take what was found,
// end. And the one that says which store is mounted here. For administrators and for the user who serves the mount.

import CFuse3
import Glibc

/// Our own ioctls of type 0xE7 besides `resize`. All numbers are eight bytes, in the order in which they are named.
enum ScrubControl {
    /// `_IOWR(0xE7, 2, u64[2])`. In: the rate in bytes per second (0: no limit). Out: the scrub's token. EBUSY while
    /// another scrub runs.
    static let begin: UInt32 = 0xC010_E702
    /// `_IOWR(0xE7, 3, u64[8])`. In: the token. Out: state, bytes done, bytes in all, findings, findings kept, blocks,
    /// nanoseconds since the beginning, blocks that were known to be lost. ENODATA if there is no such scrub. Asking
    /// keeps the scrub going.
    static let progress: UInt32 = 0xC040_E703
    /// `_IOWR(0xE7, 4, u8[8192])`. In: the token and the finding's number. Out: its length and its text. ENODATA if
    /// there is none.
    static let finding: UInt32 = 0xE000_E704
    /// `_IOW(0xE7, 5, u64)`: the token. The scrub ends before its next read.
    static let end: UInt32 = 0x4008_E705
    /// `_IOR(0xE7, 6, u64[2])`: device and inode number of the store's directory.
    static let identity: UInt32 = 0x8010_E706

    static let progressWordCount = 8
    static let findingByteCount = 8192
}

extension FuseServer {
    /// Answers the ioctls that `control` does not know.
    func scrubControl(_ command: UInt32, _ bytes: UnsafeRawBufferPointer, _ reply: consuming Reply) {
        let known = [
            ScrubControl.begin: 16, ScrubControl.progress: 8, ScrubControl.finding: 16, ScrubControl.end: 8,
            ScrubControl.identity: 0,
        ]
        guard let least = known[command] else { return reply.error(.notTypewriter) }
        guard bytes.count >= least else { return reply.error(.invalid) }
        let requester = reply.requester
        guard requester.identity.isAdministrator || requester.isServer else { return reply.error(.notPermitted) }
        switch command {
        case ScrubControl.begin: begin(rate: bytes.load(0), reply)
        case ScrubControl.progress: progress(bytes.load(0), reply)
        case ScrubControl.finding: finding(bytes.load(0), number: bytes.load(8), reply)
        case ScrubControl.end:
            volume.cancelScrub(bytes.load(0))
            reply.control([] as [UInt64])
        default:
            let numbers = volume.device.directoryNumbers
            reply.control([numbers.device, numbers.inode])
        }
    }

    private func begin(rate: UInt64, _ reply: consuming Reply) {
        let token: UInt64
        do throws(Errno) { token = try volume.beginScrub(rate: rate) } catch { return reply.error(error) }
        reply.control([token, 0])
    }

    private func progress(_ token: UInt64, _ reply: consuming Reply) {
        guard let status = volume.scrubStatus(token) else { return reply.error(.noData) }
        let now = status.state == .running ? monotonicNanoseconds() : status.ended
        reply.control([
            status.state.rawValue, status.doneByteCount, status.totalByteCount, status.findingCount,
            UInt64(status.findings.count), status.blockCount, now - status.begun, status.knownLostCount,
        ])
    }

    private func finding(_ token: UInt64, number: UInt64, _ reply: consuming Reply) {
        guard let findings = volume.scrubStatus(token)?.findings, number < UInt64(findings.count) else {
            return reply.error(.noData)
        }
        let text = Array(findings[Int(number)].description.utf8.prefix(ScrubControl.findingByteCount - 8))
        var answer = [UInt8](repeating: 0, count: ScrubControl.findingByteCount)
        answer.withUnsafeMutableBytes { bytes in
            bytes.store(UInt64(text.count), at: 0)
            text.withUnsafeBytes { bytes.copy($0, to: 8) }
        }
        reply.control(answer)
    }
}
