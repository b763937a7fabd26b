// What room an append may use. SpaceAccounting says how much that is.

/// Whether an append may use room beyond what is free for all.
enum RoomClaim {
    case none
    /// It writes to a range that is allocated already. So many bytes of it are not reserved any more afterwards.
    case allocated(InodeNumber, releasedByteCount: UInt64)
    /// It joins pieces, which takes less room in the end.
    case joining

    /// Whether it may use room that is kept for reserved ranges.
    var usesReservations: Bool { if case .none = self { false } else { true } }
}
