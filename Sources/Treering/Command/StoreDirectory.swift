// Examines a store's directory before anything is opened in it.

import Glibc

/// What is at a path that is to be a store.
enum StoreState: Equatable, Sendable {
    /// Nothing is there; the parent directory is not checked.
    case missing
    case empty
    /// Parts of a store, but no superblock.
    case incomplete
    /// A format was interrupted. Nobody can have stored anything yet.
    case unfinished
    case store
    /// Files that are no part of a store; the first few names.
    case foreign([HostString])
}

enum StoreDirectory {
    private static let lockName: HostString = "lock"
    private static let segmentsName: HostString = "segments"
    /// This mark is there while a store is being formatted: from before its first file until its superblock is durable.
    private static let markName: HostString = "formatting"

    /// The path of a typed store: mount(8) may pass "store:/path".
    static func path(ofSource source: HostString) -> HostString {
        source.hasPrefix("store:") ? source.dropFirst("store:".utf8.count) : source
    }

    /// Examines the directory. Throws if the path leads to anything else than a directory or nothing.
    static func state(_ path: HostString) throws(CommandError) -> StoreState {
        let status: stat
        do throws(Errno) { status = try path.status() } catch {
            if error == .noEntry { return .missing }
            throw CommandError("\(path): \(error)")
        }
        guard status.st_mode & S_IFMT == S_IFDIR else { throw CommandError("\(path): is not a directory") }
        let names: [HostString]
        do throws(Errno) { names = try path.names() } catch { throw CommandError("\(path): \(error)") }
        let isMarked = names.contains(markName)
        if names.contains(HostString(StoreFile.superblock.path)), !isMarked || hasSuperblock(path) { return .store }
        let strangers = names.filter { name in
            name != lockName && name != segmentsName && name != markName && !isStaging(name)
                && StoreFile(name) == nil
        }
        // A new file system has this directory; it does not count as foreign.
        let foreign = strangers.filter { $0 != "lost+found" }
        if !foreign.isEmpty { return .foreign(Array(foreign.prefix(3))) }
        if isMarked { return .unfinished }
        let segments = (try? path.appending(segmentsName).names()) ?? []
        let isBare = names.allSatisfy { $0 == lockName || $0 == segmentsName || $0 == "lost+found" } && segments.isEmpty
        return isBare ? .empty : .incomplete
    }

    /// Whether a name is that of a staging file.
    private static func isStaging(_ name: HostString) -> Bool {
        name == "staging"
            || name.hasPrefix("staging-") && UInt64(name.dropFirst("staging-".utf8.count).description, radix: 16) != nil
    }

    /// Whether at least one slot can be read.
    private static func hasSuperblock(_ path: HostString) -> Bool {
        let name = path.appending(HostString(StoreFile.superblock.path))
        guard let descriptor = try? RegularFile.open(name, O_RDONLY) else { return false }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: Superblock.slotByteCount)
        return Superblock.slotOffsets.contains { offset in
            guard pread(descriptor, &bytes, bytes.count, off_t(offset)) == bytes.count else { return false }
            return bytes.withUnsafeBytes { (try? Superblock(decoding: $0)) != nil }
        }
    }

    /// Sets the mark durably, before a store is made here.
    static func beginFormat(_ path: HostString) throws(Errno) {
        close(try RegularFile.open(path.appending(markName), O_WRONLY | O_CREAT, 0o600))
        try sync(path)
    }

    /// Removes the mark durably, after the store is whole and before anything is kept in it: a mark that came back
    /// would make a damaged store count as unfinished.
    static func endFormat(_ path: HostString) throws(Errno) {
        do throws(Errno) { try path.appending(markName).unlink() } catch {
            if error == .noEntry { return }
            throw error
        }
        try sync(path)
    }

    private static func sync(_ path: HostString) throws(Errno) {
        let descriptor = path.openDirectory()
        guard descriptor >= 0 else { throw .last }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw .last }
    }

    /// Removes the files of a store and, with `andDirectory`, the directory itself. Foreign files stay.
    static func clear(_ path: HostString, andDirectory: Bool) {
        let segments = path.appending(segmentsName)
        for name in (try? segments.names()) ?? [] where StoreFile(segmentsName.appending(name)) != nil {
            try? segments.appending(name).unlink()
        }
        try? segments.removeDirectory()
        for name in (try? path.names()) ?? [] where StoreFile(name) != nil { try? path.appending(name).unlink() }
        try? path.appending(markName).unlink()
        if andDirectory {
            try? path.appending(lockName).unlink()
            try? path.removeDirectory()
        }
    }

    /// The error for a directory that must not be touched.
    static func refusal(_ path: HostString, _ names: [HostString]) -> CommandError {
        let list = names.map { "'\($0)'" }.joined(separator: ", ")
        return CommandError(
            "\(path): is neither empty nor a Treering store (it holds \(list)); nothing was changed. "
                + "Name an empty or a new directory.")
    }
}
