// Who asks for room in the log. SpaceAccounting says what each leaves to the others.

/// Who asks for room. Each tier leaves some of the last free segments to the tiers after it. So a full store can always
/// be emptied, cleaned and mounted.
enum SpaceTier: CaseIterable {
    case write
    /// Operations that free space in the end: removing, truncating, replacing.
    case removal
    /// The cleaner, and the replay of a dead mount's staging.
    case recovery
}
