// Advises the host to read ahead. A user's mount is read in pieces of 128 KiB, and the kernel limits read-ahead on
// mounts that root did not make. Only the host's page cache can read further ahead.

import Glibc
import Synchronization

/// The progress of the sequential reader of each open file. Any thread may use it. Threads may overwrite each other's
/// notes: that costs one advice too many or too few.
final class SequentialReads: Sendable {
    /// Smaller reads do not count as a stream: metadata of a file is read like that.
    private static let leastByteCount: UInt64 = 32 << 10
    /// How far ahead of a reader the host shall be, and by how much each advice moves that.
    private static let windowByteCount: UInt64 = 2 << 20
    /// Two reads form a stream if the second begins this near to the end of the first.
    private static let nearByteCount: UInt64 = 512 << 10
    private static let stepByteCount: UInt64 = 1 << 20

    /// For each file: the offset behind the last large read, and the offset up to which the host was advised.
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

    /// Forgets the reader of a place, since another file was opened there.
    func reset(_ place: Int) {
        ends[place].store(0, ordering: .relaxed)
        advised[place].store(0, ordering: .relaxed)
    }

    /// Call it before a read through the page cache. Gives the range that the host shall read ahead, if any.
    @inline(__always)
    func note(_ place: Int, offset: UInt64, byteCount: Int) -> Range<UInt64>? {
        let count = UInt64(byteCount)
        return count < Self.leastByteCount ? nil : noteLarge(place, offset, offset + count)
    }

    private func noteLarge(_ file: Int, _ offset: UInt64, _ end: UInt64) -> Range<UInt64>? {
        let known = advised[file].load(ordering: .relaxed)
        let last = ends[file].exchange(end, ordering: .relaxed)
        // Requests of one reader may overtake each other, and records lie between its data. So a stream need not be
        // contiguous.
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
    /// Lets the host read ahead, if a read through its page cache continues a stream.
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
