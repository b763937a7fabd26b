// The head of the log: builds batches in staging and gives records their places. Owned by the core and used under the
// volume's lock. It does no I/O: submissions go to `outbox`, and completions come back by slot.

/// The kinds of tags that the log puts on its submissions.
enum LogTag {
    static let batch: UInt64 = 1 << 56
    static let sync: UInt64 = 2 << 56
    static let kindMask: UInt64 = 0xFF << 56
}

/// Whether an operation can be appended now.
enum LogRoom: Equatable {
    case ready
    /// Not now. A slot of staging or a prepared segment will come free.
    case wait
    /// The store is full.
    case full
    /// The log has failed; the mount is read-only.
    case failed(Errno)
}

final class SegmentLog {
    /// A batch that has a slot: open, in flight, or durable with its slot not used again yet.
    struct Batch {
        var sequence: BatchSequence
        var slot: Int
        var segmentID: SegmentID
        var offset: Int
        var recordByteCount = BatchHeader.byteCount
        var recordCount: UInt32 = 0
        var payloadBlockCount = 0
        var firstRecord: RecordSequence
        var isOpen = true
        var beginsSegment: Bool
        /// Where the payload area lies, from the start of the batch. Provisional while the batch is open.
        var payloadAreaOffset: Int
        /// Where records begin that are left out when the batch is closed, in bytes of the record area.
        var leftOut: [Int] = []
        /// The record area as it is written, behind room for a segment header, if something was left out: the slot's own is whole, for a
        /// successor of this process.
        var image: AlignedBuffer?
        var segment: SegmentNumber { segmentID.number }
        var byteCount: Int { payloadAreaOffset + payloadBlockCount * blockByteCount }
        /// The bytes of its write. The first batch of a segment is written together with the segment's header.
        var writtenByteCount: Int { byteCount + (beginsSegment ? SegmentHeader.byteCount : 0) }
    }

    let uuid: StoreUUID
    /// The key of the name hash, only for segment headers.
    private let hashKey: StoreUUID
    let epoch: MountEpoch
    /// Decides who may use how much of the store.
    let space: SpaceAccounting
    var table: SegmentTable {
        get { space.table }
        set { space.table = newValue }
    }
    private(set) var staging: Staging
    /// Whether nothing may be appended because staging is being replaced.
    private(set) var isHeld = false
    /// Called when a batch is closed, for each of its payloads whose place is final only now. The index fills it in.
    var placePayload: (PayloadID, SegmentNumber, _ provisional: UInt32, _ position: UInt32) -> Void = { _, _, _, _ in }
    private(set) var nextSequence: RecordSequence
    var position: LogPosition { didSet { noteHead() } }
    var tracker: DurabilityTracker
    private(set) var failure: Errno?
    /// Whether the log has failed: nothing is appended any more, and nothing becomes durable.
    var isClosed: Bool { failure != nil }
    /// The error of a write or flush that failed. While it is set, nothing is appended or submitted, until the batches
    /// in staging are written again elsewhere (SegmentLog+Relocation.swift).
    var suspension: Errno?
    /// The last batch that somebody asked to be durable. Headers claim no later batch as durable. So the bytes of the
    /// log do not depend on when early flushes complete.
    private var requested = BatchSequence.zero
    var nextInode: InodeNumber
    /// Submissions made under the lock. They are handed to the device after the lock is released.
    var outbox: [Submission] = []
    private(set) var appendedByteCount: UInt64 = 0
    private(set) var batchCount: UInt64 = 0
    private(set) var syncCount: UInt64 = 0

