// Derives a superblock where both slots are lost. The copies in the index file are as good as the slots. Without them
// the headers of the segments and the log say what the superblock held.

/// A superblock that was derived from other parts of the store.
struct DerivedSuperblock: Sendable {
    var superblock: Superblock
    /// What became of the slots, for a person.
    var loss = ""
    var source: String
    /// What the derived superblock may have wrong, for a person.
    var doubts: [String] = []
    /// Whether a mount could go on with it: the key of the name hash is known, and every segment could be read.
    var isComplete = true
}

/// Derives a superblock from the rest of a store. Changes nothing.
struct SuperblockDerivation<D: Device> {
    private let device: D
    private var blockUUID = StoreUUID(high: 0, low: 0)
    private var segmentByteCount = 0
    /// The segments whose headers are whole.
    private var segments: [SegmentNumber: WalkSegment] = [:]
    private var fileCount: UInt32 = 0
    /// A segment whose header the host cannot read now. It may still be whole.
    private var unreadable: (number: SegmentNumber, error: Errno)?

    /// Epochs and generations are raised by this, since the lost superblock may have used higher ones than are found.
    private static var margin: UInt64 { 1 << 16 }

    /// - Parameter staging: gives the headers of the staging that killed mounts of the store with this uuid left on
    /// this machine.
    static func derive(
        _ device: D, staging: (StoreUUID) -> [StagingHeader]
    ) throws(MountError) -> DerivedSuperblock {
        var derivation = Self(device: device)
        defer { for segment in derivation.segments.values { device.close(segment.file) } }
        try derivation.readHeaders()
        let copies = try SuperblockPair.readCopies(device)
        let copy = copies.isLost ? nil : try copies.newest()
        if let copy { try derivation.requireSameStore(copy) }
        var derived: DerivedSuperblock
        let areBothWhole = copies.slots.allSatisfy { (try? $0.get()) != nil }
        if let copy, derivation.isCurrent(copy, areBothWhole: areBothWhole) {
            derived = DerivedSuperblock(superblock: copy, source: "its copy in the file `index`")
            // The copy that is lost may say that staging was passed over.
            if !areBothWhole { derived.superblock.staging = StagingHistory(passedCount: copy.staging.passedCount) }
        } else {
            derived = try derivation.fromLog(copy)
        }
        try derivation.complete(&derived, staging(derived.superblock.uuid))
        return derived
    }

    private init(device: D) { self.device = device }

    private static func text(_ unreadable: (number: SegmentNumber, error: Errno)) -> String {
        "segment \(unreadable.number.rawValue) cannot be read (\(unreadable.error))"
    }

    private static func contradiction(_ text: String) -> MountError {
        MountError(
            .damaged,
            "no slot of the superblock is whole, and no new one can be made: \(text). Nothing was changed")
    }

    /// Reads the header of every segment. All must belong to one store.
    private mutating func readHeaders() throws(MountError) {
        var blocks: [(number: SegmentNumber, file: DeviceFile, bytes: AlignedBuffer)] = []
        defer { for block in blocks where segments[block.number] == nil { device.close(block.file) } }
        var first: SegmentNumber?
        do throws(Errno) {
            for case .segment(let number) in try device.list() {
                let file = try device.open(.segment(number), create: false)
                let block = AlignedBuffer(byteCount: SegmentHeader.byteCount)
                blocks.append((number, file, block))
                fileCount = max(fileCount, number.rawValue + 1)
                block.bytes.zero(0, block.bytes.count)
                let error = device.perform(Submission(.read, file, offset: 0, block.bytes, tag: 0)).error
                if let error { unreadable = (number, error) }
            }
        } catch { throw MountError("the segments cannot be read", error) }
        for (number, file, block) in blocks {
            let bytes = UnsafeRawBufferPointer(block.bytes)
            guard let origin = SegmentHeader.origin(of: bytes) else { continue }
            guard origin.version == 1 else {
                throw MountError(
                    .newer, "segment \(number.rawValue) has version \(origin.version); this treering knows version 1")
            }
            if let first {
                guard origin.blockUUID == blockUUID, Int(origin.segmentByteCount) == segmentByteCount else {
                    throw Self.contradiction(
                        "segments \(first.rawValue) and \(number.rawValue) belong to different stores (\(blockUUID), \(origin.blockUUID)); what is not of this one has to be taken out of its directory"
                    )
                }
            }
            first = first ?? number
            blockUUID = origin.blockUUID
            segmentByteCount = Int(origin.segmentByteCount)
            if let header = try? SegmentHeader.decode(
                bytes, uuid: blockUUID, number: number, segmentByteCount: origin.segmentByteCount)
            {
                segments[number] = WalkSegment(header: header, file: file)
            }
        }
    }

