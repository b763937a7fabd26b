"""fallocate, holes, instant copies, O_DIRECT, O_DSYNC, O_APPEND, mappings: ranges.py DIRECTORY plain|treering. Prints what is not as it must be."""
import ctypes, errno, mmap, os, random, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
os.chdir(sys.argv[1])
isPlain = sys.argv[2] == "plain"
failed = 0
def same(what, expected, got):
    global failed
    if expected != got:
        failed += 1
        print(f"{what}: expected {expected}, got {got}")
def error(call, *arguments):
    try:
        call(*arguments)
        return 0
    except OSError as problem:
        return problem.errno
def fallocate(fd, mode, offset, length):
    return 0 if libc.fallocate(fd, mode, offset, length) == 0 else ctypes.get_errno()
KEEP, PUNCH, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32
def make(name, content=b""):
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    if content: os.pwrite(fd, content, 0)
    return fd
def blocks(fd): return os.fstat(fd).st_blocks
def size(fd): return os.fstat(fd).st_size
K = 4096
data = random.Random(1).randbytes(64 * K)

# fallocate.
f = make("falloc", data)
same("allocate beyond the end", 0, fallocate(f, 0, 60 * K, 40 * K))
same("size grows", 100 * K, size(f))
same("blocks", 100 * 8, blocks(f))
same("data is kept", data, os.pread(f, 64 * K, 0))
same("zeros behind", bytes(36 * K), os.pread(f, 64 * K, 64 * K))
same("keep size", 0, fallocate(f, KEEP, 100 * K, 50 * K))
same("size stays", 100 * K, size(f))
same("blocks beyond the end", 150 * 8, blocks(f))
os.ftruncate(f, 100 * K)
same("truncating to the same size frees them", 100 * 8, blocks(f))
before = os.fstat(f)
same("punch", 0, fallocate(f, PUNCH | KEEP, 8 * K, 8 * K))
same("punched blocks", 92 * 8, blocks(f))
same("mtime moves", True, os.fstat(f).st_mtime_ns > before.st_mtime_ns)
same("ctime moves", True, os.fstat(f).st_ctime_ns > before.st_ctime_ns)
same("punched bytes", data[:8 * K] + bytes(8 * K) + data[16 * K:], os.pread(f, 64 * K, 0))
same("punch across blocks", 0, fallocate(f, PUNCH | KEEP, 20 * K + 100, 2 * K))
expected = data[:8 * K] + bytes(8 * K) + data[16 * K:20 * K + 100] + bytes(2 * K) + data[22 * K + 100:]
same("punched bytes, not aligned", expected, os.pread(f, 64 * K, 0))
same("punch needs keep size", errno.EOPNOTSUPP, fallocate(f, PUNCH, 0, K))
same("zero", 0, fallocate(f, ZERO, 30 * K, 10 * K))
expected = expected[:30 * K] + bytes(10 * K) + expected[40 * K:]
same("zeroed bytes", expected, os.pread(f, 64 * K, 0))
same("zeroed blocks are allocated", 91 * 8, blocks(f))
same("zero beyond the end", 0, fallocate(f, ZERO, 99 * K, 5 * K))
same("size grows by zero", 104 * K, size(f))
same("zero, keep size", 0, fallocate(f, ZERO | KEEP, 103 * K, 5 * K))
same("size stays with zero", 104 * K, size(f))
same("length 0", errno.EINVAL, fallocate(f, 0, 0, 0))
same("negative offset", errno.EINVAL, fallocate(f, 0, -1, 10))
same("too far", errno.EFBIG, fallocate(f, 0, (1 << 63) - K, K))
same("zero and punch", errno.EOPNOTSUPP, fallocate(f, ZERO | PUNCH | KEEP, 0, K))
if not isPlain:
    # The kernel's FUSE refuses these before any server is asked.
    same("collapse", errno.EOPNOTSUPP, fallocate(f, COLLAPSE, 0, K))
    same("insert", errno.EOPNOTSUPP, fallocate(f, INSERT, 0, K))
r = os.open("falloc", os.O_RDONLY)
same("allocate needs a writer", errno.EBADF, fallocate(r, 0, 0, K))
os.mkfifo("fifo")
p = os.open("fifo", os.O_RDWR)
same("allocate in a pipe", errno.ESPIPE, fallocate(p, 0, 0, K))
os.close(p)

# Holes.
def layout(fd):
    found, place, end = [], 0, size(fd)
    while place < end:
        try: start = os.lseek(fd, place, os.SEEK_DATA)
        except OSError as problem:
            same("no more data", errno.ENXIO, problem.errno)
            break
        place = os.lseek(fd, start, os.SEEK_HOLE)
        found.append((start, place))
    return found
h = make("holes")
os.ftruncate(h, 1 << 20)
same("all hole", [], layout(h))
os.pwrite(h, b"x", 5000)
os.pwrite(h, data[:3 * K], 40 * K)
same("data and holes", [(K, 2 * K), (40 * K, 43 * K)], layout(h))
fallocate(h, PUNCH | KEEP, 41 * K, K)
same("punched", [(K, 2 * K), (40 * K, 41 * K), (42 * K, 43 * K)], layout(h))
same("hole from within data", 41 * K, os.lseek(h, 40 * K + 7, os.SEEK_HOLE))
same("data from within data", 40 * K + 7, os.lseek(h, 40 * K + 7, os.SEEK_DATA))
same("at the end", errno.ENXIO, error(os.lseek, h, 1 << 20, os.SEEK_HOLE))
same("beyond the end", errno.ENXIO, error(os.lseek, h, 2 << 20, os.SEEK_DATA))
same("before the start", errno.ENXIO, error(os.lseek, h, -1, os.SEEK_DATA))
e = make("end", data[:5000])
same("a hole begins at the end", 5000, os.lseek(e, 0, os.SEEK_HOLE))
os.fsync(h)
if not fallocate(h, 0, 100 * K, 10 * K): same("reserved is a hole", 3, len(layout(h)))

