// A walk of one checkpoint's whole index through a reader, for `check`, `dump --index` and tests. Needs memory for one
// page per level and two bits per page of the file, and goes on behind damage.

/// What a walk found.
struct IndexSummary: Sendable, Equatable {
    var leafPageCount: UInt64 = 0
    var innerPageCount: UInt64 = 0
    var bitmapPageCount: UInt64 = 0
    var entryCount: UInt64 = 0
    /// Of values alone.
    var valueByteCount: UInt64 = 0
    /// Of entries and values in leaves; `leafPageCount * IndexPage.capacityByteCount` would be full.
    var leafUsedByteCount: UInt64 = 0
    var damageCount: UInt64 = 0

    var isWhole: Bool { damageCount == 0 }
}

/// Walks an index. Everything comes in key order; damage comes where it is met.
struct IndexVerifier: ~Copyable {
    /// Fills the buffer with the page at an address; the error that came if it cannot.
    typealias Reader = (PageAddress, UnsafeMutableRawBufferPointer) -> Errno?

    private let root: IndexRoot
    private let uuid: StoreUUID
    private let range: ClosedRange<IndexKey>
    private let checksEntries: Bool
    private let read: Reader
    private let onEntry: (IndexKey, UnsafeRawBufferPointer) -> Void
    private let onPage: (IndexPage) -> Void
    private let onDamage: (CorruptionReport) -> Void
    private let buffers: AlignedBuffer
    private var seen: [UInt64] = []
    private var summary = IndexSummary()

    /// Checks every page that `root` leads to, calling back for each entry, page (before its entries) and damage.
    /// Within a part of the keys it looks only at pages that may hold them, and not at the bitmap.
    static func verify(
        root: IndexRoot, uuid: StoreUUID, within range: ClosedRange<IndexKey> = .min ... .max,
        checksEntries: Bool = true, read: @escaping Reader,
        onEntry: @escaping (IndexKey, UnsafeRawBufferPointer) -> Void = { _, _ in },
        onPage: @escaping (IndexPage) -> Void = { _ in },
        onDamage: @escaping (CorruptionReport) -> Void
    ) -> IndexSummary {
        var verifier = IndexVerifier(
            root: root, uuid: uuid, range: range, checksEntries: checksEntries, read: read, onEntry: onEntry,
            onPage: onPage, onDamage: onDamage)
        return verifier.run()
    }

    private init(
        root: IndexRoot, uuid: StoreUUID, range: ClosedRange<IndexKey>, checksEntries: Bool, read: @escaping Reader,
        onEntry: @escaping (IndexKey, UnsafeRawBufferPointer) -> Void, onPage: @escaping (IndexPage) -> Void,
        onDamage: @escaping (CorruptionReport) -> Void
    ) {
        self.root = root
        self.uuid = uuid
        self.range = range
        self.checksEntries = checksEntries
        self.read = read
        self.onEntry = onEntry
        self.onPage = onPage
        self.onDamage = onDamage
        buffers = AlignedBuffer(byteCount: (Int(root.level) + 1) * IndexPage.byteCount)
    }

    private mutating func run() -> IndexSummary {
        let isWhole = range == .min ... .max
        let bitmap = isWhole ? loadBitmap() : nil
        seen = Array(repeating: 0, count: min(Int(root.pageCount) + 63, 1 << 31) / 64)
        mark(PageAddress(0))
        for address in bitmap?.pages ?? [] { mark(address) }
        walk(
            PageMiss(pointer: root.page, level: root.level, lower: .min, upper: .max, isRoot: true))
        if let bitmap { compare(with: bitmap) }
        if isWhole && summary.entryCount != root.entryCount && summary.isWhole {
            report("index", "it has \(summary.entryCount) entries, the superblock says \(root.entryCount)")
        }
        return summary
    }

    private mutating func report(_ place: String, _ reason: String) {
        report(CorruptionReport(place: place, reason: reason))
    }

