// Inodes whose numbers cannot be, under right checksums: what once killed the daemon at `ls`, `rm` and `rmdir`. A number that no inode can
// have is damage of its index page; one that only contradicts others is met by the operation, which gives EIO. A repair repairs both.

import Testing

@testable import Treering

@Suite struct HostileInodeTests {
    private static let links = field(InodeRecord.layout.linkCount)
    private static let size = field(InodeRecord.layout.size)
    private static let derived = InodeEntry.layout.derived

    /// Where a field of the record lies in an `InodeEntry`.
    private static func field<Value>(_ field: Field<Value>) -> Field<Value> {
        Field(InodeEntry.layout.record.offset + field.offset, field.name)
    }

    /// Changes a field of an inode behind the operations' back.
    private func change<Word: StoredValue & Sendable>(
        _ store: TestStore, _ inode: InodeNumber, _ field: Field<Word>, _ value: Word
    ) {
        store.volume.state.withLock { $0.core.index.tree.update(InodeEntry.key(inode)) { $0[field] = value } }
    }

    private func corruptions(_ store: TestStore) -> [String] {
        store.volume.state.withLock { $0.core.corruptions.map(\.reason) }
    }

    private func removeDirectory(_ store: TestStore, _ name: String) throws {
        try Array(name.utf8).withUnsafeBytes { name in
            try store.volume.perform { (core) throws(Stop) in try core.removeDirectory(.root, name, .nobody) }
        }
    }

    private func rename(_ store: TestStore, _ from: String, _ to: String) throws {
        try Array(from.utf8).withUnsafeBytes { from in
            try Array(to.utf8).withUnsafeBytes { to in
                try store.volume.perform { (core) throws(Stop) in
                    try core.rename(.root, from, .root, to, [], TestStore.context)
                }
            }
        }
    }

    /// Everything that a repair finds is repaired, and the store is as it was before it was changed.
    private func salvage(_ store: TestStore, _ reason: String) throws {
        let report = try DamagedStore.repair(store.device)
        #expect(report.found.problems.contains { "\($0)".contains(reason) }, "\(report.found.problems)")
        #expect(report.left.isClean, "\(report.left.problems)")
        store.volume = try Volume.mount(store.device, VolumeOptions(), now: TestStore.now) { _ in }
    }

