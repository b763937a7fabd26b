"""Writes, syncs, renames and removes files, and remembers what may be found of each; or looks whether that is what is there.

usage: faults.py work MOUNTPOINT MEMORY SEED [strict]    strict: no call may fail
       faults.py verify MOUNTPOINT MEMORY
"""
import json
import mmap
import os
import random
import sys

what, root, memory = sys.argv[1:4]


def body(number, length):
    return (b"%08d" % number * (length // 8 + 1))[:length]


def work(seed, is_strict):
    choose = random.Random(seed)
    # For each name what may be there: [number, length], or None for nothing. One possibility where everything succeeded.
    possible = {}
    failures = {}

    def attempt(function, *arguments):
        try:
            return function(*arguments)
        except OSError as error:
            if is_strict:
                raise
            failures[error.errno] = failures.get(error.errno, 0) + 1
            return None

    def put(name, number, length):
        data = body(number, length)
        descriptor = os.open(f"{root}/new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            done = 0
            while done < length:
                done += os.write(descriptor, data[done:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        possible.setdefault(name, [None]).append([number, length])
        os.rename(f"{root}/new", f"{root}/{name}")
        sync()
        possible[name] = [[number, length]]

    def sync():
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(name):
        possible.setdefault(name, [None]).append(None)
        try:
            os.unlink(f"{root}/{name}")
        except FileNotFoundError:
            if None not in possible[name][:-1]:
                raise SystemExit(f"{name} is gone")
        sync()
        possible[name] = [None]

    buffer = mmap.mmap(-1, 1 << 20)

    def compare(name):
        descriptor = os.open(f"{root}/{name}", os.O_RDONLY | os.O_DIRECT)
        try:
            count = os.preadv(descriptor, [buffer], 0)
        finally:
            os.close(descriptor)
        if all(known is None or buffer[:count] != body(*known) for known in possible[name]):
            raise SystemExit(f"{name} has {count} bytes that nobody wrote: {buffer[:16]!r}")

    for number in range(1, 81):
        name = f"f{choose.randrange(12)}"
        if choose.random() < 0.15:
            attempt(remove, name)
        else:
            attempt(put, name, number, choose.choice((0, 100, 4096, 5000, 70_000, 300_000)))
        name = choose.choice(sorted(possible))
        if possible[name] != [None]:
            try:
                attempt(compare, name)
            except FileNotFoundError:
                if None not in possible[name]:
                    raise
    with open(memory, "w") as file:
        json.dump(possible, file)
    print(", ".join(f"{count} times {os.strerror(error)}" for error, count in sorted(failures.items())) or "no call failed")


def verify():
    with open(memory) as file:
        possible = json.load(file)
    for name, states in possible.items():
        try:
            with open(f"{root}/{name}", "rb") as file:
                found = file.read()
        except FileNotFoundError:
            found = None
        if not any(found is None if state is None else found is not None and found == body(*state) for state in states):
            raise SystemExit(f"{name} is {found and found[:16]!r} ({found and len(found)} bytes), not one of {states}")
    strangers = set(os.listdir(root)) - set(possible) - {"new", "before"}
    if strangers:
        raise SystemExit(f"nobody made {strangers}")


verify() if what == "verify" else work(int(sys.argv[4]), sys.argv[5:] == ["strict"])
