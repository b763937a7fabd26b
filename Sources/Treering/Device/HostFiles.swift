// The store's directory on the host and its table of open files, shared by the ring and the posix engine: all control
// calls and the name of every descriptor. Everything is reached relative to one directory opened once.

import CLinux
import Glibc
import Synchronization

/// The files of one store. Calls wait for the host; any thread may make them.
///
/// A file has two descriptors, one through the page cache and one past it. The table is read without a lock: an entry
/// changes only at `open` and `close`, and a file is closed only with nothing in flight.
final class HostFiles: Sendable {
    let directory: Int32
    let segments: Int32
    let capacity: Int
    let direct: DirectSupport
    let isReadOnly: Bool
    /// The soft limit of open files, raised as far as was needed and allowed.
    let descriptorLimit: Int
    /// The host refused an aligned direct transfer that went well through the page cache: not tried again.
    let directIsRefused = Atomic(false)
    let lacksDurableWrites = Atomic(false)
    let sequentialReads: SequentialReads
    private let mustBeDirect: Bool
    /// Buffered descriptor in the low half, direct one in the high half; all ones: free.
    nonisolated(unsafe) private let table: UnsafeMutablePointer<Atomic<UInt64>>
    private let slots: Mutex<Slots>

    /// Which entries of the table are in use.
    private struct Slots {
        var free: [Int32] = []
        var used: Int32 = 0
        var isClosed = false
    }

