// Checks of an index page that was read from disk. Bytes with a right checksum may still be hostile. On a page that
// passes, no accessor of IndexPage reads outside the page or traps.

/// What the pointer to a page tells of it before it is read.
struct PageExpectation: Sendable {
    var uuid: StoreUUID
    var pointer: PagePointer
    var level: UInt8
    /// No key of the page is below this.
    var lower: IndexKey
    /// Every key of the page is below this.
    var upper: IndexKey
    /// Every child has an address below this.
    var pageCount: UInt64
    /// Only the root may be without entries.
    var isRoot: Bool
    /// False only in tests of the tree itself, whose entries mean nothing.
    var checksEntries = true
}

extension IndexPage {
    /// Checks all that can be checked in one page alone. `bytes` has the size of a page.
    static func validate(
        _ bytes: UnsafeMutableRawBufferPointer, _ expected: PageExpectation
    ) throws(CorruptionReport) {
        precondition(bytes.count == byteCount)
        let page = IndexPage(bytes.baseAddress!)
        try validateHeader(page, expected.uuid, expected.pointer, expected.level)
        let stride = page.isLeaf ? leafEntryByteCount : innerEntryByteCount
        guard page.heapStart <= byteCount, headerByteCount + page.count * stride <= page.heapStart else {
            throw page.damage(expected, "entries reach into the values")
        }
        guard page.count > 0 || page.isLeaf else {
            throw page.damage(expected, "it has no entries")
        }
        try page.validateKeys(expected, stride: stride)
        guard page.isLeaf else { return try page.validateChildren(expected) }
        try page.validateValues(expected)
        if expected.checksEntries { try page.validateEntries(expected) }
    }

    static func validateHeader(
        _ page: IndexPage, _ uuid: StoreUUID, _ pointer: PagePointer, _ level: UInt8
    ) throws(CorruptionReport) {
        let place = "index page \(pointer.address.rawValue)"
        func fail(_ reason: String) -> CorruptionReport { CorruptionReport(place: place, reason: reason) }
        guard page.base[header.magic] == magic else { throw fail("it is not an index page") }
        guard UnsafeRawBufferPointer(page.bytes).isSealed(by: header.checksum) else {
            throw fail("its checksum is wrong")
        }
        guard page.uuid == uuid else { throw fail("it belongs to store \(page.uuid)") }
        guard page.address == pointer.address else {
            throw fail("it was written for address \(page.address.rawValue)")
        }
        guard page.birth == pointer.birth else {
            throw fail("it is of checkpoint \(page.birth.rawValue), not \(pointer.birth.rawValue)")
        }
        guard page.level == level else { throw fail("its level is \(page.level), not \(level)") }
    }

    private func damage(_ expected: PageExpectation, _ reason: String) -> CorruptionReport {
        CorruptionReport(place: "index page \(expected.pointer.address.rawValue)", reason: reason)
    }

    private func validateKeys(_ expected: PageExpectation, stride: Int) throws(CorruptionReport) {
        let first = isLeaf ? 0 : 1
        if !isLeaf && innerKey(0) != .min { throw damage(expected, "key 0 is not zero") }
        guard count > first else { return }
        var previous = Self.loadKey(entry(first, stride: stride))
        guard previous > expected.lower || (isLeaf && previous == expected.lower) else {
            throw damage(expected, "a key lies below the page's range")
        }
        for position in first + 1..<max(count, first + 1) {
            let key = Self.loadKey(entry(position, stride: stride))
            guard previous < key else {
                throw damage(expected, "keys \(position - 1) and \(position) are not ascending")
            }
            previous = key
        }
        guard previous < expected.upper else { throw damage(expected, "a key lies above the page's range") }
    }

    /// Checks that values lie between heap start and the end of the page, do not overlap, and, with the dead bytes,
    /// fill that space.
    private func validateValues(_ expected: PageExpectation) throws(CorruptionReport) {
        var total = 0
        let isTiled = withUnsafeTemporaryAllocation(of: UInt64.self, capacity: Self.byteCount / 64) { taken in
            taken.initialize(repeating: 0)
            for position in 0..<count {
                let place = leafEntry(position)
                let offset = Int(place[Self.leaf.valueOffset])
                let byteCount = Int(place[Self.leaf.valueByteCount])
                if byteCount == 0 && offset == 0 { continue }
                guard byteCount > 0, byteCount <= Self.maxValueByteCount, offset >= heapStart,
                    offset + byteCount <= Self.byteCount, Self.take(offset..<offset + byteCount, taken)
                else { return false }
                total += byteCount
            }
            return true
        }
        guard isTiled else { throw damage(expected, "values overlap or leave the page") }
        guard total + deadByteCount == Self.byteCount - heapStart else {
            throw damage(expected, "values do not add up to the space in use")
        }
    }

    /// Checks each entry by its key and value.
    private func validateEntries(_ expected: PageExpectation) throws(CorruptionReport) {
        for position in 0..<count {
            let key = leafKey(position)
            if let problem = key.problem(UnsafeRawBufferPointer(value(position))) {
                throw damage(expected, "the entry \(key) cannot be: \(problem)")
            }
        }
    }

    /// Marks a range of bytes as taken. False if a part of it is taken already.
    private static func take(_ range: Range<Int>, _ taken: UnsafeMutableBufferPointer<UInt64>) -> Bool {
        var position = range.lowerBound
        while position < range.upperBound {
            let bit = position & 63
            let width = min(64 - bit, range.upperBound - position)
            let mask = (width == 64 ? UInt64.max : (1 << UInt64(width)) - 1) << UInt64(bit)
            if taken[position >> 6] & mask != 0 { return false }
            taken[position >> 6] |= mask
            position += width
        }
        return true
    }

    private func validateChildren(_ expected: PageExpectation) throws(CorruptionReport) {
        guard heapStart == Self.byteCount, deadByteCount == 0 else {
            throw damage(expected, "an inner page has values")
        }
        for position in 0..<count {
            let child = child(position)
            guard child.address.rawValue != 0, UInt64(child.address.rawValue) < expected.pageCount else {
                throw damage(expected, "child \(position) lies outside the index file")
            }
            guard child.birth <= birth else { throw damage(expected, "child \(position) is younger than its parent") }
        }
    }

    /// One line for a person: what the header of the page says. The page need not be valid.
    static func describe(_ bytes: UnsafeRawBufferPointer) -> String {
        guard bytes.count == byteCount, bytes[header.magic] == magic else { return "not an index page" }
        let level = bytes[header.level]
        let kind = level == 0 ? "leaf" : level == bitmapLevel ? "bitmap" : "inner, level \(level)"
        let sum = bytes.isSealed(by: header.checksum) ? "good" : "bad"
        return "page \(bytes[header.address].rawValue): \(kind), birth \(bytes[header.birth].rawValue), "
            + "\(bytes[header.count]) entries, values from \(bytes[header.heapStart]), "
            + "\(bytes[header.deadByteCount]) bytes dead, checksum \(sum)"
    }
}
