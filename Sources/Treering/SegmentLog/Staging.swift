// The memory in which batches are built: slots, each one batch. Used by SegmentLog alone; lies in shared memory that
// outlives the process, or in plain memory in tests.

import Synchronization

/// The slots of staging. One batch is built in each; its slot is free again when that batch and all before it are
/// durable, so that what a failed write or flush loses can be written again.
final class Staging {
    let geometry: StagingGeometry
    /// The whole area. Belongs to `owner`, which unmaps or frees it.
    private let memory: UnsafeMutableRawBufferPointer
    private let owner: AnyObject

    init(geometry: StagingGeometry, memory: UnsafeMutableRawBufferPointer, owner: AnyObject) {
        precondition(memory.count >= geometry.byteCount)
        self.geometry = geometry
        self.memory = memory
        self.owner = owner
    }

    /// Staging in plain memory, for tests and for offline tools.
    convenience init(geometry: StagingGeometry) {
        let buffer = AlignedBuffer(byteCount: geometry.byteCount)
        buffer.bytes.zero(0, StagingLayout.slotsOffset)
        self.init(geometry: geometry, memory: buffer.bytes, owner: buffer)
    }

    private func slot(_ index: Int) -> UnsafeMutableRawBufferPointer {
        memory.part(StagingLayout.slotsOffset + index * geometry.slotByteCount, geometry.slotByteCount)
    }

    func recordArea(_ index: Int) -> UnsafeMutableRawBufferPointer {
        slot(index).part(blockByteCount, geometry.recordAreaByteCount)
    }

    /// Room for a segment header, and the record area right after it.
    func front(_ index: Int) -> UnsafeMutableRawBufferPointer {
        slot(index).part(0, blockByteCount + geometry.recordAreaByteCount)
    }

    func payloadArea(_ index: Int) -> UnsafeMutableRawBufferPointer {
        slot(index).part(blockByteCount + geometry.recordAreaByteCount, geometry.payloadAreaByteCount)
    }

    private func descriptor(_ index: Int) -> UnsafeMutableRawBufferPointer {
        memory.part(StagingLayout.header.descriptors[index])
    }

    private func word(_ index: Int, _ field: Field<UInt64>) -> UnsafeMutablePointer<Atomic<UInt64>> {
        descriptor(index).part(field).baseAddress!.assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    /// A slot begins to hold a new batch: nothing of it is published.
    func begin(_ index: Int, batch: BatchSequence, segment: SegmentNumber) {
        word(index, StagingLayout.descriptor.published).pointee.store(0, ordering: .releasing)
        descriptor(index)[StagingLayout.descriptor.segment] = segment
        descriptor(index)[StagingLayout.descriptor.payloadBlockCount] = 0
        word(index, StagingLayout.descriptor.batch).pointee.store(batch.rawValue, ordering: .releasing)
    }

    /// The records in the first `recordByteCount` bytes of the record area are whole, with their payload blocks.
    func publish(_ index: Int, recordByteCount: Int, payloadBlockCount: Int) {
        descriptor(index)[StagingLayout.descriptor.payloadBlockCount] = UInt32(payloadBlockCount)
        word(index, StagingLayout.descriptor.published).pointee.store(UInt64(recordByteCount), ordering: .releasing)
    }
}
