// The kernel's clocks.

import Glibc

/// Nanoseconds of CLOCK_MONOTONIC, which never goes back: for intervals and waiting, not for timestamps.
func monotonicNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// The time of day (seconds since 1970), for timestamps. It may go back when somebody sets the clock.
func timeOfDay() -> (seconds: Int64, nanoseconds: UInt32) {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return (Int64(time.tv_sec), UInt32(time.tv_nsec))
}

/// Suspends the calling thread. A signal may end the wait early.
func rest(nanoseconds: UInt64) {
    var time = timespec(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
    nanosleep(&time, nil)
}
