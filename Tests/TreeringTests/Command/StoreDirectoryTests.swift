// What a directory that is to be a store is taken for.

import Glibc
import Testing

@testable import Treering

@Suite struct StoreDirectoryTests {
    private func format(_ path: HostString) throws {
        var options = FormatOptions()
        options.capacityByteCount = 64 << 20
        try OpenStore.makeDirectory(path)
        let store = try OpenStore(path, try StoreLock(path), .posix, DeviceOptions())
        defer { store.device.shutDown() }
        try store.format(options)
    }

    /// Found by the long tier (a kill during the first mount): the superblock was there but empty, and the store could not be mounted.
    @Test func aFormatThatWasCutOffIsUnfinishedWhateverItHasMade() throws {
        let directory = TemporaryDirectory()
        defer { withExtendedLifetime(directory) {} }
        let path = directory.path
        #expect(try StoreDirectory.state(path) == .empty)
        try StoreDirectory.beginFormat(path)
        #expect(try StoreDirectory.state(path) == .unfinished)
        #expect(HostFile.make("\(path)/superblock", byteCount: 65536 + 4096))
        #expect(try StoreDirectory.state(path) == .unfinished)
        StoreDirectory.clear(path, andDirectory: false)
        #expect(try StoreDirectory.state(path) == .empty)
    }

    @Test func aStoreWhoseMarkWasLeftIsAStore() throws {
        let directory = TemporaryDirectory()
        defer { withExtendedLifetime(directory) {} }
        let path = directory.path
        try format(path)
        #expect(!HostString("\(path)/formatting").exists)
        #expect(try StoreDirectory.state(path) == .store)
        try StoreDirectory.beginFormat(path)
        #expect(try StoreDirectory.state(path) == .store)
        try StoreDirectory.endFormat(path)
        #expect(!HostString("\(path)/formatting").exists)
    }

    /// Without the mark, an empty superblock is damage: nothing is made anew over what may be somebody's files.
    @Test func anEmptySuperblockWithoutTheMarkIsNotUnfinished() throws {
        let directory = TemporaryDirectory()
        defer { withExtendedLifetime(directory) {} }
        #expect(HostFile.make("\(directory.path)/superblock", byteCount: 65536 + 4096))
        #expect(try StoreDirectory.state(directory.path) == .store)
    }

    /// What a killed mount left in the store's directory, where it could not be in shared memory, is no stranger.
    @Test func aStoreThatLostItsSuperblockIsIncompleteAlsoWithStaging() throws {
        let directory = TemporaryDirectory()
        defer { withExtendedLifetime(directory) {} }
        let path = directory.path
        try format(path)
        #expect(HostFile.make("\(path)/staging-1f", byteCount: 4096))
        try HostString("\(path)/superblock").unlink()
        #expect(try StoreDirectory.state(path) == .incomplete)
    }

    /// Somebody's directory is no store's, though it has a name that begins like those of staging.
    @Test func somebodysFilesThatAreNamedLikeStagingAreStrangers() throws {
        for name in ["staging-site", "staging.conf", "stagings", "staging-"] {
            let directory = TemporaryDirectory()
            defer { withExtendedLifetime(directory) {} }
            #expect(HostFile.make("\(directory.path)/\(name)", byteCount: 10))
            #expect(try StoreDirectory.state(directory.path) == .foreign([HostString(name)]))
        }
    }
}

extension HostFile {
    fileprivate static func make(_ path: HostString, byteCount: Int) -> Bool {
        let descriptor = path.open(O_WRONLY | O_CREAT, 0o600)
        defer { close(descriptor) }
        return descriptor >= 0 && ftruncate(descriptor, off_t(byteCount)) == 0
    }
}