    private func requireSameStore(_ copy: Superblock) throws(MountError) {
        guard segments.isEmpty || copy.blockUUID == blockUUID && Int(copy.segmentByteCount) == segmentByteCount else {
            throw Self.contradiction(
                "the copy in the file `index` is of store \(copy.blockUUID), the segments are of \(blockUUID)")
        }
    }

    /// Whether no mount has written since this copy: each mount writes a copy before anything else. If one of the two
    /// copies is damaged, one more mount (that wrote it) may be unknown to the other. If both are whole, an unknown
    /// mount was of an earlier version, which wrote no copies.
    private func isCurrent(_ copy: Superblock, areBothWhole: Bool) -> Bool {
        let known = copy.epoch.rawValue + (areBothWhole ? 0 : 1)
        return segments.values.allSatisfy { $0.header.epoch.rawValue <= known }
    }

    // MARK: From the log

    /// - Parameter copy: a copy that is out of date; only what never changes is taken from it.
    private func fromLog(_ copy: Superblock?) throws(MountError) -> DerivedSuperblock {
        guard segmentByteCount >= 1 << 20, segmentByteCount <= 64 << 20, segmentByteCount.nonzeroBitCount == 1,
            let end = try endOfLog()
        else {
            let why = unreadable.map(Self.text) ?? "there is no segment with a whole header and a whole first batch"
            throw Self.contradiction("the file `index` has no copy of it, and \(why)")
        }
        let known = segments.values.filter { $0.header.forSuperblock != nil }
            .max { ($0.header.epoch, $0.header.firstBatch) < ($1.header.epoch, $1.header.firstBatch) }?
            .header.forSuperblock
        let hashKey = copy?.hashKey ?? known?.hashKey
        guard segments.values.allSatisfy({ $0.header.forSuperblock.map { $0.hashKey == hashKey } ?? true }) else {
            throw Self.contradiction("the segments have different keys of the name hash")
        }
        let noIndex = IndexRoot(
            checkpoint: .zero, page: PagePointer(address: PageAddress(1), birth: .zero), level: 0, entryCount: 0,
            pageCount: 2, usedPageCount: 2, bitmap: PageAddress(1))
        var superblock = Superblock(
            uuid: copy?.uuid ?? blockUUID, generation: copy?.generation ?? 1, epoch: end.header.epoch, isClean: false,
            capacityByteCount: known?.capacityByteCount ?? copy?.capacityByteCount ?? 0,
            segmentByteCount: UInt32(segmentByteCount), hashKey: hashKey ?? StoreUUID(high: 0, low: 0),
            nextInode: end.header.nextInode, highestSequence: end.header.lastRecord, checkpoint: .zero,
            position: end.position, formattedSeconds: copy?.formattedSeconds ?? 0, inodeCount: 0,
            checkpointEpoch: end.epoch, indexRoot: noIndex)
        superblock.ownBlockUUID = copy?.ownBlockUUID
        superblock.staging.passedCount = copy?.staging.passedCount ?? 0
        superblock.staging.settle(last: end.epoch, next: end.header.lastRecord.next)
        guard hashKey != nil else {
            return DerivedSuperblock(
                superblock: superblock, source: "the headers of the segments and the log",
                doubts: [
                    "the key of the name hash is lost: all segments were written by an earlier version, and the index has no copy. `treering export` gets the files out, into a new store for one"
                ], isComplete: false)
        }
        var derived = DerivedSuperblock(superblock: superblock, source: "the headers of the segments and the log")
        derived.doubts = [
            "after a power cut, what was written last and not synced may be incomplete: nothing says any more which segments had been emptied",
            "its capacity is what it was when its newest segment was begun; `treering resize` sets another",
            "what was written since formatting is not known and counted from 0",
        ]
        if copy == nil {
            derived.doubts.append(
                "if it had been given a uuid of its own (`treering check --new-uuid`), it has the old one again")
        }
        return derived
    }

