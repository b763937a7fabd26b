// The contents of a simulated file: sparse, shared between copies block by block, so that a crash state costs what it
// changes and not what it holds.

#if SIMULATION
    /// The bytes that a write carried, in blocks that the images it reaches share.
    struct SimulatedData {
        /// 4096 bytes; nil: zeros.
        typealias Block = ContiguousArray<UInt8>

        let blocks: ContiguousArray<Block?>
        let byteCount: Int

        /// Copies the parts, one after the other.
        init(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer? = nil) {
            byteCount = first.count + (second?.count ?? 0)
            var blocks = ContiguousArray<Block?>()
            blocks.reserveCapacity((byteCount + blockByteCount - 1) / blockByteCount)
            for start in stride(from: 0, to: byteCount, by: blockByteCount) {
                let block = Block(unsafeUninitializedCapacity: blockByteCount) { memory, count in
                    let target = UnsafeMutableRawBufferPointer(memory)
                    target.initializeMemory(as: UInt8.self, repeating: 0)
                    Self.copy(first, at: 0, into: target, from: start)
                    if let second { Self.copy(second, at: first.count, into: target, from: start) }
                    count = blockByteCount
                }
                blocks.append(block.isZero ? nil : block)
            }
            self.blocks = blocks
        }

        /// Copies what `part`, which begins at `partStart` of the whole, has in common with the block that begins at `start`.
        private static func copy(
            _ part: UnsafeRawBufferPointer, at partStart: Int, into target: UnsafeMutableRawBufferPointer,
            from start: Int
        ) {
            let lower = max(partStart, start)
            let upper = min(partStart + part.count, start + target.count)
            guard lower < upper else { return }
            target.copy(part.part(lower - partStart, upper - lower), to: lower - start)
        }
    }

    extension SimulatedData.Block {
        fileprivate var isZero: Bool {
            withUnsafeBytes { bytes in
                for offset in stride(from: 0, to: bytes.count, by: 8) where bytes.load(offset, as: UInt64.self) != 0 {
                    return false
                }
                return true
            }
        }
    }

    /// A file's contents as a value.
    struct SimulatedBytes {
        typealias Block = SimulatedData.Block
        private static let blocksPerChunk = 64

        /// The length; bytes beyond it are always zero in the blocks.
        private(set) var byteCount: UInt64 = 0
        private var chunks: ContiguousArray<ContiguousArray<Block?>> = []

        /// Copies from `offset` up to the end of the file; returns how much.
        func read(at offset: UInt64, into target: UnsafeMutableRawBufferPointer) -> Int {
            guard offset < byteCount else { return 0 }
            let count = Int(min(UInt64(target.count), byteCount - offset))
            var done = 0
            while done < count {
                let place = Int(offset) + done
                let inBlock = place % blockByteCount
                let length = min(count - done, blockByteCount - inBlock)
                if let block = block(place / blockByteCount) {
                    block.withUnsafeBytes { target.copy($0.part(inBlock, length), to: done) }
                } else {
                    target.zero(done, length)
                }
                done += length
            }
            return count
        }

        /// Writes the part `range` of `data`, whose first byte belongs at `offset`; grows the file to hold it.
        mutating func write(_ data: SimulatedData, _ range: Range<Int>, at offset: UInt64) {
            guard !range.isEmpty else { return }
            byteCount = max(byteCount, offset + UInt64(range.upperBound))
            var done = range.lowerBound
            while done < range.upperBound {
                let place = Int(offset) + done
                let inBlock = place % blockByteCount
                let length = min(range.upperBound - done, blockByteCount - inBlock)
                if length == blockByteCount && done % blockByteCount == 0 {
                    setBlock(place / blockByteCount, data.blocks[done / blockByteCount])
                } else {
                    copy(data, done, length, at: place)
                }
                done += length
            }
        }

        /// Fills with zeros as far as the file reaches.
        mutating func zero(_ range: Range<UInt64>) {
            let end = min(range.upperBound, byteCount)
            var place = range.lowerBound
            while place < end {
                let inBlock = Int(place) % blockByteCount
                let length = min(Int(end - place), blockByteCount - inBlock)
                let index = Int(place) / blockByteCount
                if length == blockByteCount || (inBlock == 0 && place + UInt64(length) == byteCount) {
                    setBlock(index, nil)
                } else if block(index) != nil {
                    changeBlock(index) { $0.zero(inBlock, length) }
                }
                place += UInt64(length)
            }
        }

        /// Cuts the file or lets it grow with zeros.
        mutating func resize(to newByteCount: UInt64) {
            if newByteCount < byteCount { zero(newByteCount..<byteCount) }
            byteCount = newByteCount
        }

        /// Changes one byte by exclusive or.
        mutating func damage(at offset: UInt64, _ bits: UInt8) {
            precondition(offset < byteCount)
            changeBlock(Int(offset) / blockByteCount) { $0[Int(offset) % blockByteCount] ^= bits }
        }

        private func block(_ index: Int) -> Block? {
            let chunk = index / Self.blocksPerChunk
            guard chunk < chunks.count, !chunks[chunk].isEmpty else { return nil }
            return chunks[chunk][index % Self.blocksPerChunk]
        }

        private mutating func setBlock(_ index: Int, _ block: Block?) {
            let chunk = index / Self.blocksPerChunk
            if chunk >= chunks.count {
                if block == nil { return }
                chunks.append(contentsOf: repeatElement([], count: chunk + 1 - chunks.count))
            }
            if chunks[chunk].isEmpty {
                if block == nil { return }
                chunks[chunk] = ContiguousArray(repeating: nil, count: Self.blocksPerChunk)
            }
            chunks[chunk][index % Self.blocksPerChunk] = block
        }

        private mutating func changeBlock(_ index: Int, _ body: (UnsafeMutableRawBufferPointer) -> Void) {
            var changed = block(index) ?? Block(repeating: 0, count: blockByteCount)
            setBlock(index, nil)
            changed.withUnsafeMutableBytes { body($0) }
            setBlock(index, changed)
        }

        private mutating func copy(_ data: SimulatedData, _ start: Int, _ length: Int, at place: Int) {
            var left = length
            while left > 0 {
                let from = start + length - left
                let source = data.blocks[from / blockByteCount]
                let count = min(left, blockByteCount - from % blockByteCount)
                let target = place + length - left
                changeBlock(target / blockByteCount) { memory in
                    if let source {
                        source.withUnsafeBytes {
                            memory.copy($0.part(from % blockByteCount, count), to: target % blockByteCount)
                        }
                    } else {
                        memory.zero(target % blockByteCount, count)
                    }
                }
                left -= count
            }
        }
    }
#endif
