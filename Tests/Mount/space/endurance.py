"""Overwrites, deletes and makes files again for long on a store filled to a share of it, and verifies what is read.

usage: endurance.py DIRECTORY FILL_BYTES TOTAL_BYTES SEED [FILE_BYTES]

Every block of 4 KiB says which file, block and version it is. Prints what was written; exit 1 at the first wrong byte or error.
"""
import os
import random
import sys

BLOCK = 4096


class File:
    def __init__(self, base, number, blocks):
        self.path = os.path.join(base, f"{number % 64:02d}", f"f{number}")
        self.number = number
        self.versions = [0] * blocks
        self.life = 0

    def block(self, index):
        word = b"%08x %08x %06x %06x\n" % (self.number, index, self.versions[index], self.life)
        return word * (BLOCK // len(word)) + word[:BLOCK % len(word)]

    def write(self, first, count):
        for index in range(first, first + count):
            self.versions[index] += 1
        data = b"".join(self.block(index) for index in range(first, first + count))
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            written = os.pwrite(fd, data, first * BLOCK)
            if written != len(data):
                raise SystemExit(f"{self.path}: {written} of {len(data)} bytes written")
        finally:
            os.close(fd)
        return len(data)

    def make(self):
        self.life += 1
        return self.write(0, len(self.versions))

    def verify(self, first, count):
        fd = os.open(self.path, os.O_RDONLY)
        try:
            data = os.pread(fd, count * BLOCK, first * BLOCK)
        finally:
            os.close(fd)
        for index in range(count):
            if data[index * BLOCK:(index + 1) * BLOCK] != self.block(first + index):
                raise SystemExit(f"{self.path}: block {first + index} is not what was written: "
                                 f"{data[index * BLOCK:index * BLOCK + 32]!r}, not {self.block(first + index)[:32]!r}")


def main():
    base, fill, total, seed = sys.argv[1], *map(int, sys.argv[2:5])
    size = int(sys.argv[5]) if len(sys.argv) > 5 else 1 << 20
    choose = random.Random(seed)
    for number in range(64):
        os.makedirs(os.path.join(base, f"{number:02d}"), exist_ok=True)
    blocks = size // BLOCK
    files = [File(base, number, blocks) for number in range(max(1, fill // size))]
    for file in files:
        file.make()
    written = operations = 0
    while written < total:
        file = choose.choice(files)
        kind = choose.random()
        count = choose.randint(1, 8)
        first = choose.randrange(blocks - count + 1)
        if kind < 0.9:
            written += file.write(first, count)
        elif kind < 0.905:
            os.unlink(file.path)
            written += file.make()
        else:
            file.verify(first, count)
        operations += 1
        if operations % 5000 == 0:
            fd = os.open(file.path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
    for file in files:
        file.verify(0, blocks)
    print(f"{operations} operations, {written >> 20} MiB written over {len(files)} files, all verified")


main()
