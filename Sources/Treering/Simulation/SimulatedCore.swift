// The inside of a simulated device, under the device's lock: its host, what is in flight, the trace and the faults.

#if SIMULATION
    /// Runs operations in two steps, begin and finish, so that a crash can be put between them.
    final class SimulatedCore {
        /// A submitted operation that has not completed.
        struct Flight {
            let submission: Submission
            let operation: Int
            let inode: Int
            /// The number of its pending change, for a write.
            let change: Int
            let effect: SimulatedFault.Effect?
        }

        var state: SimulatedState
        var flights: [Flight] = []
        var trace: [TraceEntry] = []
        var faults: [SimulatedFault] = []
        /// Bits that every read of a place finds inverted.
        var flips: [(file: StoreFile, offset: UInt64, bits: UInt8)] = []
        /// Writes and flushes that report success and do nothing: a device, or code above it, that is broken on purpose.
        var lies: (@Sendable (TraceEntry) -> Bool)?
        var random: SimulatedRandom
        var sectorByteCount: UInt64
        var hostByteCount: UInt64?
        /// Snapshots of `state`, one for each event, where a test asked for them.
        var history: [SimulatedState]?
        private var handles: [Int?] = []
        private var inodeNames: [Int: StoreFile] = [:]

        init(_ state: SimulatedState, seed: UInt64, sector: UInt64) {
            self.state = state
            random = SimulatedRandom(seed: seed)
            sectorByteCount = sector
            for (file, inode) in state.names { inodeNames[inode] = file }
        }

        /// The first in flight that is not a read of the index.
        var firstBesidesPages: Int? {
            flights.firstIndex { trace[$0.operation].kind != .read || trace[$0.operation].file != .index }
        }

        // MARK: transfers

        func begin(_ submission: Submission) -> Flight {
            let inode = self.inode(of: submission.file)
            let operation = trace.count
            let entry = TraceEntry(
                kind: .init(submission.operation), file: inodeNames[inode], offset: submission.offset,
                byteCount: UInt64(submission.byteCount))
            let effect = start(entry)
            var change = 0
            if submission.operation == .write || submission.operation == .writeDurable {
                let data = SimulatedData(.init(submission.first), submission.second.map { .init($0) })
                change = state.begin(.write(data), at: submission.offset, operation: operation, inode: inode)
            }
            record()
            return Flight(submission: submission, operation: operation, inode: inode, change: change, effect: effect)
        }

        func finish(_ flight: Flight) -> Completion {
            state.event += 1
            var result: Int
            switch flight.submission.operation {
            case .read: result = read(flight)
            case .write, .writeDurable: result = write(flight)
            case .sync: result = sync(flight)
            }
            trace[flight.operation].completedAt = state.event
            if result < 0 { trace[flight.operation].error = Errno(Int32(-result)) }
            record()
            return Completion(tag: flight.submission.tag, result: result)
        }

        private func read(_ flight: Flight) -> Int {
            if let error = flight.effect?.error { return -Int(error.rawValue) }
            let submission = flight.submission
            let bytes = state.inodes[flight.inode]!.bytes
            var result = bytes.read(at: submission.offset, into: submission.first)
            if result == submission.first.count, let second = submission.second {
                result += bytes.read(at: submission.offset + UInt64(result), into: second)
            }
            for flip in flips where flip.file == inodeNames[flight.inode] && flip.offset >= submission.offset {
                let place = Int(flip.offset - submission.offset)
                if place < min(result, submission.first.count) {
                    submission.first[place] ^= flip.bits
                } else if place < result, let second = submission.second {
                    second[place - submission.first.count] ^= flip.bits
                }
            }
            switch flight.effect {
            case .shorten(let count): result = min(result, count)
            case .flip(let place) where result > 0: submission.first[place % min(result, submission.first.count)] ^= 1
            default: break
            }
            return result
        }

        private func write(_ flight: Flight) -> Int {
            let submission = flight.submission
            let range = submission.offset..<submission.offset + UInt64(submission.byteCount)
            if let effect = flight.effect, !effect.leavesWhole(submission.byteCount) {
                return failWrite(flight, effect, range)
            }
            guard reserve(flight.inode, range, upTo: range.upperBound) else {
                state.fail(flight.change, inode: flight.inode, landing: [])
                return -Int(Errno.noSpace.rawValue)
            }
            assertUnchanged(flight)
            if lies?(trace[flight.operation]) == true {
                state.fail(flight.change, inode: flight.inode, landing: [])
                return submission.byteCount
            }
            state.complete(flight.change, inode: flight.inode, isDurable: submission.operation == .writeDurable)
            return submission.byteCount
        }

        private func failWrite(_ flight: Flight, _ effect: SimulatedFault.Effect, _ range: Range<UInt64>) -> Int {
            var landing: [Range<UInt64>] = []
            var result = flight.submission.byteCount
            switch effect {
            case .failTorn(let error):
                landing = Survival.torn(random.next()).parts(of: range, sector: sectorByteCount)
                result = -Int(error.rawValue)
            case .shorten(let count):
                result = min(result, count)
                landing = [range.lowerBound..<range.lowerBound + UInt64(result)]
            case .fail(let error), .failAndLose(let error):
                result = -Int(error.rawValue)
            case .flip: preconditionFailure("a write whose bytes are changed; `damage` does that")
            }
            state.fail(flight.change, inode: flight.inode, landing: landing.filter { !$0.isEmpty })
            return result
        }

        private func sync(_ flight: Flight) -> Int {
            let submittedAt = trace[flight.operation].submittedAt
            if case .failAndLose = flight.effect { state.loseUnsynced(inode: flight.inode, submittedAt: submittedAt) }
            if let error = flight.effect?.error { return -Int(error.rawValue) }
            if lies?(trace[flight.operation]) == true { return 0 }
            state.sync(inode: flight.inode, submittedAt: submittedAt)
            return 0
        }

        /// A submitter may not touch the memory of a write before its completion.
        private func assertUnchanged(_ flight: Flight) {
            #if DEBUG
                guard let change = state.inodes[flight.inode]!.pending.last(where: { $0.number == flight.change }),
                    case .write(let data) = change.kind
                else { return }
                let now = SimulatedData(.init(flight.submission.first), flight.submission.second.map { .init($0) })
                let line = trace[flight.operation].line
                precondition(now.blocks == data.blocks, "memory of a write in flight was changed: \(line)")
            #endif
        }

        // MARK: control

        /// Runs a control call as one event, with its faults. `body` does the work.
        func control<Result>(
            _ kind: TraceEntry.Kind, _ file: StoreFile? = nil, newName: StoreFile? = nil, offset: UInt64 = 0,
            byteCount: UInt64 = 0, _ body: (Int) throws(Errno) -> Result
        ) throws(Errno) -> Result {
            let operation = trace.count
            let entry = TraceEntry(kind: kind, file: file, newName: newName, offset: offset, byteCount: byteCount)
            let effect = start(entry)
            defer {
                trace[operation].completedAt = state.event
                record()
            }
            do throws(Errno) {
                if let error = effect?.error { throw error }
                return try body(operation)
            } catch {
                trace[operation].error = error
                throw error
            }
        }

        func open(_ file: StoreFile, create: Bool) throws(Errno) -> DeviceFile {
            try control(create ? .create : .open, file) { (_) throws(Errno) in
                if create && state.names[file] != nil { throw .exists }
                let made = create ? (file == .scratch ? state.createNameless() : state.create(file)) : state.names[file]
                guard let inode = made else { throw .noEntry }
                inodeNames[inode] = file
                let free = handles.firstIndex { $0 == nil } ?? handles.count
                if free == handles.count { handles.append(nil) }
                handles[free] = inode
                return DeviceFile(rawValue: Int32(free))
            }
        }

        var openFileCount: Int { handles.count { $0 != nil } }

        func close(_ file: DeviceFile) {
            _ = inode(of: file)
            precondition(!flights.contains { $0.submission.file == file }, "a file closed with operations in flight")
            handles[Int(file.rawValue)] = nil
            collect()
        }

        func resize(_ file: DeviceFile, to byteCount: UInt64) throws(Errno) {
            let inode = self.inode(of: file)
            try control(.resize, inodeNames[inode], byteCount: byteCount) { (operation) throws(Errno) in
                guard reserve(inode, 0..<0, upTo: byteCount) else { throw .noSpace }
                if byteCount < state.inodes[inode]!.bytes.byteCount {
                    state.inodes[inode]!.reservedByteCount = roundedToBlocks(byteCount)
                    let end = byteCount / UInt64(blockByteCount)
                    state.inodes[inode]!.holes = state.inodes[inode]!.holes.filter { $0 < end }
                }
                let isCut = byteCount < state.inodes[inode]!.bytes.byteCount
                let change = state.begin(
                    isCut ? .cut(byteCount) : .grow(byteCount), at: 0, operation: operation, inode: inode)
                state.complete(change, inode: inode, isDurable: false)
            }
        }

        func punch(_ file: DeviceFile, offset: UInt64, byteCount: UInt64) throws(Errno) {
            let inode = self.inode(of: file)
            try control(.punch, inodeNames[inode], offset: offset, byteCount: byteCount) { (operation) throws(Errno) in
                let change = state.begin(.punch(byteCount), at: offset, operation: operation, inode: inode)
                state.complete(change, inode: inode, isDurable: false)
                let unit = UInt64(blockByteCount)
                let end = min(offset + byteCount, state.inodes[inode]!.reservedByteCount) / unit
                for block in (offset + unit - 1) / unit..<max(end, (offset + unit - 1) / unit) {
                    state.inodes[inode]!.holes.insert(block)
                }
            }
        }

        func hole(in file: DeviceFile, from offset: UInt64) -> Range<UInt64>? {
            let unit = UInt64(blockByteCount)
            let holes = state.inodes[inode(of: file)]!.holes
            guard let first = holes.filter({ $0 >= offset / unit }).min() else { return nil }
            var end = first + 1
            while holes.contains(end) { end += 1 }
            return max(offset, first * unit)..<end * unit
        }

        func rename(_ file: StoreFile, to newName: StoreFile) throws(Errno) {
            try control(.rename, file, newName: newName) { (_) throws(Errno) in
                guard let inode = state.names[file] else { throw .noEntry }
                state.changeNames(.rename(file, newName))
                inodeNames[inode] = newName
            }
        }

        func unlink(_ file: StoreFile) throws(Errno) {
            try control(.unlink, file) { (_) throws(Errno) in
                guard state.names[file] != nil else { throw .noEntry }
                state.changeNames(.unlink(file))
            }
        }

        func syncDirectories() throws(Errno) {
            try control(.syncDirectories) { (_) throws(Errno) in
                state.syncNames()
                collect()
            }
        }

        func inode(of file: DeviceFile) -> Int {
            precondition(handles.indices.contains(Int(file.rawValue)), "a device file that is not open")
            guard let inode = handles[Int(file.rawValue)] else { preconditionFailure("a device file that is not open") }
            return inode
        }

        var usedByteCount: UInt64 { state.inodes.values.reduce(0) { $0 + $1.usedByteCount } }

        // MARK: common

        /// Counts the operation, draws its fault and writes it into the trace.
        private func start(_ entry: TraceEntry) -> SimulatedFault.Effect? {
            state.event += 1
            var entry = entry
            entry.submittedAt = state.event
            trace.append(entry)
            var effect: SimulatedFault.Effect?
            for index in faults.indices where faults[index].matches(entry) {
                faults[index].countdown -= 1
                if faults[index].countdown <= 0 { effect = effect ?? faults[index].effect }
            }
            faults.removeAll { $0.countdown <= 0 && !$0.isLasting }
            return effect
        }

        func record() { history?.append(state) }

        private func collect() { state.collect(keeping: Set(handles.compactMap { $0 })) }

        /// Takes room on the host for a file that reaches up to `end` and has `range` written; false where there is none.
        private func reserve(_ inode: Int, _ range: Range<UInt64>, upTo end: UInt64) -> Bool {
            let before = state.inodes[inode]!
            var after = before
            after.reservedByteCount = max(before.reservedByteCount, roundedToBlocks(end))
            if !after.holes.isEmpty && !range.isEmpty {
                let unit = UInt64(blockByteCount)
                for block in range.lowerBound / unit...(range.upperBound - 1) / unit { after.holes.remove(block) }
            }
            if let hostByteCount, after.usedByteCount > before.usedByteCount,
                usedByteCount + after.usedByteCount - before.usedByteCount > hostByteCount
            {
                return false
            }
            state.inodes[inode]!.reservedByteCount = after.reservedByteCount
            state.inodes[inode]!.holes = after.holes
            return true
        }
    }

    extension SimulatedFault.Effect {
        var error: Errno? {
            switch self {
            case .fail(let error), .failTorn(let error), .failAndLose(let error): return error
            case .shorten, .flip: return nil
            }
        }

        /// Whether a transfer of this length is not shortened at all.
        func leavesWhole(_ byteCount: Int) -> Bool {
            if case .shorten(let count) = self { return count >= byteCount }
            return false
        }
    }
#endif
