// Waiting in tests of real devices.

import Glibc

/// A tenth of a millisecond.
func usleepShort() { usleep(100) }
