// `treering export`: copies the files of a store into a directory of the host, without FUSE, as far as they can be
// read. It writes only below that directory, whatever names and numbers the store holds, and it never writes to the
// store.

import CLinux
import Glibc

/// What an export did.
struct ExportReport: Sendable {
    var fileCount: UInt64 = 0
    var directoryCount: UInt64 = 0
    var otherCount: UInt64 = 0
    var linkCount: UInt64 = 0
    var byteCount: UInt64 = 0
    /// What could not be exported, in words: the first `problemLimit` problems.
    var problems: [String] = []
    var problemCount: UInt64 = 0
    /// How many files could not get their owner, for example because the export does not run as root.
    var foreignOwnerCount: UInt64 = 0

    static let problemLimit = 1000

    mutating func add(_ problem: String) {
        problemCount += 1
        if problems.count < Self.problemLimit { problems.append(problem) }
    }
}

/// Copies a tree out of a store.
struct Exporter<D: Device> {
    private let view: StoreView<D>
    private let root: Int32
    private(set) var report = ExportReport()
    /// A file that the export has made and that has further names.
    private struct Made {
        /// The path from the top of the export.
        var path: [UInt8]
        /// Its identity on the host. A link that leads to anything else is refused.
        var device: UInt64
        var hostInode: UInt64
    }

    private var linked: [UInt64: Made] = [:]
    /// Directories that were entered. A damaged store may lead to a directory twice.
    private var seen = BitSet()
    private let isRoot = geteuid() == 0

    /// A directory that is being filled.
    private struct Level {
        var inode: InodeNumber
        var cookie: UInt64 = 0
        var pathByteCount: Int
        /// Its identity on the host. The way back up must lead to the same directory.
        var device: UInt64
        var hostInode: UInt64
        /// It was there before the export. Its attributes stay as they are.
        var isForeign: Bool
    }

    private var levels: [Level] = []
    /// Directories that their owner may not enter. They get their modes last, since links may still lead into them.
    /// Deeper ones come first.
    private var impassable: [(path: [UInt8], record: InodeRecord)] = []
    private var here: Int32
    private var path: [UInt8] = []

    /// Fills a directory, which is open as `target`, with the files of a store.
    static func export(_ view: StoreView<D>, into target: Int32) throws(MountError) -> ExportReport {
        var exporter = Exporter(view, target)
        try exporter.run()
        return exporter.report
    }

    private init(_ view: StoreView<D>, _ target: Int32) {
        self.view = view
        root = target
        here = dup(target)
    }

    private mutating func run() throws(MountError) {
        defer { close(here) }
        guard let entry = try view.inode(.root), entry.record.isDirectory else {
            report.add("/: there is no root directory")
            return
        }
        enter(.root, isForeign: false)
        while let level = levels.last {
            if let name = try view.name(in: level.inode, after: level.cookie) {
                levels[levels.count - 1].cookie = name.cookie
                try export(name)
            } else {
                try leave()
            }
        }
        for (path, record) in impassable { try dress(path, record) }
    }

    // MARK: Directories

    private mutating func enter(_ inode: InodeNumber, isForeign: Bool) {
        var status = stat()
        fstat(here, &status)
        levels.append(
            Level(
                inode: inode, pathByteCount: path.count, device: UInt64(status.st_dev),
                hostInode: UInt64(status.st_ino), isForeign: isForeign))
        if inode.rawValue < BitSet.limit { seen.insert(inode.rawValue) }
    }

