// What a simulated host holds, in memory and durably: the rules of durability as a value that can be copied at every
// event. Nothing here knows of submissions, faults or traces.

#if SIMULATION
    /// Something that happened to a file and that a power cut may still undo.
    struct PendingChange {
        enum Kind {
            case write(SimulatedData)
            /// Zeros for so many bytes, without changing the length.
            case punch(UInt64)
            /// At least this length.
            case grow(UInt64)
            /// At most this length.
            case cut(UInt64)
        }

        let kind: Kind
        let offset: UInt64
        /// Unique on this host.
        let number: Int
        /// The operation's number in the trace of the process that asked for it.
        let operation: Int
        /// The event of its completion; nil while in flight.
        var completedAt: Int?
        /// Parts of the file that something durable has been written over since.
        var superseded: [Range<UInt64>] = []
        /// In flight when its process was killed: lands whenever it likes.
        var isLate = false

        var byteCount: UInt64 {
            switch kind {
            case .write(let data): return UInt64(data.byteCount)
            case .punch(let count): return count
            case .grow, .cut: return 0
            }
        }

        var isCompletedCut: Bool {
            if case .cut = kind { return completedAt != nil }
            return false
        }

        /// The bytes of the file that it changes.
        var range: Range<UInt64> { offset..<offset + byteCount }

        /// Applies the given part of the change (of its own range; all of a new length), except what is superseded.
        func apply(to bytes: inout SimulatedBytes, _ parts: [Range<UInt64>]) {
            switch kind {
            case .grow(let byteCount): return bytes.resize(to: max(byteCount, bytes.byteCount))
            case .cut(let byteCount): return bytes.resize(to: min(byteCount, bytes.byteCount))
            default: break
            }
            for part in parts {
                for piece in subtract(superseded, from: part.clamped(to: range)) where !piece.isEmpty {
                    switch kind {
                    case .write(let data):
                        bytes.write(data, Int(piece.lowerBound - offset)..<Int(piece.upperBound - offset), at: offset)
                    default:
                        bytes.zero(piece)
                    }
                }
            }
        }

        private func subtract(_ holes: [Range<UInt64>], from whole: Range<UInt64>) -> [Range<UInt64>] {
            var pieces = [whole]
            for hole in holes where hole.overlaps(whole) {
                pieces = pieces.flatMap { piece -> [Range<UInt64>] in
                    guard piece.overlaps(hole) else { return [piece] }
                    var rest: [Range<UInt64>] = []
                    if piece.lowerBound < hole.lowerBound { rest.append(piece.lowerBound..<hole.lowerBound) }
                    if hole.upperBound < piece.upperBound { rest.append(hole.upperBound..<piece.upperBound) }
                    return rest
                }
            }
            return pieces
        }
    }

    /// One file, whatever names lead to it.
    struct SimulatedInode {
        /// What a reader sees.
        var bytes = SimulatedBytes()
        /// What is certain to outlive a power cut.
        var durable = SimulatedBytes()
        /// In the order of submission, in flight or completed.
        var pending: [PendingChange] = []
        /// Room taken on the host: up to here, less the holes.
        var reservedByteCount: UInt64 = 0
        var holes: Set<UInt64> = []

        var usedByteCount: UInt64 { reservedByteCount - UInt64(holes.count * blockByteCount) }

        /// What completed before is no longer to be seen in `range`.
        mutating func supersede(_ range: Range<UInt64>) {
            for index in pending.indices where pending[index].completedAt != nil && pending[index].range.overlaps(range)
            {
                pending[index].superseded.append(range)
            }
        }

        /// Completed changes in the order of their completion: the order in which they overwrite each other.
        var completed: [PendingChange] {
            pending.filter { $0.completedAt != nil }.sorted { $0.completedAt! < $1.completedAt! }
        }
    }

    /// A change of a directory that a power cut may still undo.
    enum NameChange {
        case create(StoreFile, Int)
        case rename(StoreFile, StoreFile)
        case unlink(StoreFile)

        func apply(to names: inout [StoreFile: Int]) {
            switch self {
            case .create(let file, let inode): names[file] = inode
            case .rename(let old, let new): names[new] = names.removeValue(forKey: old)
            case .unlink(let file): names[file] = nil
            }
        }
    }

    /// Everything on the simulated host at one event.
    ///
    /// A change may be lost until it completed as a durable write, or until a sync of its file that was submitted after
    /// its completion has completed. Names may be lost, latest first, until `syncDirectories`.
    struct SimulatedState {
        var inodes: [Int: SimulatedInode] = [:]
        var names: [StoreFile: Int] = [:]
        var durableNames: [StoreFile: Int] = [:]
        var pendingNames: [NameChange] = []
        /// Submissions, completions and control calls so far.
        var event = 0
        var nextInode = 1
        var nextChange = 1

        mutating func create(_ file: StoreFile) -> Int {
            let inode = nextInode
            nextInode += 1
            inodes[inode] = SimulatedInode()
            changeNames(.create(file, inode))
            return inode
        }

        /// A file that no crash leaves behind.
        mutating func createNameless() -> Int {
            let inode = nextInode
            nextInode += 1
            inodes[inode] = SimulatedInode()
            return inode
        }

        mutating func changeNames(_ change: NameChange) {
            change.apply(to: &names)
            pendingNames.append(change)
        }

        mutating func syncNames() {
            durableNames = names
            pendingNames = []
        }

        /// Forgets files that neither a name nor an open handle leads to.
        mutating func collect(keeping open: Set<Int>) {
            guard pendingNames.isEmpty else { return }
            let named = Set(names.values)
            for inode in inodes.keys where !named.contains(inode) && !open.contains(inode) { inodes[inode] = nil }
        }

        /// A change has been submitted and may land in part at any time. Returns its number.
        mutating func begin(_ kind: PendingChange.Kind, at offset: UInt64, operation: Int, inode: Int) -> Int {
            let number = nextChange
            nextChange += 1
            inodes[inode]!.pending.append(
                PendingChange(kind: kind, offset: offset, number: number, operation: operation))
            return number
        }

        /// The change `number` of `inode` has completed and is seen by readers; with `isDurable` it outlives a power cut.
        mutating func complete(_ number: Int, inode: Int, isDurable: Bool) {
            let index = inodes[inode]!.pending.lastIndex { $0.number == number }!
            var change = inodes[inode]!.pending[index]
            change.completedAt = event
            change.apply(to: &inodes[inode]!.bytes, [change.range])
            guard isDurable else {
                inodes[inode]!.pending[index] = change
                return
            }
            inodes[inode]!.pending.remove(at: index)
            makeShrinksDurable(inode)
            change.apply(to: &inodes[inode]!.durable, [change.range])
            inodes[inode]!.supersede(change.range)
        }

        /// A durable write takes the inode's metadata along: a cut before it cannot come after it.
        private mutating func makeShrinksDurable(_ inode: Int) {
            while let index = inodes[inode]!.pending.firstIndex(where: \.isCompletedCut) {
                let cut = inodes[inode]!.pending.remove(at: index)
                guard case .cut(let byteCount) = cut.kind else { return }
                cut.apply(to: &inodes[inode]!.durable, [])
                for earlier in 0..<index { inodes[inode]!.pending[earlier].superseded.append(byteCount..<UInt64.max) }
            }
        }

        /// A change has failed: the part of it that the host did anyway is seen, and may be lost; the rest never was.
        mutating func fail(_ number: Int, inode: Int, landing parts: [Range<UInt64>]) {
            let index = inodes[inode]!.pending.lastIndex { $0.number == number }!
            var change = inodes[inode]!.pending.remove(at: index)
            guard !parts.isEmpty, case .write = change.kind else { return }
            change.superseded = Self.gaps(between: parts, in: change.range)
            change.completedAt = event
            change.apply(to: &inodes[inode]!.bytes, [change.range])
            inodes[inode]!.pending.insert(change, at: index)
        }

        /// Everything of the file that completed before event `submittedAt` is durable now.
        mutating func sync(inode: Int, submittedAt: Int) {
            let isCovered = { (change: PendingChange) in change.completedAt.map { $0 < submittedAt } ?? false }
            for change in inodes[inode]!.completed where isCovered(change) {
                change.apply(to: &inodes[inode]!.durable, [change.range])
            }
            inodes[inode]!.pending.removeAll(where: isCovered)
        }

        /// A failed flush whose pages the host then took for clean: readers see them, no later sync writes them.
        mutating func loseUnsynced(inode: Int, submittedAt: Int) {
            inodes[inode]!.pending.removeAll { change in change.completedAt.map { $0 < submittedAt } ?? false }
        }

        static func gaps(between parts: [Range<UInt64>], in whole: Range<UInt64>) -> [Range<UInt64>] {
            var gaps: [Range<UInt64>] = []
            var place = whole.lowerBound
            for part in parts.sorted(by: { $0.lowerBound < $1.lowerBound }) where !part.isEmpty {
                if part.lowerBound > place { gaps.append(place..<part.lowerBound) }
                place = max(place, part.upperBound)
            }
            if place < whole.upperBound { gaps.append(place..<whole.upperBound) }
            return gaps
        }
    }
#endif