    /// The batch in each slot of staging. A slot keeps its batch at least until that is durable, so a failed write can
    /// be repeated.
    var slots: [Batch?]
    private var current: Int?
    private var nextSlot = 0
    var head: SegmentNumber? { didSet { noteHead() } }
    private var payloadsToPlace: [(PayloadID, UInt32)] = []
    /// Records that were appended and are not written.
    private(set) var leftOutCount: UInt64 = 0
    /// Where the record that was appended last begins, in bytes of the open batch.
    private(set) var lastRecordOffset = 0
    /// What the open batch keeps free for packing its small writes (Core+Packing.swift).
    var packingRoom = PackingRoom()
    struct PackingRoom {
        var recordByteCount = 0
        var payloadByteCount = 0
    }

    /// A log that goes on at `position`: in the same segment if `continuesSegment`, else in a fresh one.
    init(
        uuid: StoreUUID, hashKey: StoreUUID, epoch: MountEpoch, table: SegmentTable, staging: Staging,
        position: LogPosition,
        nextSequence: RecordSequence, nextInode: InodeNumber, continuesSegment: Bool
    ) {
        self.uuid = uuid
        self.hashKey = hashKey
        self.epoch = epoch
        space = SpaceAccounting(table: table, geometry: staging.geometry)
        self.staging = staging
        self.position = position
        self.nextSequence = nextSequence
        self.nextInode = nextInode
        tracker = DurabilityTracker(through: position.lastBatch)
        requested = position.lastBatch
        slots = Array(repeating: nil, count: staging.geometry.slotCount)
        if continuesSegment { head = position.segment }
        noteHead()
        outbox.reserveCapacity(32)
        payloadsToPlace.reserveCapacity(1024)
    }

    var lastBatch: BatchSequence { position.lastBatch }
    var hasOpenRecords: Bool { current.map { slots[$0]!.recordCount > 0 } ?? false }
    /// The segment of the open batch, where the next record goes; nil if no batch is open.
    var headSegment: SegmentNumber? { current.map { slots[$0]!.segment } }
    /// The slot of the open batch.
    var openSlot: Int? { current }
    /// The open batch, and its first record; nil where no batch is open.
    var openBatch: (sequence: BatchSequence, firstRecord: RecordSequence)? {
        current.map { (slots[$0]!.sequence, slots[$0]!.firstRecord) }
    }
    /// Whether a segment was opened since the housekeeper looked. It then checks if free segments become few, and
    /// clears this.
    var hasOpenedHead = false

    private func noteHead() { space.headOffset = head == nil ? nil : Int(position.offsetInSegment) }

    /// Whether an operation that found no room should try again now. It will find room, or it will fail and stop
    /// waiting.
    var mayHaveRoom: Bool {
        if isHeld || suspension != nil { return false }
        if failure != nil || current != nil { return true }
        if !hasFreeSlot { return false }
        return head != nil || !table.pool.isEmpty || space.isHostFull || !space.isSpaceComing
    }

    /// Whether the next batch has a slot.
    var hasFreeSlot: Bool { slots[nextSlot].map { $0.sequence <= tracker.durable } ?? true }

    // MARK: Appending

    /// Makes room for a record of this size, which may close the open batch and open another. After `.ready` the record
    /// can be appended, under the same hold of the lock.
    func makeRoom(recordByteCount: Int, payloadByteCount: Int, _ tier: SpaceTier) -> LogRoom {
        if let failure { return .failed(failure) }
        if isHeld || suspension != nil { return .wait }
        let geometry = staging.geometry
        precondition(
            recordByteCount + BatchHeader.byteCount <= geometry.recordAreaByteCount
                && payloadByteCount <= geometry.payloadAreaByteCount)
        if current != nil {
            if hasRoom(recordByteCount: recordByteCount, payloadByteCount: payloadByteCount) { return .ready }
            closeBatch(durable: false)
        }
        return openBatch(tier)
    }

