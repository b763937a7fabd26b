// The frames of the index's page cache: which pages are in memory, in which state, and which may go. Owned by Index;
// knows nothing of trees.

/// A hold on a page in memory: until it is given back to `Index.unpin`, the page stays in memory, also when it is
/// modified (and so moves to another address) meanwhile.
struct PagePin: Sendable {
    fileprivate(set) var frame: Int32
}

/// A flat table of frames, found by address through an open-addressing map, with clock eviction of clean pages.
struct PageCache: ~Copyable {
    enum State: UInt8 {
        case free
        /// Equal to what is on disk. The only state that eviction takes.
        case clean
        /// Belongs to the checkpoint being built; has an address that nothing on disk refers to.
        case dirty
        /// Belongs to the checkpoint in flight and still to the tree; the buffer does not change.
        case frozen
        /// Belongs to the checkpoint in flight but no longer to the tree.
        case superseded
        /// Holds no page any more, but somebody still holds a pin on it.
        case dropped
    }

    struct Frame {
        var base: UnsafeMutableRawPointer
        var address: UInt32
        var pins: UInt32
        var state: State
        /// How often the clock's hand passes before the page goes.
        var chances: UInt8

        /// Whether pointers of the tree may lead here.
        @inline(__always) var isLive: Bool { state == .clean || state == .dirty || state == .frozen }
    }

    private(set) var frames: UnsafeMutablePointer<Frame>
    private var capacity: Int
    /// Frames below this were in use at some time.
    private var frontier = 0
    private var idle: [Int32] = []
    private var hand = 0
    private var counts = (free: 0, clean: 0, dirty: 0, frozen: 0, superseded: 0, dropped: 0)

    /// Slots of the map: address in the upper half, frame + 1 in the lower; 0 is empty. Page address 0 does not exist.
    private var slots: UnsafeMutablePointer<UInt64>
    private var slotMask: Int
    private var slotShift: UInt32

    private var pool = PagePool()

    init(expectedPageCount: Int) {
        var bits: UInt32 = 7
        while 1 << bits < expectedPageCount * 2 { bits += 1 }
        capacity = 1 << Int(bits - 1)
        frames = .allocate(capacity: capacity)
        slots = .allocate(capacity: 1 << Int(bits))
        slots.initialize(repeating: 0, count: 1 << Int(bits))
        slotMask = 1 << Int(bits) - 1
        slotShift = 32 - bits
    }

    deinit {
        frames.deallocate()
        slots.deallocate()
    }

    // MARK: Sizes

    var cleanCount: Int { counts.clean }
    var dirtyCount: Int { counts.dirty }
    /// Pages that the checkpoint in flight holds in memory.
    var frozenCount: Int { counts.frozen + counts.superseded }
    /// Buffers in use, those being fetched included.
    var residentCount: Int { pool.takenCount }
    /// All frames in use have numbers below this.
    var frameCount: Int { frontier }

    // MARK: Map

    @inline(__always)
    private func home(_ address: UInt32) -> Int { Int(truncatingIfNeeded: (address &* 0x9E37_79B1) >> slotShift) }

    /// The frame of a page, −1 if it is not in memory.
    @inline(__always)
    func find(_ address: PageAddress) -> Int {
        var slot = home(address.rawValue)
        while true {
            let entry = slots[slot]
            if entry == 0 { return -1 }
            if UInt32(truncatingIfNeeded: entry >> 32) == address.rawValue {
                return Int(truncatingIfNeeded: entry & 0xFFFF_FFFF) &- 1
            }
            slot = (slot &+ 1) & slotMask
        }
    }

    private func enter(_ address: UInt32, _ frame: Int) {
        var slot = home(address)
        while slots[slot] != 0 {
            precondition(slots[slot] >> 32 != UInt64(address), "two pages at one address")
            slot = (slot + 1) & slotMask
        }
        slots[slot] = UInt64(address) << 32 | UInt64(frame + 1)
    }

    /// Takes an address out and closes the gap, so that probing needs no tombstones.
    private func leave(_ address: UInt32) {
        var gap = home(address)
        while slots[gap] >> 32 != UInt64(address) {
            precondition(slots[gap] != 0, "a page that is not in the map")
            gap = (gap + 1) & slotMask
        }
        var slot = gap
        while true {
            slot = (slot + 1) & slotMask
            let entry = slots[slot]
            if entry == 0 { break }
            let distance = (slot - home(UInt32(truncatingIfNeeded: entry >> 32))) & slotMask
            if distance >= (slot - gap) & slotMask {
                slots[gap] = entry
                gap = slot
            }
        }
        slots[gap] = 0
    }

    // MARK: Frames

    @inline(__always)
    func page(_ frame: Int) -> IndexPage { IndexPage(frames[frame].base) }

    /// Gives the page its second chances: more for pages higher in the tree.
    @inline(__always)
    func touch(_ frame: Int, level: UInt8) {
        let chances: UInt8 = level == 0 ? 1 : 3
        if frames[frame].chances != chances { frames[frame].chances = chances }
    }

