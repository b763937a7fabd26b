// A volume on this machine's files, as the command mounts it.

/// A volume over a host directory, through either engine.
typealias HostVolume = Volume<HostDevice>

extension Volume where D == HostDevice {
    /// Mounts the store in `directory`, takes in what a dead mount left in staging, and starts the housekeeper.
    static func mount(
        _ device: HostDevice, _ options: VolumeOptions, directory: HostString, log: LogSink, isServed: Bool = true
    ) throws(MountError) -> HostVolume {
        let say: @Sendable (String) -> Void = { log.notice($0) }
        let uuid = try SuperblockPair.read(device).newest().uuid
        let staging: HostStaging
        do throws(Errno) {
            staging = try HostStaging(directory: directory, uuid: uuid, log: say, warn: { log.warning($0) })
        } catch {
            throw MountError("the store's directory cannot be examined", error)
        }
        let volume = try mount(device, options, hostStaging: staging, log: say)
        // A repair has no housekeeper thread; it does that work itself.
        guard isServed else { return volume }
        do throws(Errno) { try volume.housekeeper.start() } catch {
            throw MountError("no thread can be started", error)
        }
        volume.housekeeper.kick()
        for (path, byteCount) in AbandonedStaging.remove() + AbandonedStaging.remove(in: directory, isStore: true) {
            say("\(path) was removed, \(byteCount) bytes: nobody needs that staging any more")
        }
        return volume
    }

    /// Figures of a store that is not mounted.
    static func offlineFigures(_ device: HostDevice) throws(MountError) -> [Figure] {
        let recovery = try Recovery(device, indexCacheByteCount: 64 << 20) { _ in }
        try recovery.replay()
        let table = recovery.table
        let free = UInt64(table.freeCount) * UInt64(table.segmentByteCount)
        let shared = recovery.index.sharedByteCount.map { [Figure.shared($0)] } ?? []
        return shared + Figure.sinceFormat(recovery.written) + [
            Figure(name: "capacity_bytes", help: "Capacity of the store", value: recovery.superblock.capacityByteCount),
            Figure(name: "available_bytes", help: "What can still be written", value: free),
            Figure(
                name: "live_bytes", help: "Bytes of the log that are in use",
                value: UInt64(max(0, table.liveByteCount))),
            Figure(
                name: "reclaimable_bytes", help: "Dead bytes of the log that cleaning brings back",
                value: UInt64(table.reclaimableByteCount)),
            Figure(name: "segments_in_use", help: "Segments that hold something", value: UInt64(table.inUseCount)),
            Figure(name: "inodes", help: "Files, directories and others", value: recovery.index.inodeCount),
            Figure(name: "index_entries", help: "Entries in the index", value: recovery.index.tree.entryCount),
            Figure(name: "operations", help: "Records since formatting", value: recovery.nextSequence.rawValue - 1),
            Figure(name: "mount_epoch", help: "Mounts since formatting", value: recovery.superblock.epoch.rawValue),
            Figure.passed(recovery.superblock.staging),
            Figure(name: "clean", help: "1 when it was cleanly unmounted", value: recovery.superblock.isClean ? 1 : 0),
        ]
    }
}

extension [Figure] {
    /// A JSON object.
    var json: String { "{\n" + map { "  \"\($0.name)\": \($0.value)" }.joined(separator: ",\n") + "\n}\n" }

    /// The text format of Prometheus.
    var prometheus: String {
        map {
            "# HELP treering_\($0.name) \($0.help)\n# TYPE treering_\($0.name) gauge\ntreering_\($0.name) \($0.value)\n"
        }.joined()
    }
}
