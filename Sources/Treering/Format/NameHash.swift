// The hash of names: SipHash-2-4 with a secret key for each store, so that nobody can choose names that collide.

/// Makes the cookies of directory entries and extended attributes.
///
/// A cookie has 63 bits and is never 0. Bits 62–7 are the hash. Bits 6–0 are a discriminator, which differs between
/// names of one directory with the same hash. 1 and 2 are the cookies of "." and "..".
struct NameHash: Sendable {
    private let key0: UInt64
    private let key1: UInt64
    static let discriminatorLimit: UInt64 = 127

    init(key: StoreUUID) {
        key0 = key.high
        key1 = key.low
    }

    /// The cookie of a name with discriminator 0.
    func cookie(_ name: UnsafeRawBufferPointer) -> UInt64 {
        let cookie = hash(name) >> 1 & ~Self.discriminatorLimit
        return cookie == 0 ? Self.discriminatorLimit + 1 : cookie
    }

    /// SipHash-2-4 of `bytes`. Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012).
    func hash(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        var v0 = key0 ^ 0x736f_6d65_7073_6575
        var v1 = key1 ^ 0x646f_7261_6e64_6f6d
        var v2 = key0 ^ 0x6c79_6765_6e65_7261
        var v3 = key1 ^ 0x7465_6462_7974_6573
        @inline(__always) func rotate(_ value: UInt64, _ by: UInt64) -> UInt64 { value << by | value >> (64 - by) }
        @inline(__always) func round() {
            v0 = v0 &+ v1
            v2 = v2 &+ v3
            v1 = rotate(v1, 13) ^ v0
            v3 = rotate(v3, 16) ^ v2
            v0 = rotate(v0, 32)
            v2 = v2 &+ v1
            v0 = v0 &+ v3
            v1 = rotate(v1, 17) ^ v2
            v3 = rotate(v3, 21) ^ v0
            v2 = rotate(v2, 32)
        }
        var offset = 0
        while offset + 8 <= bytes.count {
            let word: UInt64 = bytes.load(offset)
            v3 ^= word
            round()
            round()
            v0 ^= word
            offset += 8
        }
        var last = UInt64(truncatingIfNeeded: bytes.count) << 56
        for index in offset..<bytes.count { last |= UInt64(bytes[index]) << UInt64(8 * (index - offset)) }
        v3 ^= last
        round()
        round()
        v0 ^= last
        v2 ^= 0xFF
        for _ in 0..<4 { round() }
        return v0 ^ v1 ^ v2 ^ v3
    }
}
