// The one seam for every byte that reaches a disk: data and control. SegmentLog and Index talk to this protocol;
// ring, posix and simulated devices implement it. Nothing here knows what the bytes mean.

/// A file of a store. Names on disk are the device's business.
enum StoreFile: Hashable, Sendable {
    case superblock
    case index
    /// An index being rebuilt; renamed to `index` when whole.
    case newIndex
    /// A temporary file without a name. `open(.scratch, create: true)` gives a new one each time, also on a device for
    /// reading only. It is gone when it is closed.
    case scratch
    case segment(SegmentNumber)
    /// A segment being written with zeros, not yet part of the store.
    case preparing(SegmentNumber)

    /// The path below the store's directory.
    var path: String {
        switch self {
        case .superblock: return "superblock"
        case .index: return "index"
        case .newIndex: return "index.new"
        case .scratch: return "(scratch)"
        case .segment(let number): return "segments/\(Self.digits(number)).seg"
        case .preparing(let number): return "segments/\(Self.digits(number)).new"
        }
    }

    /// The file that a path below the store's directory names; nil if it is not a file of a store.
    init?(path: String) {
        switch path {
        case "superblock": self = .superblock
        case "index": self = .index
        case "index.new": self = .newIndex
        default:
            guard path.hasPrefix("segments/"), path.utf8.count == 9 + 8 + 4,
                let number = UInt32(path.dropFirst(9).dropLast(4), radix: 16)
            else { return nil }
            if path.hasSuffix(".seg") {
                self = .segment(SegmentNumber(number))
            } else if path.hasSuffix(".new") {
                self = .preparing(SegmentNumber(number))
            } else {
                return nil
            }
            if self.path != path { return nil }
        }
    }

    /// The same for a path as the host tells it.
    init?(_ path: HostString) {
        guard let text = String(validating: path.bytes, as: UTF8.self) else { return nil }
        self.init(path: text)
    }

    private static func digits(_ number: SegmentNumber) -> String {
        let text = String(number.rawValue, radix: 16)
        return String(repeating: "0", count: 8 - text.count) + text
    }
}

/// An open file of a device: an index into its table of files.
struct DeviceFile: Hashable, Sendable {
    let rawValue: Int32
}

/// One read, write or flush of one file.
///
/// Memory belongs to the submitter and must stay in place until the completion. Direct I/O is used by the device
/// where offset, lengths and addresses are all multiples of 4 KiB and the host allows it; results are the same otherwise.
struct Submission {
    enum Operation {
        /// Completes with the number of bytes read: fewer than asked for only at the end of the file.
        case read
        /// Completes with the number of bytes written, always all of them.
        case write
        /// A write whose own bytes (and nothing else) are durable at its completion (RWF_DSYNC).
        case writeDurable
        /// Makes every write of this file that completed before this was submitted durable (fdatasync).
        case sync
    }

    var operation: Operation
    var file: DeviceFile
    /// In bytes.
    var offset: UInt64
    /// The memory; the second part, if any, follows the first on disk without a gap.
    var first: UnsafeMutableRawBufferPointer
    var second: UnsafeMutableRawBufferPointer?
    /// The completion gives it back. It is a slot number of the submitter, never a pointer.
    var tag: UInt64

    init(
        _ operation: Operation, _ file: DeviceFile, offset: UInt64 = 0,
        _ first: UnsafeMutableRawBufferPointer = .init(start: nil, count: 0),
        _ second: UnsafeMutableRawBufferPointer? = nil, tag: UInt64
    ) {
        self.operation = operation
        self.file = file
        self.offset = offset
        self.first = first
        self.second = second
        self.tag = tag
    }

    var byteCount: Int { first.count + (second?.count ?? 0) }
}

/// The result of a submission: a byte count, or a negative error number.
struct Completion: Sendable {
    var tag: UInt64
    var result: Int
    var error: Errno? { result < 0 ? Errno(ofHost: Int32(-result)) : nil }
}

/// The room on the host file system below a store, in bytes.
struct HostSpace: Sendable {
    var totalByteCount: UInt64
    var availableByteCount: UInt64
}

/// Access to a store's files. Any thread may make any call.
///
/// Engines retry EINTR and EAGAIN and finish short reads and writes themselves.
protocol Device: AnyObject, Sendable {
    /// Names the engine for logs and `stats` ("ring", "posix", "simulated").
    var engineName: String { get }

    /// Sets the handler of completions, once, before the first `submit`. It is called from any thread, and the device
    /// holds no lock meanwhile. It may submit again.
    func onCompletion(_ handler: @escaping @Sendable (Completion) -> Void)

    /// Hands over operations; returns without waiting for them. Each completes exactly once, in any order.
    /// Waits only when the device's own bounded queue is full.
    func submit(_ submissions: borrowing [Submission])

    /// Does one operation on the calling thread and waits for it; the handler is not told.
    func perform(_ submission: Submission) -> Completion

    /// For an engine without threads of its own (the simulated one): completes one submission on the calling thread.
    /// False when the caller should wait for a completion instead.
    func makeProgress() -> Bool

    /// Completes what was submitted, then ends threads and closes files. No call may follow.
    func shutDown()

    // Control. These wait, and are called by mount, unmount and the background thread, never under a lock.

    /// The store's files by name. Strangers are left out.
    func list() throws(Errno) -> [StoreFile]
    /// Opens a file; `create` makes a new empty one and fails with EEXIST where there is one already.
    func open(_ file: StoreFile, create: Bool) throws(Errno) -> DeviceFile
    /// Closes a file with nothing in flight.
    func close(_ file: DeviceFile)
    /// Exactly these segments stay ready to be written to. Others may have to be opened again, which can fail.
    func keepOpen(_ segments: [DeviceFile])
    func byteCount(of file: DeviceFile) throws(Errno) -> UInt64
    /// Sets the length and reserves the blocks (posix_fallocate; ftruncate when shrinking).
    func resize(_ file: DeviceFile, to byteCount: UInt64) throws(Errno)
    /// Gives blocks back to the host (they read as zeros). ENOTSUP where the host cannot.
    func punch(_ file: DeviceFile, offset: UInt64, byteCount: UInt64) throws(Errno)
    /// The first hole of a file at or after `offset`: a range without blocks on the host. Nil if there is none or the
    /// host cannot tell.
    func hole(in file: DeviceFile, from offset: UInt64) -> Range<UInt64>?
    /// Whether the host copies on write: overwriting then needs new room on the host.
    func isCopiedOnWrite(_ file: DeviceFile) -> Bool
    /// Renames over an existing file. Durable only after `syncDirectories`.
    func rename(_ file: StoreFile, to newName: StoreFile) throws(Errno)
    func unlink(_ file: StoreFile) throws(Errno)
    /// Makes creations, renames and removals durable.
    func syncDirectories() throws(Errno)
    func hostSpace() throws(Errno) -> HostSpace
}

extension Device {
    func makeProgress() -> Bool { false }
    func keepOpen(_ segments: [DeviceFile]) {}
    func isCopiedOnWrite(_ file: DeviceFile) -> Bool { false }
}
