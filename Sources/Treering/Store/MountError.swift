// Why a store could not be formatted, mounted or checked, in words for a person.

/// What happened, to what, and what to do next.
struct MountError: Error, Sendable, CustomStringConvertible {
    enum Kind: Sendable {
        /// Not a store.
        case foreign
        /// A store of another version.
        case newer
        /// A damaged store.
        case damaged
        /// The host refused something.
        case host
    }

    let kind: Kind
    let description: String
    /// The host was short of something: later it may be possible.
    let isShortage: Bool

    init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
        isShortage = false
    }

    init(_ what: String, _ error: Errno) {
        kind = .host
        description = "\(what): \(error)"
        isShortage = error.isShortage
    }
}
