// Shuts a mount down while it is in use, as ext4 and XFS can. Serves tests of what a crash leaves.

extension Volume {
    /// How much of what was acknowledged reaches the disk before a mount is shut down.
    enum ShutDownMode: UInt32, Sendable {
        /// Everything (EXT4_GOING_FLAGS_DEFAULT).
        case flush = 0
        /// The log; here it holds everything as well (EXT4_GOING_FLAGS_LOGFLUSH).
        case flushLog = 1
        /// Nothing more than what is there already, as if the power had failed (EXT4_GOING_FLAGS_NOLOGFLUSH).
        case discard = 2
    }

    var isShutDown: Bool { state.withLock { $0.core.isShutDown } }

    /// Ends all work. From here on every operation fails with EIO and nothing more is written. An unmount then leaves
    /// the store as it is, and the next mount recovers it. Calls `done` exactly once.
    func shutDown(_ mode: ShutDownMode, mayWait: Bool, _ done: @escaping @Sendable (Errno?) -> Void) {
        guard mode != .discard, !isReadOnly else {
            endWork(mode)
            return done(nil)
        }
        sync(mayWait: mayWait) { [self] errno in
            endWork(mode)
            done(errno)
        }
    }

    private func endWork(_ mode: ShutDownMode) {
        change { state, telling in state.core.shutDown(telling) }
        // Staging outlives the process, but what a power failure loses must not be found again. After a flush staging
        // holds nothing more than the log, and its presence shows the next mount that nothing is lost.
        if mode == .discard { housekeeper.hostStaging?.unlink() }
        log("the mount was shut down on request: everything fails until the store is mounted again")
        housekeeper.kick()
    }
}