    mutating func takeBuffer() -> UnsafeMutableRawPointer { pool.take() }
    mutating func giveBackBuffer(_ base: UnsafeMutableRawPointer) { pool.giveBack(base) }

    /// Makes a frame for a page whose buffer came from `takeBuffer`.
    mutating func insert(_ base: UnsafeMutableRawPointer, at address: PageAddress, _ state: State) -> Int {
        let frame = takeFrame()
        frames[frame] = Frame(base: base, address: address.rawValue, pins: 0, state: state, chances: 1)
        count(state, 1)
        enter(address.rawValue, frame)
        return frame
    }

    mutating func setState(_ frame: Int, _ state: State) {
        count(frames[frame].state, -1)
        frames[frame].state = state
        count(state, 1)
    }

    /// The page lies at another address from now on.
    mutating func move(_ frame: Int, to address: PageAddress) {
        leave(frames[frame].address)
        frames[frame].address = address.rawValue
        enter(address.rawValue, frame)
    }

    /// Leaves the frozen buffer to the checkpoint in flight and gives the frame (and so its pins) a copy at `address`.
    mutating func copy(_ frame: Int, to address: PageAddress) {
        reserveFrame()
        let frozen = frames[frame]
        precondition(frozen.state == .frozen, "a page that is not frozen was left to the checkpoint in flight")
        leave(frozen.address)
        _ = insert(frozen.base, at: PageAddress(frozen.address), .superseded)
        let base = pool.take()
        base.copyMemory(from: frozen.base, byteCount: IndexPage.byteCount)
        frames[frame].base = base
        frames[frame].address = address.rawValue
        enter(address.rawValue, frame)
    }

    /// Forgets a page. Its pins stay valid and hold nothing.
    mutating func drop(_ frame: Int) {
        precondition(
            frames[frame].state != .free && frames[frame].state != .dropped, "a buffer was given back twice")
        leave(frames[frame].address)
        pool.giveBack(frames[frame].base)
        if frames[frame].pins > 0 { setState(frame, .dropped) } else { release(frame) }
    }

    /// Takes a frozen page out of the tree and leaves it to the checkpoint in flight. Its pins stay valid and hold
    /// nothing.
    mutating func supersede(_ frame: Int) {
        precondition(
            frames[frame].state == .frozen, "a page that is not frozen was left to the checkpoint in flight")
        guard frames[frame].pins > 0 else { return setState(frame, .superseded) }
        reserveFrame()
        let frozen = frames[frame]
        leave(frozen.address)
        _ = insert(frozen.base, at: PageAddress(frozen.address), .superseded)
        setState(frame, .dropped)
    }

    mutating func pin(_ frame: Int) -> PagePin {
        frames[frame].pins += 1
        return PagePin(frame: Int32(frame))
    }

    mutating func unpin(_ pin: PagePin) {
        let frame = Int(pin.frame)
        precondition(frame < frontier && frames[frame].pins > 0, "a pin that nobody holds")
        frames[frame].pins -= 1
        if frames[frame].pins == 0 && frames[frame].state == .dropped { release(frame) }
    }

    /// Drops clean pages that nobody holds until no more than `limit` are in memory, in a bounded number of steps.
    /// Returns how many went.
    mutating func evict(limit: Int) -> Int {
        var excess = pool.takenCount - limit
        guard excess > 0, counts.clean > 0, frontier > 0 else { return 0 }
        var evicted = 0
        var steps = min(4 * frontier, 512 + 16 * excess)
        while excess > 0 && steps > 0 && counts.clean > 0 {
            steps -= 1
            hand = hand + 1 < frontier ? hand + 1 : 0
            guard frames[hand].state == .clean, frames[hand].pins == 0 else { continue }
            if frames[hand].chances > 0 {
                frames[hand].chances -= 1
            } else {
                drop(hand)
                evicted += 1
                excess -= 1
            }
        }
        return evicted
    }

    private mutating func release(_ frame: Int) {
        setState(frame, .free)
        idle.append(Int32(frame))
    }

    private mutating func takeFrame() -> Int {
        if let frame = idle.popLast() {
            count(.free, -1)
            return Int(frame)
        }
        reserveFrame()
        frontier += 1
        return frontier - 1
    }

    /// Makes sure that taking the next frame does not move the tables.
    private mutating func reserveFrame() {
        if idle.isEmpty && frontier == capacity { grow() }
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Frame>.allocate(capacity: capacity * 2)
        larger.moveInitialize(from: frames, count: frontier)
        frames.deallocate()
        frames = larger
        capacity *= 2
        slots.deallocate()
        slots = .allocate(capacity: capacity * 2)
        slots.initialize(repeating: 0, count: capacity * 2)
        slotMask = capacity * 2 - 1
        slotShift -= 1
        for frame in 0..<frontier where frames[frame].state != .free && frames[frame].state != .dropped {
            enter(frames[frame].address, frame)
        }
    }

    private mutating func count(_ state: State, _ change: Int) {
        switch state {
        case .free: counts.free += change
        case .clean: counts.clean += change
        case .dirty: counts.dirty += change
        case .frozen: counts.frozen += change
        case .superseded: counts.superseded += change
        case .dropped: counts.dropped += change
        }
    }
}