    /// Makes the directory of a store, or completes one; durable when it returns. EEXIST where a file is in the way.
    static func create(directory path: HostString) throws(Errno) {
        var made = true
        do throws(Errno) { try path.makeDirectory() } catch {
            if error != .exists { throw error }
            made = false
        }
        let directory = path.openDirectory()
        guard directory >= 0 else { throw errno == ENOTDIR ? .exists : .last }
        defer { Glibc.close(directory) }
        if mkdirat(directory, "segments", 0o700) != 0 && errno != EEXIST { throw .last }
        let segments = openat(directory, "segments", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
        guard segments >= 0 else { throw .last }
        defer { Glibc.close(segments) }
        guard fsync(segments) == 0, fsync(directory) == 0 else { throw .last }
        if made {
            let parent = openat(directory, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard parent >= 0 else { return }
            defer { Glibc.close(parent) }
            if fsync(parent) != 0 && errno != EINVAL { throw .last }
        }
    }

    /// Opens the directory. ENOTSUP where `direct=on` is asked for and the host refuses it.
    init(directory path: HostString, options: DeviceOptions) throws(Errno) {
        let directory = path.openDirectory()
        guard directory >= 0 else { throw .last }
        let segments = openat(directory, "segments", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
        guard segments >= 0 else {
            let error = Errno.last
            Glibc.close(directory)
            throw error
        }
        let direct = options.direct == .off ? .switchedOff : DirectSupport(directory, isReadOnly: options.readOnly)
        if options.direct == .on && !direct.isUsable {
            Glibc.close(segments)
            Glibc.close(directory)
            throw .notSupported
        }
        self.directory = directory
        self.segments = segments
        self.direct = direct
        isReadOnly = options.readOnly
        mustBeDirect = options.direct == .on
        capacity = max(8, options.fileCapacity)
        descriptorLimit = Int(clamping: linux_raise_file_limit(UInt64(2 * capacity + 256)))
        sequentialReads = SequentialReads(capacity: capacity)
        table = .allocate(capacity: capacity)
        for index in 0..<capacity { (table + index).initialize(to: Atomic(.max)) }
        slots = Mutex(Slots())
    }

    deinit {
        closeAll()
        table.deinitialize(count: capacity)
        table.deallocate()
    }

    /// Closes what is still open, and the directories. Nothing may be in flight.
    func closeAll() {
        let wasClosed = slots.withLock { slots in
            defer { slots.isClosed = true }
            return slots.isClosed
        }
        if wasClosed { return }
        for index in 0..<capacity {
            let entry = table[index].exchange(.max, ordering: .relaxed)
            closeDescriptors(Descriptors(entry))
        }
        Glibc.close(segments)
        Glibc.close(directory)
    }

    /// The two descriptors of an open file; −1 where there is none.
    struct Descriptors {
        var buffered: Int32
        var direct: Int32

        init(buffered: Int32, direct: Int32) {
            self.buffered = buffered
            self.direct = direct
        }

        init(_ entry: UInt64) {
            buffered = Int32(truncatingIfNeeded: entry)
            direct = Int32(truncatingIfNeeded: entry >> 32)
        }

        var entry: UInt64 { UInt64(UInt32(bitPattern: buffered)) | UInt64(UInt32(bitPattern: direct)) << 32 }
    }

    /// Traps for a file that is not open.
    @inline(__always)
    func descriptors(of file: DeviceFile) -> Descriptors {
        precondition(file.rawValue >= 0 && file.rawValue < capacity)
        let found = Descriptors(table[Int(file.rawValue)].load(ordering: .acquiring))
        precondition(found.buffered >= 0, "a device file that is not open")
        return found
    }

    /// Reads below this pass through the host's page cache, which then reads ahead and keeps index pages that our own cache dropped:
    /// random 4 KiB reads are 2.5 times as fast (docs/decisions/001-small-reads.md).
    static let directReadByteCount = 256 << 10

    /// Direct where the host has it and everything is aligned; small reads only where `direct=on` insists.
    @inline(__always)
    func mayGoDirect(_ submission: Submission, _ descriptors: Descriptors) -> Bool {
        if submission.operation == .read, submission.byteCount < Self.directReadByteCount, !mustBeDirect {
            return false
        }
        return descriptors.direct >= 0 && submission.isAligned && !directIsRefused.load(ordering: .relaxed)
    }

    func open(_ file: StoreFile, create: Bool) throws(Errno) -> DeviceFile {
        if create && isReadOnly && file != .scratch { throw .readOnly }
        guard let index = takeSlot() else { throw Errno(EMFILE) }
        do {
            let descriptors = try openDescriptors(file, create: create)
            sequentialReads.reset(DeviceFile(rawValue: index))
            table[Int(index)].store(descriptors.entry, ordering: .releasing)
        } catch {
            slots.withLock { $0.free.append(index) }
            throw error
        }
        return DeviceFile(rawValue: index)
    }

    func close(_ file: DeviceFile) {
        precondition(file.rawValue >= 0 && file.rawValue < capacity)
        let found = Descriptors(table[Int(file.rawValue)].exchange(.max, ordering: .acquiringAndReleasing))
        precondition(found.buffered >= 0, "a device file closed twice")
        closeDescriptors(found)
        slots.withLock { $0.free.append(file.rawValue) }
    }

    private func takeSlot() -> Int32? {
        slots.withLock { slots in
            precondition(!slots.isClosed, "a call after the end of the device")
            if let index = slots.free.popLast() { return index }
            guard slots.used < capacity else { return nil }
            slots.used += 1
            return slots.used - 1
        }
    }

    private func openDescriptors(_ file: StoreFile, create: Bool) throws(Errno) -> Descriptors {
        if file == .scratch { return Descriptors(buffered: try openScratch(), direct: -1) }
        let access = isReadOnly ? O_RDONLY : O_RDWR
        let (parent, path) = place(of: file)
        let name = HostString(path)
        if create { RegularFile.makeWay(name, in: parent) }
        let buffered = try RegularFile.open(name, in: parent, access | (create ? O_CREAT | O_EXCL : 0), 0o600)
        guard direct.isUsable else { return Descriptors(buffered: buffered, direct: -1) }
        do throws(Errno) {
            let direct = try RegularFile.open(name, in: parent, access | linux_o_direct)
            return Descriptors(buffered: buffered, direct: direct)
        } catch {
            guard mustBeDirect else { return Descriptors(buffered: buffered, direct: -1) }
            Glibc.close(buffered)
            throw error
        }
    }

    /// A file without a name: beside the store where that can be written to, else where large temporary files belong.
    private func openScratch() throws(Errno) -> Int32 {
        let access = O_RDWR | O_CLOEXEC | linux_o_tmpfile
        if !isReadOnly {
            let opened = openat(directory, ".", access, 0o600)
            if opened >= 0 { return opened }
        }
        for place in [HostString.environment("TMPDIR"), "/var/tmp", "/tmp"].compactMap({ $0 }) {
            let opened = place.open(access, 0o600)
            if opened >= 0 { return opened }
        }
        throw .last
    }

    private func closeDescriptors(_ descriptors: Descriptors) {
        if descriptors.direct >= 0 { Glibc.close(descriptors.direct) }
        if descriptors.buffered >= 0 { Glibc.close(descriptors.buffered) }
    }

    /// The directory and the name in it.
    func place(of file: StoreFile) -> (parent: Int32, name: String) {
        let path = file.path
        return path.hasPrefix("segments/") ? (segments, String(path.dropFirst(9))) : (directory, path)
    }
}
