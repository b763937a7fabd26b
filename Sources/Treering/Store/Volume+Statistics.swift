// The figures of a running mount that `treering stats` prints, as JSON or for Prometheus.

/// A number with a name and an explanation for people.
struct Figure {
    var name: String
    var help: String
    var value: UInt64
}

extension Figure {
    static func shared(_ byteCount: UInt64) -> Figure {
        Figure(
            name: "shared_bytes", help: "Bytes that files show beyond those that are stored for them (instant copies)",
            value: byteCount)
    }

    static func passed(_ history: StagingHistory) -> Figure {
        Figure(
            name: "killed_mounts_passed_over",
            help:
                "Killed mounts, since formatting, whose staging the next mount did not see: what they had not synced is lost",
            value: history.passedCount)
    }

    static func sinceFormat(_ written: WrittenByteCounts) -> [Figure] {
        [
            Figure(
                name: "appended_since_format_bytes",
                help: "Records and payloads that operations appended since formatting", value: written.asked),
            Figure(
                name: "moved_since_format_bytes", help: "Bytes written by the cleaner since formatting",
                value: written.moved),
            Figure(
                name: "write_amplification_since_format_percent",
                help: "Bytes of the log written since formatting, for 100 that were asked for",
                value: written.amplificationPercent),
        ]
    }
}

extension Volume {
    /// All figures at this moment.
    func figures() -> [Figure] {
        state.withLock { spaceFigures($0) + writtenFigures($0) + otherFigures($0) + scrubFigures($0) }
    }

    private func spaceFigures(_ state: VolumeState) -> [Figure] {
        let core = state.core
        let log = core.log
        let status = core.status()
        return [
            Figure(name: "capacity_bytes", help: "Capacity of the store", value: state.superblock.capacityByteCount),
            Figure(
                name: "usable_bytes", help: "What of it files and their records may use", value: status.totalByteCount),
            Figure(name: "available_bytes", help: "What can still be written", value: status.availableByteCount),
            Figure(
                name: "live_bytes", help: "Bytes of the log that are in use",
                value: UInt64(max(0, core.table.liveByteCount))),
            Figure(
                name: "reclaimable_bytes", help: "Dead bytes of the log that cleaning brings back",
                value: UInt64(core.table.reclaimableByteCount)),
        ] + (core.index.sharedByteCount.map { [Figure.shared($0)] } ?? []) + [
            Figure(
                name: "reserve_bytes", help: "Kept free for removals, cleaning and recovery",
                value: UInt64(log.space.keptSegmentCount(.write) * core.table.segmentByteCount)),
            Figure(
                name: "segments_in_use", help: "Segments that hold something", value: UInt64(core.table.inUseCount)),
            Figure(
                name: "segments_prepared", help: "Segments ready to become the head of the log",
                value: UInt64(core.table.pool.count)),
            Figure(name: "inodes", help: "Files, directories and others", value: core.index.inodeCount),
            Figure(
                name: "inodes_known_to_kernel", help: "Inodes with a lookup count", value: UInt64(core.lookups.count)),
        ]
    }

    private func writtenFigures(_ state: VolumeState) -> [Figure] {
        let log = state.core.log
        let sinceMount = writtenSinceMount(state.core)
        let sinceFormat = state.writtenBefore + sinceMount
        return [
            Figure(
                name: "appended_bytes", help: "Records and payloads appended since the mount",
                value: log.appendedByteCount),
            Figure(
                name: "packed_writes", help: "Small writes that became part of larger pieces before they were written",
                value: log.leftOutCount),
            Figure(
                name: "fragmented_files", help: "Files with many small pieces, as far as this mount knows",
                value: UInt64(state.core.fragmented.worthwhileCount)),
            Figure(
                name: "joined_pieces", help: "Pieces of files that were joined to larger ones since the mount",
                value: state.core.joined.pieceCount),
            Figure(
                name: "joined_bytes", help: "Bytes of the log written for that", value: state.core.joined.byteCount),
            Figure(
                name: "cleaned_segments", help: "Segments emptied by the cleaner since the mount",
                value: UInt64(housekeeper.cleaner.cleanedSegmentCount)),
            Figure(
                name: "moved_bytes", help: "Bytes written by the cleaner since the mount",
                value: housekeeper.cleaner.movedByteCount
            ),
            Figure(
                name: "punched_bytes", help: "Dead data given back to the host out of live segments since the mount",
                value: state.punchedByteCount),
            Figure(
                name: "write_amplification_percent",
                help: "Bytes of the log written since the mount, for 100 that were asked for",
                value: sinceMount.amplificationPercent),
        ] + Figure.sinceFormat(sinceFormat) + [
            Figure(name: "cleaning", help: "1 while the cleaner works", value: housekeeper.cleaner.isWorking ? 1 : 0),
            Figure(name: "batches", help: "Batches written since the mount", value: log.batchCount),
            Figure(name: "flushes", help: "Flushes of segments since the mount", value: log.syncCount),
            Figure(name: "operations", help: "Records since formatting", value: log.nextSequence.rawValue - 1),
            Figure(name: "checkpoints", help: "Checkpoints since the mount", value: UInt64(state.checkpointCount)),
        ]
    }

