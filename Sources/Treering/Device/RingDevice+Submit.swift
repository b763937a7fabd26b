// The submission side of the ring. Slots are taken first, without the ring's lock: waiting for a slot must not keep the
// completion thread from the ring. Then one io_uring_enter hands everything to the kernel.

#if Liburing
    import CLinux
    import CUring
    import Glibc
    import Synchronization

    extension RingDevice {
        /// How often "try again" is accepted from io_uring_enter. Each try waits a millisecond.
        private static var retryLimit: Int { 5000 }

        func submit(_ submissions: borrowing [Submission]) {
            let submissions = copy submissions
            // At most a kilobyte, so that it fits on the stack.
            withUnsafeTemporaryAllocation(of: UInt32.self, capacity: min(depth, 256)) { taken in
                var next = 0
                while next < submissions.count {
                    if brokenBy.load(ordering: .relaxed) != 0 { break }
                    let count = takeSlots(taken, upTo: submissions.count - next)
                    if count == 0 {
                        if thread?.isCurrent == true {
                            deferRest(of: submissions, from: next)
                            return
                        }
                        continue
                    }
                    var filled = 0
                    for index in 0..<count {
                        if fill(taken[index], submissions[next + index]) {
                            taken.swapAt(filled, index)
                            filled += 1
                        } else {
                            pool.submitWithoutWaiting(submissions[next + index])
                        }
                    }
                    if filled < count { giveBack(UnsafeBufferPointer(rebasing: taken[filled..<count])) }
                    enter(UnsafeBufferPointer(rebasing: taken[0..<filled]))
                    next += count
                }
                if next < submissions.count { pool.submit(next == 0 ? submissions : Array(submissions[next...])) }
            }
        }

        /// Takes free slots and waits until there is at least one. Gives 0 instead of waiting in the completion thread
        /// and with a broken ring.
        private func takeSlots(_ taken: UnsafeMutableBufferPointer<UInt32>, upTo wanted: Int) -> Int {
            monitor.withLock {
                while state.free.isEmpty {
                    if thread?.isCurrent == true || brokenBy.load(ordering: .relaxed) != 0 { return 0 }
                    state.waiterCount += 1
                    room.wait()
                    state.waiterCount -= 1
                }
                let count = min(wanted, state.free.count, taken.count)
                for index in 0..<count { taken.initializeElement(at: index, to: state.free.removeLast()) }
                state.activeCount += count
                return count
            }
        }

        /// Keeps submissions of the completion thread that found no slot. That thread must not wait: only it frees
        /// slots, and it then submits these first.
        private func deferRest(of submissions: [Submission], from next: Int) {
            monitor.withLock {
                let isBroken = brokenBy.load(ordering: .relaxed) != 0
                for submission in submissions[next...] {
                    if isBroken {
                        pool.submitWithoutWaiting(submission)
                    } else {
                        state.overflow.append(submission)
                    }
                }
            }
        }

        /// Puts a submission into a slot that the caller owns. False if its file cannot be opened without waiting, or
        /// if its flush must report an earlier error: the posix path can do both.
        @inline(__always)
        func fill(_ slot: UInt32, _ submission: Submission) -> Bool {
            guard let descriptors = files.table.beginWithoutWaiting(submission.file) else { return false }
            if submission.operation == .sync {
                if files.table.hasLostError(submission.file) {
                    files.table.end(submission.file, isUnsynced: false)
                    return false
                }
                _ = files.table.beginSync(submission.file)
            }
            (slots + Int(slot)).initialize(
                to: Slot(original: submission, rest: submission, doneByteCount: 0, descriptors: descriptors))
            return true
        }

        /// Frees slots that were taken but not filled.
        private func giveBack(_ unused: UnsafeBufferPointer<UInt32>) {
            monitor.withLock {
                state.free.append(contentsOf: unused)
                state.activeCount -= unused.count
                if state.waiterCount > 0 { room.broadcast() }
                if state.activeCount == 0 { goIdle() }
            }
        }

        /// Hands slots to the kernel.
        func enter(_ ready: UnsafeBufferPointer<UInt32>) {
            submission.withLock { _ in
                for slot in ready {
                    if brokenBy.load(ordering: .relaxed) != 0 {
                        redo(slot)
                    } else {
                        prepare(slot)
                        Sanitizer.handOver(slots + Int(slot))
                    }
                }
                flush()
            }
        }

        /// Writes the slot's submission queue entry. With the ring's lock held.
        private func prepare(_ slot: UInt32) {
            var entry = io_uring_get_sqe(ring.ring)
            while entry == nil {
                // This happens only with SQPOLL: the kernel thread gives an entry back late.
                io_uring_submit(ring.ring)
                sched_yield()
                entry = io_uring_get_sqe(ring.ring)
            }
            guard let entry else { return }
            let rest = slots[Int(slot)].rest
            let descriptors = slots[Int(slot)].descriptors
            let place = files.table.place(of: rest.file)
            let isDirect = rest.operation != .sync && files.mayGoDirect(rest, descriptors)
            if !isDirect { files.readAhead(of: rest, descriptors) }
            let isFixed = isRegistered[place]
            let descriptor =
                isFixed
                ? Int32(registeredIndex(place, direct: isDirect))
                : isDirect ? descriptors.direct : descriptors.buffered
            switch rest.operation {
            case .sync:
                io_uring_prep_fsync(entry, descriptor, UInt32(IORING_FSYNC_DATASYNC))
            case .read, .write, .writeDurable:
                prepareTransfer(entry, slot, rest, descriptor)
            }
            // IOSQE_FIXED_FILE does not import.
            if isFixed { entry.pointee.flags |= 1 }
            entry.pointee.user_data = UInt64(slot)
        }

        @inline(__always)
        private func prepareTransfer(
            _ entry: UnsafeMutablePointer<io_uring_sqe>, _ slot: UInt32, _ rest: Submission, _ descriptor: Int32
        ) {
            if let second = rest.second, second.count > 0 {
                let pair = vectors + 2 * Int(slot)
                let count = UInt32(rest.fill(pair))
                if rest.operation == .read {
                    io_uring_prep_readv(entry, descriptor, pair, count, rest.offset)
                } else {
                    io_uring_prep_writev(entry, descriptor, pair, count, rest.offset)
                }
            } else {
                let count = UInt32(min(rest.first.count, transferByteLimit.load(ordering: .relaxed)))
                if rest.operation == .read {
                    io_uring_prep_read(entry, descriptor, rest.first.baseAddress, count, rest.offset)
                } else {
                    io_uring_prep_write(entry, descriptor, rest.first.baseAddress, count, rest.offset)
                }
            }
            if rest.operation == .writeDurable { entry.pointee.rw_flags = Int32(LINUX_RWF_DSYNC) }
        }

        /// Hands all prepared entries to the kernel. Call it with the ring's lock held.
        private func flush() {
            var retries = 0
            while brokenBy.load(ordering: .relaxed) == 0 && io_uring_sq_ready(ring.ring) > 0 {
                let injected = injectedError.exchange(0, ordering: .relaxed)
                let result = injected == 0 ? io_uring_submit(ring.ring) : -injected
                if ring.isPolledByKernel && result >= 0 { return }
                if result > 0 || result == -EINTR {
                    retries = 0
                } else if (result == 0 || result == -EAGAIN || result == -EBUSY) && retries < Self.retryLimit {
                    retries += 1
                    usleep(1000)
                } else {
                    breakDown(result == 0 ? EAGAIN : -result)
                }
            }
        }

        /// Gives the ring up. Nothing enters the kernel afterwards. Call it with the ring's lock held.
        func breakDown(_ error: Int32) {
            guard brokenBy.compareExchange(expected: 0, desired: error, ordering: .sequentiallyConsistent).exchanged
            else { return }
            // What the kernel has not taken is between its head and the tail. A polling thread may still take it,
            // unless it sleeps.
            while ring.isPolledByKernel && io_uring_sq_ready(ring.ring) > 0 && !isPollingThreadAsleep { usleep(1000) }
            let queue = ring.ring.pointee.sq
            var head = queue.khead.pointee
            let tail = queue.sqe_tail
            while head != tail {
                let slot = queue.sqes[Int(head & queue.ring_mask)].user_data
                if slot < UInt64(depth) { redo(UInt32(slot)) }
                head &+= 1
            }
            monitor.withLock {
                while let deferred = state.overflow.popFirst() { pool.submitWithoutWaiting(deferred) }
                room.broadcast()
                if state.activeCount == 0 { idle.broadcast() }
            }
        }

        private var isPollingThreadAsleep: Bool {
            UnsafePointer(ring.ring.pointee.sq.kflags).pointee & UInt32(IORING_SQ_NEED_WAKEUP) != 0
        }

        /// Does a slot's whole submission again on the posix path. The kernel must not use the slot any more.
        func redo(_ slot: UInt32) {
            redoneCount.add(1, ordering: .relaxed)
            let original = slots[Int(slot)].original
            // A part of it may have been written.
            files.table.end(original.file, isUnsynced: original.operation != .read)
            pool.submitWithoutWaiting(original)
            monitor.withLock {
                state.free.append(slot)
                state.activeCount -= 1
                if state.waiterCount > 0 { room.signal() }
                if state.activeCount == 0 { goIdle() }
            }
        }

        /// Called with the monitor held when nothing is in flight. No completion will take up the submissions that wait
        /// for a slot, so the posix path does them.
        private func goIdle() {
            while let deferred = state.overflow.popFirst() { pool.submitWithoutWaiting(deferred) }
            idle.broadcast()
        }

        /// Makes the completion thread look at `isEnding`; a broken ring's thread looks by itself.
        func wakeCompletionThread() {
            submission.withLock { _ in
                guard brokenBy.load(ordering: .relaxed) == 0, let entry = io_uring_get_sqe(ring.ring) else { return }
                io_uring_prep_nop(entry)
                entry.pointee.user_data = UInt64.max - 1
                flush()
            }
        }
    }
#endif
