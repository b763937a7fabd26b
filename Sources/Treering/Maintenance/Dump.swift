// `treering dump`: shows a store's structures as text, one line at a time, straight from disk and without changing
// anything. It trusts nothing. It reports damage and goes on behind it. Superblock and index are here; the rest is in
// Dump+Segment and Dump+Inode.

import Glibc

/// Shows the structures of a store. The store should not be mounted: otherwise what is shown may be changing.
struct Dump<D: Device> {
    let device: D
    let line: (String) -> Void

    /// Shows both slots of the superblock field by field, even damaged ones.
    static func superblock(_ device: D, _ line: @escaping (String) -> Void) throws(MountError) {
        try Dump(device: device, line: line).superblock()
    }

    /// Shows the index of the newest checkpoint: every entry in words, then figures about its pages.
    static func index(_ device: D, _ line: @escaping (String) -> Void) throws(MountError) {
        try Dump(device: device, line: line).index()
    }

    private func superblock() throws(MountError) {
        do throws(Errno) {
            let file = try device.open(.superblock, create: false)
            defer { device.close(file) }
            let block = AlignedBuffer(byteCount: Superblock.slotByteCount)
            for (number, offset) in Superblock.slotOffsets.enumerated() {
                let completion = device.perform(Submission(.read, file, offset: offset, block.bytes, tag: 0))
                if let error = completion.error {
                    line("slot \(number) at \(offset): it cannot be read: \(error)")
                    continue
                }
                slot(number, offset, UnsafeRawBufferPointer(block.bytes).part(0, completion.result))
            }
        } catch {
            if error == .noEntry {
                throw MountError(.foreign, "there is no file `superblock`")
            }
            throw MountError("the superblock cannot be read", error)
        }
    }

    private func slot(_ number: Int, _ offset: UInt64, _ bytes: UnsafeRawBufferPointer) {
        line("slot \(number) at \(offset): \(Self.verdict(bytes))")
        fields(Superblock.Layout.self, bytes)
    }

    private static func verdict(_ bytes: UnsafeRawBufferPointer) -> String {
        do throws(Superblock.Refusal) {
            _ = try Superblock(decoding: bytes)
            return "good"
        } catch {
            switch error {
            case .foreign: return "not a superblock of a treering store"
            case .newer(let text): return "newer than this treering: \(text); read as version 1:"
            case .damaged(let text): return "damaged: \(text)"
            }
        }
    }

    func fields(_ layout: any DiskLayout.Type, _ bytes: UnsafeRawBufferPointer) {
        for (name, value) in layout.words(for: bytes) { line("  \(name): \(value)") }
    }

    private func index() throws(MountError) {
        let superblock = try SuperblockPair.read(device).newest()
        let file = try openIndex()
        defer { device.close(file) }
        let root = superblock.indexRoot
        line(
            "index of checkpoint \(root.checkpoint.rawValue), the log included through batch \(superblock.position.lastBatch.rawValue)"
        )
        line("  root page \(root.page.address.rawValue), level \(root.level), birth \(root.page.birth.rawValue)")
        let summary = walk(superblock, file) { [self] key, value in line("\(key): \(Self.describe(key, value))") }
        line("pages: \(root.pageCount) in the file, \(root.usedPageCount) in use by this checkpoint")
        let room = summary.leafPageCount * UInt64(IndexPage.capacityByteCount)
        let percent = room == 0 ? 0 : summary.leafUsedByteCount * 100 / room
        line(
            "  leaves: \(summary.leafPageCount), \(percent)% full; inner pages: \(summary.innerPageCount); bitmap: \(summary.bitmapPageCount)"
        )
        line(
            "entries: \(summary.entryCount), \(summary.valueByteCount) bytes of values; the superblock says \(root.entryCount)"
        )
        line(summary.isWhole ? "no damage" : "damage in \(summary.damageCount) places")
    }