    private func otherFigures(_ state: VolumeState) -> [Figure] {
        let core = state.core
        let tree = core.index.tree
        return [
            Figure(
                name: "parked", help: "Operations that had to wait for a page or for room",
                value: UInt64(state.parkedCount)),
            Figure(name: "index_resident_bytes", help: "Index pages in memory", value: UInt64(tree.residentByteCount)),
            Figure(
                name: "index_dirty_bytes", help: "Index pages that the next checkpoint writes",
                value: UInt64(tree.dirtyByteCount)),
            Figure(
                name: "index_file_bytes", help: "Length of the index file",
                value: UInt64(tree.filePageCount * IndexPage.byteCount)),
            Figure(name: "index_entries", help: "Entries in the index", value: tree.entryCount),
            Figure(name: "index_hits", help: "Pages found in memory", value: tree.counters.hitCount),
            Figure(name: "index_misses", help: "Pages that had to be read", value: tree.counters.missCount),
            Figure(
                name: "relocated", help: "How often the log was written again at new addresses after a failure",
                value: UInt64(state.relocationCount)),
            Figure.passed(state.superblock.staging),
            Figure(
                name: "staging_left_files", help: "Staging of killed mounts that this mount found and could not use",
                value: UInt64(housekeeper.hostStaging?.left.count ?? 0)),
            Figure(
                name: "staging_left_bytes", help: "Bytes of that, as far as they can be read",
                value: UInt64(housekeeper.hostStaging?.left.reduce(0) { $0 + $1.byteCount } ?? 0)),
            Figure(name: "corruptions", help: "Damage found since the mount", value: UInt64(core.corruptionCount)),
            Figure(name: "read_only", help: "1 when nothing can be written any more", value: core.isReadOnly ? 1 : 0),
        ]
    }

    /// The cleaner's records of moves and what was joined count among the appended bytes; the blocks that the cleaner
    /// copies do not.
    func writtenSinceMount(_ core: Core) -> WrittenByteCounts {
        let log = core.log
        let repeated = min(housekeeper.cleaner.movedRecordByteCount + core.joined.byteCount, log.appendedByteCount)
        return WrittenByteCounts(
            asked: log.appendedByteCount - repeated, moved: repeated + housekeeper.cleaner.movedBlockByteCount)
    }

    /// Why the mount is read-only, and what damage was found. For a person.
    func complaints() -> [String] {
        state.withLock { state in
            var lines = state.core.corruptions.map(\.description)
            if let failure = state.core.log.failure {
                lines.insert(
                    "the log failed (\(failure)); every fsync reports EIO until the store is mounted again", at: 0)
            }
            return lines
        }
    }

    /// The figures as a JSON object.
    func statistics() -> String {
        let engine =
            "  \"engine\": \"\(device.engineName)\",\n  \"acknowledge\": \"\(options.acknowledgement.rawValue)\",\n"
        let numbers = figures().map { "  \"\($0.name)\": \($0.value)" }.joined(separator: ",\n")
        let lines = complaints().map { "\"\(Self.escaped($0))\"" }.joined(separator: ", ")
        return "{\n\(engine)\(numbers),\n  \"complaints\": [\(lines)]\n}\n"
    }

    /// The figures in the text format of Prometheus.
    func statisticsPrometheus() -> String {
        figures().prometheus
    }

    private static func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case _ where scalar.value < 32: result += " "
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