    /// Whether the open batch takes such a record. Packing may use the room that is kept for it.
    func hasRoom(recordByteCount: Int, payloadByteCount: Int, isPacking: Bool = false) -> Bool {
        guard let current else { return false }
        let batch = slots[current]!
        let kept = isPacking || batch.recordCount == 0 ? PackingRoom() : packingRoom
        let blocks = (payloadByteCount + blockByteCount - 1) / blockByteCount
        return batch.recordByteCount + recordByteCount + kept.recordByteCount <= staging.geometry.recordAreaByteCount
            && (batch.payloadBlockCount + blocks) * blockByteCount + kept.payloadByteCount
                <= staging.geometry.payloadAreaByteCount
    }

    private func openBatch(_ tier: SpaceTier) -> LogRoom {
        if !hasFreeSlot { return .wait }
        switch space.roomInHead(tier) {
        case .fits: break
        case .wait: return .wait
        case .full, .crowded: return .full
        }
        var beginsSegment = false
        if head == nil {
            switch space.roomForSegment(tier) {
            case .fits: break
            case .wait: return .wait
            case .full, .crowded: return .full
            }
            guard let number = table.openHead(firstBatch: position.lastBatch.next, epoch: epoch) else {
                preconditionFailure("there is room for a segment only where one is prepared")
            }
            head = number
            beginsSegment = true
            hasOpenedHead = true
            position.segmentID = table.id(of: number)
            position.offsetInSegment = UInt32(SegmentHeader.byteCount)
        }
        let batch = Batch(
            sequence: position.lastBatch.next, slot: nextSlot, segmentID: position.segmentID,
            offset: Int(position.offsetInSegment),
            firstRecord: nextSequence, beginsSegment: beginsSegment,
            payloadAreaOffset: staging.geometry.recordAreaByteCount)
        slots[nextSlot] = batch
        staging.begin(nextSlot, batch: batch.sequence, segment: batch.segment)
        current = nextSlot
        nextSlot = (nextSlot + 1) % slots.count
        return .ready
    }

    /// Appends a record after `makeRoom` has returned `.ready`: gives it its sequence and place, and publishes it in
    /// staging.
    func append(_ writer: inout RecordWriter) -> (record: Record, place: RecordPlace) {
        let slot = current!
        let sequence = nextSequence
        nextSequence = sequence.next
        let start = slots[slot]!.recordByteCount
        let payloadPosition = UInt32(slots[slot]!.payloadBlockCount * blockByteCount)
        writer.complete(sequence: sequence, payloadPosition: payloadPosition)
        let bytes = staging.recordArea(slot).part(start, writer.byteCount)
        bytes.copyMemory(from: UnsafeRawBufferPointer(writer.bytes))
        Record.seal(bytes, changeCount: writer.changeCount, sequence: sequence)
        if let payload = writer.payloadBlocks {
            let blocks = PayloadRecord.blockCount(UInt32(payload.count))
            let area = staging.payloadArea(slot).part(Int(payloadPosition), blocks * blockByteCount)
            area.copy(payload, to: 0)
            area.zero(payload.count, area.count - payload.count)
            slots[slot]!.payloadBlockCount += blocks
            payloadsToPlace.append((PayloadID(sequence.rawValue), payloadPosition))
        }
        lastRecordOffset = start
        slots[slot]!.recordByteCount += bytes.count
        slots[slot]!.recordCount += 1
        let batch = slots[slot]!
        staging.publish(slot, recordByteCount: batch.recordByteCount, payloadBlockCount: batch.payloadBlockCount)
        appendedByteCount += UInt64(bytes.count + (writer.payloadBlocks?.count ?? 0))
        let place = RecordPlace(
            segment: batch.segment, recordPosition: UInt32(batch.offset + start),
            payloadAreaPosition: UInt32(batch.offset + batch.payloadAreaOffset))
        return (Record(trusting: UnsafeRawBufferPointer(bytes)), place)
    }

    /// A record of so many bytes is not written after all.
    func countLeftOut(_ byteCount: Int) {
        leftOutCount += 1
        appendedByteCount -= UInt64(byteCount)
    }

