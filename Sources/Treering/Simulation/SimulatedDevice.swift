// The device of tests: a host in memory that remembers every operation, completes them in a seeded order, fails on
// demand, and can be crashed at any event with any legal part of what was not durable.

#if SIMULATION
    /// A simulated store directory.
    ///
    /// Deterministic: no threads, no clock; `submit` queues and the test calls `step` or `drain` (or asks for `.immediate`).
    /// `perform` is done at once, before what is queued. Files are read and written in memory that copies share.
    final class SimulatedDevice: Device {
        /// Which queued operation completes next.
        enum Order: Sendable {
            case fifo
            case random
            /// `submit` completes everything before it returns, for code that waits for completions.
            case immediate
            /// In the order of submission, but reads of the index only when nothing else is in flight: whoever waits for a page waits as long as
            /// can be.
            case pagesLast
        }

        private let core: Guarded<SimulatedCore>
        private let order: Order
        nonisolated(unsafe) private var handler: (@Sendable (Completion) -> Void)?

        let engineName = "simulated"

        /// An empty host. `sectorByteCount` is the unit in which writes are torn: 512 or 4096.
        convenience init(
            seed: UInt64 = 0, order: Order = .fifo, sectorByteCount: UInt64 = 512, keepsHistory: Bool = false
        ) {
            self.init(SimulatedState(), seed: seed, order: order, sector: sectorByteCount)
            if keepsHistory { keepHistory() }
        }

        init(_ state: SimulatedState, seed: UInt64, order: Order, sector: UInt64) {
            core = Guarded(SimulatedCore(state, seed: seed, sector: sector))
            self.order = order
        }

        // MARK: Device

        func onCompletion(_ handler: @escaping @Sendable (Completion) -> Void) { self.handler = handler }

        func submit(_ submissions: borrowing [Submission]) {
            for index in submissions.indices {
                let submission = submissions[index]
                core.withLock { $0.flights.append($0.begin(submission)) }
            }
            if case .immediate = order { drain() }
        }

        func perform(_ submission: Submission) -> Completion { core.withLock { $0.finish($0.begin(submission)) } }

        func makeProgress() -> Bool { step() }

        func shutDown() { drain() }

        func list() -> [StoreFile] { core.withLock { $0.state.names.keys.sorted { $0.path < $1.path } } }

        func open(_ file: StoreFile, create: Bool) throws(Errno) -> DeviceFile {
            try core.withLock { (core) throws(Errno) in try core.open(file, create: create) }
        }

        func close(_ file: DeviceFile) { core.withLock { $0.close(file) } }

        func byteCount(of file: DeviceFile) -> UInt64 {
            core.withLock { $0.state.inodes[$0.inode(of: file)]!.bytes.byteCount }
        }

        func resize(_ file: DeviceFile, to byteCount: UInt64) throws(Errno) {
            try core.withLock { (core) throws(Errno) in try core.resize(file, to: byteCount) }
        }

        func hole(in file: DeviceFile, from offset: UInt64) -> Range<UInt64>? {
            core.withLock { $0.hole(in: file, from: offset) }
        }

        func punch(_ file: DeviceFile, offset: UInt64, byteCount: UInt64) throws(Errno) {
            try core.withLock { (core) throws(Errno) in try core.punch(file, offset: offset, byteCount: byteCount) }
        }

        func rename(_ file: StoreFile, to newName: StoreFile) throws(Errno) {
            try core.withLock { (core) throws(Errno) in try core.rename(file, to: newName) }
        }

        func unlink(_ file: StoreFile) throws(Errno) {
            try core.withLock { (core) throws(Errno) in try core.unlink(file) }
        }

        func syncDirectories() throws(Errno) {
            try core.withLock { (core) throws(Errno) in try core.syncDirectories() }
        }

        func hostSpace() -> HostSpace {
            core.withLock { core in
                let total = core.hostByteCount ?? 1 << 40
                let used = core.usedByteCount
                return HostSpace(totalByteCount: total, availableByteCount: total > used ? total - used : 0)
            }
        }

        // MARK: the pump

        /// How many operations are in flight.
        var inFlightCount: Int { core.withLock { $0.flights.count } }

        /// What is in flight, in the order of submission.
        var inFlight: [TraceEntry] { core.withLock { core in core.flights.map { core.trace[$0.operation] } } }

        /// Completes one operation, by the device's order; false where none is in flight.
        @discardableResult
        func step() -> Bool {
            let completion: Completion? = core.withLock { core in
                guard !core.flights.isEmpty else { return nil }
                var index = 0
                switch order {
                case .random: index = Int(core.random.next() % UInt64(core.flights.count))
                case .pagesLast: index = core.firstBesidesPages ?? 0
                case .fifo, .immediate: break
                }
                return core.finish(core.flights.remove(at: index))
            }
            guard let completion else { return false }
            handler?(completion)
            return true
        }

        /// Completes the operation at `index` of `inFlight`.
        func step(at index: Int) {
            let completion = core.withLock { $0.finish($0.flights.remove(at: index)) }
            handler?(completion)
        }

        /// Completes everything, and what the handler submits meanwhile.
        func drain() { while step() {} }
    }

    // MARK: trace and faults

    extension SimulatedDevice {
        /// Everything asked so far; the index is the operation's number.
        var trace: [TraceEntry] { core.withLock { $0.trace } }

        /// The trace as text from operation `start` on, without reads and opens unless asked for.
        func traceLines(from start: Int = 0, reads: Bool = false) -> [String] {
            core.withLock { core in
                core.trace[start...].filter { reads || ($0.kind != .read && $0.kind != .open) }.map(\.line)
            }
        }

        /// Submissions, completions and control calls so far.
        var eventCount: Int { core.withLock { $0.state.event } }

        /// From now on these writes and flushes report success and do nothing.
        func lie(about lies: @escaping @Sendable (TraceEntry) -> Bool) { core.withLock { $0.lies = lies } }

        func inject(_ fault: SimulatedFault) { core.withLock { $0.faults.append(fault) } }

        /// Faults that have not happened yet, or happen for ever.
        var faultCount: Int { core.withLock { $0.faults.count } }

        func clearFaults() { core.withLock { $0.faults = [] } }

        func removeFaults() {
            core.withLock {
                $0.faults = []
                $0.flips = []
            }
        }

        /// Every read of this byte finds these bits inverted, until `removeFaults`.
        func flip(_ file: StoreFile, at offset: UInt64, bits: UInt8 = 1) {
            core.withLock { $0.flips.append((file, offset, bits)) }
        }

        /// Changes a byte on the medium itself.
        func damage(_ file: StoreFile, at offset: UInt64, bits: UInt8 = 1) {
            core.withLock { core in
                let inode = core.state.names[file]!
                core.state.inodes[inode]!.bytes.damage(at: offset, bits)
                if offset < core.state.inodes[inode]!.durable.byteCount {
                    core.state.inodes[inode]!.durable.damage(at: offset, bits)
                }
            }
        }

        /// The host's room for files; growing beyond it fails with ENOSPC. nil: without bound.
        func limitHost(toByteCount byteCount: UInt64?) { core.withLock { $0.hostByteCount = byteCount } }

        /// How many files are open.
        var openFileCount: Int { core.withLock { $0.openFileCount } }

        /// What a reader sees of a file, without a trace of having looked.
        func contents(of file: StoreFile) -> [UInt8]? {
            core.withLock { core in
                guard let inode = core.state.names[file], let bytes = core.state.inodes[inode]?.bytes else {
                    return nil
                }
                var result = [UInt8](repeating: 0, count: Int(bytes.byteCount))
                result.withUnsafeMutableBytes { _ = bytes.read(at: 0, into: $0) }
                return result
            }
        }
    }

    // MARK: crashes

    extension SimulatedDevice {
        /// Keeps a (cheap) copy of the host at every event from now on, for `crashStates(at:)`.
        func keepHistory() { core.withLock { $0.history = [$0.state] } }

        /// The events at which a crash can be looked at; the last is now.
        var crashPoints: Range<Int> {
            core.withLock { core in
                let now = core.state.event
                return (core.history?.first?.event ?? now)..<now + 1
            }
        }

        /// The legal outcomes of a power cut at an event (now unless told): every combination where at most
        /// `exhaustiveUpTo` changes are pending, `samples` of them drawn from `seed` otherwise.
        func crashStates(
            at event: Int? = nil, exhaustiveUpTo limit: Int = 5, samples: Int = 24, seed: UInt64 = 0
        ) -> [CrashState] {
            core.withLock { core in
                let state = Self.state(core, at: event)
                let sector = core.sectorByteCount
                return state.crashChoices(exhaustiveUpTo: limit, samples: samples, seed: seed).map {
                    CrashState(state: state, choice: $0, sector: sector)
                }
            }
        }

        /// One legal outcome of a power cut, drawn from a seed.
        func crash(at event: Int? = nil, seed: UInt64) -> CrashState {
            core.withLock { core in
                let state = Self.state(core, at: event)
                var random = SimulatedRandom(seed: seed)
                let choice = state.sample(state.pendingPlaces.count, &random)
                return CrashState(state: state, choice: choice, sector: core.sectorByteCount)
            }
        }

        /// The host after the process was killed: what completed is there, though it may still be lost in a power cut;
        /// of what was in flight, any part. With `lateWrites`, some of it lands only when the successor's test says so.
        func snapshotAfterKill(
            at event: Int? = nil, seed: UInt64 = 0, lateWrites: Bool = false, order: Order = .fifo
        ) -> SimulatedDevice {
            core.withLock { core in
                let killed = Self.state(core, at: event).afterKill(
                    seed: seed, late: lateWrites, sector: core.sectorByteCount)
                return SimulatedDevice(killed, seed: seed, order: order, sector: core.sectorByteCount)
            }
        }

        /// What the dead process had in flight reaches the files now. Returns how many writes that were.
        @discardableResult
        func landLateWrites() -> Int {
            core.withLock { core in
                var count = 0
                for inode in core.state.inodes.keys.sorted() {
                    for change in core.state.inodes[inode]!.pending where change.isLate && change.completedAt == nil {
                        core.state.event += 1
                        core.state.complete(change.number, inode: inode, isDurable: false)
                        core.record()
                        count += 1
                    }
                }
                return count
            }
        }

        private static func state(_ core: SimulatedCore, at event: Int?) -> SimulatedState {
            guard let event, event != core.state.event else { return core.state }
            guard let history = core.history, let first = history.first, event >= first.event,
                event - first.event < history.count
            else { preconditionFailure("no history of event \(event): ask for keepsHistory") }
            let found = history[event - first.event]
            assert(found.event == event)
            return found
        }
    }

    /// A legal outcome of a power cut, not yet built.
    struct CrashState: CustomStringConvertible {
        fileprivate let state: SimulatedState
        let choice: CrashChoice
        fileprivate let sector: UInt64

        /// A fresh device that holds it; everything there is durable.
        func device(seed: UInt64 = 0, order: SimulatedDevice.Order = .fifo) -> SimulatedDevice {
            SimulatedDevice(state.afterPowerCut(choice, sector: sector), seed: seed, order: order, sector: sector)
        }

        var description: String {
            let parts = zip(state.pendingPlaces, choice.survivals).map { place, survival in
                "operation \(state.inodes[place.inode]!.pending[place.index].operation): \(survival)"
            }
            return "event \(state.event), \(choice.nameCount) of \(state.pendingNames.count) names, \(parts)"
        }
    }
#endif
