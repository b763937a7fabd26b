"""What bounds.sh does on a mount: KIND DIRECTORY PIECES OTHERS. Prints the slowest request of a kind; exits with 1 where bytes are wrong."""
import errno, os, sys, time

kind, directory, count, others = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
os.chdir(directory)
WINDOW = 1 << 20
longest = {}


def timed(what, call):
    start = time.monotonic()
    try: return call()
    finally: longest[what] = max(longest.get(what, 0), time.monotonic() - start)


def pattern(start, end): return bytes((position * 7 + 1) & 0xFF for position in range(start, end))


def want(name, found, expected):
    if found != expected:
        print(f"    {name}: wrong bytes: {len(found)} of {len(expected)}")
        sys.exit(1)


def make():
    data = pattern(0, count)
    file = os.open("pieces", os.O_CREAT | os.O_WRONLY)
    # Far from each other in time, or they would be packed.
    stride = 10_007
    for number in range(count):
        position = number * stride % count
        os.pwrite(file, data[position:position + 1], position)
    # Every other byte is a hole.
    file = os.open("holes", os.O_CREAT | os.O_WRONLY)
    for position in range(min(count, 200_000)): os.pwrite(file, data[position:position + 1], position * 2)
    file = os.open("punched", os.O_CREAT | os.O_RDWR)
    os.ftruncate(file, others * 8192)
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(others):
        os.pwrite(file, b"x", number * 8192)
        if libc.fallocate(file, 3, ctypes.c_long(number * 8192), ctypes.c_long(4096)): sys.exit("fallocate")
    open("attributes", "w").close()
    for number in range(others): os.setxattr("attributes", f"user.{number:06}", b"v")
    os.mkdir("many")
    for number in range(min(others, 20_000)): os.mknod(f"many/{number:06}")
    os.sync()


def read():
    file = os.open("pieces", os.O_RDONLY | os.O_DIRECT)
    import mmap
    buffer = mmap.mmap(-1, WINDOW)
    for start in range(0, count, WINDOW):
        size = timed("1 MiB", lambda: os.preadv(file, [buffer], start))
        want("read", buffer[:size], pattern(start, min(count, start + WINDOW)))
    for start in range(0, count, count // 8 // 4096 * 4096 + 4096):
        small = mmap.mmap(-1, 4096)
        size = timed("4 KiB", lambda: os.preadv(file, [small], start))
        want("read", small[:size], pattern(start, min(count, start + 4096)))
    with open("pieces", "rb") as stream: want("buffered read", stream.read(), pattern(0, count))


def seek():
    file = os.open("pieces", os.O_RDONLY)
    if timed("SEEK_HOLE", lambda: os.lseek(file, 0, os.SEEK_HOLE)) != count: sys.exit("the hole is at the end")


def holes():
    file = os.open("holes", os.O_RDONLY)
    end = os.fstat(file).st_size
    position = pieces = 0
    while position < end:
        data = timed("SEEK_DATA", lambda: os.lseek(file, position, os.SEEK_DATA))
        position = timed("SEEK_HOLE", lambda: os.lseek(file, data, os.SEEK_HOLE))
        pieces += 1
        if pieces > 1000: sys.exit("holes are as large as blocks")


def attributes():
    try: timed("listxattr", lambda: os.listxattr("attributes"))
    except OSError as error:
        if error.errno not in (errno.E2BIG, errno.ERANGE): raise
    for number in range(0, others, others // 16):
        if timed("getxattr", lambda: os.getxattr("attributes", f"user.{number:06}")) != b"v": sys.exit("a value")


def overwrite():
    file = os.open("pieces", os.O_RDWR)
    expected = bytearray(pattern(0, count))
    step = min(50_000, count // 4)
    for start in range(1000, count - step, max(step + 1000, count // 16)):
        size = min(step, WINDOW)
        timed(f"write of {size // 1000} KB", lambda: os.pwrite(file, b"N" * size, start))
        expected[start:start + size] = b"N" * size
        timed("write into that", lambda: os.pwrite(file, b"two", start + 5))
        expected[start + 5:start + 8] = b"two"
        timed("fsync", lambda: os.fsync(file))
        want("overwritten", os.pread(file, 4096, start - 100), bytes(expected[start - 100:start + 3996]))
    with open("pieces", "rb") as stream: want("overwritten", stream.read(), bytes(expected))


def punch():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    file = os.open("punched", os.O_RDWR)
    for number in range(0, others, others // 32):
        offset = number * 8192 + 4096
        os.pwrite(file, b"y", offset)
        if timed("punch", lambda: libc.fallocate(file, 3, ctypes.c_long(offset), ctypes.c_long(4096))): sys.exit("fallocate")
    if timed("allocation over all", lambda: libc.fallocate(file, 0, ctypes.c_long(0), ctypes.c_long(8192 * others))):
        sys.exit("fallocate")


def truncate():
    size = os.stat("pieces").st_size
    timed("truncation", lambda: os.truncate("pieces", size // 2))
    timed("growing", lambda: os.truncate("pieces", size))
    with open("pieces", "rb") as stream:
        stream.seek(size // 2 - 10)
        if stream.read()[10:].strip(b"\0"): sys.exit("what was cut off came back")


def copy():
    source, target = os.open("holes", os.O_RDONLY), os.open("copy", os.O_CREAT | os.O_RDWR)
    for _ in range(2):
        done, end = 0, os.fstat(source).st_size
        while done < end: done += timed("copy_file_range", lambda: os.copy_file_range(source, target, end - done, done, done))
    with open("holes", "rb") as one, open("copy", "rb") as other: want("copy", other.read(), one.read())


def remove():
    for name in ("pieces", "holes", "copy", "punched", "attributes"): timed("unlink", lambda: os.unlink(name))


actions = {
    "make": make, "read": read, "seek": seek, "holes": holes, "attributes": attributes, "overwrite": overwrite, "punch": punch,
    "truncate": truncate, "copy": copy, "remove": remove, "stat": lambda: timed("stat", lambda: os.stat("pieces")),
    "list": lambda: timed("listing", lambda: os.listdir("many")),
}
actions[kind]()
print("      " + ", ".join(f"{what} {seconds * 1000:.1f} ms" for what, seconds in longest.items()))