    /// The end of the log and its last batch. A rebuild makes the index from whole segments, so the log before is not
    /// followed.
    private func endOfLog() throws(MountError) -> (position: LogPosition, epoch: MountEpoch, header: BatchHeader)? {
        let reader = BatchReader(device: device, uuid: blockUUID, segmentByteCount: segmentByteCount)
        reader.isTolerant = true
        reader.passesHoles = true
        let hot = segments.values.filter {
            $0.header.state == .inUse && $0.header.role == .hot && $0.header.end != UInt32(SegmentHeader.byteCount)
        }.map(\.header).sorted { ($0.firstBatch, $0.epoch) < ($1.firstBatch, $1.epoch) }
        var found: (position: LogPosition, epoch: MountEpoch, header: BatchHeader)?
        do throws(Errno) {
            for header in hot where found.map({ header.firstBatch > $0.header.sequence }) ?? true {
                let outcome = try reader.batch(
                    in: header.segmentID, segments[header.number]!.file, at: SegmentHeader.byteCount,
                    verifyPayload: false)
                guard case .batch(let first) = outcome else { continue }
                let start = LogPosition(
                    lastBatch: BatchSequence(header.firstBatch.rawValue - 1),
                    lastChecksum: first.header.previousChecksum, segment: header.number,
                    incarnation: header.incarnation, offsetInSegment: UInt32(SegmentHeader.byteCount))
                var walk = LogWalk(reader: reader, segments: segments, from: start, epoch: header.epoch)
                var last: BatchHeader?
                while let batch = try walk.next() { last = batch.header }
                guard let last else { continue }
                found = (walk.position, walk.epoch, last)
                // After a segment with a proper end, the next one may have been emptied and given back, so the search
                // goes on. After a torn batch it goes on only where there is evidence of damage.
                let end = segments[last.segment]!.header.end
                let isWhole =
                    last.endsSegment || end != 0 && walk.position.offsetInSegment >= end
                    || Int(walk.position.offsetInSegment) >= segmentByteCount
                if !isWhole, try walk.evidenceOfDamage() == nil { break }
            }
        } catch { throw MountError("the log cannot be read", error) }
        return found
    }

    // MARK: Both

    /// Sets the counters above all that may have been used, and a capacity that holds all segments that are there.
    private func complete(_ derived: inout DerivedSuperblock, _ staging: [StagingHeader]) throws(MountError) {
        var superblock = derived.superblock
        let epochs = segments.values.map(\.header.epoch) + staging.map(\.epoch) + [superblock.epoch]
        let generations = staging.map(\.generation) + [superblock.generation]
        superblock.epoch = MountEpoch(epochs.max()!.rawValue &+ Self.margin)
        superblock.generation = generations.max()! &+ Self.margin
        superblock.isClean = false
        superblock.bootID = StoreUUID(high: 0, low: 0)
        superblock.stagingIdentity = 0
        let size = UInt64(superblock.segmentByteCount)
        let present = max(UInt64(fileCount) * size, 8 * size, FormatOptions.capacityMinimum)
        superblock.capacityByteCount = max(superblock.capacityByteCount / size * size, present)
        // Hand on only what a mount would accept.
        let block = AlignedBuffer(byteCount: Superblock.slotByteCount)
        superblock.encode(into: block.bytes)
        do throws(Superblock.Refusal) {
            derived.superblock = try Superblock(decoding: UnsafeRawBufferPointer(block.bytes))
        } catch { throw Self.contradiction("the counters of the segments are impossible") }
        if let unreadable {
            derived.isComplete = false
            derived.doubts.append(
                Self.text(unreadable)
                    + ": whether it is the newest is not known, and a repair would leave it out for ever. Copy the store to where all of it can be read; `treering export` gets out what can be read"
            )
        }
        if !staging.isEmpty {
            derived.doubts.append(
                "the staging of a killed mount is there; a repair and the next mount take in what it holds")
        }
    }
}
