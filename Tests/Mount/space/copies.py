"""Instant copies of a file, each changed, compared and removed: copies.py DIRECTORY COUNT SIZE SEED."""
import os, random, sys
base, count, size, seed = sys.argv[1], *map(int, sys.argv[2:])
choose = random.Random(seed)
original = b"".join(b"%015d\n" % n for n in range(size // 16))
with open(f"{base}/original", "wb") as f:
    f.write(original)
    os.fsync(f.fileno())
changes = {}
def copy(name):
    with open(f"{base}/original", "rb") as source, open(f"{base}/{name}", "wb") as target:
        done = 0
        while done < size:
            done += os.copy_file_range(source.fileno(), target.fileno(), size - done)
        changes[name] = {}
        for _ in range(8):
            place = choose.randrange(size - 100)
            data = bytes([choose.randrange(256)]) * choose.randint(1, 100)
            os.pwrite(target.fileno(), data, place)
            for n, byte in enumerate(data):
                changes[name][place + n] = byte
def verify(name):
    with open(f"{base}/{name}", "rb") as f:
        data = f.read()
    expected = bytearray(original)
    for place, byte in changes[name].items():
        expected[place] = byte
    if data != expected:
        place = next(i for i in range(size) if data[i] != expected[i])
        raise SystemExit(f"{name}: byte {place} is {data[place]}, not {expected[place]}")
made = 0
while made < count or changes:
    if made < count and (not changes or choose.random() < 0.6):
        copy(f"c{made}")
        made += 1
    else:
        name = choose.choice(sorted(changes))
        verify(name)
        os.unlink(f"{base}/{name}")
        del changes[name]
        if "original" in os.listdir(base) and made == count and choose.random() < 0.1:
            os.unlink(f"{base}/original")
