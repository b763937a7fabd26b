"""Writes 4 KiB at random places of a file, each made durable, and prints how long that took.

usage: latency.py FILE SECONDS SEED     prints: COUNT P50 P99 P99.9 MAX (microseconds)
"""
import os
import random
import sys
import time

sys.dont_write_bytecode = True
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../mount-scripts/lib"))
from figures import at_share  # noqa: E402

path, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
choose = random.Random(seed)
size = os.path.getsize(path)
block = os.urandom(4096)
times = []
fd = os.open(path, os.O_WRONLY)
end = time.monotonic() + seconds
while time.monotonic() < end:
    place = choose.randrange(size // 4096) * 4096
    begin = time.monotonic_ns()
    os.pwrite(fd, block, place)
    os.fdatasync(fd)
    times.append(time.monotonic_ns() - begin)
os.close(fd)
times.sort()
print(len(times), *(at_share(times, share) // 1000 for share in (0.5, 0.99, 0.999)), times[-1] // 1000)