    /// Ends a directory that is filled: goes back to its parent, and gives it its attributes.
    private mutating func leave() throws(MountError) {
        let level = levels.removeLast()
        report.directoryCount += 1
        // Open the parent first: afterwards the mode may forbid it.
        var up: Int32 = -1
        if let parent = levels.last {
            var status = stat()
            up = openat(here, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard up >= 0, fstat(up, &status) == 0, UInt64(status.st_dev) == parent.device,
                UInt64(status.st_ino) == parent.hostInode
            else {
                if up >= 0 { close(up) }
                throw MountError(.host, "\(shownPath): somebody moved directories of the export while it ran")
            }
        }
        if !level.isForeign, let entry = try view.inode(level.inode) {
            if !isRoot, up >= 0, entry.record.mode & 0o100 == 0 {
                impassable.append((path, entry.record))
            } else {
                try dress(here, entry.record)
            }
        }
        guard up >= 0, let parent = levels.last else { return }
        close(here)
        here = up
        path.removeLast(path.count - parent.pathByteCount)
    }

    private mutating func dress(_ path: [UInt8], _ record: InodeRecord) throws(MountError) {
        self.path = path
        let name = HostString(bytes: path.dropFirst())
        let directory = name.withCString { openat(root, $0, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) }
        guard directory >= 0 else { return report.add("\(shownPath): its mode cannot be set: \(Errno.last)") }
        defer { close(directory) }
        try dress(directory, record)
    }

    private var shownPath: String { path.isEmpty ? "/" : path.withUnsafeBytes { $0.plainOrQuoted } }

    // MARK: One name

    private mutating func export(_ name: StoreView<D>.Name) throws(MountError) {
        let before = path.count
        path.append(UInt8(ascii: "/"))
        path.append(contentsOf: name.bytes)
        let isEntered = try exportHere(name)
        if !isEntered {
            path.removeLast(path.count - before)
        } else {
            levels[levels.count - 1].pathByteCount = path.count
        }
    }

    /// Exports one name. True if it is a directory that is to be filled now.
    private mutating func exportHere(_ name: StoreView<D>.Name) throws(MountError) -> Bool {
        let bytes = name.bytes
        guard !bytes.isEmpty, bytes.count <= 255, !bytes.contains(0), !bytes.contains(UInt8(ascii: "/")),
            bytes != [0x2E], bytes != [0x2E, 0x2E]
        else {
            report.add("\(shownPath): no host can have such a name; it is left out")
            return false
        }
        let entry: InodeEntry?
        do throws(MountError) { entry = try view.inode(name.inode) } catch {
            report.add("\(shownPath): \(error)")
            return false
        }
        guard let record = entry?.record else {
            report.add("\(shownPath): inode \(name.inode.rawValue) is not there")
            return false
        }
        if record.isDirectory { return makeDirectory(name) }
        if record.linkCount > 1, let first = linked[name.inode.rawValue], link(first, name) { return false }
        let isMade: Bool
        switch record.type {
        case 0o100000: isMade = try exportFile(name, record)
        case 0o120000: isMade = try exportSymlink(name, record)
        case 0o010000, 0o140000, 0o020000, 0o060000: isMade = try exportSpecial(name, record)
        default:
            report.add("\(shownPath): it is of no known type")
            return false
        }
        if isMade, record.linkCount > 1 { remember(name) }
        return false
    }

    /// Remembers a file that was just made, for its further names.
    private mutating func remember(_ name: StoreView<D>.Name) {
        guard let status = status(name) else { return }
        linked[name.inode.rawValue] = Made(
            path: path, device: UInt64(status.st_dev), hostInode: UInt64(status.st_ino))
    }

    /// The status of a name on the host. Links are not followed.
    private func status(_ name: StoreView<D>.Name) -> stat? {
        var status = stat()
        let result = HostString(bytes: name.bytes).withCString { fstatat(here, $0, &status, AT_SYMLINK_NOFOLLOW) }
        return result == 0 ? status : nil
    }

    private mutating func makeDirectory(_ name: StoreView<D>.Name) -> Bool {
        guard name.inode.rawValue < BitSet.limit, !seen.contains(name.inode.rawValue) else {
            report.add("\(shownPath): this directory has another name already")
            return false
        }
        let text = HostString(bytes: name.bytes)
        let isMade = text.withCString { mkdirat(here, $0, 0o700) } == 0
        if !isMade, errno != EEXIST {
            report.add("\(shownPath): \(Errno.last)")
            return false
        }
        let opened = text.withCString { openat(here, $0, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) }
        guard opened >= 0 else {
            report.add("\(shownPath): \(Errno.last)")
            return false
        }
        // A directory that was there may be closed to us; then there would be no way back out of it.
        guard isMade || faccessat(opened, ".", W_OK | X_OK, AT_EACCESS) == 0 else {
            report.add("\(shownPath): this directory was there and cannot be filled: \(Errno.last)")
            close(opened)
            return false
        }
        close(here)
        here = opened
        enter(name.inode, isForeign: !isMade)
        return true
    }

    /// Makes a further name for a file that was exported. False if the name must become a copy instead.
    private mutating func link(_ first: Made, _ name: StoreView<D>.Name) -> Bool {
        let (from, to) = (HostString(bytes: first.path.dropFirst()), HostString(bytes: name.bytes))
        guard from.withCString({ from in to.withCString { linkat(root, from, here, $0, 0) } }) == 0 else {
            let isTaken = errno == EEXIST
            // The path may be too long, or the host may have no links. A copy is better than nothing.
            report.add("\(shownPath): \(isTaken ? "" : "cannot be linked and becomes a copy: ")\(Errno.last)")
            return isTaken
        }
        guard let made = status(name), UInt64(made.st_dev) == first.device, UInt64(made.st_ino) == first.hostInode
        else {
            _ = to.withCString { unlinkat(here, $0, 0) }
            report.add("\(shownPath): somebody changed the export while it ran; it becomes a copy")
            return false
        }
        report.linkCount += 1
        return true
    }

    // MARK: Files

    private mutating func exportFile(_ name: StoreView<D>.Name, _ record: InodeRecord) throws(MountError) -> Bool {
        let file = HostString(bytes: name.bytes).withCString {
            openat(here, $0, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        }
        guard file >= 0 else {
            report.add("\(shownPath): \(Errno.last)")
            return false
        }
        defer { close(file) }
        let size = off_t(clamping: record.size)
        if ftruncate(file, size) != 0 {
            report.add("\(shownPath): its size of \(record.size) cannot be had here: \(Errno.last)")
        }
        var failure: Errno?
        var damage: [UnreadableRange] = []
        var damageCount = 0
        var byteCount: UInt64 = 0
        try view.read(name.inode, 0, UInt64(size)) { (offset, bytes) throws(MountError) in
            guard failure == nil else { return }
            failure = Self.write(file, offset, bytes)
            byteCount += UInt64(bytes.count)
            if failure == .noSpace { throw MountError("the export cannot go on", .noSpace) }
        } _: { range in
            damageCount += 1
            if damage.count < 64 { damage.append(range) }
        }
        report.byteCount += byteCount
        report.fileCount += 1
        if let failure { report.add("\(shownPath): \(failure)") }
        for range in damage {
            report.add(
                "\(shownPath): bytes \(range.offset)..<\(range.offset + range.byteCount) cannot be read and are zeros: \(range.reason.reason) (\(range.reason.place))"
            )
        }
        if damageCount > damage.count {
            report.add("\(shownPath): \(damageCount - damage.count) more of its ranges cannot be read and are zeros")
        }
        try exportAttributes(file, name.inode)
        try dress(file, record)
        return true
    }

    private static func write(_ file: Int32, _ offset: UInt64, _ bytes: UnsafeRawBufferPointer) -> Errno? {
        var done = 0
        while done < bytes.count {
            let result = pwrite(file, bytes.baseAddress! + done, bytes.count - done, off_t(offset) + off_t(done))
            if result > 0 {
                done += result
            } else if result == 0 || errno != EINTR {
                return result == 0 ? .ioError : .last
            }
        }
        return nil
    }

    private mutating func exportSymlink(_ name: StoreView<D>.Name, _ record: InodeRecord) throws(MountError) -> Bool {
        var target: [UInt8] = []
        var isWhole = record.size > 0 && record.size < UInt64(PATH_MAX)
        if isWhole {
            target = [UInt8](repeating: 0, count: Int(record.size))
            try view.read(name.inode, 0, record.size) { (offset, bytes) throws(MountError) in
                target.withUnsafeMutableBytes { $0.copy(bytes, to: Int(offset)) }
            } _: { _ in
                isWhole = false
            }
        }
        guard isWhole, !target.contains(0) else {
            report.add("\(shownPath): the target of this symbolic link cannot be read")
            return false
        }
        let made = HostString(bytes: target).withCString { target in
            HostString(bytes: name.bytes).withCString { symlinkat(target, here, $0) }
        }
        guard made == 0 else {
            report.add("\(shownPath): \(Errno.last)")
            return false
        }
        report.otherCount += 1
        dressByName(name, record, setsMode: false)
        return true
    }

    private mutating func exportSpecial(_ name: StoreView<D>.Name, _ record: InodeRecord) throws(MountError) -> Bool {
        // The kernel's 32-bit encoding: minor 7–0, major 19–8, minor 31–20.
        let number = UInt64(record.deviceNumber)
        let major = number >> 8 & 0xFFF
        let minor = number & 0xFF | number >> 12 & 0xFFF00
        let device = (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12
        let made = HostString(bytes: name.bytes).withCString {
            mknodat(here, $0, mode_t(record.type | 0o600), record.type & 0o020000 != 0 ? dev_t(device) : 0)
        }
        guard made == 0 else {
            report.add("\(shownPath): \(Errno.last)")
            return false
        }
        report.otherCount += 1
        dressByName(name, record, setsMode: true)
        return true
    }

    // MARK: Attributes

    private mutating func exportAttributes(_ file: Int32, _ inode: InodeNumber) throws(MountError) {
        var cookie: UInt64 = 0
        while let attribute = try view.attribute(of: inode, after: cookie) {
            cookie = attribute.cookie
            let shown = attribute.name.withUnsafeBytes { $0.plainOrQuoted }
            guard let value = attribute.value, !attribute.name.contains(0) else {
                report.add("\(shownPath): the extended attribute \(shown) cannot be read")
                continue
            }
            let result = HostString(bytes: attribute.name).withCString { name in
                value.withUnsafeBytes { fsetxattr(file, name, $0.baseAddress, $0.count, 0) }
            }
            if result != 0 { report.add("\(shownPath): the extended attribute \(shown) cannot be set: \(Errno.last)") }
        }
    }

    /// Sets owner, mode and times of an open file or directory, in this order: a later step must not undo an earlier
    /// one.
    private mutating func dress(_ file: Int32, _ record: InodeRecord) throws(MountError) {
        if record.isDirectory { try exportAttributes(file, record.inode) }
        let isOwned = isRoot ? fchown(file, record.uid, record.gid) == 0 : record.uid == geteuid()
        if !isOwned { report.foreignOwnerCount += 1 }
        // A set-id program must not run as whoever exports it: without the owner, the file does not get these bits.
        let bits: UInt32 = isOwned || record.isDirectory ? 0o7777 : 0o1777
        if fchmod(file, mode_t(record.mode & bits)) != 0 { report.add("\(shownPath): \(Errno.last)") }
        var times = Self.times(record)
        if futimens(file, &times) != 0 { report.add("\(shownPath): its times cannot be set: \(Errno.last)") }
    }

    private mutating func dressByName(_ name: StoreView<D>.Name, _ record: InodeRecord, setsMode: Bool) {
        HostString(bytes: name.bytes).withCString { text in
            let isOwned =
                isRoot
                ? fchownat(here, text, record.uid, record.gid, AT_SYMLINK_NOFOLLOW) == 0 : record.uid == geteuid()
            if !isOwned { report.foreignOwnerCount += 1 }
            // The name was just made and is no symbolic link, so following links is harmless here.
            if setsMode, fchmodat(here, text, mode_t(record.mode & 0o7777), 0) != 0 {
                report.add("\(shownPath): \(Errno.last)")
            }
            var times = Self.times(record)
            if utimensat(here, text, &times, AT_SYMLINK_NOFOLLOW) != 0 {
                report.add("\(shownPath): its times cannot be set: \(Errno.last)")
            }
        }
    }

    private static func times(_ record: InodeRecord) -> [timespec] {
        [record.accessed, record.modified].map {
            timespec(tv_sec: Int($0.seconds), tv_nsec: Int($0.nanoseconds))
        }
    }
}
