// Shutting a mount down while it is in use, as ext4 and XFS can: for tests of what a crash leaves.

extension Volume {
    /// How much of what was acknowledged reaches the disk before a mount is shut down.
    enum ShutDownMode: UInt32, Sendable {
        /// Everything (EXT4_GOING_FLAGS_DEFAULT).
        case flush = 0
        /// The log; here it holds everything as well (EXT4_GOING_FLAGS_LOGFLUSH).
        case flushLog = 1
        /// Nothing that is not there already, as if the power had failed (EXT4_GOING_FLAGS_NOLOGFLUSH).
        case discard = 2
    }

    var isShutDown: Bool { state.withLock { $0.core.isShutDown } }

    /// Ends all work: from here on every operation fails with EIO and nothing more is written; unmounting lets go of the store as
    /// it is, and the next mount recovers it. Calls `done` exactly once.
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
        // Staging outlives the process; what is lost when the power fails must not be found again. After a flush nothing is lost, and the
        // next mount sees by it that nothing is.
        if mode == .discard { housekeeper.hostStaging?.unlink() }
        log("the mount was shut down on request: everything fails until the store is mounted again")
        housekeeper.kick()
    }
}
