# fallocate(2) in every mode, copy_file_range(2) in every corner, and what both do to sizes, contents and holes.
import os
from errno import EBADF, EFBIG, EINVAL, EISDIR, EOPNOTSUPP, ESPIPE, EOVERFLOW

import calls as c
from suite import test
from test_data import pattern

K = 4096
KEEP, PUNCH, COLLAPSE, ZERO, INSERT = c.KEEP_SIZE, c.PUNCH_HOLE, c.COLLAPSE_RANGE, c.ZERO_RANGE, c.INSERT_RANGE
DATA = pattern(10 * K)[:10 * K]


def fresh(data=DATA):
    fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.write(fd, data)
    return fd


RANGES = [(0, 1), (0, K), (1, 1), (100, 5000), (K, K), (K - 1, 2), (K + 1, 2 * K - 2), (0, 10 * K), (9 * K, K), (9 * K + 5, 3 * K),
          (10 * K, K), (20 * K + 3, 7),
          (3 * K, 5 * K), (10 * K - 1, 1)]


def zeroed(data, offset, count):
    data = bytearray(data)
    end = min(offset + count, len(data))
    if offset < end:
        data[offset:end] = b"\0" * (end - offset)
    return bytes(data)


@test
def every_mode_on_every_range(t):
    for offset, count in RANGES:
        end = offset + count
        grown = DATA.ljust(end, b"\0")
        for name, mode, wanted in (("allocate", 0, grown), ("keep size", KEEP, DATA), ("punch", PUNCH | KEEP, zeroed(DATA, offset, count)),
                                   ("zero", ZERO, zeroed(grown, offset, count)), ("zero, keep size", ZERO | KEEP, zeroed(DATA, offset, count))):
            with t.case(name, offset, count):
                fd = fresh()
                t.expect(0, c.fallocate(fd, mode, offset, count))
                t.expect(len(wanted), os.fstat(fd).st_size)
                t.expect(True, c.pread(fd, 100 * K, 0) == wanted)
                # And what lies beyond the end reads as zeros when the file grows over it.
                t.expect(0, c.ftruncate(fd, 30 * K))
                t.expect(True, c.pread(fd, 100 * K, 0) == wanted.ljust(30 * K, b"\0"))
                t.expect(3, c.pwrite(fd, b"new", offset))
                t.expect(b"new", c.pread(fd, 3, offset))
                os.close(fd)


CLIENT = "the kernel's FUSE client passes on keep-size, punch and zero only; the other modes are EOPNOTSUPP"


@test
def collapse_and_insert(t):
    with t.differs("treering", CLIENT):
        collapse_and_insert_work(t)
    if not t.is_oracle:
        fd = fresh()
        for mode in (COLLAPSE, INSERT, c.UNSHARE_RANGE):
            t.expect(-EOPNOTSUPP, c.fallocate(fd, mode, K, K))
        t.expect(True, t.content("f") == DATA)
        os.close(fd)


def collapse_and_insert_work(t):
    for offset, count in ((0, K), (K, K), (3 * K, 5 * K), (0, 9 * K), (8 * K, K)):
        with t.case(offset, count):
            fd = fresh()
            t.expect(0, c.fallocate(fd, COLLAPSE, offset, count))
            t.expect(10 * K - count, os.fstat(fd).st_size)
            t.expect(True, c.pread(fd, 20 * K, 0) == DATA[:offset] + DATA[offset + count:])
            t.expect(0, c.fallocate(fd, INSERT, offset, count)) if offset < 10 * K - count else None
            if offset < 10 * K - count:
                t.expect(10 * K, os.fstat(fd).st_size)
                t.expect(True, c.pread(fd, 20 * K, 0) == zeroed(DATA, offset, count))
            os.close(fd)
    # Ends that are no multiple of a block move too.
    fd = fresh(DATA[:-100])
    t.expect(0, c.fallocate(fd, INSERT, 2 * K, 3 * K))
    t.expect(13 * K - 100, os.fstat(fd).st_size)
    t.expect(True, c.pread(fd, 20 * K, 0) == DATA[:2 * K] + b"\0" * (3 * K) + DATA[2 * K:-100])
    t.expect(0, c.fallocate(fd, COLLAPSE, K, 4 * K))
    t.expect(True, c.pread(fd, 20 * K, 0) == DATA[:K] + DATA[2 * K:-100])
    os.close(fd)