    func openIndex() throws(MountError) -> DeviceFile {
        do throws(Errno) { return try device.open(.index, create: false) } catch {
            throw MountError("the file `index` cannot be opened", error)
        }
    }

    /// Walks a range of the index of a checkpoint. Damage becomes a line at the place where it is met.
    func walk(
        _ superblock: Superblock, _ file: DeviceFile, within range: ClosedRange<IndexKey> = .min ... .max,
        _ onEntry: @escaping (IndexKey, UnsafeRawBufferPointer) -> Void
    ) -> IndexSummary {
        let line = self.line
        return IndexVerifier.verify(
            root: superblock.indexRoot, uuid: superblock.blockUUID, within: range, read: device.pages(of: file),
            onEntry: onEntry, onDamage: { line("DAMAGED \($0)") })
    }
}

// MARK: In words

extension Dump {
    /// Describes an entry of the index for a person.
    static func describe(_ key: IndexKey, _ value: UnsafeRawBufferPointer) -> String {
        words(key, value) ?? "MALFORMED, \(value.count) bytes: \(RebuiltIndex<D>.hex(Array(value.prefix(64))))"
    }

    private static func words(_ key: IndexKey, _ value: UnsafeRawBufferPointer) -> String? {
        switch (key.space, key.kind) {
        case (.tree, .inode):
            return InodeEntry(inode: InodeNumber(key.object), decoding: value).map {
                let derived = isDirectory($0.record.mode) ? "entries" : "bytes named by extents"
                return "\(words($0.record)), \($0.derived) \(derived), \(words($0.origin))"
            }
        case (.tree, .dirent):
            return DirentEntry(decoding: value).map {
                "\($0.name.quoted) is inode \($0.inode.rawValue), \(typeWord(UInt32($0.type) << 12)), \(words($0.origin)), since \($0.since.rawValue)"
            }
        case (.tree, .xattr):
            return XattrEntry(decoding: value).map {
                "\($0.name.quoted) = \(words($0.value)), \(words($0.origin)), since \($0.since.rawValue)"
            }
        case (.tree, .extent):
            return ExtentEntry(decoding: value).map {
                $0.isReserved
                    ? "\($0.length) bytes reserved, \(words($0.origin))"
                    : "\($0.length) bytes from \($0.payloadOffset) on of payload \($0.payload.rawValue), \(words($0.origin))"
            }
        case (.payloads, .payload):
            return PayloadEntry(decoding: value).map { "\(place($0)), \(counts($0)), \(words($0.origin))" }
        case (.usage, .usage): return UsageEntry(decoding: value).map(words)
        case (.orphans, .orphan):
            return value.count == Origin.byteCount ? "without a name, \(words(Origin(decoding: value)))" : nil
        case (.tombstones, _?): return TombstoneEntry(decoding: value).map { words($0, key) }
        case (.removals, .removal):
            return RemovalEntry(decoding: value).map {
                "by record \(key.subkey): "
                    + ($0.isWholeInode ? "the whole inode is going" : "bytes \($0.from)..<\($0.to) are going")
            }
        default: return nil
        }
    }

    static func words(_ origin: Origin) -> String {
        "by record \(origin.sequence.rawValue) in segment \(origin.segment.rawValue)"
    }

    static func words(_ record: InodeRecord) -> String {
        var text =
            "\(typeWord(record.mode)) mode 0\(String(record.mode & 0o7777, radix: 8)), \(record.linkCount) links, "
        text += "uid \(record.uid), gid \(record.gid), size \(record.size)"
        if record.deviceNumber != 0 { text += ", device 0x\(String(record.deviceNumber, radix: 16))" }
        if record.flags != 0 { text += ", flags 0x\(String(record.flags, radix: 16))" }
        if record.parent.rawValue != 0 { text += ", parent \(record.parent.rawValue)" }
        text += ", accessed \(words(record.accessed)), modified \(words(record.modified))"
        return text + ", changed \(words(record.changed)), born \(words(record.born)), since \(record.since.rawValue)"
    }

