// Committing: one record is written at a time, and what is known of a request goes with its own record alone.

import Synchronization
import Testing

@testable import Treering

@Suite struct CommitTests {
    @Test func nobodySeesARecordThatWasLeftHalfWritten() throws {
        let store = try TestStore()
        let file = try store.make("file").inode
        let since = try store.volume.perform { (core) throws(Stop) in try core.inode(file).record.since }
        #expect(throws: Errno.noData) {
            try store.volume.perform { (core) throws(Stop) in
                try core.commit(.removal, .nobody) { (writer) throws(Stop) in
                    writer.removeInode(file, since: since)
                    throw .failed(.noData)
                }
            }
        }
        let before = store.volume.state.withLock { $0.core.log.nextSequence }
        let count = try store.volume.perform { (core) throws(Stop) in
            try core.commitUnlessEmpty(.write, .nobody) { $0.changeCount }
        }
        #expect(count == 0)
        #expect(store.volume.state.withLock { $0.core.log.nextSequence } == before)
        #expect(try store.volume.attributes(file).inode == file)
        try store.unlink("file")
        try store.volume.unmount()
        #expect(try Checker.check(store.device, readsData: true).problems == [])
    }

    /// An operation that fails leaves its number to nobody, least of all to what the store does by itself.
    @Test func aRequestIsNotedWithItsOwnRecordAlone() throws {
        let connection = try ConnectionState()
        var options = VolumeOptions()
        options.connection = connection
        let store = try TestStore(options: options)
        func make(_ name: String, _ number: UInt64?) throws {
            var context = TestStore.context
            context.onceNumber = number
            _ = try Array(name.utf8).withUnsafeBytes { name in
                try store.volume.perform { (core) throws(Stop) in
                    try core.make(.root, name, NewInode(mode: 0o100644), context)
                }
            }
        }
        try make("first", 8)
        #expect(throws: Errno.exists) { try make("first", 10) }
        try make("second", nil)
        try store.unlink("first")
        _ = try connection.takeOver(nextSequence: store.volume.state.withLock { $0.core.log.nextSequence })
        #expect(connection.doneRequests == [8])
    }

    /// A thread that may wait brings the acknowledgement itself, and goes on with what it may do; any other is told later.
    @Test func whoWaitsForAnAcknowledgementIsToldWhetherItCameWithinTheCall() throws {
        var options = VolumeOptions()
        options.acknowledgement = .written
        let store = try TestStore(options: options)
        let told = Mutex<[Bool]>([])
        for mayWait in [true, false] {
            _ = try store.make("file \(mayWait)")
            store.volume.whenAcknowledged(mayWait: mayWait) { errno, isWithin in
                #expect(errno == nil)
                told.withLock { $0.append(isWithin) }
            }
            #expect(told.withLock { $0 } == [true])
        }
        store.volume.wait { _ in told.withLock { $0.count == 2 } }
        #expect(told.withLock { $0 } == [true, false])
    }
}
