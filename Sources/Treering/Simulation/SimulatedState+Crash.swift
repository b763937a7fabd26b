// What a power cut or a killed process may leave behind, enumerated or drawn from a seed.

#if SIMULATION
    /// A small seeded generator (SplitMix64): the same seed, the same run.
    struct SimulatedRandom: RandomNumberGenerator {
        private var state: UInt64
        init(seed: UInt64) { state = seed }

        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var mixed = state
            mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
            return mixed ^ (mixed >> 31)
        }
    }

    /// How much of one pending change outlives a power cut.
    enum Survival: Hashable, Sendable, CustomStringConvertible {
        case nothing
        case whole
        /// Only the first half of its sectors, or only the second.
        case firstHalf
        case secondHalf
        /// Each sector or not, as the seed has it.
        case torn(UInt64)

        var description: String {
            switch self {
            case .nothing: return "-"
            case .whole: return "all"
            case .firstHalf: return "first half"
            case .secondHalf: return "second half"
            case .torn(let seed): return "torn(\(seed))"
            }
        }

        /// The parts of `range` that survive. Sectors begin at multiples of their size in the file.
        func parts(of range: Range<UInt64>, sector: UInt64) -> [Range<UInt64>] {
            if range.isEmpty || self == .nothing { return [] }
            if self == .whole { return [range] }
            let first = range.lowerBound / sector
            let last = (range.upperBound - 1) / sector
            let middle = (first + (last - first + 1) / 2) * sector
            switch self {
            case .firstHalf:
                return [range.lowerBound..<max(range.lowerBound, middle)]
            case .secondHalf:
                return [max(range.lowerBound, middle)..<range.upperBound]
            case .torn(let seed):
                var random = SimulatedRandom(seed: seed)
                return (first...last).compactMap { index in
                    guard random.next() & 1 == 1 else { return nil }
                    return (index * sector..<(index + 1) * sector).clamped(to: range)
                }
            default:
                return []
            }
        }
    }

    /// One legal outcome of a power cut: what became of every change that was not durable.
    struct CrashChoice: Hashable, Sendable {
        /// So many of the pending changes of the directories, the oldest first.
        var nameCount: Int
        /// One for each pending change of a file, in the order of `SimulatedState.pendingPlaces`.
        var survivals: [Survival]
        /// Draws the order in which overlapping writes in flight landed; nil: as submitted.
        var orderSeed: UInt64?
    }

    extension SimulatedState {
        /// Every pending change of a file: which file, and where in its list.
        var pendingPlaces: [(inode: Int, index: Int)] {
            inodes.keys.sorted().flatMap { inode in inodes[inode]!.pending.indices.map { (inode, $0) } }
        }

        /// The legal outcomes of a power cut now: all combinations of lost and kept where there are at most
        /// `exhaustiveUpTo` pending changes, with each write torn in several ways; `samples` seeded ones otherwise.
        func crashChoices(exhaustiveUpTo limit: Int, samples: Int, seed: UInt64) -> [CrashChoice] {
            let places = pendingPlaces
            let allNames = pendingNames.count
            var random = SimulatedRandom(seed: seed)
            if places.count > limit {
                var choices = [
                    CrashChoice(nameCount: 0, survivals: places.map { _ in .nothing }),
                    CrashChoice(nameCount: allNames, survivals: places.map { _ in .nothing }),
                    CrashChoice(nameCount: allNames, survivals: places.map { _ in .whole }),
                ]
                for _ in 0..<samples { choices.append(sample(places.count, &random)) }
                return choices
            }
            let nameCounts =
                allNames <= 3 ? Array(0...allNames) : [0, Int.random(in: 1..<allNames, using: &random), allNames]
            var choices: [CrashChoice] = []
            for nameCount in nameCounts {
                for mask in 0..<(1 << places.count) {
                    let survivals = places.indices.map { mask >> $0 & 1 == 1 ? Survival.whole : .nothing }
                    choices.append(CrashChoice(nameCount: nameCount, survivals: survivals))
                }
            }
            for (torn, place) in places.enumerated() where inodes[place.inode]!.pending[place.index].byteCount > 512 {
                for other in [Survival.nothing, .whole] {
                    for how in [Survival.firstHalf, .secondHalf, .torn(random.next())] {
                        var survivals = places.map { _ in other }
                        survivals[torn] = how
                        choices.append(CrashChoice(nameCount: allNames, survivals: survivals))
                    }
                }
            }
            return choices
        }

        /// One legal outcome drawn from a generator.
        func sample(_ count: Int, _ random: inout SimulatedRandom) -> CrashChoice {
            let survivals = (0..<count).map { _ -> Survival in
                switch random.next() % 4 {
                case 0: return .nothing
                case 1, 2: return .whole
                default: return .torn(random.next())
                }
            }
            let names = Int.random(in: 0...pendingNames.count, using: &random)
            return CrashChoice(nameCount: names, survivals: survivals, orderSeed: random.next())
        }

        /// The host after a power cut with that outcome: everything that is there is durable.
        func afterPowerCut(_ choice: CrashChoice, sector: UInt64) -> SimulatedState {
            var result = SimulatedState()
            result.nextInode = nextInode
            result.nextChange = nextChange
            var names = durableNames
            for change in pendingNames.prefix(choice.nameCount) { change.apply(to: &names) }
            result.names = names
            result.durableNames = names
            var survivals: [Int: [Survival]] = [:]
            for (place, survival) in zip(pendingPlaces, choice.survivals) {
                survivals[place.inode, default: []].append(survival)
            }
            for inode in Set(names.values) {
                let image = surviving(inodes[inode]!, survivals[inode] ?? [], choice.orderSeed, sector)
                result.inodes[inode] = SimulatedInode(
                    bytes: image, durable: image, reservedByteCount: roundedToBlocks(image.byteCount))
            }
            return result
        }

        private func surviving(
            _ inode: SimulatedInode, _ survivals: [Survival], _ orderSeed: UInt64?, _ sector: UInt64
        ) -> SimulatedBytes {
            var image = inode.durable
            let pairs = zip(inode.pending, survivals)
            var order = pairs.filter { $0.0.completedAt != nil }.sorted { $0.0.completedAt! < $1.0.completedAt! }
            var flying = pairs.filter { $0.0.completedAt == nil }
            if let orderSeed {
                var random = SimulatedRandom(seed: orderSeed)
                flying.shuffle(using: &random)
            }
            order += flying
            for (change, survival) in order where survival != .nothing {
                change.apply(to: &image, survival.parts(of: change.range, sector: sector))
            }
            return image
        }

        /// The host after the process was killed: what completed is seen (and may still be lost in a power cut); of what
        /// was in flight any part has landed. With `late`, some of it has not landed yet and does so under the successor.
        func afterKill(seed: UInt64, late: Bool, sector: UInt64) -> SimulatedState {
            var random = SimulatedRandom(seed: seed)
            var result = self
            for inode in inodes.keys.sorted() {
                for change in inodes[inode]!.pending where change.completedAt == nil {
                    result.event += 1
                    let drawn = random.next() % (late ? 4 : 3)
                    let torn = Survival.torn(random.next())
                    switch drawn {
                    case 0: result.fail(change.number, inode: inode, landing: [])
                    case 1: result.complete(change.number, inode: inode, isDurable: false)
                    case 2:
                        let parts = torn.parts(of: change.range, sector: sector)
                        result.fail(change.number, inode: inode, landing: parts)
                    default:
                        let index = result.inodes[inode]!.pending.firstIndex { $0.number == change.number }!
                        result.inodes[inode]!.pending[index].isLate = true
                    }
                }
            }
            result.collect(keeping: [])
            return result
        }
    }

    /// Up to a whole number of blocks.
    func roundedToBlocks(_ byteCount: UInt64) -> UInt64 {
        (byteCount + UInt64(blockByteCount - 1)) / UInt64(blockByteCount) * UInt64(blockByteCount)
    }
#endif
