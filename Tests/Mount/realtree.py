"""Writes into a mapping, and the same bytes into another file: realtree.py FILE REFERENCE."""
import mmap, os, random, sys
path, reference = sys.argv[1:]
size = 8 << 20
generator = random.Random(7)
want = bytearray(size)
descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
os.ftruncate(descriptor, size)
area = mmap.mmap(descriptor, size)
for step in range(2000):
    start, count = generator.randrange(size - 9000), generator.randrange(1, 9000)
    data = generator.randbytes(count)
    area[start:start + count] = want[start:start + count] = data
    if step % 500 == 0: area.flush()
area.flush(); os.fsync(descriptor)
open(reference, "wb").write(want)
