"""What damage.sh does to a store and its files: makes a tree, flips bits, compares."""
import os, random, re, sys

def make(root, seed):
    """A tree of files of many sizes, and the same bytes wherever it is made."""
    generator = random.Random(seed)
    for number in range(500):
        directory = f"{root}/d{number % 23}/e{number % 5}"
        os.makedirs(directory, exist_ok=True)
        count = generator.choice([0, 10, 700, 2900, 3500, 9000, 40000, 150000])
        with open(f"{directory}/f{number}", "wb") as file: file.write(generator.randbytes(count))
    for number in range(0, 500, 50):
        os.link(f"{root}/d{number % 23}/e{number % 5}/f{number}", f"{root}/link{number}")
        os.symlink(f"target{number}", f"{root}/symlink{number}")

def flip(store, count, seed, first):
    """Flips bits in places drawn from all that the files of a store hold from `first` on, zeros at their ends left out."""
    generator = random.Random(seed)
    places = []
    for directory, _, names in os.walk(store):
        for name in names:
            path = f"{directory}/{name}"
            if name == "lock": continue
            with open(path, "rb") as file: used = len(file.read().rstrip(b"\0"))
            places += [(path, block) for block in range(first, used, 512)]
    for path, block in generator.sample(places, count):
        with open(path, "r+b") as file:
            place = block + generator.randrange(512)
            file.seek(place)
            byte = file.read(1) or b"\0"
            file.seek(place)
            file.write(bytes([byte[0] ^ 1 << generator.randrange(8)]))

def compare(good, mounted, listed=None):
    """Every block is what it was or EIO; with a listing, EIO is exactly where that says."""
    wrong, failed, missing = [], set(), 0
    for directory, _, names in os.walk(good):
        for name in names:
            path = os.path.relpath(f"{directory}/{name}", good)
            if os.path.islink(f"{good}/{path}"): continue
            with open(f"{good}/{path}", "rb") as file: expected = file.read()
            try:
                descriptor = os.open(f"{mounted}/{path}", os.O_RDONLY)
                if os.fstat(descriptor).st_size != len(expected): wrong.append(f"{path}: size")
            except OSError as error:
                if listed is not None or error.errno != 5: wrong.append(f"{path}: {error}")
                missing += 1
                continue
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            for offset in range(0, len(expected), 4096):
                try: found = os.pread(descriptor, 4096, offset)
                except OSError as error:
                    if error.errno != 5: wrong.append(f"{path} at {offset}: {error}")
                    failed.add((path, offset))
                    continue
                if found != expected[offset:offset + 4096]: wrong.append(f"{path} at {offset}: other bytes")
            os.close(descriptor)
    if listed is not None:
        told = set()
        for line in open(listed, errors="replace"):
            match = re.search(r": /(.*) \(inode \d+\): bytes (\d+)\.\.<(\d+) are lost", line)
            if match:
                path = os.path.relpath(f"{good}/{match[1]}", good)
                if not os.path.exists(f"{good}/{path}"): wrong.append(f"{path}: told, but unknown")
                told |= {(path, offset) for offset in range(int(match[2]) // 4096 * 4096, int(match[3]), 4096)}
        # A file with several names is told of by one of them.
        def inodes(places): return {(os.stat(f"{good}/{path}").st_ino, offset) for path, offset in places if os.path.exists(f"{good}/{path}")}
        for place in inodes(failed) ^ inodes(told): wrong.append(f"EIO and list differ at {place}")
    print(f"   {len(failed)} blocks give EIO, {missing} files cannot be opened, {len(wrong)} wrong")
    for line in wrong[:10]: print("   ", line)
    sys.exit(1 if wrong else 0)

if __name__ == "__main__":
    words = sys.argv[2:]
    {"make": lambda: make(words[0], int(words[1])), "flip": lambda: flip(words[0], *map(int, words[1:])),
     "compare": lambda: compare(*words)}[sys.argv[1]]()
