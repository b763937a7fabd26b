// An index with a fake page file, two superblock slots and a model beside it. Writes complete late, so that a frozen page
// that changes is noticed; every write is checked against what the two mountable checkpoints use.

import Glibc
import Testing

@testable import Treering

/// SplitMix64: small, and the same everywhere.
struct IndexRandom: RandomNumberGenerator {
    var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
    mutating func oneIn(_ bound: Int) -> Bool { below(bound) == 0 }
    mutating func bytes(_ count: Int) -> [UInt8] {
        let first = UInt8(truncatingIfNeeded: next())
        return [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            for position in 0..<count { buffer[position] = first &+ UInt8(truncatingIfNeeded: position) }
            filled = count
        }
    }
}

func indexKey(_ number: Int) -> IndexKey {
    IndexKey(space: .tree, object: UInt64(number / 16 + 1), kind: .extent, subkey: UInt64(number % 16) << 12)
}

/// Compares bytes with memcmp: element by element is slow in debug builds.
func equal(_ bytes: UnsafeRawBufferPointer, _ array: [UInt8]) -> Bool {
    guard bytes.count == array.count else { return false }
    return bytes.isEmpty || array.withUnsafeBytes { memcmp($0.baseAddress!, bytes.baseAddress!, bytes.count) == 0 }
}

/// The index file: what the device would hold.
final class PageFile {
    var pages: [UInt32: [UInt8]] = [:]

    func read(_ address: PageAddress, _ buffer: UnsafeMutableRawBufferPointer) -> Errno? {
        guard let page = pages[address.rawValue] else { return .ioError }
        buffer.copyBytes(from: page)
        return nil
    }
}

final class IndexHarness {
    static let uuid = StoreUUID(high: 0x1122_3344_5566_7788, low: 0x99AA_BBCC_DDEE_FF00)

    /// One superblock slot: a root, what the index held then, and the pages that may not be overwritten.
    struct Slot {
        var root: IndexRoot
        var model: [IndexKey: [UInt8]]
        var pages: Set<UInt32>
        var isKnownDurable: Bool
    }

    let file = PageFile()
    let cacheByteCount: Int
    /// Its entries are what a test makes of them.
    var index: Index { didSet { index.checksEntries = false } }
    var model: [IndexKey: [UInt8]] = [:]
    var slots: [Slot?] = [nil, nil]
    var frozenModel: [IndexKey: [UInt8]] = [:]
    var inTransit: [FrozenPage] = []
    var missCount = 0

    init(cachePageCount: Int) {
        cacheByteCount = cachePageCount * IndexPage.byteCount
        index = Index(uuid: Self.uuid, cacheLimitByteCount: cacheByteCount)
        index.checksEntries = false
    }

    // MARK: Operations

    /// Runs an operation as the owner does: again and again, fetching and pinning what it misses.
    func run<Result>(_ operation: (Index) throws(PageMiss) -> Result) -> Result {
        var pins: [PagePin] = []
        defer {
            for pin in pins { index.unpin(pin) }
            index.evict()
        }
        while true {
            do throws(PageMiss) {
                return try operation(index)
            } catch {
                missCount += 1
                fetch(error)
                pins.append(index.pin(error.address)!)
                index.evict()
            }
        }
    }

    func fetch(_ miss: PageMiss) {
        let fetch = index.beginFetch(miss)
        #expect(file.read(miss.address, fetch.buffer) == nil)
        do throws(CorruptionReport) {
            try index.install(fetch)
        } catch {
            fatalError("\(error)")
        }
    }

    func put(_ key: IndexKey, _ value: [UInt8]) {
        let isNew = run { index throws(PageMiss) in
            try index.touch(key)
            return value.withUnsafeBytes { index.put(key, $0) }
        }
        #expect(isNew == (model[key] == nil))
        model[key] = value
    }

    func remove(_ key: IndexKey) {
        let wasThere = run { index throws(PageMiss) in
            try index.touch(key)
            return index.remove(key)
        }
        #expect(wasThere == (model.removeValue(forKey: key) != nil))
    }

    func expectEqualToModel() {
        var keys = model.keys.sorted()[...]
        var from = IndexKey.min
        run { index throws(PageMiss) in
            _ = try index.scan(from: from, through: .max) { key, value in
                #expect(key == keys.first)
                #expect(model[key].map { equal(value, $0) } == true)
                keys = keys.dropFirst()
                from = IndexKey(word0: key.word0, word1: key.word1, word2: key.word2 + 1)
                return true
            }
        }
        #expect(keys.isEmpty)
        #expect(index.entryCount == UInt64(model.count))
    }

    // MARK: Checkpoints

    func freeze() {
        frozenModel = model
        _ = index.freeze()
    }

