// Which files have become costly to read: noted when small pieces are written and when a read meets many, so that nobody has to look for them.

/// Files with many pieces, as far as writes and reads of this mount tell. Bounded.
struct FragmentedFiles {
    /// Part of a file with many pieces.
    struct Note {
        /// In bytes of the file.
        var from: UInt64
        var to: UInt64
        /// About how many there are, or how often they were met.
        var pieceCount: Int

        /// Whether there are so many, for the whole of the part, that it is worth looking through.
        func isWorthwhile(_ leastCount: Int) -> Bool {
            pieceCount >= leastCount && UInt64(pieceCount) << 20 >= to - min(from, to)
        }
    }

    private(set) var notes: [InodeNumber: Note] = [:]
    /// Joining found nothing to join in these. A read that meets their pieces is no news; a write is.
    private var hopeless: Set<InodeNumber> = []

    private static let limit = 1024
    /// With fewer pieces than this it is too early to do anything.
    var leastCount = 32
    /// Writes of fewer bytes make pieces worth joining.
    static let smallByteCount = 16 << 10

    /// Somebody has written a small piece.
    @inline(__always)
    mutating func noteWrite(_ inode: InodeNumber, _ from: UInt64, _ byteCount: Int) {
        if byteCount >= Self.smallByteCount { return }
        if !hopeless.isEmpty { hopeless.remove(inode) }
        note(inode, from, from + UInt64(byteCount), 1)
    }

    /// A read of a range has met so many pieces.
    mutating func noteRead(_ inode: InodeNumber, _ from: UInt64, _ byteCount: Int, pieceCount: Int) {
        guard pieceCount >= 8, pieceCount * Self.smallByteCount > byteCount, !hopeless.contains(inode) else { return }
        note(inode, from, from + UInt64(byteCount), pieceCount)
    }

    private mutating func note(_ inode: InodeNumber, _ from: UInt64, _ to: UInt64, _ count: Int) {
        if var known = notes[inode] {
            known.from = min(known.from, from)
            known.to = max(known.to, to)
            known.pieceCount += count
            notes[inode] = known
            return
        }
        if notes.count >= Self.limit {
            notes = notes.filter { $1.pieceCount >= leastCount }
            if notes.count >= Self.limit { return }
        }
        notes[inode] = Note(from: from, to: to, pieceCount: count)
    }

    /// The file that is most worth the work; nil if none is. Where nobody has other work, fewer pieces will do.
    func worst(isIdle: Bool = false) -> InodeNumber? {
        notes.filter { $1.isWorthwhile(isIdle ? leastCount / 4 : leastCount) }
            .max { ($0.value.pieceCount, $1.key.rawValue) < ($1.value.pieceCount, $0.key.rawValue) }?.key
    }

    var worthwhileCount: Int { notes.reduce(0) { $0 + ($1.value.isWorthwhile(leastCount) ? 1 : 0) } }

    /// Takes the note of a file that is going to be joined.
    mutating func take(_ inode: InodeNumber) -> Note? { notes.removeValue(forKey: inode) }

    /// Puts back what is left to do of a note. What was noted meanwhile stays.
    mutating func putBack(_ inode: InodeNumber, _ rest: Note) { note(inode, rest.from, rest.to, rest.pieceCount) }

    /// Nothing of it could be joined.
    mutating func noteHopeless(_ inode: InodeNumber) {
        if hopeless.count >= Self.limit { hopeless.removeAll() }
        hopeless.insert(inode)
    }
}
