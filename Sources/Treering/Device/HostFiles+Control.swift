// The control calls of Device on the host's directory: names, lengths, room. None of them is on a hot path.

import CLinux
import Glibc

extension HostFiles {
    /// Lists regular files only. Anything else with such a name is no file of the store (see `RegularFile`).
    func list() throws(Errno) -> [StoreFile] {
        var found: [StoreFile] = []
        for name in try names(in: directory) { if let file = StoreFile(name) { found.append(file) } }
        for name in try names(in: segments) { if let file = StoreFile("segments/\(name)") { found.append(file) } }
        return found.sorted { $0.path < $1.path }
    }

    func byteCount(of file: DeviceFile) throws(Errno) -> UInt64 {
        try withDescriptor(of: file) { (descriptor) throws(Errno) in try Self.byteCount(descriptor) }
    }

    private static func byteCount(_ descriptor: Int32) throws(Errno) -> UInt64 {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .last }
        return UInt64(status.st_size)
    }

    /// posix_fallocate(3) would write into every block where the host cannot reserve; fallocate(2) says so instead.
    func resize(_ file: DeviceFile, to byteCount: UInt64) throws(Errno) {
        try withDescriptor(of: file) { (descriptor) throws(Errno) in try resize(descriptor, to: byteCount) }
    }

    private func resize(_ descriptor: Int32, to byteCount: UInt64) throws(Errno) {
        // Only a scratch file can be written to on a device for reading only.
        if isReadOnly, fcntl(descriptor, F_GETFL) & O_ACCMODE == O_RDONLY { throw .readOnly }
        guard let length = off_t(exactly: byteCount) else { throw .fileTooBig }
        let before = try Self.byteCount(descriptor)
        guard byteCount >= before, byteCount > 0 else { return try truncate(descriptor, length) }
        do {
            try retrying { fallocate(descriptor, 0, 0, length) }
        } catch {
            switch error.rawValue {
            case EOPNOTSUPP, ENOSYS:
                try truncate(descriptor, length)
            default:
                // The host may have grown the file part of the way.
                try? truncate(descriptor, off_t(before))
                // The limit of the process (RLIMIT_FSIZE) forbids it. For a store that is the same as a full disk.
                throw error.rawValue == EFBIG ? .noSpace : error
            }
        }
    }

    func punch(_ file: DeviceFile, offset: UInt64, byteCount: UInt64) throws(Errno) {
        if isReadOnly { throw .readOnly }
        guard byteCount > 0 else { return }
        guard let start = off_t(exactly: offset), let length = off_t(exactly: byteCount) else { throw .invalid }
        let mode = Int32(LINUX_FALLOCATE_PUNCH_HOLE | LINUX_FALLOCATE_KEEP_SIZE)
        do {
            try withDescriptor(of: file) { (descriptor) throws(Errno) in
                try retrying { fallocate(descriptor, mode, start, length) }
            }
        } catch {
            throw error.rawValue == ENOSYS ? .notSupported : error
        }
    }

    func hole(in file: DeviceFile, from offset: UInt64) -> Range<UInt64>? {
        // <unistd.h> has these only with _GNU_SOURCE.
        let (seekData, seekHole): (Int32, Int32) = (3, 4)
        let found = try? withDescriptor(of: file) { (descriptor) throws(Errno) -> Range<UInt64>? in
            let count = try Self.byteCount(descriptor)
            guard offset < count else { return nil }
            let start = lseek(descriptor, off_t(offset), seekHole)
            guard start >= 0, start < count else { return nil }
            let end = lseek(descriptor, start, seekData)
            return UInt64(start)..<(end < 0 ? count : UInt64(end))
        }
        return found ?? nil
    }

    func isCopiedOnWrite(_ file: DeviceFile) -> Bool {
        guard mayCopyOnWrite else { return false }
        let found = try? withDescriptor(of: file) { (descriptor) throws(Errno) in linux_is_copied_on_write(descriptor) }
        return (found ?? 0) != 0
    }

    func rename(_ file: StoreFile, to newName: StoreFile) throws(Errno) {
        if isReadOnly { throw .readOnly }
        let (from, name) = place(of: file)
        let (to, other) = place(of: newName)
        guard renameat(from, name, to, other) == 0 else { throw .last }
        table.rename(file, to: newName)
    }

    func unlink(_ file: StoreFile) throws(Errno) {
        if isReadOnly { throw .readOnly }
        let (parent, name) = place(of: file)
        guard unlinkat(parent, name, 0) == 0 else { throw .last }
    }

    func syncDirectories() throws(Errno) {
        try retrying { fsync(segments) }
        try retrying { fsync(directory) }
    }

    func hostSpace() throws(Errno) -> HostSpace {
        var status = statvfs()
        guard fstatvfs(directory, &status) == 0 else { throw .last }
        let unit = UInt64(status.f_frsize)
        return HostSpace(
            totalByteCount: UInt64(status.f_blocks) * unit, availableByteCount: UInt64(status.f_bavail) * unit)
    }

    private func truncate(_ descriptor: Int32, _ length: off_t) throws(Errno) {
        try retrying { ftruncate(descriptor, length) }
    }

    private func retrying(_ call: () -> Int32) throws(Errno) {
        while call() != 0 {
            if errno != EINTR { throw .last }
        }
    }

    /// The names of the regular files in a directory.
    private func names(in directory: Int32) throws(Errno) -> [HostString] {
        var own = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if own < 0, errno == EMFILE || errno == ENFILE, table.makeRoom() {
            own = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        }
        guard own >= 0 else { throw .last }
        guard let stream = fdopendir(own) else {
            let error = Errno.last
            Glibc.close(own)
            throw error
        }
        return try HostString.entries(closing: stream).filter { entry in
            if entry.type != UInt8(DT_UNKNOWN) { return entry.type == UInt8(DT_REG) }
            var status = stat()
            return entry.name.withCString { fstatat(directory, $0, &status, AT_SYMLINK_NOFOLLOW) } == 0
                && status.st_mode & S_IFMT == S_IFREG
        }.map(\.name)
    }
}