@test
def errors_of_fallocate(t):
    fd = fresh()
    for offset, count in ((0, 0), (-1, 10), (0, -1), (-5, -5)):
        for mode in (0, KEEP, PUNCH | KEEP, ZERO, COLLAPSE, INSERT):
            with t.case(mode, offset, count):
                t.expect(-EINVAL, c.fallocate(fd, mode, offset, count))
    for mode in (PUNCH, PUNCH | KEEP | ZERO, COLLAPSE | KEEP, INSERT | KEEP, COLLAPSE | INSERT, COLLAPSE | ZERO, 0x4000, 4):
        with t.case(mode):
            t.expect(lambda r: r in (-EOPNOTSUPP, -EINVAL), c.fallocate(fd, mode, 0, K))
    for offset, count in ((1, K), (0, 100), (K, K + 1), (0, 10 * K), (5 * K, 5 * K), (5 * K, 9 * K), (20 * K, K)):
        with t.case("collapse", offset, count), t.differs("treering", CLIENT):
            t.expect(-EINVAL, c.fallocate(fd, COLLAPSE, offset, count))
    for offset, count in ((1, K), (0, 100), (10 * K, K), (20 * K, K)):
        with t.case("insert", offset, count), t.differs("treering", CLIENT):
            t.expect(-EINVAL, c.fallocate(fd, INSERT, offset, count))
    t.expect(-EFBIG, c.fallocate(fd, 0, 2**63 - 1, 10))
    with t.differs("treering", CLIENT):
        t.expect(-EFBIG, c.fallocate(fd, INSERT, 0, (2**63 - 1) // K * K))
    t.expect(10 * K, os.fstat(fd).st_size)
    t.expect(True, t.content("f") == DATA)
    os.close(fd)
    reader = os.open("f", os.O_RDONLY)
    for mode in (0, PUNCH | KEEP, COLLAPSE):
        t.expect(-EBADF, c.fallocate(reader, mode, 0, K))
    os.close(reader)
    d = os.open(".", os.O_RDONLY)
    t.expect(-EBADF, c.fallocate(d, 0, 0, K))
    os.close(d)
    os.mkfifo("p")
    p = os.open("p", os.O_RDWR)
    t.expect(-ESPIPE, c.fallocate(p, 0, 0, K))
    os.close(p)
    t.expect(-EBADF, c.fallocate(999, 0, 0, K))
    appending = os.open("f", os.O_WRONLY | os.O_APPEND)
    t.expect(0, c.fallocate(appending, 0, 0, 11 * K))
    t.expect(11 * K, t.size("f"))
    os.close(appending)


@test
def allocated_space(t):
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    t.expect(0, c.fallocate(fd, KEEP, 0, 100 * K))
    t.expect(0, os.fstat(fd).st_size)
    t.true(os.fstat(fd).st_blocks >= 800, "blocks are there")
    t.expect(0, c.ftruncate(fd, 100 * K))
    t.expect(b"\0" * K, c.pread(fd, K, 50 * K))
    t.expect(0, c.fallocate(fd, PUNCH | KEEP, 0, 100 * K))
    t.true(os.fstat(fd).st_blocks < 100, "and are given back")
    t.expect(0, c.fallocate(fd, 0, 0, 200 * K))
    t.expect(200 * K, os.fstat(fd).st_size)
    t.true(os.fstat(fd).st_blocks >= 1600)
    t.expect(0, c.ftruncate(fd, 0))
    t.true(os.fstat(fd).st_blocks < 100)
    # ext4 keeps what it had got by then, which is all that its disk had: others on it would meet a full disk.
    if not t.is_oracle:
        free = c.statfs(".").f_bavail * c.statfs(".").f_frsize
        t.expect(-28, c.fallocate(fd, 0, 0, free * 3 // K * K))
    os.close(fd)


def pair(data=DATA):
    t_in = os.open("in", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.write(t_in, data)
    return t_in, os.open("out", os.O_RDWR | os.O_CREAT | os.O_TRUNC)


@test
def copies_of_ranges(t):
    for source, target, count in ((0, 0, 10 * K), (0, 0, K), (1, 0, 100), (0, 1, 100), (K, 5 * K, 3 * K), (K + 7, 3 * K + 9, 2 * K + 5),
                                  (5 * K, 0, 20 * K),
                                  (10 * K - 1, 0, 10), (0, 100 * K, K), (3, 7, 8 * K), (0, 0, 0)):
        with t.case(source, target, count):
            a, b = pair()
            os.write(b, b"old" * K)
            before = t.content("out")
            copied = min(count, 10 * K - source)
            t.expect(copied, c.copy_file_range(a, source, b, target, count))
            wanted = before.ljust(target, b"\0") if copied else before
            wanted = wanted[:target] + DATA[source:source + copied] + wanted[target + copied:]
            t.expect(len(wanted), t.size("out"))
            t.expect(True, t.content("out") == wanted)
            # Each goes its own way from now on.
            if copied:
                os.pwrite(b, b"!", target)
                t.expect(True, t.content("in") == DATA)
                os.pwrite(a, b"?", source + copied - 1)
                t.expect(True, t.content("out") == wanted[:target] + b"!" + wanted[target + 1:])
                os.ftruncate(a, 0)
                t.expect(len(wanted), len(t.content("out")))
            os.close(a)
            os.close(b)


@test
def copies_within_a_file(t):
    fd = fresh()
    t.expect(K, c.copy_file_range(fd, 0, fd, 5 * K, K))
    t.expect(True, t.content("f") == DATA[:5 * K] + DATA[:K] + DATA[6 * K:])
    t.expect(100, c.copy_file_range(fd, 10, fd, 110, 100))
    t.expect(DATA[10:110], c.pread(fd, 100, 110))
    t.expect(2 * K, c.copy_file_range(fd, 8 * K, fd, 10 * K, 2 * K))
    t.expect(12 * K, t.size("f"))
    for source, target, count in ((0, 0, K), (0, 1, 100), (1, 0, 100), (0, K - 1, K), (5 * K, 4 * K, 2 * K)):
        with t.case(source, target, count):
            t.expect(-EINVAL, c.copy_file_range(fd, source, fd, target, count))
    t.expect(0, c.copy_file_range(fd, 12 * K, fd, 0, K))
    os.close(fd)


@test
def positions_of_copies(t):
    a, b = pair()
    t.expect(100, c.copy_file_range(a, 0, b, None, 100) if c.lseek(a, 500) == 500 else -1)
    t.expect((500, 100), (c.lseek(a, 0, 1), c.lseek(b, 0, 1)))
    t.expect(50, c.copy_file_range(a, None, b, 0, 50))
    t.expect((550, 100), (c.lseek(a, 0, 1), c.lseek(b, 0, 1)))
    t.expect(25, c.copy_file_range(a, None, b, None, 25))
    t.expect((575, 125), (c.lseek(a, 0, 1), c.lseek(b, 0, 1)))
    t.expect(DATA[550:575], c.pread(b, 25, 100))
    t.expect(0, c.copy_file_range(a, 100 * K, b, 0, 10))
    t.expect(0, c.copy_file_range(a, 10 * K, b, 500 * K, 10))
    t.expect(125, os.fstat(b).st_size)
    os.close(a)
    os.close(b)


@test
def errors_of_copies(t):
    a, b = pair()
    t.expect(-EINVAL, c.copy_file_range(a, 0, b, 0, 10, 1))
    t.expect(-EOVERFLOW, c.copy_file_range(a, -1, b, 0, 10))
    t.expect(-EOVERFLOW, c.copy_file_range(a, 0, b, -1, 10))
    end = os.open("end", os.O_RDWR | os.O_CREAT)
    with t.differs("ext4", "a file with 4 KiB blocks ends at 16 TiB there"):
        t.expect(4, c.copy_file_range(a, 0, end, 2**63 - 5, 10))
    t.expect(-EFBIG, c.copy_file_range(a, 0, end, 2**63 - 1, 10))
    os.close(end)
    reader, writer = os.open("in", os.O_RDONLY), os.open("out", os.O_WRONLY)
    t.expect(-EBADF, c.copy_file_range(writer, 0, b, 0, 10))
    t.expect(-EBADF, c.copy_file_range(a, 0, reader, 0, 10))
    t.expect(10, c.copy_file_range(reader, 0, writer, 0, 10))
    appending = os.open("out", os.O_WRONLY | os.O_APPEND)
    t.expect(-EBADF, c.copy_file_range(a, 0, appending, 0, 10))
    d = os.open(".", os.O_RDONLY)
    t.expect(-EISDIR, c.copy_file_range(d, 0, b, 0, 10))
    os.mkfifo("p")
    p = os.open("p", os.O_RDWR)
    t.expect(-EINVAL, c.copy_file_range(p, None, b, 0, 10))
    t.expect(-EINVAL, c.copy_file_range(a, 0, p, None, 10))
    t.expect(-EBADF, c.copy_file_range(a, 0, 999, 0, 10))
    t.expect(10, t.size("out"))
    for fd in (a, b, reader, writer, appending, d, p):
        os.close(fd)


@test
def copies_of_sparse_files(t):
    a, b = pair(b"")
    os.pwrite(a, b"begin", 0)
    os.pwrite(a, b"end", 50 * K)
    t.expect(50 * K + 3, c.copy_file_range(a, 0, b, 0, 100 * K))
    t.expect(True, t.content("in") == t.content("out"))
    t.expect(0, c.ftruncate(b, 0))
    t.expect(10 * K, c.copy_file_range(a, 20 * K, b, 0, 10 * K), "a hole alone")
    t.expect(True, t.content("out") == b"\0" * 10 * K)
    os.pwrite(b, DATA, 0)
    t.expect(5 * K, c.copy_file_range(a, 20 * K, b, K, 5 * K), "a hole over data")
    t.expect(True, t.content("out") == zeroed(DATA, K, 5 * K))
    os.close(a)
    os.close(b)


@test
def copies_change_times_and_see_fresh_data(t):
    a, b = pair()
    t.expect(["", "mc"], [x.replace("a", "") for x in t.changed(["in", "out"], lambda: c.copy_file_range(a, 0, b, 0, K))])
    os.pwrite(a, b"fresh", 0)
    t.expect(5, c.copy_file_range(a, 0, b, 0, 5))
    t.expect(b"fresh", c.pread(b, 5, 0))
    import mmap
    view = mmap.mmap(a, K)
    view[0:6] = b"mapped"
    t.expect(6, c.copy_file_range(a, 0, b, 100, 6))
    t.expect(b"mapped", c.pread(b, 6, 100))
    out = mmap.mmap(b, K)
    t.expect(b"mapped", out[100:106])
    os.pwrite(a, b"again!", 0)
    t.expect(6, c.copy_file_range(a, 0, b, 100, 6))
    t.expect(b"again!", out[100:106])
    os.close(a)
    os.close(b)


@test
def chains_of_copies(t):
    """A copy of a copy of a part, each written to in turn, keeps to itself."""
    model = []
    for number in range(8):
        data = bytearray(pattern(6 * K, number)[:6 * K])
        fd = os.open(f"c{number}", os.O_RDWR | os.O_CREAT)
        os.write(fd, data)
        if number:
            t.expect(3 * K + 5, c.copy_file_range(os.open(f"c{number - 1}", os.O_RDONLY), K - 3, fd, 2 * K + 1, 3 * K + 5))
            data[2 * K + 1:5 * K + 6] = model[number - 1][K - 3:4 * K + 2]
        model.append(data)
        os.close(fd)
    for number in range(0, 8, 2):
        with open(f"c{number}", "r+b") as stream:
            stream.seek(2 * K)
            stream.write(b"overwritten")
        model[number][2 * K:2 * K + 11] = b"overwritten"
    os.unlink("c3")
    for number in (0, 1, 2, 4, 5, 6, 7):
        t.expect(True, t.content(f"c{number}") == bytes(model[number]))


@test
def clone_ioctls_say_no(t):
    a, b = pair()
    for request in (c.FICLONE,):
        t.expect(lambda r: r in (-EOPNOTSUPP, -25), c.ioctl(b, request, a))
    t.expect(0, t.size("out"))
    os.close(a)
    os.close(b)
