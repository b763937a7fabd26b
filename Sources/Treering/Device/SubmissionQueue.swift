// A first-in, first-out queue of submissions in one block of memory. Its owner provides the lock and the bound.

/// It grows only if more than its capacity is put in. That happens when a completion handler submits while the queue is
/// full: a thread that completes must not wait for completions.
struct SubmissionQueue: ~Copyable {
    private var slots: UnsafeMutablePointer<Submission>
    private var capacity: Int
    private var head = 0
    private(set) var count = 0

    init(capacity: Int) {
        self.capacity = max(1, capacity)
        slots = .allocate(capacity: self.capacity)
    }

    deinit { slots.deallocate() }

    mutating func append(_ submission: Submission) {
        if count == capacity { grow() }
        var index = head + count
        if index >= capacity { index -= capacity }
        (slots + index).initialize(to: submission)
        count += 1
    }

    mutating func popFirst() -> Submission? {
        guard count > 0 else { return nil }
        let submission = slots[head]
        head = head + 1 == capacity ? 0 : head + 1
        count -= 1
        return submission
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Submission>.allocate(capacity: capacity * 2)
        for index in 0..<count { (larger + index).initialize(to: slots[(head + index) % capacity]) }
        slots.deallocate()
        slots = larger
        capacity *= 2
        head = 0
    }
}
