// What a check or a scrub says of one thing that is wrong.

/// One thing that is wrong with a store.
struct Finding: Hashable, Sendable, CustomStringConvertible {
    /// What was being looked at ("segment 3 at 8192").
    var place: String
    /// What is wrong with it.
    var reason: String
    /// What that means, and what a repair would do.
    var effect: String?
    /// The file it concerns.
    var inode: UInt64?
    /// One of its paths, filled in at the end.
    var path: String?

    var description: String {
        let file = inode.map { number in path.map { "\($0) (inode \(number)): " } ?? "inode \(number): " } ?? ""
        return "\(file)\(place): \(reason)" + (effect.map { "; \($0)" } ?? "")
    }
}
