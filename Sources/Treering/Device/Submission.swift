// What is submitted to a device, and what comes back.

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
