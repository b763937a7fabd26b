// What an operation knows of the request that asks for it.

/// What an operation knows of the request that asks for it: one value, from the kernel's request to the commit of its
/// record.
struct RequestContext: Sendable {
    var caller: Caller
    /// The number of a request that must not be carried out twice. `ConnectionState` notes it with the record's
    /// sequence, for a successor. Nil if a second time does no harm.
    var onceNumber: UInt64?

    /// For changes that no request asks for, and for operations that do not depend on the caller.
    static var nobody: RequestContext { .by(Caller(uid: 0, gid: 0, umask: 0)) }

    /// For a request that may be carried out twice.
    static func by(_ caller: Caller) -> RequestContext { RequestContext(caller: caller, onceNumber: nil) }
}
