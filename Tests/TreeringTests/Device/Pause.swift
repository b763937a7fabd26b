import Glibc

/// A tenth of a millisecond.
func usleepShort() { usleep(100) }
