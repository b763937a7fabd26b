"""Counts the allocations of the serving process for each operation: count.py DIRECTORY COUNTER. Exits with 1 where there are more than allowed."""
import mmap, os, struct, sys
memory = mmap.mmap(os.open(sys.argv[2], os.O_RDWR), 4096)
os.chdir(sys.argv[1])
allocations = lambda: struct.unpack("Q", memory[:8])[0]
COUNT = 400
block, large = os.urandom(4096), os.urandom(1 << 20)
files = {name: os.open(name, os.O_CREAT | os.O_RDWR) for name in ("file", "large")}
failed = False

def measure(name, limit, operation, count=COUNT):
    global failed
    operation(0)
    before = allocations()
    for number in range(1, count + 1): operation(number)
    each = (allocations() - before) / count
    print(f"    {name}: {each:.2f}, at most {limit}")
    if each == 0 or each > limit:
        failed = True
        print(f"    that is {'none' if each == 0 else 'more'}")

def missing(number):
    try: os.stat(f"none{number}")
    except FileNotFoundError: pass

def durable(number):
    os.pwrite(files["file"], block, number * 37 % COUNT * 4096)
    os.fdatasync(files["file"])

measure("create and close", 5, lambda n: os.close(os.open(f"c{n}", os.O_CREAT | os.O_WRONLY)))
measure("write of 4 KiB at the end", 3, lambda n: os.pwrite(files["file"], block, n * 4096))
measure("write of 4 KiB again", 5, lambda n: os.pwrite(files["file"], block, n * 37 % COUNT * 4096))
measure("write of 4 KiB and fdatasync", 15, durable)
measure("write of 1 MiB", 8, lambda n: os.pwrite(files["large"], large, n << 20), 30)
target = mmap.mmap(-1, 1 << 20)
direct = {name: os.open(name, os.O_RDONLY | os.O_DIRECT) for name in files}
measure("read of 4 KiB", 14, lambda n: os.preadv(direct["file"], [memoryview(target)[:4096]], n * 37 % COUNT * 4096))
measure("read of 1 MiB", 16, lambda n: os.preadv(direct["large"], [target], n << 20), 30)
measure("chmod", 2, lambda n: os.chmod("file", 0o600 + n % 8))
measure("setxattr", 2, lambda n: os.setxattr("file", "user.a", b"%d" % n))
measure("getxattr", 3, lambda n: os.getxattr("file", "user.a"))
measure("look-up of what is not there", 2, missing)
measure("statfs", 2, lambda n: os.statvfs("."))
measure("rename", 5, lambda n: os.rename(f"c{n}", f"r{n}"))
measure("link", 5, lambda n: os.link(f"r{n}", f"l{n}"))
measure("symlink", 5, lambda n: os.symlink("target", f"s{n}"))
measure("readlink", 5, lambda n: os.readlink(f"s{n}"))
measure("mkdir", 5, lambda n: os.mkdir(f"d{n}"))
measure("unlink", 4, lambda n: os.unlink(f"l{n}"))
measure("rmdir", 5, lambda n: os.rmdir(f"d{n}"))
sys.exit(failed)
