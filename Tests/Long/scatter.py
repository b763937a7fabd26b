"""Overwrites blocks of seven files at random: scatter.py DIRECTORY COUNT SEED (COUNT 0: until SIGTERM). Prints how many, then."""
import os
import random
import signal
import sys

base, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def end(*_):
    """Tells how many, and ends."""
    print(done, flush=True)
    os._exit(0)


signal.signal(signal.SIGTERM, end)
choose = random.Random(seed)
block = os.urandom(4096)
files = [os.open(f"{base}/f{n}", os.O_WRONLY) for n in range(1, 8)]
size = os.fstat(files[0]).st_size
done = 0
while count == 0 or done < count:
    os.pwrite(choose.choice(files), block, choose.randrange(size // 4096) * 4096)
    done += 1
