// What is left of a submission after a short transfer, and whether the rest may use direct I/O. For both engines.

import Glibc

extension Submission {
    /// Takes `byteCount` bytes off the front, which have been transferred.
    mutating func advance(by byteCount: Int) {
        assert(byteCount <= self.byteCount)
        offset += UInt64(byteCount)
        var left = byteCount
        if left >= first.count, let rest = second {
            left -= first.count
            first = rest
            second = nil
        }
        first = UnsafeMutableRawBufferPointer(rebasing: first[left...])
    }

    /// Offset, every length and every address are multiples of the alignment of direct I/O.
    var isAligned: Bool {
        var bits = UInt(truncatingIfNeeded: offset) | UInt(bitPattern: first.baseAddress) | UInt(first.count)
        if let second { bits |= UInt(bitPattern: second.baseAddress) | UInt(second.count) }
        return bits & UInt(DeviceOptions.directAlignment - 1) == 0
    }

    /// Writes the memory as one or two vectors; returns how many.
    func fill(_ vectors: UnsafeMutablePointer<iovec>) -> Int32 {
        vectors[0] = iovec(iov_base: first.baseAddress, iov_len: first.count)
        guard let second, second.count > 0 else { return 1 }
        vectors[1] = iovec(iov_base: second.baseAddress, iov_len: second.count)
        return 2
    }

    /// Whether its file may have unsynced writes afterwards, given its result.
    @inline(__always)
    func leavesUnsynced(_ result: Int) -> Bool { operation == .write || operation == .sync && result < 0 }
}
