// Writers are held back only where room is short and cleaning would bring some, more the less room there is, and never for long.

import Testing

@testable import Treering

@Suite struct WritePaceTests {
    private static func store(_ policy: CleaningPolicy) throws -> TestStore {
        var options = VolumeOptions()
        options.cleaning = policy
        options.stagingByteCount = 1 << 20
        options.indexCacheByteCount = 2 << 20
        return try TestStore(capacity: 32 << 20, options: options)
    }

    /// The pace after each write, from an empty store to one with hardly any room.
    private func paces(_ store: TestStore, overwrites: Bool) throws -> [Int] {
        let file = try store.make("file").inode
        let bytes = [UInt8](repeating: 7, count: 64 << 10)
        var paces: [Int] = []
        for round in 0..<10_000 {
            let room = store.volume.state.withLock { state -> Int in
                let log = state.core.log
                return (log.space.availableSegmentCount - log.space.keptSegmentCount(.write))
                    * log.table.segmentByteCount
                    + log.space.headRoom
            }
            if room < 256 << 10 { return paces }
            // Of sixteen pieces that were written one stays live: nothing is dead as a whole.
            let place = overwrites && round % 16 != 0 ? 0 : round
            try store.write(file, UInt64(place * bytes.count), bytes)
            paces.append(store.volume.state.withLock { $0.core.log.space.pace(longest: WritePace.longestPace) })
        }
        return paces
    }

    @Test func writersAreHeldBackMoreTheLessRoomThereIs() throws {
        let paces = try paces(try Self.store(.off), overwrites: true)
        #expect(paces.first == 0)
        let last = try #require(paces.last)
        #expect(last > 100_000 && last <= 2_000_000)
        #expect(paces == paces.sorted(), "less room, and a quicker pace")
    }

    @Test func nobodyIsHeldBackForAFullHost() throws {
        let store = try Self.store(.off)
        _ = try paces(store, overwrites: true)
        store.volume.state.withLock { state in
            #expect(state.core.log.space.pace(longest: WritePace.longestPace) > 0)
            state.core.log.space.isHostFull = true
            #expect(state.core.log.space.pace(longest: WritePace.longestPace) == 0)
        }
    }

    @Test func aCleanerThatIsOffHoldsNobodyBack() throws {
        let store = try Self.store(.off)
        _ = try paces(store, overwrites: true)
        store.volume.housekeeper.setPace()
        #expect(store.volume.writePace.delay(ofByteCount: 1 << 20) == 0)
    }

    @Test func noWriteIsHeldBackForLong() {
        let pace = WritePace()
        #expect(pace.delay(ofByteCount: 4096) == 0)
        pace.set(2_000_000)
        #expect(pace.delay(ofByteCount: 1) == 2_000_000)
        #expect(pace.delay(ofByteCount: 8192) == 4_000_000)
        #expect(pace.delay(ofByteCount: 1 << 20) == 20_000_000)
        #expect(pace.takeHeldNanoseconds() == 26_000_000)
        #expect(pace.takeHeldNanoseconds() == 0)
    }
}
