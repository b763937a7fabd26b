"""Fills a mount with things of a kind until there is no space: fill.py DIRECTORY data|tiny|directories|xattrs. Prints how many."""
import errno, os, sys
base, kind = sys.argv[1:]
os.mkdir(base)
count = 0
try:
    while True:
        path = f"{base}/{count // 2000}"
        if count % 2000 == 0:
            os.mkdir(path)
        path += f"/{count}"
        if kind == "directories":
            os.mkdir(path)
        else:
            with open(path, "wb") as f:
                if kind == "data":
                    f.write(b"d" * 1_000_000)
                elif kind == "tiny":
                    f.write(b"t" * 100)
                else:
                    for n in range(8):
                        os.setxattr(f.fileno(), f"user.a{n}", b"x" * 3000)
        count += 1
except OSError as error:
    if error.errno != errno.ENOSPC:
        raise
    print(count)
