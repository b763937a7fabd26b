// File contents: planning writes and reads. A write is one record; a read is a plan of pieces, carried out by Volume.

extension Core {
    /// write(2): all bytes or none. `bytes` are copied once, into staging. True when privileges were killed.
    @discardableResult
    func write(
        _ number: InodeNumber, at offset: UInt64, _ bytes: UnsafeRawBufferPointer, _ flags: WriteFlags = [],
        _ caller: Caller = .nobody
    ) throws(Stop) -> Bool {
        guard bytes.count > 0 else { return false }
        precondition(bytes.count <= writeByteCountLimit)
        guard offset <= Self.sizeLimit - UInt64(bytes.count) else { throw .failed(.fileTooBig) }
        var inode = try self.inode(number).record
        guard inode.isRegular else { throw .failed(inode.isDirectory ? .isDirectory : .invalid) }
        if inode.isImmutable || inode.isAppendOnly && !flags.contains(.appends) { throw .failed(.notPermitted) }
        let time = now()
        let hasKilled = flags.contains(.killsPrivileges) ? try inode.killPrivileges(caller) : false
        inode.size = max(inode.size, offset + UInt64(bytes.count))
        if !flags.contains(.keepsTimes) {
            inode.modified = time
            inode.changed = time
        }
        writer.reset()
        writer.payload(bytes)
        writer.extent(inode: number, offset: offset, byteCount: UInt32(bytes.count))
        writer.inode(inode)
        try commitData(number, offset, offset + UInt64(bytes.count))
        return hasKilled
    }

    /// read(2): what to copy, what to zero, what to read.
    func planRead(_ number: InodeNumber, at offset: UInt64, _ byteCount: Int) throws(Stop) -> ReadPlan {
        let inode = try self.inode(number).record
        guard !inode.isDirectory else { throw .failed(.isDirectory) }
        let count = offset < inode.size ? Int(min(UInt64(byteCount), inode.size - offset)) : 0
        let plan = ReadPlan(byteCount: count, buffers: &readBuffers)
        guard count > 0 else { return plan }
        var filled = offset
        let end = offset + UInt64(count)
        try planned(plan) { () throws(Stop) in
            var pieces: [(UInt64, UInt64, PayloadID, UInt32)] = []
            try self.find { () throws(PageMiss) in
                try self.index.forEachPiece(number, offset, end) {
                    (start, length, payload, payloadOffset) throws(PageMiss) in
                    pieces.append((start, length, payload, payloadOffset))
                    return true
                }
            }
            for (start, length, payload, payloadOffset) in pieces {
                plan.zero(Int(filled - offset), Int(start - filled))
                try self.add(to: plan, at: Int(start - offset), payload, payloadOffset, UInt32(length))
                filled = start + length
            }
            plan.zero(Int(filled - offset), Int(end - filled))
        }
        return plan
    }

    /// readlink(2).
    func planReadLink(_ number: InodeNumber) throws(Stop) -> ReadPlan {
        let inode = try self.inode(number).record
        guard inode.isSymbolicLink else { throw .failed(.invalid) }
        return try planRead(number, at: 0, Int(inode.size))
    }

    /// Fills a plan; gives it up again when that blocks or fails.
    func planned(_ plan: ReadPlan, _ body: () throws(Stop) -> Void) throws(Stop) {
        do { try body() } catch {
            finished(plan)
            throw error
        }
    }

    /// Adds a piece of a payload to a plan: copied now if it is still in staging, else read later.
    func add(to plan: ReadPlan, at target: Int, _ id: PayloadID, _ offset: UInt32, _ byteCount: UInt32) throws(Stop) {
        let key = PayloadEntry.key(id)
        let isPlanned = try find { () throws(PageMiss) in
            try index.tree.withValue(of: key) { value -> Bool in
                guard let value, let entry = PayloadEntry(decoding: value), self.table.contains(entry.blocksSegment),
                    UInt64(offset) + UInt64(byteCount) <= UInt64(entry.length),
                    let start = entry.position(ofByte: offset, through: offset + (byteCount - 1))
                else { return false }
                // What the index names lives, so the segment is in the life in which it was written.
                let life = self.table.life(of: entry.blocksSegment)
                if let bytes = self.log.resident(life, start, Int(byteCount)) {
                    plan.bytesToFill.copy(bytes, to: target)
                    return true
                }
                guard let file = self.table[life.number].file else { return false }
                if plan.add(entry, life, file, offset: Int(offset), byteCount: Int(byteCount), target: target) {
                    self.table.hold(life)
                }
                return true
            }
        }
        guard isPlanned else {
            report(
                CorruptionReport(
                    place: "payload \(id.rawValue)", reason: "an extent names it but the index has no such payload"))
            throw .failed(.input)
        }
    }

    /// A plan's reads are over: lets go of the segments and of the buffer's claim.
    func finished(_ plan: ReadPlan) {
        for read in plan.reads { table.letGo(of: read.life) }
        plan.reads.removeAll()
    }

    /// Gives a plan's buffer back for the next one. The plan's bytes must not be used any more.
    func recycle(_ plan: ReadPlan) {
        if let buffer = plan.giveUpBuffer() { readBuffers.put(buffer) }
    }
}
