"""Makes files for three seconds, and logs which: writer.py DIRECTORY LOG. What fails is tried no more."""
import sys, time
root, log, end = sys.argv[1], open(sys.argv[2], "w", buffering=1), time.monotonic() + 3
number = 0
while time.monotonic() < end:
    try:
        with open(f"{root}/w{number}", "xb", buffering=0) as file: file.write(b"%d" % number)
        log.write(f"{number}\n")
    except OSError: pass
    number += 1
