"""Makes files until the mount is gone, and logs each that was closed: closed.py DIRECTORY LOG."""
import sys
root, log = sys.argv[1], open(sys.argv[2], "a", buffering=1)
number = 0
try:
    while True:
        with open(f"{root}/closed{number}", "wb") as file: file.write(bytes([number % 255 + 1]) * (number * 37 % 20000))
        log.write(f"{number}\n")
        number += 1
except OSError:
    pass
