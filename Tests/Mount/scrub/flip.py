"""Changes a byte in blocks of files on the host: flip.py SEGMENTS TREE COUNT. Prints of which file and where."""
import os, random, sys
segments, tree, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
generator = random.Random(7)
files = [f"{d}/{n}" for d, _, names in os.walk(tree) for n in names if os.path.getsize(f"{d}/{n}") >= 4096]
wanted = {}
for path in sorted(generator.sample(sorted(files), count)):
    offset = generator.randrange(os.path.getsize(path) // 4096) * 4096
    with open(path, "rb") as file:
        file.seek(offset)
        wanted[file.read(4096)] = (os.path.relpath(path, tree), offset)
for name in sorted(os.listdir(segments)):
    with open(f"{segments}/{name}", "r+b") as file:
        data = file.read()
        for position in range(0, len(data), 4096):
            found = wanted.get(data[position:position + 4096])
            if found:
                place = position + generator.randrange(4096)
                file.seek(place)
                file.write(bytes([data[place] ^ 1 << generator.randrange(8)]))
                print(f"/{found[0]} {found[1]}")
        file.flush()
        os.fsync(file.fileno())