    /// Hands some pages to the device; their bytes are taken only in `finishWrites`.
    func startWrites(max count: Int) -> Bool {
        let pages = index.nextFrozenPages(max: count)
        for page in pages {
            for slot in slots.compactMap({ $0 }) {
                #expect(!slot.pages.contains(page.address.rawValue), "overwrites \(slot.root.checkpoint)")
            }
            #expect(Int(page.address.rawValue) < index.filePageCount)
        }
        inTransit += pages
        return !pages.isEmpty
    }

    func finishWrites() {
        for page in inTransit {
            #expect(UnsafeRawBufferPointer(page.bytes).isSealed(by: IndexPage.header.checksum))
            file.pages[page.address.rawValue] = Array(page.bytes)
        }
        inTransit = []
    }

    /// The slot that the next checkpoint goes to: one not known to be good, else the older.
    private var nextSlot: Int {
        if slots[0]?.isKnownDurable != true { return 0 }
        if slots[1]?.isKnownDurable != true { return 1 }
        return slots[0]!.root.checkpoint < slots[1]!.root.checkpoint ? 0 : 1
    }

    func writeSlot(isKnownDurable: Bool) {
        let root = index.checkpointInFlight!
        slots[nextSlot] = Slot(
            root: root, model: frozenModel, pages: verifiedPages(root, frozenModel), isKnownDurable: isKnownDurable)
    }

    func finishCheckpoint() {
        while startWrites(max: 5) {}
        finishWrites()
        writeSlot(isKnownDurable: true)
        index.checkpointDurable()
        if let a = slots[0], let b = slots[1], a.isKnownDurable, b.isKnownDurable {
            index.release(through: min(a.root.checkpoint, b.root.checkpoint))
        }
    }

    func checkpoint() {
        freeze()
        finishCheckpoint()
    }

    /// Some pages arrive, perhaps all, and then perhaps the superblock too, but the index hears of a failure.
    func failCheckpoint(_ random: inout IndexRandom) {
        if random.oneIn(2) {
            while startWrites(max: 5) {}
            finishWrites()
            if random.oneIn(2) { writeSlot(isKnownDurable: false) }
        } else {
            _ = startWrites(max: 1 + random.below(10))
            inTransit.removeAll { _ in random.oneIn(2) }
            finishWrites()
        }
        index.checkpointFailed()
    }

    /// Checks a whole checkpoint on the file and compares it with what was frozen. Returns its pages.
    func verifiedPages(_ root: IndexRoot, _ model: [IndexKey: [UInt8]]) -> Set<UInt32> {
        var entries: [IndexKey] = []
        var pages: Set<UInt32> = []
        let summary = IndexVerifier.verify(
            root: root, uuid: Self.uuid, checksEntries: false,
            read: { address, buffer in
                pages.insert(address.rawValue)
                return self.file.read(address, buffer)
            },
            onEntry: { key, value in
                entries.append(key)
                #expect(model[key].map { equal(value, $0) } == true)
            },
            onDamage: { Issue.record("\($0)") })
        #expect(summary.isWhole)
        #expect(entries.count == model.count)
        #expect(zip(entries, entries.dropFirst()).allSatisfy { $0 < $1 })
        #expect(UInt64(pages.count) + 1 == root.usedPageCount)
        return pages
    }

    /// The process dies; the newer slot, or (`preferOlder`) the older one, is mounted.
    func crash(preferOlder: Bool = false) {
        let known = slots.compactMap { $0 }.sorted { $0.root.checkpoint < $1.root.checkpoint }
        for slot in known { _ = verifiedPages(slot.root, slot.model) }
        inTransit = []
        guard let newest = known.last else {
            index = Index(uuid: Self.uuid, cacheLimitByteCount: cacheByteCount)
            model = [:]
            return
        }
        let chosen = preferOlder ? known[0] : newest
        let other = known.count == 2 ? (preferOlder ? known[1] : known[0]) : nil
        index = Index(
            uuid: Self.uuid, cacheLimitByteCount: cacheByteCount, root: chosen.root,
            building: newest.root.checkpoint.next)
        do throws(CorruptionReport) {
            try index.adopt(live: load(chosen.root), other: other.map { slot in try! load(slot.root) })
        } catch {
            Issue.record("\(error)")
        }
        model = chosen.model
        for number in slots.indices where slots[number] != nil {
            // Mounting the older slot means that the newer one is damaged: it is written next.
            slots[number]!.isKnownDurable = !(preferOlder && slots[number]!.root == newest.root && other != nil)
        }
    }

    func load(_ root: IndexRoot) throws(CorruptionReport) -> BitmapLoad {
        let memory = AlignedBuffer(byteCount: IndexPage.byteCount)
        var load = BitmapLoad(root: root, uuid: Self.uuid)
        while let next = load.next {
            #expect(file.read(next.address, memory.bytes) == nil)
            try load.add(memory.bytes)
        }
        return load
    }
}
