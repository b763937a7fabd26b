"""Overwrites 60 files in so many rounds and compares at the end: hosts.py DIRECTORY - ROUNDS."""
import os, random, sys
root, memory, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
choose = random.Random(7)
known = {}
for number in range(rounds * 60):
    name = f"a{number % 60}"
    data = choose.randbytes(choose.randrange(1, 1_500_000))
    with open(f"{root}/new", "wb") as file:
        file.write(data)
    os.rename(f"{root}/new", f"{root}/{name}")
    known[name] = hash(data)
assert all(hash(open(f"{root}/{name}", "rb").read()) == value for name, value in known.items())
