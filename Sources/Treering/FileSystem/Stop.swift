// Why an operation did not give its result, and what it waits for.

/// Why an operation did not give its result.
enum Stop: Error {
    /// It failed; nothing was changed.
    case failed(Errno)
    /// It needs something that is on its way; nothing was changed. Hand it to `Volume.park` and run it again when told.
    case blocked(Blocker)
}

/// What a blocked operation waits for.
enum Blocker {
    /// A page of the index. The operation begins anew, so the pages that were fetched for it before must stay in
    /// memory.
    case page(PageMiss)
    /// A page of the index. The operation goes on where it was, so the pages that it has passed may leave memory.
    case pageAhead(PageMiss)
    /// Nothing. The operation has done as much as one hold of the lock allows. It goes on where it was after others had
    /// their turn.
    case turn
    /// Room in staging, in the log, or among the changed pages of the index.
    case room
    /// The caller's groups and privileges: run it again with `Caller.identity`. Never handed to `Volume.park`.
    case identity

    /// The page that is missing.
    var miss: PageMiss? {
        switch self {
        case .page(let miss), .pageAhead(let miss): return miss
        case .turn, .room, .identity: return nil
        }
    }
}