    /// Closes the open batch, if it has a record, and submits its write.
    func closeBatch(durable: Bool) {
        guard let slot = current, slots[slot]!.recordCount > 0 else { return }
        current = nil
        packingRoom = PackingRoom()
        var batch = slots[slot]!
        if !batch.leftOut.isEmpty { leaveOut(&batch) }
        let area = recordArea(batch)
        let rounded = (batch.recordByteCount + blockByteCount - 1) & ~(blockByteCount - 1)
        area.zero(batch.recordByteCount, rounded - batch.recordByteCount)
        batch.isOpen = false
        batch.payloadAreaOffset = rounded
        let end = batch.offset + batch.byteCount
        precondition(
            end <= table.segmentByteCount && table.isInUse(batch.segmentID), "a batch lies in a segment that is in use")
        precondition(
            batch.sequence == position.lastBatch.next && tracker.durable <= tracker.written
                && tracker.written <= position.lastBatch,
            "batches follow each other, and are written before they are durable")
        // A segment beyond the limit is about to go (the store shrinks): no further batch is begun in it.
        let endsSegment =
            end + staging.geometry.batchByteCountLimit > table.segmentByteCount
            || Int(batch.segment.rawValue) >= table.countLimit
        let records = UnsafeRawBufferPointer(area)
            .part(BatchHeader.byteCount, batch.recordByteCount - BatchHeader.byteCount)
        let header = BatchHeader(
            endsSegment: endsSegment, uuid: uuid, segment: batch.segment, incarnation: batch.segmentID.incarnation,
            epoch: epoch, sequence: batch.sequence,
            previousChecksum: position.lastChecksum, recordsChecksum: Checksum.crc32c(records),
            recordAreaByteCount: UInt32(batch.recordByteCount), recordCount: batch.recordCount,
            payloadBlockCount: UInt32(batch.payloadBlockCount), firstRecord: batch.firstRecord,
            lastRecord: RecordSequence(nextSequence.rawValue - 1), nextInode: nextInode,
            durable: min(tracker.durable, requested))
        position.lastChecksum = header.encode(into: area.part(0, BatchHeader.byteCount))
        position.lastBatch = batch.sequence
        position.offsetInSegment = UInt32(end)
        if endsSegment {
            table[batch.segment].lastBatch = batch.sequence
            table[batch.segment].isChanged = true
            head = nil
        }
        slots[slot] = batch
        for (payload, offset) in payloadsToPlace {
            let provisional = batch.offset + staging.geometry.recordAreaByteCount
            placePayload(
                payload, batch.segment, UInt32(provisional) + offset, UInt32(batch.offset + rounded) + offset)
        }
        payloadsToPlace.removeAll(keepingCapacity: true)
        guard suspension == nil else { return }
        tracker.submitted(batch.sequence, table[batch.segment].file!, isDurableWrite: durable)
        batchCount += 1
        outbox.append(submission(batch, table, durable: durable))
    }

    /// The write of a closed batch, together with the segment's header if the batch is the first of its segment.
    /// `front` is room for a segment header with the record area after it. Nil: it is in the slot of the batch.
    func submission(
        _ batch: Batch, _ table: SegmentTable, durable: Bool, front: UnsafeMutableRawBufferPointer? = nil
    ) -> Submission {
        let front = front ?? batch.image?.bytes ?? staging.front(batch.slot)
        if batch.beginsSegment {
            let segment = table[batch.segment]
            SegmentHeader(
                state: .inUse, role: segment.role, uuid: uuid, number: batch.segment, incarnation: segment.incarnation,
                epoch: epoch, firstBatch: segment.firstBatch, segmentByteCount: UInt32(table.segmentByteCount),
                forSuperblock: .init(
                    hashKey: hashKey,
                    capacityByteCount: UInt64(table.countLimit) * UInt64(table.segmentByteCount))
            ).encode(into: front.part(0, SegmentHeader.byteCount))
        }
        let skipped = batch.beginsSegment ? 0 : SegmentHeader.byteCount
        let written = front.part(skipped, SegmentHeader.byteCount + batch.payloadAreaOffset - skipped)
        let payload =
            batch.payloadBlockCount > 0
            ? staging.payloadArea(batch.slot).part(0, batch.payloadBlockCount * blockByteCount) : nil
        return Submission(
            durable ? .writeDurable : .write, table[batch.segment].file!,
            offset: batch.beginsSegment ? 0 : UInt64(batch.offset), written, payload,
            tag: LogTag.batch | UInt64(batch.slot))
    }

