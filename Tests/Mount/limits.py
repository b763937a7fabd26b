"""Files of 1 MiB: limits.py write|verify DIRECTORY SEED COUNT. They are read in another order than they were written."""
import random, sys
what, root, seed, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def body(number): return random.Random(seed * 100_000 + number).randbytes(1 << 20)
if what == "write":
    for number in range(count):
        with open(f"{root}/{seed}-{number}", "wb", buffering=0) as file: file.write(body(number))
else:
    order = list(range(count))
    random.Random(1).shuffle(order)
    for number in order:
        with open(f"{root}/{seed}-{number}", "rb") as file: assert file.read() == body(number), f"file {number} is another"
