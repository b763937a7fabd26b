// The store's directory on the host: all control calls, and how each file is opened. Both engines share it. Every path
// is relative to one directory that is opened once.

import CLinux
import Glibc
import Synchronization

/// The files of one store. Calls wait for the host; any thread may make them.
///
/// A file has two descriptors, one through the page cache and one past it, or none for a while (DescriptorTable.swift).
final class HostFiles: Sendable {
    let directory: Int32
    let segments: Int32
    let direct: DirectSupport
    let isReadOnly: Bool
    /// The host may copy on write (btrfs). Files are made so that it does not.
    let mayCopyOnWrite: Bool
    /// The soft limit of open files, raised as far as was needed and allowed.
    let descriptorLimit: Int
    let table: DescriptorTable
    /// The host refused an aligned direct transfer that then worked through the page cache. Direct I/O is not tried
    /// again.
    let directIsRefused = Atomic(false)
    let lacksDurableWrites = Atomic(false)
    let sequentialReads: SequentialReads
    /// Whether the limit of open files is too low for a mount.
    let lacksDescriptors: Bool
    private let mustBeDirect: Bool
    private let isClosed = Atomic(false)
    /// Superblock, index, an index being made, a segment being made, and a few segments to work with.
    private static let leastPlaceCount = 8
    /// Descriptors that the rest of the process needs: the connection to the kernel, staging, the lock, the log, pipes, `/proc`.
    static let otherDescriptorCount = 48

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
        mayCopyOnWrite = linux_may_copy_on_write(directory) != 0
        let mustBeDirect = options.direct == .on
        self.mustBeDirect = mustBeDirect
        let each = direct.isUsable ? 2 : 1
        let wanted = max(Self.leastPlaceCount, options.fileCapacity)
        descriptorLimit = Int(clamping: linux_raise_file_limit(UInt64(each * wanted + Self.otherDescriptorCount)))
        let placeCount = min(wanted, (descriptorLimit - Self.otherDescriptorCount) / each)
        sequentialReads = SequentialReads(capacity: max(1, placeCount))
        let opener = Opener(
            directory: directory, segments: segments, usesDirect: direct.isUsable, mustBeDirect: mustBeDirect,
            isReadOnly: options.readOnly, mayCopyOnWrite: mayCopyOnWrite)
        table = DescriptorTable(placeCount: max(1, placeCount)) { (file, create) throws(Errno) in
            try opener.open(file, create: create)
        }
        lacksDescriptors = placeCount < Self.leastPlaceCount
        let reads = sequentialReads
        table.placeChanged = { place, _ in reads.reset(place) }
    }

    /// The least limit of open files with which a mount is possible.
    var leastDescriptorCount: Int { Self.otherDescriptorCount + Self.leastPlaceCount * (direct.isUsable ? 2 : 1) }

    deinit { closeAll() }

    /// Closes all files and the directories. Nothing may be in flight.
    func closeAll() {
        guard !isClosed.exchange(true, ordering: .relaxed) else { return }
        table.closeAll()
        Glibc.close(segments)
        Glibc.close(directory)
    }

    typealias Descriptors = DescriptorTable.Descriptors

    /// Runs a call on a file's descriptor for the page cache.
    func withDescriptor<Result>(
        of file: DeviceFile, _ body: (Int32) throws(Errno) -> Result
    ) throws(Errno) -> Result {
        let found = try table.begin(file)
        defer { table.end(file, isUnsynced: false) }
        return try body(found.buffered)
    }

    /// Reads below this pass through the host's page cache, which then reads ahead and keeps index pages that our own cache dropped:
    /// random 4 KiB reads are 2.5 times as fast (docs/decisions/001-small-reads.md).
    static let directReadByteCount = 256 << 10

    /// Whether a transfer uses direct I/O: the host must support it and all must be aligned. Small reads do so only
    /// with `direct=on`.
    @inline(__always)
    func mayGoDirect(_ submission: Submission, _ descriptors: Descriptors) -> Bool {
        if submission.operation == .read, submission.byteCount < Self.directReadByteCount, !mustBeDirect {
            return false
        }
        return descriptors.direct >= 0 && submission.isAligned && !directIsRefused.load(ordering: .relaxed)
    }

    func open(_ file: StoreFile, create: Bool) throws(Errno) -> DeviceFile {
        if create && isReadOnly && file != .scratch { throw .readOnly }
        return try table.open(file, create: create)
    }

    func close(_ file: DeviceFile) { table.close(file) }

    /// The directory and the name in it.
    func place(of file: StoreFile) -> (parent: Int32, name: String) { Opener.place(of: file, directory, segments) }

    /// Opens the files of a store by name.
    private struct Opener: Sendable {
        let directory: Int32
        let segments: Int32
        let usesDirect: Bool
        let mustBeDirect: Bool
        let isReadOnly: Bool
        let mayCopyOnWrite: Bool

        func open(_ file: StoreFile, create: Bool) throws(Errno) -> Descriptors {
            if file == .scratch { return Descriptors(buffered: try openScratch(), direct: -1) }
            let access = isReadOnly ? O_RDONLY : O_RDWR
            let (parent, path) = Self.place(of: file, directory, segments)
            let name = HostString(path)
            if create { RegularFile.makeWay(name, in: parent) }
            let buffered = try RegularFile.open(name, in: parent, access | (create ? O_CREAT | O_EXCL : 0), 0o600)
            if create && mayCopyOnWrite { linux_overwrite_in_place(buffered) }
            guard usesDirect else { return Descriptors(buffered: buffered, direct: -1) }
            do throws(Errno) {
                let direct = try RegularFile.open(name, in: parent, access | linux_o_direct)
                return Descriptors(buffered: buffered, direct: direct)
            } catch {
                guard mustBeDirect || error.rawValue == EMFILE || error.rawValue == ENFILE else {
                    return Descriptors(buffered: buffered, direct: -1)
                }
                Glibc.close(buffered)
                // A later try must not find the file.
                if create { unlinkat(parent, path, 0) }
                throw error
            }
        }

        /// A nameless file: in the store's directory if that can be written to, otherwise where large temporary files
        /// belong.
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

        static func place(of file: StoreFile, _ directory: Int32, _ segments: Int32) -> (parent: Int32, name: String) {
            let path = file.path
            return path.hasPrefix("segments/") ? (segments, String(path.dropFirst(9))) : (directory, path)
        }
    }
}
