"""Writes, truncates, copies and removes files for a while: work.py DIRECTORY SECONDS SEED. Prints how long the slowest operation took."""
import os, random, shutil, sys, time
root, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
generator = random.Random(seed)
os.makedirs(root)
names = [f"{root}/{n}" for n in range(60)]
end = time.monotonic() + seconds
slowest = 0
while time.monotonic() < end:
    path = generator.choice(names)
    begun = time.monotonic()
    what = generator.randrange(10)
    if what == 0 and os.path.exists(path): os.unlink(path)
    elif what == 1 and os.path.exists(path):
        target = generator.choice(names)
        if target != path: shutil.copyfile(path, target)
    elif what == 2 and os.path.exists(path): os.truncate(path, generator.randrange(os.path.getsize(path) + 1))
    else:
        with open(path, "r+b" if os.path.exists(path) else "w+b") as file:
            file.seek(generator.randrange(400000))
            file.write(generator.randbytes(generator.choice([50, 3000, 5000, 100000, 400000])))
            if what == 3: os.fsync(file.fileno())
    slowest = max(slowest, time.monotonic() - begun)
print(f"slowest operation {slowest * 1000:.0f} ms")
