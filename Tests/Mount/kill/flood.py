"""Writes 512 MiB, and logs each that was acknowledged: flood.py DIRECTORY LOG WHICH."""
import os, sys
root, log, which = sys.argv[1], open(sys.argv[2], "a", buffering=1), int(sys.argv[3])
descriptor = os.open(f"{root}/flood{which}", os.O_CREAT | os.O_WRONLY)
try:
    for number in range(512):
        os.pwrite(descriptor, bytes([(number + which) % 255 + 1]) * (1 << 20), number << 20)
        log.write(f"{number}\n")
except OSError:
    pass
