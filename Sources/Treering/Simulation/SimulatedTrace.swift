// What a simulated device was asked to do, in order, as values and as lines of text for golden traces; and the faults
// that a test may put in its way.

#if SIMULATION
    /// One operation of a simulated device.
    struct TraceEntry: Sendable {
        enum Kind: String, Sendable {
            case read, write, writeDurable, sync, create, open, resize, punch, rename, unlink, syncDirectories

            init(_ operation: Submission.Operation) {
                switch operation {
                case .read: self = .read
                case .write: self = .write
                case .writeDurable: self = .writeDurable
                case .sync: self = .sync
                }
            }
        }

        var kind: Kind
        var file: StoreFile?
        var newName: StoreFile?
        var offset: UInt64 = 0
        var byteCount: UInt64 = 0
        /// Events: a crash at `submittedAt` finds the operation in flight, one at `completedAt` finds it completed.
        var submittedAt = 0
        var completedAt: Int?
        var error: Errno?

        /// For example "write segment 3 @8192 12288", "sync segment 3", "rename index.new to index".
        var line: String {
            let name = file?.traceName ?? ""
            var text: String
            switch kind {
            case .read, .write, .writeDurable, .punch: text = "\(kind.rawValue) \(name) @\(offset) \(byteCount)"
            case .sync, .create, .open, .unlink: text = "\(kind.rawValue) \(name)"
            case .resize: text = "resize \(name) \(byteCount)"
            case .rename: text = "rename \(name) to \(newName?.traceName ?? "")"
            case .syncDirectories: text = "sync directories"
            }
            if let error { text += " failed with \(error.rawValue)" }
            return text
        }
    }

    extension StoreFile {
        /// "superblock", "index", "index.new", "segment 3", "preparing 3".
        var traceName: String {
            switch self {
            case .superblock: return "superblock"
            case .index: return "index"
            case .newIndex: return "index.new"
            case .scratch: return "scratch"
            case .segment(let number): return "segment \(number.rawValue)"
            case .preparing(let number): return "preparing \(number.rawValue)"
            }
        }
    }

    /// One thing that goes wrong, once unless told otherwise.
    struct SimulatedFault: Sendable {
        enum Effect: Sendable {
            /// Nothing happens but the error. For a sync: what it covered stays unsynced, and a later sync may write it.
            case fail(Errno)
            /// The error, and some sectors of the write land all the same.
            case failTorn(Errno)
            /// A sync fails, and the host forgets that its data was dirty: readers see it, but it is never durable.
            case failAndLose(Errno)
            /// The transfer ends after so many bytes.
            case shorten(Int)
            /// A read succeeds with one bit inverted: of this byte, counted from its start and round again at its end.
            case flip(Int)
        }

        /// Which operations it counts; empty: all.
        var kinds: Set<TraceEntry.Kind>
        var file: StoreFile?
        /// The n-th of them from now on, 1 being the next.
        var countdown: Int
        /// From then on every one of them, for ever.
        var isLasting: Bool
        var effect: Effect

        init(
            _ effect: Effect, kinds: Set<TraceEntry.Kind> = [], file: StoreFile? = nil, nth: Int = 1,
            isLasting: Bool = false
        ) {
            self.effect = effect
            self.kinds = kinds
            self.file = file
            countdown = nth
            self.isLasting = isLasting
        }

        func matches(_ entry: TraceEntry) -> Bool {
            (kinds.isEmpty || kinds.contains(entry.kind)) && (file == nil || file == entry.file)
        }
    }
#endif