    // MARK: Replacing staging

    /// Closes the open batch and makes operations wait, so that all of staging becomes durable.
    func holdForReplacement() {
        isHeld = true
        closeBatch(durable: false)
    }

    /// Whether staging can be replaced: all that it holds is durable. A batch without records may be open, since an
    /// operation can open one and then wait for a page.
    var canReplaceStaging: Bool { isHeld && !hasOpenRecords && tracker.durable == lastBatch }

    /// Ends the hold, with other staging of the same geometry. Nil keeps the present staging.
    func replaceStaging(by other: Staging?, _: borrowing Telling) {
        precondition(canReplaceStaging || isClosed)
        if let other {
            precondition(other.geometry == staging.geometry)
            staging = other
            for slot in slots.indices where slot != current { slots[slot] = nil }
            if let current { staging.begin(current, batch: slots[current]!.sequence, segment: slots[current]!.segment) }
        }
        isHeld = false
    }

    // MARK: Durability

    /// Starts to make durable everything that was appended so far. It is durable when `tracker.durable` reaches
    /// `lastBatch`.
    func requestDurable() {
        closeBatch(durable: true)
        tracker.want(lastBatch)
        requested = lastBatch
        pumpSyncs()
    }

    /// An early flush that nobody asked for. It frees slots before all of them are taken by batches that are not
    /// durable.
    private func syncEarly() {
        let waitingCount = lastBatch.rawValue - tracker.durable.rawValue
        if tracker.syncsInFlightCount == 0, waitingCount * 2 >= slots.count { tracker.want(tracker.written) }
    }

    private func pumpSyncs() {
        guard failure == nil, suspension == nil else { return }
        for (id, file) in tracker.syncsToSubmit() {
            syncCount += 1
            outbox.append(Submission(.sync, file, tag: LogTag.sync | UInt64(id)))
        }
    }

    /// Takes the completion of a write or flush of the log.
    func completed(_ completion: Completion, _: borrowing Telling) {
        let number = completion.tag & ~LogTag.kindMask
        if completion.tag & LogTag.kindMask == LogTag.batch {
            let batch = slots[Int(number)]!
            let isWhole = completion.result == batch.writtenByteCount
            if isWhole { tracker.completed(batch.sequence) } else { tracker.writeFailed(batch.sequence) }
            if !isWhole { suspend(completion.error ?? .ioError) }
        } else if let error = completion.error {
            tracker.syncFailed(UInt32(number))
            suspend(error)
        } else {
            tracker.syncCompleted(UInt32(number))
        }
        guard failure == nil, suspension == nil else { return }
        syncEarly()
        pumpSyncs()
    }

    /// A failed write or flush is never simply repeated: the host may have dropped the data and report success. The
    /// batches are written again elsewhere, or the log is closed.
    private func suspend(_ error: Errno) {
        guard failure == nil, suspension == nil else { return }
        suspension = error
        closeBatch(durable: true)
        // An open batch without records is given up: nothing was written at its place.
        guard let slot = current else { return }
        current = nil
        slots[slot] = nil
        nextSlot = slot
    }

    /// Closes the log for the rest of this mount.
    func fail(_ error: Errno, _: borrowing Telling) {
        failure = failure ?? error
        suspension = nil
    }
}
