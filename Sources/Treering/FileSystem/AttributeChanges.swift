// What a setattr asks for.

/// The attributes that a setattr changes; nil leaves one as it is.
struct AttributeChanges: Sendable {
    enum Time: Sendable {
        case now
        case at(Timestamp)
    }
    /// Permission bits (07777).
    var mode: UInt32?
    var uid: UInt32?
    var gid: UInt32?
    var byteCount: UInt64?
    var accessed: Time?
    var modified: Time?
    var changed: Time?
    /// The caller may not keep set-user-ID and set-group-ID bits.
    var killsPrivileges = false

    /// A chown(2) that names neither user nor group. It still changes the time and kills privileges. The kernel sends
    /// it without any field, or with `changed` alone where the kernel keeps the times.
    var isChownOfNothing: Bool {
        mode == nil && uid == nil && gid == nil && byteCount == nil && accessed == nil && modified == nil
    }
}

extension AttributeChanges.Time {
    func resolved(_ now: Timestamp) -> Timestamp {
        switch self {
        case .now: return now
        case .at(let time): return time
        }
    }
}
