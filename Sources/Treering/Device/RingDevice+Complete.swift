// The completion thread. It reaps what the kernel has finished, submits the rest of short transfers again, frees slots,
// and calls the handler without holding a lock.

#if Liburing
    import CUring
    import Glibc
    import Synchronization

    extension RingDevice {
        /// How many completions are reaped at a time.
        private static var batchLimit: Int { 64 }

        /// The body of the completion thread.
        func reapUntilTheEnd() {
            let entries = UnsafeMutablePointer<UnsafeMutablePointer<io_uring_cqe>?>.allocate(capacity: Self.batchLimit)
            let finished = UnsafeMutablePointer<Completion>.allocate(capacity: Self.batchLimit)
            let freed = UnsafeMutablePointer<UInt32>.allocate(capacity: Self.batchLimit)
            defer {
                entries.deallocate()
                finished.deallocate()
                freed.deallocate()
            }
            while true {
                let count = Int(io_uring_peek_batch_cqe(ring.ring, entries, UInt32(Self.batchLimit)))
                if count > 0 {
                    reap(entries, count, finished, freed)
                } else {
                    // A broken ring gets nothing new. With nothing in flight there is nothing left to reap.
                    let mayEnd = monitor.withLock {
                        state.activeCount == 0 && (state.isEnding || brokenBy.load(ordering: .relaxed) != 0)
                    }
                    if mayEnd { return }
                    waitForCompletion()
                }
            }
        }

        /// Waits for a completion, but not for ever: the ring may break meanwhile, and then the end of the device must
        /// still be noticed.
        private func waitForCompletion() {
            if brokenBy.load(ordering: .relaxed) != 0 {
                // Operations in flight still complete into the ring's memory. Waiting in the kernel may be what fails,
                // so poll.
                usleep(1000)
                return
            }
            var entry: UnsafeMutablePointer<io_uring_cqe>?
            var limit = __kernel_timespec(tv_sec: 1, tv_nsec: 0)
            let result = io_uring_wait_cqe_timeout(ring.ring, &entry, &limit)
            switch -result {
            case 0, ETIME, EINTR: break
            case EAGAIN, EBUSY: usleep(1000)
            default: submission.withLock { _ in breakDown(-result) }
            }
        }

        private func reap(
            _ entries: UnsafeMutablePointer<UnsafeMutablePointer<io_uring_cqe>?>, _ count: Int,
            _ finished: UnsafeMutablePointer<Completion>, _ freed: UnsafeMutablePointer<UInt32>
        ) {
            var finishedCount = 0
            for index in 0..<count {
                let entry = entries[index]!.pointee
                guard entry.user_data < UInt64(depth) else { continue }
                let slot = UInt32(entry.user_data)
                guard let result = advance(slot, Int(entry.res)) else { continue }
                let original = slots[Int(slot)].original
                files.table.end(original.file, isUnsynced: original.leavesUnsynced(result))
                (finished + finishedCount).initialize(
                    to: Completion(tag: slots[Int(slot)].original.tag, result: result))
                (freed + finishedCount).initialize(to: slot)
                finishedCount += 1
            }
            io_uring_cq_advance(ring.ring, UInt32(count))
            guard finishedCount > 0 else { return }
            let restarted = release(freed, finishedCount)
            if restarted > 0 { enter(UnsafeBufferPointer(start: freed, count: restarted)) }
            for index in 0..<finishedCount { handler?(finished[index]) }
            monitor.withLock {
                state.activeCount -= finishedCount
                if state.activeCount == 0 && state.overflow.count == 0 { idle.broadcast() }
            }
        }

        /// Gives freed slots first to submissions that found none before, and frees the others. Returns how many of
        /// `freed` (from the front) hold such a submission now; the caller must enter these.
        private func release(_ freed: UnsafeMutablePointer<UInt32>, _ count: Int) -> Int {
            monitor.withLock {
                var used = 0
                while used < count, let deferred = state.overflow.popFirst() {
                    if fill(freed[used], deferred) { used += 1 } else { pool.submitWithoutWaiting(deferred) }
                }
                state.activeCount += used
                for index in used..<count { state.free.append(freed[index]) }
                if state.waiterCount > 0 && used < count { room.broadcast() }
                return used
            }
        }

        /// Takes in a completion of a slot. Gives its result, or nil if the operation goes on.
        private func advance(_ slot: UInt32, _ result: Int) -> Int? {
            let place = slots + Int(slot)
            Sanitizer.takeBack(place)
            if result < 0 {
                switch Int32(-result) {
                case EINTR, EAGAIN, ECANCELED, EINVAL, EOPNOTSUPP, ENOSYS:
                    // The posix path can retry, or do without what the kernel refuses.
                    redo(slot)
                    return nil
                default:
                    return result
                }
            }
            if place.pointee.original.operation == .sync { return 0 }
            place.pointee.doneByteCount += result
            if result == place.pointee.rest.byteCount { return place.pointee.doneByteCount }
            if result == 0 {
                return place.pointee.original.operation == .read ? place.pointee.doneByteCount : -Int(EIO)
            }
            place.pointee.rest.advance(by: result)
            withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 1) { one in
                one.initializeElement(at: 0, to: slot)
                enter(UnsafeBufferPointer(one))
            }
            return nil
        }
    }
#endif
