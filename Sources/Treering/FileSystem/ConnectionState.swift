// Lookup counts of a kernel connection, and its requests that have changed the store, in memory that outlives the
// serving process. A successor that takes the connection over goes on from there (docs/decisions/020-takeover.md).
//
// The memory is sparse. It has a page with the header, a ring of (record sequence, request), and a table of (inode,
// count). The size of the table decides where it lies, so that a table of another size lies beside it.

import CLinux
import Glibc
import Synchronization

/// Lookup counts and requests of one connection. One process writes them, under the core's lock. Its successor reads
/// them when that process is dead. Stores are ordered so that the memory is valid wherever the writer is killed.
final class ConnectionState: @unchecked Sendable {
    /// Header: the number of slots of the table of counts, and how many requests were noted.
    private static let capacityOffset = 0
    private static let noteCountOffset = 8
    private static let requestsOffset = 64 << 10
    /// Far more than there can be requests that have a record and no reply yet.
    private static let requestCount = 1 << 16
    private static let entryByteCount = 16
    private static let capacityMinimum = 1 << 18

    private let descriptor: Int32
    private let head: UnsafeMutableRawBufferPointer
    private var table: UnsafeMutableRawBufferPointer
    private var capacity: Int
    /// Slots that hold an inode, those with a count of 0 included.
    private var usedCount = 0
    /// A predecessor served this connection. Set in the successor before it mounts.
    var isInherited = false
    /// Requests that the kernel sends again although their changes are in the store. Set before the first request
    /// comes.
    private(set) var doneRequests: Set<UInt64> = []

    /// Makes empty memory. A fork inherits it.
    init() throws(Errno) {
        descriptor = linux_memfd_create("treering-connection", 1)
        guard descriptor >= 0 else { throw .last }
        let headByteCount = Self.requestsOffset + Self.requestCount * Self.entryByteCount
        capacity = Self.capacityMinimum
        do throws(Errno) {
            table = try Self.mapTable(descriptor, capacity)
            head = try Self.map(descriptor, 0, headByteCount)
        } catch {
            close(descriptor)
            throw error
        }
        head.store(UInt64(capacity), at: Self.capacityOffset)
    }

    deinit {
        munmap(head.baseAddress, head.count)
        munmap(table.baseAddress, table.count)
        close(descriptor)
    }

