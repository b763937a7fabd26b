// The contents of a file in the model: sparse blocks, nothing clever.

/// Bytes of a file; what was never written reads as zeros, and a block without a written byte is a hole.
struct ModelBytes: Equatable {
    static let blockByteCount: UInt64 = 4096

    private struct Block: Equatable {
        var bytes = [UInt8](repeating: 0, count: Int(blockByteCount))
        var isWritten = [Bool](repeating: false, count: Int(blockByteCount))
    }

    private var blocks: [UInt64: Block] = [:]

    /// The numbers of the blocks that something was written to, ascending.
    var blockNumbers: [UInt64] { blocks.keys.sorted() }

    /// Calls `body` with each block number that a range lies in, and with the part of the block.
    private static func forEachPart(
        _ from: UInt64, _ to: UInt64, _ body: (_ number: UInt64, _ part: Range<Int>, _ done: Int) -> Void
    ) {
        var place = from
        while place < to {
            let start = Int(place % blockByteCount)
            let count = Int(min(to - place, blockByteCount - UInt64(start)))
            body(place / blockByteCount, start..<start + count, Int(place - from))
            place += UInt64(count)
        }
    }

    mutating func write(_ bytes: [UInt8], at offset: UInt64) {
        Self.forEachPart(offset, offset + UInt64(bytes.count)) { number, part, done in
            var block = blocks.removeValue(forKey: number) ?? Block()
            block.bytes.replaceSubrange(part, with: bytes[done..<done + part.count])
            for index in part { block.isWritten[index] = true }
            blocks[number] = block
        }
    }

    func read(at offset: UInt64, _ byteCount: Int) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(byteCount)
        Self.forEachPart(offset, offset + UInt64(byteCount)) { number, part, _ in
            if let block = blocks[number] {
                result.append(contentsOf: block.bytes[part])
            } else {
                result.append(contentsOf: repeatElement(0, count: part.count))
            }
        }
        return result
    }

    /// A range reads as zeros and counts as never written.
    mutating func clear(_ from: UInt64, _ to: UInt64) {
        for number in blocks.keys where number * Self.blockByteCount < to {
            let start = number * Self.blockByteCount
            guard start + Self.blockByteCount > from else { continue }
            for index in Int(max(from, start) - start)..<Int(min(to, start + Self.blockByteCount) - start) {
                blocks[number]!.bytes[index] = 0
                blocks[number]!.isWritten[index] = false
            }
            if !blocks[number]!.isWritten.contains(true) { blocks[number] = nil }
        }
    }

    /// Makes `to...` what `from...` is, in another file or this one: data as data, holes as holes.
    mutating func copy(_ source: ModelBytes, from: UInt64, to: UInt64, _ byteCount: UInt64) {
        let bytes = source.read(at: from, Int(byteCount))
        clear(to, to + byteCount)
        var place: UInt64 = 0
        while place < byteCount {
            guard source.isWritten(from + place) else {
                place += 1
                continue
            }
            var end = place
            while end < byteCount, source.isWritten(from + end) { end += 1 }
            write(Array(bytes[Int(place)..<Int(end)]), at: to + place)
            place = end
        }
    }

    private func isWritten(_ offset: UInt64) -> Bool {
        blocks[offset / Self.blockByteCount]?.isWritten[Int(offset % Self.blockByteCount)] ?? false
    }

    /// The first offset from `offset` on that lies in a block with data; nil when there is none.
    func data(from offset: UInt64) -> UInt64? {
        blockNumbers.first { ($0 + 1) * Self.blockByteCount > offset }.map { max(offset, $0 * Self.blockByteCount) }
    }

    /// The first offset from `offset` on that lies in a block without data.
    func hole(from offset: UInt64) -> UInt64 {
        var place = offset
        while blocks[place / Self.blockByteCount] != nil {
            place = (place / Self.blockByteCount + 1) * Self.blockByteCount
        }
        return place
    }
}