    @Test func numbersThatNoInodeCanHaveAreDamageOfTheirPage() throws {
        let cases: [(mode: UInt32, field: Field<UInt64>, value: UInt64, reason: String)] = [
            (0o100644, Self.size, 1 << 63, "its size is"), (0o100644, Self.size, .max, "its size is"),
            (0o100644, Self.derived, .max - 99, "bytes or entries"), (0o120777, Self.size, 1 << 63, "its size is"),
            (0o120777, Self.size, 4097, "its size is"), (0o040755, Self.derived, 1 << 60, "bytes or entries"),
        ]
        for (mode, field, value, reason) in cases {
            let store = try TestStore()
            let inode = try store.make("victim", mode: mode).inode
            if mode == 0o100644 { try store.write(inode, 0, [UInt8](repeating: 7, count: 5000)) }
            let before = try store.lookup("victim")
            change(store, inode, field, value)
            try store.volume.unmount()
            #expect(throws: MountError.self) {
                try Volume.mount(store.device, VolumeOptions(), now: TestStore.now) { _ in }
            }
            try salvage(store, reason)
            #expect(try store.lookup("victim") == before)
            try store.remove("victim", isDirectory: mode == 0o040755)
        }
    }

    @Test func aFileWithoutALinkButWithANameIsNotRemoved() throws {
        let store = try TestStore()
        let file = try store.make("file").inode
        try store.write(file, 0, [1, 2, 3])
        _ = try store.make("other")
        change(store, file, Self.links, 0)
        _ = try store.lookup("file").status
        #expect(throws: Errno.ioError) { try store.unlink("file") }
        #expect(throws: Errno.ioError) { try rename(store, "other", "file") }
        #expect(corruptions(store).contains { $0.contains("0 links") })
        #expect(try store.read(file, 0, 3) == [1, 2, 3])
        try store.volume.unmount()
        try salvage(store, "")
        #expect(try store.read(file, 0, 3) == [1, 2, 3])
        try store.unlink("file")
    }

    @Test func aDirectoryWithoutLinksKeepsWhatIsInIt() throws {
        let store = try TestStore()
        _ = try store.make("sub", mode: 0o040755)
        _ = try store.make("empty", mode: 0o040755)
        change(store, .root, Self.links, 0)
        #expect(throws: Errno.ioError) { try removeDirectory(store, "sub") }
        #expect(throws: Errno.ioError) { try rename(store, "sub", "empty") }
        #expect(corruptions(store).contains { $0.contains("0 links") })
        try store.volume.unmount()
        try salvage(store, "")
        try removeDirectory(store, "sub")
        #expect(try store.names().contains("sub") == false)
    }

    /// What is still in it would have no name any more.
    @Test func aDirectoryThatCountsNoneOfItsNamesIsNotRemoved() throws {
        let store = try TestStore()
        let directory = try store.make("directory", mode: 0o040755).inode
        let inner = try store.make("inner", in: directory).inode
        _ = try store.make("other", mode: 0o040755)
        change(store, directory, Self.derived, 0)
        #expect(throws: Errno.ioError) { try removeDirectory(store, "directory") }
        #expect(throws: Errno.ioError) { try rename(store, "other", "directory") }
        // One name less than none.
        try store.unlink("inner", in: directory)
        #expect(corruptions(store).contains { $0.contains("more or less than it counts") })
        _ = inner
        try removeDirectory(store, "directory")
    }

    @Test func linksOfADirectoryHaveALimit() throws {
        let store = try TestStore()
        let directory = try store.make("directory", mode: 0o040755).inode
        change(store, directory, Self.links, InodeRecord.linkCountLimit)
        #expect(throws: Errno.tooManyLinks) { try store.make("sub", in: directory, mode: 0o040755) }
        _ = try store.make("file", in: directory)
    }

    /// What is written must be such as the decoder lets pass.
    @Test func whatNoRecordCanSayIsRefusedBefore() throws {
        let store = try TestStore()
        #expect(throws: Errno.invalid) { try store.make("strange", mode: 0o150644) }
        for name in [".", ".."] { #expect(throws: Errno.exists) { try store.make(name) } }
        for name in ["", "a/b", "a\0b"] { #expect(throws: Errno.invalid) { try store.make(name) } }
        let target = [UInt8](repeating: 0x61, count: 4097)
        #expect(throws: Errno.nameTooLong) {
            try target.withUnsafeBytes { target in
                try Array("link".utf8).withUnsafeBytes { name in
                    try store.volume.perform { (core) throws(Stop) in
                        try core.make(.root, name, NewInode(mode: 0o120777, target: target), TestStore.context)
                    }
                }
            }
        }
        // A record that slips through all that would end the process when it is applied.
        let file = try store.make("file").inode
        #expect(throws: Errno.ioError) {
            try store.volume.perform { (core) throws(Stop) in
                var inode = try core.inode(file).record
                inode.size = .max
                try core.commit(.write, .nobody) { $0.inode(inode) }
            }
        }
        store.volume.state.withLock { $0.core.log.nextInode = InodeNumber(counterLimit) }
        #expect(throws: Errno.noSpace) { try store.make("last") }
    }
}

extension TestStore {
    fileprivate func remove(_ name: String, isDirectory: Bool) throws {
        guard isDirectory else { return try unlink(name) }
        try Array(name.utf8).withUnsafeBytes { name in
            try volume.perform { (core) throws(Stop) in try core.removeDirectory(.root, name, .nobody) }
        }
    }
}