    private static func map(
        _ descriptor: Int32, _ offset: Int, _ byteCount: Int
    ) throws(Errno) -> UnsafeMutableRawBufferPointer {
        guard let address = mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, offset),
            address != MAP_FAILED
        else { throw .last }
        return UnsafeMutableRawBufferPointer(start: address, count: byteCount)
    }

    /// Maps a table of `capacity` slots. First makes the file long enough for it.
    private static func mapTable(_ descriptor: Int32, _ capacity: Int) throws(Errno) -> UnsafeMutableRawBufferPointer {
        let byteCount = capacity * entryByteCount
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .last }
        if status.st_size < 2 * byteCount, ftruncate(descriptor, off_t(2 * byteCount)) != 0 { throw .last }
        return try map(descriptor, byteCount, byteCount)
    }

    // MARK: A successor

    /// Goes on from what a predecessor left. Returns the lookup counts, and finds the requests that are done. A request
    /// is done if its record was recovered: all recovered records are below `nextSequence`.
    func takeOver(nextSequence: RecordSequence) throws(Errno) -> [InodeNumber: UInt64] {
        let found = Int(head.load(Self.capacityOffset, as: UInt64.self))
        if found != capacity {
            let other = try Self.mapTable(descriptor, found)
            munmap(table.baseAddress, table.count)
            table = other
            capacity = found
        }
        var counts: [InodeNumber: UInt64] = [:]
        usedCount = 0
        for slot in 0..<capacity {
            let inode: UInt64 = table.load(slot * Self.entryByteCount)
            if inode == 0 { continue }
            usedCount += 1
            let count: UInt64 = table.load(slot * Self.entryByteCount + 8)
            if count > 0 { counts[InodeNumber(inode)] = count }
        }
        doneRequests = []
        for slot in 0..<Self.requestCount {
            let offset = Self.requestsOffset + slot * Self.entryByteCount
            let request: UInt64 = head.load(offset + 8)
            if request == 0 { continue }
            if head.load(offset, as: UInt64.self) < nextSequence.rawValue {
                doneRequests.insert(request)
            } else {
                // Its record was not recovered. Another record will get that sequence.
                head.store(UInt64(0), at: offset + 8)
            }
        }
        return counts
    }

    /// Whether the changes of a repeated request were in the store before this process began.
    func isDone(_ request: UInt64) -> Bool { doneRequests.contains(request) }

    // MARK: Requests

    /// Notes that the record `sequence` carries out `request`. To be called before the record is published.
    func note(_ sequence: RecordSequence, _ request: UInt64) {
        let count: UInt64 = head.load(Self.noteCountOffset)
        let offset = Self.requestsOffset + Int(count) % Self.requestCount * Self.entryByteCount
        head.store(UInt64(0), at: offset + 8)
        atomicMemoryFence(ordering: .releasing)
        head.store(sequence.rawValue, at: offset)
        atomicMemoryFence(ordering: .releasing)
        head.store(request, at: offset + 8)
        head.store(count &+ 1, at: Self.noteCountOffset)
    }

    // MARK: Counts

    /// Stores the lookup count of an inode. `all`: every count, this one included; used for a table of another size.
    func setCount(_ inode: InodeNumber, _ count: UInt64, all: @autoclosure () -> [InodeNumber: UInt64]) {
        if Self.set(table, capacity, inode.rawValue, count) { usedCount += 1 }
        if usedCount * 2 > capacity { rebuild(all()) }
    }

    /// Returns whether the inode took a new slot.
    private static func set(
        _ table: UnsafeMutableRawBufferPointer, _ capacity: Int, _ inode: UInt64, _ count: UInt64
    ) -> Bool {
        // Spreads numbers that follow each other. They would form long runs of taken slots, and every search would walk
        // through those.
        var slot = Int((inode &* 0x9E37_79B9_7F4A_7C15) >> (64 - UInt64(capacity.trailingZeroBitCount)))
        for _ in 0..<capacity {
            let offset = slot * entryByteCount
            let found: UInt64 = table.load(offset)
            if found == inode {
                table.store(count, at: offset + 8)
                return false
            }
            if found == 0 {
                if count == 0 { return false }
                table.store(count, at: offset + 8)
                atomicMemoryFence(ordering: .releasing)
                table.store(inode, at: offset)
                return true
            }
            slot = (slot + 1) & (capacity - 1)
        }
        // The table is full, because there was no memory for a larger one.
        return false
    }

    /// Builds a table of another size, larger or smaller. Forgotten inodes have no slot in it.
    private func rebuild(_ counts: [InodeNumber: UInt64]) {
        var wanted = Self.capacityMinimum
        while wanted < counts.count * 4 { wanted *= 2 }
        if wanted == capacity { wanted *= 2 }
        guard let other = try? Self.mapTable(descriptor, wanted) else { return }
        let offset = off_t(wanted * Self.entryByteCount)
        let flags = Int32(LINUX_FALLOCATE_KEEP_SIZE) | Int32(LINUX_FALLOCATE_PUNCH_HOLE)
        guard fallocate(descriptor, flags, offset, off_t(other.count)) == 0 else {
            munmap(other.baseAddress, other.count)
            return
        }
        for (inode, count) in counts { _ = Self.set(other, wanted, inode.rawValue, count) }
        atomicMemoryFence(ordering: .releasing)
        head.store(UInt64(wanted), at: Self.capacityOffset)
        munmap(table.baseAddress, table.count)
        _ = fallocate(descriptor, flags, off_t(capacity * Self.entryByteCount), off_t(capacity * Self.entryByteCount))
        (table, capacity, usedCount) = (other, wanted, counts.count)
    }
}
