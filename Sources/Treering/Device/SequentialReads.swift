// Tells the host of reads to come. A user's mount is read in pieces of 128 KiB, as far ahead as the kernel lets one that root did not
// make; only the host's page cache can go further.

import Glibc
import Synchronization

/// Where the sequential reader of each file of the store that has descriptors is. Any thread may use it; what two threads overwrite for each other costs
/// an advice too many or too few.
final class SequentialReads: Sendable {
    /// Reads below this are not taken for a stream; a file's metadata is read like that.
    private static let leastByteCount: UInt64 = 32 << 10
    /// How far ahead of a reader the host is asked to be, and in which steps.
    private static let windowByteCount: UInt64 = 2 << 20
    /// A read that begins so near to the end of the last one makes the two a stream.
    private static let nearByteCount: UInt64 = 512 << 10
    private static let stepByteCount: UInt64 = 1 << 20

    /// For each file the offset behind the last large read, and the one up to which the host was asked.
    nonisolated(unsafe) private let ends: UnsafeMutablePointer<Atomic<UInt64>>
    nonisolated(unsafe) private let advised: UnsafeMutablePointer<Atomic<UInt64>>
    private let capacity: Int

    init(capacity: Int) {
        self.capacity = capacity
        ends = .allocate(capacity: capacity)
        advised = .allocate(capacity: capacity)
        for index in 0..<capacity {
            (ends + index).initialize(to: Atomic(0))
            (advised + index).initialize(to: Atomic(0))
        }
    }

    deinit {
        ends.deinitialize(count: capacity)
        advised.deinitialize(count: capacity)
        ends.deallocate()
        advised.deallocate()
    }

    /// A file has been opened in this place of the table.
    func reset(_ place: Int) {
        ends[place].store(0, ordering: .relaxed)
        advised[place].store(0, ordering: .relaxed)
    }

    /// To be called before a read through the page cache. Gives the range that the host is to be asked for, if any.
    @inline(__always)
    func note(_ place: Int, offset: UInt64, byteCount: Int) -> Range<UInt64>? {
        let count = UInt64(byteCount)
        return count < Self.leastByteCount ? nil : noteLarge(place, offset, offset + count)
    }

    private func noteLarge(_ file: Int, _ offset: UInt64, _ end: UInt64) -> Range<UInt64>? {
        let known = advised[file].load(ordering: .relaxed)
        let last = ends[file].exchange(end, ordering: .relaxed)
        // Requests of one reader may overtake each other, and records lie between its data: it is near if not where the last ended.
        let isInStream = known > 0 && offset < known && offset + Self.windowByteCount * 2 > known
        if isInStream {
            if end + Self.windowByteCount - Self.stepByteCount <= known { return nil }
        } else if offset + Self.nearByteCount < last || offset > last + Self.nearByteCount {
            return nil
        }
        let start = isInStream ? known : end
        let goal = isInStream ? known + Self.stepByteCount : end + Self.windowByteCount
        return advised[file].compareExchange(expected: known, desired: goal, ordering: .relaxed).exchanged
            ? start..<goal : nil
    }
}

extension HostFiles {
    /// Has the host read ahead where a read through its page cache goes on with another.
    @inline(__always)
    func readAhead(of submission: Submission, _ descriptors: Descriptors) {
        guard submission.operation == .read,
            let range = sequentialReads.note(
                table.place(of: submission.file), offset: submission.offset, byteCount: submission.byteCount)
        else { return }
        posix_fadvise(
            descriptors.buffered, off_t(range.lowerBound), off_t(range.upperBound - range.lowerBound),
            POSIX_FADV_WILLNEED)
    }
}