    private mutating func report(_ damage: CorruptionReport) {
        summary.damageCount += 1
        onDamage(damage)
    }

    private mutating func mark(_ address: PageAddress) {
        seen[Int(address.rawValue >> 6)] |= 1 << UInt64(address.rawValue & 63)
    }

    private func isMarked(_ address: PageAddress) -> Bool {
        seen[Int(address.rawValue >> 6)] >> UInt64(address.rawValue & 63) & 1 != 0
    }

    private mutating func loadBitmap() -> BitmapLoad? {
        var load = BitmapLoad(root: root, uuid: uuid)
        let buffer = buffers.bytes.part(0, IndexPage.byteCount)
        while let next = load.next {
            if let error = read(next.address, buffer) {
                report("bitmap page \(next.address.rawValue)", "it cannot be read: \(error)")
                return nil
            }
            do throws(CorruptionReport) {
                try load.add(buffer)
                summary.bitmapPageCount += 1
            } catch {
                report(error)
                return nil
            }
        }
        return load
    }

    private mutating func walk(_ want: PageMiss) {
        let place = "index page \(want.address.rawValue)"
        if isMarked(want.address) { return report(place, "two places of the index name it") }
        mark(want.address)
        let buffer = buffers.bytes.part(Int(want.level) * IndexPage.byteCount, IndexPage.byteCount)
        if let error = read(want.address, buffer) { return report(place, "it cannot be read: \(error)") }
        do throws(CorruptionReport) {
            try IndexPage.validate(
                buffer,
                PageExpectation(
                    uuid: uuid, pointer: want.pointer, level: want.level, lower: want.lower, upper: want.upper,
                    pageCount: root.pageCount, isRoot: want.isRoot, checksEntries: checksEntries))
        } catch {
            return report(error)
        }
        let page = IndexPage(buffer.baseAddress!)
        onPage(page)
        if page.isLeaf { visit(page) } else { descend(page, want) }
    }

    private mutating func visit(_ leaf: IndexPage) {
        summary.leafPageCount += 1
        summary.entryCount += UInt64(leaf.count)
        summary.leafUsedByteCount += UInt64(leaf.usedByteCount)
        for position in 0..<leaf.count {
            guard range.contains(leaf.leafKey(position)) else { continue }
            let value = UnsafeRawBufferPointer(leaf.value(position))
            summary.valueByteCount += UInt64(value.count)
            onEntry(leaf.leafKey(position), value)
        }
    }

    private mutating func descend(_ page: IndexPage, _ want: PageMiss) {
        summary.innerPageCount += 1
        for position in 0..<page.count {
            let lower = position > 0 ? page.innerKey(position) : want.lower
            let upper = position + 1 < page.count ? page.innerKey(position + 1) : want.upper
            guard lower <= range.upperBound, upper > range.lowerBound else { continue }
            walk(
                PageMiss(
                    pointer: page.child(position), level: want.level - 1, lower: lower, upper: upper, isRoot: false))
        }
    }

    /// A page that the tree uses and the bitmap calls free is damage. If the tree is whole, a page that the bitmap
    /// marks and the tree does not use is damage too.
    private mutating func compare(with bitmap: BitmapLoad) {
        var lost = 0
        var firstLost = 0
        let isWhole = summary.isWhole
        for (position, word) in bitmap.words.enumerated() {
            var free = seen[position] & ~word
            while free != 0 {
                report("index page \(position * 64 + free.trailingZeroBitCount)", "the bitmap says that it is free")
                free &= free - 1
            }
            let unused = word & ~seen[position]
            if unused != 0 && lost == 0 { firstLost = position * 64 + unused.trailingZeroBitCount }
            lost += unused.nonzeroBitCount
        }
        if lost > 0 && isWhole {
            report("index page \(firstLost)", "it and \(lost - 1) others are marked as used, but nothing names them")
        }
    }
}