    static func words(_ value: XattrStorage) -> String {
        switch value {
        case .inline(let bytes): return "\(bytes.quoted) (\(bytes.count) bytes)"
        case .payload(let id, let count): return "payload \(id.rawValue) (\(count) bytes)"
        }
    }

    /// Where a payload's bytes lie.
    static func place(_ entry: PayloadEntry) -> String {
        let end =
            UInt64(entry.position)
            + UInt64(entry.isInline ? entry.length : UInt32(entry.storedCount * blockByteCount))
        return
            "\(entry.length) bytes \(entry.isInline ? "inline" : "in \(entry.storedCount) blocks") at \(entry.position)..<\(end) of segment \(entry.blocksSegment.rawValue)"
    }

    private static func counts(_ entry: PayloadEntry) -> String {
        let live = entry.isInline ? 1 : entry.liveBlockCount
        return "\(live) of \(entry.storedCount) live, \(entry.referencedByteCount) bytes named"
    }

    private static func words(_ usage: UsageEntry) -> String {
        let last = usage.lastBatch == .zero ? "open" : "\(usage.lastBatch.rawValue)"
        let end = usage.end == 0 ? "" : ", declared to end at \(usage.end)"
        return
            "\(usage.state == .inUse ? "in use" : "free"), \(usage.role) head, incarnation \(usage.incarnation), epoch \(usage.epoch.rawValue), "
            + "batches \(usage.firstBatch.rawValue) to \(last)\(end), \(usage.live) bytes live"
    }

    private static func words(_ tombstone: TombstoneEntry, _ key: IndexKey) -> String {
        let hidden: String
        switch key.kind {
        case .rangeTombstone: hidden = "bytes \(tombstone.from)..<\(tombstone.to) removed by record \(key.subkey)"
        case .inode: hidden = "the whole inode"
        default: hidden = "\(key.kind.map { "\($0)" } ?? "?") \(key.subkey)"
        }
        return
            "hides \(hidden) in segments with stamps \(tombstone.since.rawValue) through \(tombstone.until.rawValue), "
            + "\(tombstone.charge) bytes charged, \(words(tombstone.origin))"
    }

    /// A time in UTC, or the bare number of seconds where the calendar does not reach.
    static func words(_ time: Timestamp) -> String {
        var seconds = time_t(time.seconds)
        var parts = tm()
        guard gmtime_r(&seconds, &parts) != nil else { return "\(time.seconds) s" }
        func digits(_ value: Int64, _ count: Int) -> String {
            let text = String(value)
            return String(repeating: "0", count: max(0, count - text.count)) + text
        }
        let date =
            "\(digits(Int64(parts.tm_year) + 1900, 4))-\(digits(Int64(parts.tm_mon) + 1, 2))-\(digits(Int64(parts.tm_mday), 2))"
        let clock =
            "\(digits(Int64(parts.tm_hour), 2)):\(digits(Int64(parts.tm_min), 2)):\(digits(Int64(parts.tm_sec), 2))"
        return "\(date)T\(clock).\(digits(Int64(time.nanoseconds), 9))Z"
    }

    static func isDirectory(_ mode: UInt32) -> Bool { mode & UInt32(S_IFMT) == UInt32(S_IFDIR) }

    static func typeWord(_ mode: UInt32) -> String {
        switch mode & UInt32(S_IFMT) {
        case UInt32(S_IFREG): return "file"
        case UInt32(S_IFDIR): return "directory"
        case UInt32(S_IFLNK): return "symbolic link"
        case UInt32(S_IFCHR): return "character device"
        case UInt32(S_IFBLK): return "block device"
        case UInt32(S_IFIFO): return "pipe"
        case UInt32(S_IFSOCK): return "socket"
        case 0: return "inode without a record"
        default: return "unknown type 0\(String(mode & UInt32(S_IFMT), radix: 8))"
        }
    }
}
