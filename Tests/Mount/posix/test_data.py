# Reading, writing, cutting and growing; holes, lseek, O_DIRECT, vectors, limits.
import mmap
import os
import resource
import signal
from errno import EACCES, EBADF, EFBIG, EINVAL, EISDIR, ENXIO

import calls as c
from suite import BOB, pattern, test

SIZES = (0, 1, 100, 4095, 4096, 4097, 8192, 65_536, 131_072, 131_073, 1_048_576, 1_100_000)
LIMIT = 2**63 - 1


@test
def what_is_written_is_read(t):
    for size in SIZES:
        data = pattern(size)[:size]
        with t.case(size):
            fd = t.opened(c.open_("f", os.O_RDWR | os.O_CREAT | os.O_TRUNC))
            t.expect(size, c.write(fd, data))
            t.expect(size, c.lseek(fd, 0, os.SEEK_CUR))
            t.expect(size, os.fstat(fd).st_size)
            t.expect(True, c.pread(fd, size + 10, 0) == data)
            t.expect(b"", c.pread(fd, 10, size))
            t.expect(b"", c.pread(fd, 10, size + 100_000))
            t.expect(True, c.pread(fd, 5000, size // 2) == data[size // 2:size // 2 + 5000])
            t.expect(0, c.fsync(fd))
            t.expect(True, t.content("f") == data)
            os.close(fd)


@test
def overwriting_in_every_place(t):
    whole = bytearray(pattern(40_000)[:40_000])
    fd = t.opened(c.open_("f", os.O_RDWR | os.O_CREAT))
    os.write(fd, whole)
    for turn, (offset, count) in enumerate([(0, 1), (1, 1), (4095, 2), (4096, 4096), (4097, 4095), (100, 8000), (39_999, 1), (39_999, 5),
                                            (40_004, 10), (0, 12_288),
                                            (8190, 4), (50_000, 100), (45_000, 1), (0, 50_100)]):
        data = pattern(count, turn + 50)[:count]
        if len(whole) < offset + count:
            whole.extend(b"\0" * (offset + count - len(whole)))
        whole[offset:offset + count] = data
        with t.case(offset, count):
            t.expect(count, c.pwrite(fd, data, offset))
            t.expect(len(whole), os.fstat(fd).st_size)
            t.expect(True, c.pread(fd, 60_000, 0) == bytes(whole))
    os.close(fd)
    t.expect(True, t.content("f") == bytes(whole))


@test
def cutting_and_growing(t):
    for start in (0, 1, 4096, 10_000, 200_000):
        for target in (0, 1, 4095, 4096, 4097, 9_999, 10_000, 150_000, 300_000):
            with t.case(start, target):
                data = pattern(start)[:start]
                fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                os.write(fd, data)
                t.expect(0, c.ftruncate(fd, target) if target % 2 else c.truncate("f", target))
                t.expect(target, os.fstat(fd).st_size)
                t.expect(True, t.content("f") == data[:target].ljust(target, b"\0"))
                # What was cut off does not come back.
                t.expect(0, c.ftruncate(fd, 300_000))
                t.expect(True, t.content("f") == data[:target].ljust(300_000, b"\0"))
                os.close(fd)


@test
def errors_of_truncate(t):
    t.dir("d")
    t.file("f", b"text", 0o644)
    os.mkfifo("p")
    t.expect(-EISDIR, c.truncate("d", 0))
    t.expect(-EINVAL, c.truncate("p", 0))
    t.expect(-EINVAL, c.truncate("f", -1))
    fd = os.open("f", os.O_RDONLY)
    t.expect(-EINVAL, c.ftruncate(fd, 0))
    os.close(fd)
    t.expect(-EBADF, c.ftruncate(fd, 0))
    with t.user(BOB):
        t.expect(-EACCES, c.truncate("f", 0))
    t.expect(b"text", t.content("f"))


@test
def sparse_files(t):
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    for offset in (0, 1 << 20, 1 << 30, 1 << 40, (1 << 43) + 12_345):
        with t.case(offset):
            t.expect(4, c.pwrite(fd, b"data", offset))
            t.expect(offset + 4, os.fstat(fd).st_size)
            t.expect(b"data", c.pread(fd, 10, offset))
            if offset:
                t.expect(b"\0" * 100, c.pread(fd, 100, offset // 2 + 8))
    t.true(os.fstat(fd).st_blocks < 1000, "holes take no room")
    t.expect(0, c.ftruncate(fd, 4))
    t.expect(b"data", c.pread(fd, 10, 0))
    os.close(fd)


@test
def the_largest_offsets(t):
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    t.expect(0, c.lseek(fd, 0))
    t.expect(-EINVAL, c.pwrite(fd, b"x", -1))
    t.expect(-EINVAL, c.pread(fd, 1, LIMIT))
    t.expect(-EINVAL, c.pread(fd, 1, -5))
    with t.differs("ext4", "a file with 4 KiB blocks ends at 16 TiB there"):
        t.expect(0, c.ftruncate(fd, LIMIT))
        t.expect(LIMIT, os.fstat(fd).st_size)
        t.expect(LIMIT, c.lseek(fd, 0, os.SEEK_END))
        t.expect(-EINVAL, c.lseek(fd, 1, os.SEEK_END))
        t.expect(0, c.ftruncate(fd, 0))
        t.expect(3, c.pwrite(fd, b"end", LIMIT - 3))
        t.expect(b"end", c.pread(fd, 3, LIMIT - 3))
        t.expect(-EINVAL, c.pwrite(fd, b"x", LIMIT))
        t.expect(-EINVAL, c.pwrite(fd, b"abcd", LIMIT - 2))
        t.expect(2, c.pwrite(fd, b"ab", LIMIT - 2))
        t.expect(b"eab", c.pread(fd, 3, LIMIT - 3))
        t.expect(LIMIT, os.fstat(fd).st_size)
    os.close(fd)


@test
def seeking_data_and_holes(t):
    """lseek(2). A file system may count what it likes as data in its own unit; ext4's is a block."""
    with t.differs_with_writeback("the server does not know what the kernel still holds, and calls all of it data"):
        seek_data_and_holes(t)


def seek_data_and_holes(t):
    K = 4096
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    t.expect(-ENXIO, c.lseek(fd, 0, c.SEEK_DATA))
    t.expect(-ENXIO, c.lseek(fd, 0, c.SEEK_HOLE))
    os.ftruncate(fd, 100 * K)
    t.expect(0, c.lseek(fd, 0, c.SEEK_HOLE))
    t.expect(-ENXIO, c.lseek(fd, 0, c.SEEK_DATA))
    for start, count in ((10, 2), (30, 1), (50, 8), (99, 1)):
        os.pwrite(fd, b"x" * (count * K), start * K)
    wanted = [(10, 12), (30, 31), (50, 58), (99, 100)]
    for synced in (False, True):
        if synced:
            os.fsync(fd)
        with t.case("synced" if synced else "fresh"):
            found, place = [], 0
            while (data := c.lseek(fd, place, c.SEEK_DATA)) >= 0:
                hole = c.lseek(fd, data, c.SEEK_HOLE)
                found.append((data // K, hole // K))
                place = hole
            t.expect(-ENXIO, data)
            t.expect(wanted, found)
            t.expect(10 * K, c.lseek(fd, 5 * K + 7, c.SEEK_DATA))
            t.expect(10 * K + 5, c.lseek(fd, 10 * K + 5, c.SEEK_DATA))
            t.expect(12 * K, c.lseek(fd, 11 * K + 1, c.SEEK_HOLE))
            t.expect(20 * K + 3, c.lseek(fd, 20 * K + 3, c.SEEK_HOLE))
            t.expect(100 * K, c.lseek(fd, 99 * K, c.SEEK_HOLE))
            t.expect(100 * K, c.lseek(fd, 100 * K - 1, c.SEEK_HOLE))
            for beyond in (100 * K, 100 * K + 1, 1 << 40):
                t.expect(-ENXIO, c.lseek(fd, beyond, c.SEEK_DATA))
                t.expect(-ENXIO, c.lseek(fd, beyond, c.SEEK_HOLE))
            t.expect(-ENXIO, c.lseek(fd, -1, c.SEEK_DATA))
            t.expect(-ENXIO, c.lseek(fd, -1, c.SEEK_HOLE))
            t.expect(20 * K + 3, c.lseek(fd, 20 * K + 3, c.SEEK_HOLE) and c.lseek(fd, 0, os.SEEK_CUR), "a failed or good seek leaves its place")
    t.expect(0, c.fallocate(fd, 3, 50 * K, 4 * K))
    t.expect(54 * K, c.lseek(fd, 40 * K, c.SEEK_DATA))
    t.expect(0, c.ftruncate(fd, 40 * K))
    t.expect(-ENXIO, c.lseek(fd, 31 * K, c.SEEK_DATA))
    t.expect(31 * K, c.lseek(fd, 30 * K, c.SEEK_HOLE))
    t.expect(40 * K, c.lseek(fd, 0, os.SEEK_END))
    os.close(fd)
    os.mkdir("d")
    fd = os.open("d", os.O_RDONLY)
    t.expect(0, c.lseek(fd, 0))
    os.close(fd)


@test
def direct_access(t):
    view = mmap.mmap(-1, 64 * 1024)
    view[:] = pattern(64 * 1024)[:64 * 1024]
    fd = t.opened(c.open_("f", os.O_RDWR | os.O_CREAT | os.O_DIRECT))
    buffered = os.open("f", os.O_RDWR)
    t.expect(65_536, c.attempt(os.write, fd, view))
    t.expect(True, t.content("f") == view[:])
    t.expect(4, c.pwrite(buffered, b"seen", 8192))
    back = mmap.mmap(-1, 64 * 1024)
    t.expect(65_536, c.attempt(os.preadv, fd, [back], 0))
    t.expect(b"seen", back[8192:8196])
    t.expect(True, back[:8192] == view[:8192])
    t.expect(4096, c.attempt(os.preadv, fd, [memoryview(back)[:4096]], 61_440))
    t.expect(0, c.attempt(os.preadv, fd, [memoryview(back)[:4096]], 65_536))
    # Direct writes are seen through a page that was read before.
    t.expect(b"seen", c.pread(buffered, 4, 8192))
    view[0:4] = b"over"
    t.expect(4096, c.attempt(os.pwritev, fd, [memoryview(view)[:4096]], 8192))
    t.expect(b"over", c.pread(buffered, 4, 8192))
    t.expect(4096, c.attempt(os.pwritev, fd, [memoryview(view)[:4096]], 1 << 20))
    t.expect((1 << 20) + 4096, os.fstat(fd).st_size)
    t.expect(b"\0" * 4096, c.pread(buffered, 4096, 524_288))
    with t.differs("treering", "FUSE passes direct transfers of any alignment"):
        t.expect(-EINVAL, c.pwrite(fd, b"x", 1))
    os.close(fd)
    os.close(buffered)


@test
def synchronous_writes(t):
    for flags in (os.O_SYNC, os.O_DSYNC, os.O_SYNC | os.O_APPEND, os.O_DSYNC | os.O_DIRECT):
        fd = t.opened(c.open_("f", os.O_RDWR | os.O_CREAT | os.O_TRUNC | flags))
        with t.case(oct(flags)):
            view = mmap.mmap(-1, 4096)
            view[:4] = b"sync"
            t.expect(4096, c.attempt(os.writev, fd, [view]))
            t.expect(b"sync", t.content("f")[:4])
            t.expect(0, c.fdatasync(fd))
        os.close(fd)
    fd = os.open("f", os.O_RDWR)
    for flags in (c.RWF_DSYNC, c.RWF_SYNC):
        t.expect(3, c.pwritev2(fd, b"abc", 5, flags))
    t.expect(b"abc", c.pread(fd, 3, 5))
    t.expect(-95, c.pwritev2(fd, b"abc", 5, 1 << 30))
    t.expect(0, c.raw("sync_file_range", fd, 0, 100, 7))
    os.close(fd)
    d = os.open(".", os.O_RDONLY)
    t.expect(0, c.fsync(d))
    t.expect(0, c.fdatasync(d))
    os.close(d)
    t.expect(-EBADF, c.fsync(999))
    os.mkfifo("p")
    p = os.open("p", os.O_RDWR)
    t.expect(-EINVAL, c.fsync(p))
    os.close(p)


@test
def vectors(t):
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    t.expect(9, c.attempt(os.writev, fd, [b"abc", b"", b"defghi"]))
    t.expect(4, c.attempt(os.pwritev, fd, [b"XY", b"Z!"], 2))
    parts = [bytearray(3), bytearray(0), bytearray(10)]
    t.expect(9, c.attempt(os.preadv, fd, parts, 0))
    t.expect([b"abX", b"", b"YZ!ghi\0\0\0\0"], [bytes(p) for p in parts])
    t.expect(-EINVAL, c.attempt(os.preadv, fd, parts, -2))
    many = [b"%03d" % n for n in range(1000)]
    t.expect(3000, c.attempt(os.pwritev, fd, many, 0))
    t.expect(b"".join(many), t.content("f"))
    os.close(fd)


@test
def the_limit_of_file_sizes(t):
    """setrlimit(2), RLIMIT_FSIZE: SIGXFSZ, or EFBIG where that is ignored; what fits is written."""
    def limited(action, ignore=True):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN if ignore else signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        return action()
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    t.expect(10_000, t.child(limited, lambda: c.pwrite(fd, b"x" * 20_000, 0)))
    t.expect(10_000, t.size("f"))
    t.expect(-EFBIG, t.child(limited, lambda: c.pwrite(fd, b"x", 10_000)))
    t.expect(-EFBIG, t.child(limited, lambda: c.ftruncate(fd, 10_001)))
    t.expect(0, t.child(limited, lambda: c.ftruncate(fd, 10_000)))
    t.expect(-EFBIG, t.child(limited, lambda: c.fallocate(fd, 0, 0, 20_000)))
    t.expect(1, t.child(limited, lambda: c.pwrite(fd, b"xy", 9_999)))
    t.expect(0, t.child(limited, lambda: c.ftruncate(fd, 5)))
    t.expect(("signal", signal.SIGXFSZ), t.child(limited, lambda: c.pwrite(fd, b"x", 10_000), False))
    t.expect(("signal", signal.SIGXFSZ), t.child(limited, lambda: c.truncate("f", 20_000), False))
    t.expect(5, t.size("f"))
    os.close(fd)


@test
def copies_in_pieces_between_descriptors(t):
    data = pattern(300_000)[:300_000]
    t.file("a", data)
    source, target = os.open("a", os.O_RDONLY), os.open("b", os.O_RDWR | os.O_CREAT)
    t.expect(300_000, c.attempt(os.sendfile, target, source, 0, 400_000))
    t.expect(True, t.content("b") == data)
    reader, writer = os.pipe()
    t.expect(50_000, c.attempt(os.splice, source, writer, 50_000, 1000))
    t.expect(50_000, c.attempt(os.splice, reader, target, 50_000, None, 7))
    t.expect(True, t.content("b")[7:50_007] == data[1000:51_000])
    for fd in (source, target, reader, writer):
        os.close(fd)


@test
def sharing_a_position(t):
    t.file("f", b"0123456789")
    fd = os.open("f", os.O_RDWR)
    t.expect(b"012", t.child(lambda: os.read(fd, 3)))
    t.expect(b"345", c.read(fd, 3))
    t.expect(3, t.child(lambda: os.write(fd, b"abc")))
    t.expect(9, c.lseek(fd, 0, os.SEEK_CUR))
    t.expect(b"012345abc9", t.content("f"))
    other = os.open("f", os.O_RDONLY)
    t.expect(0, c.lseek(other, 0, os.SEEK_CUR))
    os.close(fd)
    os.close(other)


@test
def reading_while_it_grows(t):
    writer = os.open("f", os.O_WRONLY | os.O_CREAT)
    reader = os.open("f", os.O_RDONLY)
    for turn in range(100):
        t.expect(b"", c.read(reader, 100))
        os.write(writer, b"line %03d\n" % turn)
        t.expect(b"line %03d\n" % turn, c.read(reader, 100))
    t.expect(0, c.truncate("f", 0))
    t.expect(b"", c.read(reader, 100))
    os.close(reader)
    os.close(writer)


@test
def zero_bytes_and_odd_counts(t):
    t.file("f", b"text")
    fd = os.open("f", os.O_RDWR)
    t.expect(b"", c.read(fd, 0))
    t.expect(0, c.write(fd, b""))
    t.expect(0, c.pwrite(fd, b"", 1000))
    t.expect(4, t.size("f"))
    t.expect([""], t.changed(["f"], lambda: c.pwrite(fd, b"", 0)))
    t.expect(b"text", c.read(fd, 1000))
    t.expect(4, c.lseek(fd, 0, 1))
    t.expect(-EINVAL, c.lseek(fd, -5, 1))
    t.expect(3, c.lseek(fd, -1, 1))
    t.expect(0, c.lseek(fd, -4, 2))
    os.close(fd)
