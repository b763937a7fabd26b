"""A tree of files of many sizes: tree.py DIRECTORY SEED."""
import os, random, sys
root, seed = sys.argv[1], int(sys.argv[2])
generator = random.Random(seed)
for number in range(120):
    directory = f"{root}/d{number % 7}/e {number % 3}"
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/f{number}", "wb") as file:
        file.write(generator.randbytes(generator.choice([10, 900, 3500, 9000, 40000, 300000])))
    if number % 9 == 0: os.setxattr(f"{directory}/f{number}", "user.large", generator.randbytes(6000))
