// The memory in which batches are built: slots, one for each batch. Only SegmentLog uses the slots. It is shared memory
// that outlives the process; for tests and offline tools it is plain memory.

import Synchronization

/// The slots of staging. One batch is built in each. A slot is free again when its batch and all batches before it are
/// durable. So a batch whose write or flush fails can be written again.
final class Staging {
    let geometry: StagingGeometry
    /// All of staging. `owner` unmaps or frees it.
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

    /// Room for a segment header with the record area right after it: one contiguous write.
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

    /// Starts a new batch in a slot. Nothing of it is published yet.
    func begin(_ index: Int, batch: BatchSequence, segment: SegmentNumber) {
        word(index, StagingLayout.descriptor.published).pointee.store(0, ordering: .releasing)
        descriptor(index)[StagingLayout.descriptor.segment] = segment
        descriptor(index)[StagingLayout.descriptor.payloadBlockCount] = 0
        word(index, StagingLayout.descriptor.batch).pointee.store(batch.rawValue, ordering: .releasing)
    }

    /// Publishes the first `recordByteCount` bytes of the record area: their records and payload blocks are whole. A
    /// successor replays published records only.
    func publish(_ index: Int, recordByteCount: Int, payloadBlockCount: Int) {
        descriptor(index)[StagingLayout.descriptor.payloadBlockCount] = UInt32(payloadBlockCount)
        word(index, StagingLayout.descriptor.published).pointee.store(UInt64(recordByteCount), ordering: .releasing)
    }
}
