// Emptying one segment: the cleaner's steps in turn, each under the lock or with the device, and others in between.

extension Housekeeper {
    /// Moves everything that lives in a sealed segment elsewhere. Nothing is done where that incarnation of it is over.
    func empty(_ segmentID: SegmentID) throws(Errno) {
        cleaner.isInSegment.store(true, ordering: .relaxed)
        defer { cleaner.isInSegment.store(false, ordering: .relaxed) }
        let victim = state.withLock { cleaner.begin(segmentID, uuid: $0.superblock.blockUUID, $0.core) }
        guard let victim else { return }
        defer { state.withLock { $0.core.table.letGo(of: segmentID) } }
        if victim.segment.role == .hot { try emptyLog(victim) } else { try emptyRuns(victim) }
        let live = state.withLock { cleaner.end(victim, $0.core) }
        if live > 0 {
            log("segment \(victim.number.rawValue) cannot be cleaned: \(live) bytes in it cannot be moved")
        }
    }

    /// Runs a step under the lock. What was learnt before the index was replaced counts for nothing: the segment is given up.
    private func step<Result>(_ body: (Core) throws(Stop) -> Result) throws(Errno) -> Result {
        let generation = cleaner.generation
        return try runWaiting { (core) throws(Stop) in
            guard core.adoptCount == generation else { throw .failed(.stale) }
            return try body(core)
        }
    }

    private func emptyLog(_ victim: Cleaner<D>.Victim) throws(Errno) {
        let reader = BatchReader(device: device, uuid: victim.uuid, segmentByteCount: victim.segmentByteCount)
        var cursor = BatchCursor(reader, victim.segmentID, victim.file, end: victim.segment.end)
        var payloads: [PayloadID] = []
        while !cursor.isOver {
            guard case .batch(let batch) = try cursor.read() else {
                // What is damaged here may be whole behind it.
                try cursor.skip()
                continue
            }
            try moveRecords(of: batch, victim.number, &payloads)
            if payloads.count >= 1024 {
                try moveBlocks(of: payloads, victim)
                payloads.removeAll(keepingCapacity: true)
            }
            cursor.pass(batch.header)
        }
        try moveBlocks(of: payloads, victim)
    }

    private func emptyRuns(_ victim: Cleaner<D>.Victim) throws(Errno) {
        let header = AlignedBuffer(byteCount: RunHeader.byteCount)
        var offset = SegmentHeader.byteCount
        var payloads: [PayloadID] = []
        while offset < victim.segmentByteCount {
            try device.wait(Submission(.read, victim.file, offset: UInt64(offset), header.bytes, tag: 0))
            let found = RunHeader.decode(UnsafeRawBufferPointer(header.bytes), uuid: victim.uuid, in: victim.segmentID)
            if let found { payloads.append(contentsOf: found.payloads) }
            // Behind a header that cannot be read the next one is looked for block by block.
            offset += RunHeader.byteCount + (found?.blockCount ?? 0) * blockByteCount
            if payloads.count >= 1024 || offset >= victim.segmentByteCount {
                try moveBlocks(of: payloads, victim)
                payloads.removeAll(keepingCapacity: true)
            }
            if state.withLock({ $0.core.table[victim.number].live == 0 }) { return }
        }
    }

    /// Moves the entries that a batch's records established and that still stand; gives the payloads whose blocks are to follow.
    private func moveRecords(
        of batch: FoundBatch, _ victim: SegmentNumber, _ payloads: inout [PayloadID]
    ) throws(Errno) {
        let items = Cleaner<D>.candidates(of: batch)
        var progress = Cleaner<D>.Progress()
        while progress.next < items.count {
            let start = progress
            let time = monotonicNanoseconds()
            let (reached, found, byteCount, leaving) = try step { (core) throws(Stop) in
                try cleaner.moveEntries(items, from: start, of: victim, core)
            }
            progress = reached
            if let leaving { try finishRemovals(of: leaving) }
            payloads.append(contentsOf: found)
            if byteCount > 0 { pauseCleaning(since: time) }
        }
    }

    /// Copies the live blocks of payloads out of a segment, a run at a time.
    private func moveBlocks(of payloads: [PayloadID], _ victim: Cleaner<D>.Victim) throws(Errno) {
        var next = 0
        while next < payloads.count {
            let first = next
            let time = monotonicNanoseconds()
            let (copied, reached) = try step { (core) throws(Stop) in
                try cleaner.planRun(payloads, from: first, of: victim.number, core)
            }
            next = reached
            if copied.isEmpty { continue }
            let damages = try cleaner.read(copied, of: victim)
            if !damages.isEmpty { state.withLock { state in damages.forEach(state.core.report) } }
            let place = try write(copied, victim)
            var done = 0
            while done < copied.count {
                let from = done
                done = try step { (core) throws(Stop) in
                    try cleaner.commit(copied, from: from, of: victim.number, at: place, core)
                }
            }
            pauseCleaning(since: time)
        }
    }

    /// Writes a run, to another segment where it does not fit into the present one or that cannot be written.
    private func write(
        _ copied: [Cleaner<D>.Copied], _ victim: Cleaner<D>.Victim
    ) throws(Errno) -> (segmentID: SegmentID, position: Int) {
        do throws(Errno) {
            if !state.withLock({ cleaner.hasRoom(for: copied, $0.core.log) }) { try openCleanersSegment(victim.uuid) }
            return try cleaner.writeRun(copied, uuid: victim.uuid)
        } catch {
            sealCleanersSegment()
            throw error
        }
    }

    private func openCleanersSegment(_ uuid: StoreUUID) throws(Errno) {
        sealCleanersSegment()
        if state.withLock({ $0.core.table.pool.isEmpty }) { prepareSegment() }
        guard let (header, file) = state.withLock({ cleaner.openHead(uuid: uuid, $0.core) }) else { throw .noSpace }
        try device.write(header, to: file)
    }

    /// Nothing more is written to the segment that takes moved blocks.
    func sealCleanersSegment() { state.withLock { cleaner.seal($0.core) } }
}
