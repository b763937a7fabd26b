// One io_uring: set up, asked what it can do, torn down. RingDevice runs storage on it; a FUSE transport may have its own.

#if Liburing
    import CUring
    import Glibc

    /// An io_uring at a stable address. Its owner decides who uses which side of it, and under which lock.
    final class Ring: @unchecked Sendable {
        let ring: UnsafeMutablePointer<io_uring>
        /// Entries of the submission queue; the completion queue holds twice as many.
        let entryCount: Int
        let features: UInt32
        let isPolledByKernel: Bool
        /// Whether it has fewer entries than asked for, since no more memory may be locked.
        let isReduced: Bool

        /// Sets up a ring of `entryCount` entries, or of fewer (not under 8) where memory may not be locked for more.
        /// Flags that the kernel does not know are left out.
        init(entryCount: Int, sqpoll: Bool) throws(Errno) {
            ring = .allocate(capacity: 1)
            var count = UInt32(max(8, entryCount))
            var optional = UInt32(IORING_SETUP_SUBMIT_ALL)
            while true {
                var parameters = io_uring_params()
                parameters.flags = UInt32(IORING_SETUP_CLAMP) | optional
                if sqpoll {
                    parameters.flags |= UInt32(IORING_SETUP_SQPOLL)
                    parameters.sq_thread_idle = 50
                }
                ring.initialize(to: io_uring())
                let result = io_uring_queue_init_params(count, ring, &parameters)
                if result == 0 {
                    self.entryCount = Int(parameters.sq_entries)
                    features = parameters.features
                    isPolledByKernel = sqpoll
                    isReduced = self.entryCount < entryCount && entryCount <= 4096
                    return
                }
                switch -result {
                case ENOMEM where count > 8: count = max(8, count / 2)
                case EINVAL where optional != 0: optional = 0
                default:
                    ring.deallocate()
                    throw Errno(-result)
                }
            }
        }

        deinit {
            io_uring_queue_exit(ring)
            ring.deallocate()
        }

        /// What storage needs and this kernel's ring does not have. Empty if nothing is missing.
        var missing: [String] {
            var missing: [String] = []
            if features & UInt32(IORING_FEAT_NODROP) == 0 { missing.append("NODROP") }
            // Without it, waiting with a time limit would take an entry of the submission queue, which another lock
            // guards.
            if features & UInt32(IORING_FEAT_EXT_ARG) == 0 { missing.append("EXT_ARG") }
            guard let probe = io_uring_get_probe_ring(ring) else { return missing + ["probe"] }
            defer { io_uring_free_probe(probe) }
            for (name, operation) in Self.operations where io_uring_opcode_supported(probe, operation) == 0 {
                missing.append(name)
            }
            return missing
        }

        /// The operations that storage uses.
        static let operations: [(String, Int32)] = [
            ("NOP", Int32(IORING_OP_NOP.rawValue)), ("READ", Int32(IORING_OP_READ.rawValue)),
            ("READV", Int32(IORING_OP_READV.rawValue)), ("WRITE", Int32(IORING_OP_WRITE.rawValue)),
            ("WRITEV", Int32(IORING_OP_WRITEV.rawValue)), ("FSYNC", Int32(IORING_OP_FSYNC.rawValue)),
        ]

        /// Makes a sparse table of registered files; returns its size, 0 where the kernel gives none.
        func registerSparseFiles(_ count: Int) -> Int {
            if io_uring_register_files_sparse(ring, UInt32(count)) == 0 { return count }
            let none = [Int32](repeating: -1, count: count)
            return io_uring_register_files(ring, none, UInt32(count)) == 0 ? count : 0
        }

        /// Puts descriptors (−1: nothing) into the table from `index` on; false where the kernel refuses.
        func register(_ descriptors: [Int32], at index: Int) -> Bool {
            io_uring_register_files_update(ring, UInt32(index), descriptors, UInt32(descriptors.count))
                == Int32(descriptors.count)
        }
    }
#endif
