// Access control lists as values, and what a volume makes of them. The many cases are compared with ext4 by Tests/Mount/meta.sh.

import Testing

@testable import Treering

@Suite struct AccessControlTests {
    private typealias Tag = AccessControlList.Tag

    private func bytes(_ entries: [(Tag, UInt16, UInt32)], version: UInt8 = 2) -> [UInt8] {
        var bytes: [UInt8] = [version, 0, 0, 0]
        for (tag, permissions, id) in entries {
            for word in [tag.rawValue, permissions] { bytes += [UInt8(word & 255), UInt8(word >> 8)] }
            for shift in [0, 8, 16, 24] as [UInt32] { bytes.append(UInt8(id >> shift & 255)) }
        }
        return bytes
    }

    private func list(_ entries: [(Tag, UInt16, UInt32)], version: UInt8 = 2) -> AccessControlList? {
        bytes(entries, version: version).withUnsafeBytes { AccessControlList(decoding: $0) }
    }

    private let named: [(Tag, UInt16, UInt32)] = [
        (.owner, 7, .max), (.user, 6, 1000), (.owningGroup, 5, .max), (.group, 4, 7), (.mask, 6, .max),
        (.other, 1, .max),
    ]

    @Test func whatIsNoListIsRefused() {
        #expect(list(named) != nil)
        #expect(list(named, version: 3) == nil)
        for missing in named.indices where ![1, 3].contains(missing) {
            var entries = named
            entries.remove(at: missing)
            #expect(list(entries) == nil, "without \(named[missing].0)")
        }
        var entries = named
        entries.swapAt(1, 2)
        #expect(list(entries) == nil, "out of order")
        entries = named
        entries[0].1 = 8
        #expect(list(entries) == nil, "permissions beyond rwx")
        for length in [0, 3, 5, 11, 51] {
            let cut = bytes(named).prefix(length)
            #expect(Array(cut).withUnsafeBytes { AccessControlList(decoding: $0) } == nil, "\(length) bytes")
        }
    }

    @Test func bytesComeBackAsTheyWere() throws {
        let found = try #require(list(named))
        #expect(found.bytes == bytes(named))
        #expect(!found.isMode && found.modeBits == 0o761)
    }

    @Test func theMaskIsWhatAModeShowsOfTheGroup() throws {
        var found = try #require(list(named))
        found.takeMode(0o604)
        #expect(found.modeBits == 0o604)
        #expect(found.entries[2].permissions == 5 && found.entries[4].permissions == 0)
        var plain = try #require(list([(.owner, 7, .max), (.owningGroup, 5, .max), (.other, 0, .max)]))
        #expect(plain.isMode && plain.modeBits == 0o750)
        plain.takeMode(0o642)
        #expect(plain.entries.map(\.permissions) == [6, 4, 2])
    }

    @Test func aNewFileGetsNoMoreThanItsModeSays() throws {
        let made = try #require(list(named)).inherited(mode: 0o640)
        #expect(made.entries.map(\.permissions) == [6, 6, 5, 4, 4, 0])
    }

    // MARK: In a volume

    private func set(_ store: TestStore, _ inode: InodeNumber, _ name: StaticString, _ value: [UInt8]) throws {
        try value.withUnsafeBytes { value in
            try store.volume.perform { (core) throws(Stop) in
                try core.setXattr(inode, XattrName.bytes(name), value, [], TestStore.context)
            }
        }
    }

    private func names(_ store: TestStore, _ inode: InodeNumber) throws -> [String] {
        let walk = XattrListWalk()
        return try store.volume.perform { (core) throws(Stop) in try core.xattrNames(inode, walk, .nobody) }
            .split(separator: 0).map { String(decoding: $0, as: UTF8.self) }.sorted()
    }

    /// A file and its inherited list are one record: a log cut off anywhere shows both or neither.
    @Test func makingInADirectoryWithADefaultListIsOneRecord() throws {
        let store = try TestStore()
        let directory = try store.make("d", mode: 0o040755).inode
        try set(store, directory, XattrName.defaultListName, bytes(named))
        let before = store.volume.state.withLock { $0.core.log.nextSequence }
        let file = try store.make("f", in: directory, mode: 0o100666)
        #expect(store.volume.state.withLock { $0.core.log.nextSequence } == before.next)
        // The umask of 022 does not count.
        #expect(file.mode == 0o100660)
        #expect(try names(store, file.inode) == ["system.posix_acl_access"])
        let inner = try store.make("sub", in: directory, mode: 0o040777)
        #expect(try names(store, inner.inode) == ["system.posix_acl_access", "system.posix_acl_default"])
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    @Test func aListThatDoesNotFitTheIndexIsRefused() throws {
        let store = try TestStore()
        let file = try store.make("f").inode
        func many(_ count: Int) -> [UInt8] {
            let users: [(Tag, UInt16, UInt32)] = (0..<count).map { (.user, 4, UInt32($0)) }
            return bytes([named[0]] + users + [named[2], named[4], named[5]])
        }
        try set(store, file, XattrName.accessListName, many(AccessControlList.entryCountLimit - 4))
        #expect(throws: Errno.noSpace) {
            try set(store, file, XattrName.accessListName, many(AccessControlList.entryCountLimit - 3))
        }
    }

    @Test func withoutListsNoneAreTakenOrInherited() throws {
        let store = try TestStore()
        let directory = try store.make("d", mode: 0o040755).inode
        try set(store, directory, XattrName.defaultListName, bytes(named))
        store.volume.useAccessLists(false)
        #expect(throws: Errno.notSupported) { try set(store, directory, XattrName.defaultListName, bytes(named)) }
        #expect(try store.make("f", in: directory, mode: 0o100666).mode == 0o100644)
    }

    /// Whether the bit may stay is asked only where there is one to lose.
    @Test func settingAListAsksForGroupsOnlyWhereSetGroupIDIsAtStake() throws {
        let store = try TestStore()
        let plain = try store.make("plain").inode
        try set(store, plain, XattrName.accessListName, bytes(named))
        let file = try store.make("sgid", mode: 0o102755).inode
        for (caller, mode) in [
            (Caller(uid: 1, gid: 5, umask: 0, identity: Identity()), 0o100761 as UInt32),
            (Caller(uid: 1, gid: 5, umask: 0, identity: Identity(groups: [1000])), 0o102761),
            (Caller(uid: 1, gid: 5, umask: 0, identity: .privileged), 0o102761),
        ] {
            var changes = AttributeChanges()
            changes.mode = 0o2755
            _ = try store.volume.perform { (core) throws(Stop) in try core.setAttributes(file, changes, .by(caller)) }
            try bytes(named).withUnsafeBytes { value in
                try store.volume.perform { (core) throws(Stop) in
                    try core.setXattr(file, XattrName.bytes(XattrName.accessListName), value, [], .by(caller))
                }
            }
            #expect(try store.volume.perform { (core) throws(Stop) in try core.attributes(file).mode } == mode)
        }
    }
}