# Copies.
def copy(a, b, count, x, y): return os.copy_file_range(a, b, count, x, y)
def copyAll(a, b, count, x, y):
    done = 0
    while done < count:
        step = copy(a, b, count - done, x + done, y + done)
        if step == 0: break
        done += step
    return done
a = make("a", data)
b = make("b", data[::-1])
same("aligned", 8 * K, copyAll(a, b, 8 * K, 4 * K, 16 * K))
want = bytearray(data[::-1]); want[16 * K:24 * K] = data[4 * K:12 * K]
same("not aligned", 9999, copyAll(a, b, 9999, 777, 33333))
want[33333:33333 + 9999] = data[777:777 + 9999]
same("bytes", bytes(want), os.pread(b, 1 << 20, 0))
same("behind the source's end", 0, copy(a, b, 10, 64 * K, 0))
same("short at the source's end", 100, copyAll(a, b, 5000, 64 * K - 100, 0))
want[0:100] = data[-100:]
same("no bytes", 0, copy(a, b, 0, 0, 0))
same("past the target's end", 10, copyAll(a, b, 10, 0, 100 * K))
want += bytes(100 * K - len(want)) + data[:10]
same("bytes, grown", bytes(want), os.pread(b, 1 << 20, 0))
same("overlap in one file", errno.EINVAL, error(copy, a, a, 100, 0, 50))
same("within one file", 5000, copyAll(a, a, 5000, 0, 30000))
mine = bytearray(data); mine[30000:35000] = data[:5000]
same("bytes within one file", bytes(mine), os.pread(a, 1 << 20, 0))
os.pwrite(a, b"changed", 5 * K)
same("the copy is left alone", bytes(want), os.pread(b, 1 << 20, 0))
o = os.open("b", os.O_WRONLY | os.O_APPEND)
same("append-only descriptor", errno.EBADF, error(copy, a, o, 10, 0, 0))
d = os.open(".", os.O_RDONLY)
same("directory", errno.EISDIR, error(copy, d, b, 10, 0, 0))
same("flags", errno.EINVAL, -ctypes.c_long(libc.copy_file_range(a, None, b, None, 10, 1)).value and ctypes.get_errno())
s, t = make("sparse"), make("target", data)
os.ftruncate(s, 64 * K); os.pwrite(s, b"y" * K, 32 * K)
copyAll(s, t, 64 * K, 0, 0)
same("a hole copied over data", bytes(32 * K) + b"y" * K + bytes(31 * K), os.pread(t, 64 * K, 0))
shared = mmap.mmap(t, 64 * K)
shared[0:5] = b"dirty"
copyAll(t, b, 10, 0, 0)
same("from a mapped file", b"dirty" + bytes(5), os.pread(b, 10, 0))
copyAll(a, t, 4 * K, 0, 8 * K)
same("into a mapped file", bytes(mine[:4 * K]), shared[8 * K:12 * K])

# Ends of the world.
w = make("wide")
if not isPlain:
    os.pwrite(w, b"!", (1 << 63) - 2)
    same("largest file", (1 << 63) - 1, size(w))
    same("its last byte", b"!", os.pread(w, 1, (1 << 63) - 2))
    same("its data", 1, len(layout(w)))
    os.ftruncate(w, 0)
same("beyond off_t", errno.EINVAL, error(os.pwrite, w, b"!", (1 << 63) - 1))

# O_DIRECT beside buffered, O_DSYNC, O_APPEND by several, mmap private.
x = os.open("direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
page = mmap.mmap(-1, 16 * K)
page[:] = data[:16 * K]
same("direct write", 16 * K, os.pwritev(x, [page], 0))
y = os.open("direct", os.O_RDWR)
same("buffered read", data[:16 * K], os.pread(y, 16 * K, 0))
os.pwrite(y, b"buffered", 5 * K)
os.preadv(x, [page], 0)
same("direct read", b"buffered", page[5 * K:5 * K + 8])
page[0:6] = b"direct"
os.pwritev(x, [page], 0)
same("buffered read after direct write", b"direct", os.pread(y, 6, 0))
private = mmap.mmap(y, 16 * K, mmap.MAP_PRIVATE)
private[0:4] = b"mine"
same("private mapping", b"direct", os.pread(y, 6, 0))
both = mmap.mmap(y, 16 * K)
both[100:104] = b"ours"
both.flush()
os.preadv(x, [page], 0)
same("msync", b"ours", page[100:104])
children = []
for number in range(4):
    pid = os.fork()
    if pid == 0:
        line = os.open("lines", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for _ in range(200): os.write(line, b"%d" % number * 99 + b"\n")
        os._exit(0)
    children.append(pid)
for pid in children: os.waitpid(pid, 0)
lines = open("lines", "rb").read().split(b"\n")[:-1]
same("appended lines", 800, len(lines))
same("no line is torn", 0, sum(1 for line in lines if len(set(line)) != 1 or len(line) != 99))
# FICLONE and FIEMAP: tools go on without.
import fcntl
if not isPlain:
    same("FICLONE", True, error(fcntl.ioctl, b, 0x40049409, a) in (errno.EOPNOTSUPP, errno.ENOTTY))
    same("FIEMAP", True, error(fcntl.ioctl, a, 0xC020660B, bytes(56)) in (errno.EOPNOTSUPP, errno.ENOTTY))
sys.exit(1 if failed else 0)
