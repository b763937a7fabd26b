// File contents: planning writes and reads. A write is one record; a read is a plan of pieces, carried out by Volume.

extension Core {
    /// write(2): all bytes or none. `bytes` are copied once, into staging. True when privileges were killed.
    @discardableResult
    func write(
        _ number: InodeNumber, at offset: UInt64, _ bytes: UnsafeRawBufferPointer, _ flags: WriteFlags,
        _ context: RequestContext
    ) throws(Stop) -> Bool {
        guard bytes.count > 0 else { return false }
        precondition(bytes.count <= writeByteCountLimit)
        guard offset <= Self.sizeLimit - UInt64(bytes.count) else { throw .failed(.fileTooBig) }
        var inode = try self.inode(number).record
        guard inode.isRegular else { throw .failed(inode.isDirectory ? .isDirectory : .invalid) }
        if inode.isImmutable || inode.isAppendOnly && !flags.contains(.appends) { throw .failed(.notPermitted) }
        let time = now()
        let hasKilled = flags.contains(.killsPrivileges) ? try inode.killPrivileges(context.caller) : false
        inode.size = max(inode.size, offset + UInt64(bytes.count))
        if !flags.contains(.keepsTimes) {
            inode.modified = time
            inode.changed = time
        }
        try commitData(number, offset, offset + UInt64(bytes.count), context) { writer in
            writer.payload(bytes)
            writer.extent(inode: number, offset: offset, byteCount: UInt32(bytes.count))
            writer.inode(inode)
        }
        noteSmallWrite(number, offset, bytes.count)
        fragmented.noteWrite(number, offset, bytes.count)
        return hasKilled
    }

    /// read(2). `isAccess`: it counts as somebody's access. Hand the plan to `Volume.execute`.
    func read(_ number: InodeNumber, at offset: UInt64, _ byteCount: Int, isAccess: Bool) throws(Stop) -> ReadPlan {
        let plan = try planRead(number, at: offset, byteCount)
        if isAccess { noteAccess(number) }
        return plan
    }

    /// Plans a read: what to copy, what to zero, what to read. Of a large read this is the first part; `planOn` plans
    /// the next.
    func planRead(_ number: InodeNumber, at offset: UInt64, _ byteCount: Int) throws(Stop) -> ReadPlan {
        let inode = try self.inode(number).record
        guard !inode.isDirectory else { throw .failed(.isDirectory) }
        let count = offset < inode.size ? Int(min(UInt64(byteCount), inode.size - offset)) : 0
        let plan = ReadPlan(number, at: offset, byteCount: count, bounds, buffers: &readBuffers)
        if count > 0 { try planned(plan) { () throws(Stop) in try planOn(plan) } }
        return plan
    }

    /// Plans the next part of a read. The part ends when it has as many pieces, reads or bytes of scratch memory as one
    /// may have. It also ends before a missing page. It blocks only if that page is the first that it needs.
    func planOn(_ plan: ReadPlan) throws(Stop) {
        let start = plan.filled
        // The inode may have been removed since the part before.
        if start > 0 { _ = try inode(plan.inode) }
        var walk = PieceWalk(
            plan.offset + UInt64(start), plan.offset + UInt64(plan.byteCount), budget: bounds.extentCount)
        var isDamaged = false
        var isFull = false
        do throws(PageMiss) {
            try index.walk(plan.inode, &walk) { piece throws(PageMiss) in
                plan.zero(through: Int(piece.offset - plan.offset))
                // Also where extents of a damaged index overlap: a walk goes forwards only.
                precondition(
                    UInt64(plan.filled) == piece.offset - plan.offset, "a piece is read to where another one belongs")
                guard let taken = try self.add(piece, to: plan) else {
                    isDamaged = true
                    return false
                }
                isFull = taken < piece.byteCount || plan.isFull
                return !isFull
            }
            if !isFull { plan.zero(through: Int(walk.cursor - plan.offset)) }
        } catch {
            guard plan.filled > start else { throw .blocked(.pageAhead(error)) }
        }
        if isDamaged { throw .failed(.ioError) }
        precondition(plan.filled <= plan.byteCount, "a read fills more than was asked for")
        fragmented.noteRead(
            plan.inode, plan.offset + UInt64(start), plan.filled - start, pieceCount: plan.partPieceCount)
        plan.allotScratch(&readBuffers)
    }

    /// readlink(2). Hand the plan to `Volume.execute`.
    func readLink(_ number: InodeNumber) throws(Stop) -> ReadPlan {
        let plan = try planReadLink(number)
        noteAccess(number)
        return plan
    }

    func planReadLink(_ number: InodeNumber) throws(Stop) -> ReadPlan {
        let inode = try self.inode(number).record
        guard inode.isSymbolicLink else { throw .failed(.invalid) }
        return try planRead(number, at: 0, Int(inode.size))
    }

    /// Fills a plan; gives it up again when that blocks or fails.
    func planned(_ plan: ReadPlan, _ body: () throws(Stop) -> Void) throws(Stop) {
        do { try body() } catch {
            finished(plan)
            recycle(plan)
            throw error
        }
    }

    /// Adds a piece to a plan. It is copied now if it is still in staging, else read later. Returns how many bytes were
    /// added, from the piece's beginning on; nil if the index is damaged.
    func add(_ piece: FilePiece, to plan: ReadPlan) throws(PageMiss) -> Int? {
        let (offset, byteCount) = (piece.payloadOffset, UInt32(piece.byteCount))
        let added = try index.tree.withValue(of: PayloadEntry.key(piece.payload)) { value -> Int? in
            guard let value, let entry = PayloadEntry(decoding: value), self.table.contains(entry.blocksSegment),
                UInt64(offset) + UInt64(byteCount) <= UInt64(entry.length),
                let start = entry.position(ofByte: offset, through: offset + (byteCount - 1))
            else { return nil }
            // A payload in the index is live, so its segment was not recycled since: the present incarnation is the
            // right one.
            let segmentID = self.table.id(of: entry.blocksSegment)
            if let bytes = self.log.resident(segmentID, start, Int(byteCount)) {
                plan.copy(bytes)
                return bytes.count
            }
            guard let file = self.table[segmentID.number].file else { return nil }
            let before = plan.reads.count
            let taken = plan.add(entry, segmentID, file, offset: Int(offset), byteCount: Int(byteCount))
            self.table.hold(segmentID, count: plan.reads.count - before)
            return taken
        }
        if added == nil {
            report(
                CorruptionReport(
                    place: "payload \(piece.payload.rawValue)",
                    reason: "an extent names it but the index has no such payload"))
        }
        return added
    }

    /// The reads of this part are over: lets go of the segments that they held.
    func finished(_ plan: ReadPlan) {
        precondition(plan.pendingCount == 0, "a segment was let go of while it is read")
        for read in plan.reads { table.letGo(of: read.segmentID) }
        plan.forgetReads()
    }

    /// Gives a plan's buffer back for the next one. The plan's bytes must not be used any more.
    func recycle(_ plan: ReadPlan) {
        precondition(plan.pendingCount == 0, "a buffer was given back while the device writes to it")
        plan.giveUpBuffers { readBuffers.put($0) }
    }
}
