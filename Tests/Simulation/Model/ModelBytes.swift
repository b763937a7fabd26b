// The contents of a file in the model: sparse blocks, nothing clever.

/// Bytes of a file; what was never written reads as zeros.
struct ModelBytes: Equatable {
    static let blockByteCount: UInt64 = 4096
    private(set) var blocks: [UInt64: [UInt8]] = [:]

    /// The numbers of the blocks that something was written to, ascending.
    var blockNumbers: [UInt64] { blocks.keys.sorted() }

    mutating func write(_ bytes: [UInt8], at offset: UInt64) {
        var done = 0
        while done < bytes.count {
            let place = offset + UInt64(done)
            let number = place / Self.blockByteCount
            let start = Int(place % Self.blockByteCount)
            let count = min(bytes.count - done, Int(Self.blockByteCount) - start)
            var block = blocks.removeValue(forKey: number) ?? [UInt8](repeating: 0, count: Int(Self.blockByteCount))
            block.replaceSubrange(start..<start + count, with: bytes[done..<done + count])
            blocks[number] = block
            done += count
        }
    }

    func read(at offset: UInt64, _ byteCount: Int) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(byteCount)
        while result.count < byteCount {
            let place = offset + UInt64(result.count)
            let start = Int(place % Self.blockByteCount)
            let count = min(byteCount - result.count, Int(Self.blockByteCount) - start)
            if let block = blocks[place / Self.blockByteCount] {
                result.append(contentsOf: block[start..<start + count])
            } else {
                result.append(contentsOf: repeatElement(0, count: count))
            }
        }
        return result
    }

    /// Everything from `offset` on reads as zeros.
    mutating func cut(from offset: UInt64) {
        for number in blocks.keys where number * Self.blockByteCount >= offset { blocks[number] = nil }
        let number = offset / Self.blockByteCount
        let start = Int(offset % Self.blockByteCount)
        if start > 0, blocks[number] != nil {
            for index in start..<Int(Self.blockByteCount) { blocks[number]![index] = 0 }
        }
    }
}
