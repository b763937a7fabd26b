// One problem that a check or a scrub reports.

/// One thing that is wrong with a store.
struct Finding: Hashable, Sendable, CustomStringConvertible {
    /// What was being looked at ("segment 3 at 8192").
    var place: String
    /// What is wrong with it.
    var reason: String
    /// What the problem means, and what a repair would do about it.
    var effect: String?
    /// The file it concerns.
    var inode: UInt64?
    /// One of the file's paths. It is filled in when the check or scrub ends.
    var path: String?

    var description: String {
        let file = inode.map { number in path.map { "\($0) (inode \(number)): " } ?? "inode \(number): " } ?? ""
        return "\(file)\(place): \(reason)" + (effect.map { "; \($0)" } ?? "")
    }
}
