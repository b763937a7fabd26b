// Time as the kernel tells it.

import Glibc

/// Nanoseconds that only ever go forward, for intervals.
func monotonicNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// The time of day, for timestamps.
func timeOfDay() -> (seconds: Int64, nanoseconds: UInt32) {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return (Int64(time.tv_sec), UInt32(time.tv_nsec))
}

/// Lets the calling thread rest.
func rest(nanoseconds: UInt64) {
    var time = timespec(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
    nanosleep(&time, nil)
}
