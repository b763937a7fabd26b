# Mapped files: what is stored through a mapping, and what others see of it.
import mmap
import os
import signal
from errno import EACCES, ENXIO

import calls as c
from suite import pattern, test


@test
def holes_that_mappings_fill(t):
    """mmap(2), lseek(2): what was stored through a mapping and not written back yet is data, or a copy would lose it."""
    K = 4096
    with t.differs_with_writeback("the server does not know what the kernel still holds, and calls all of it data"):
        fd = os.open("f", os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, 100 * K)
        with mmap.mmap(fd, 100 * K) as mapping:
            for place in (30, 60):
                mapping[place * K + 5:place * K + 9] = b"here"
            t.expect(30 * K, c.lseek(fd, 0, c.SEEK_DATA))
            t.expect(31 * K, c.lseek(fd, 30 * K, c.SEEK_HOLE))
            t.expect(60 * K, c.lseek(fd, 31 * K, c.SEEK_DATA))
            t.expect(-ENXIO, c.lseek(fd, 61 * K, c.SEEK_DATA))
            mapping[80 * K] = 1
            t.expect(80 * K, c.lseek(fd, 61 * K, c.SEEK_DATA))
            mapping[61 * K] = 1
            t.expect(62 * K, c.lseek(fd, 60 * K, c.SEEK_HOLE))
        os.close(fd)


@test
def mapped_files(t):
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    os.write(fd, pattern(10_000)[:10_000])
    shared = mmap.mmap(fd, 10_000)
    t.expect(True, shared[:] == pattern(10_000)[:10_000])
    shared[5000:5004] = b"mmap"
    t.expect(b"mmap", c.pread(fd, 4, 5000))
    t.expect(4, c.pwrite(fd, b"file", 6000))
    t.expect(b"file", shared[6000:6004])
    private = mmap.mmap(fd, 10_000, flags=mmap.MAP_PRIVATE)
    private[0:3] = b"own"
    t.expect(pattern(3)[:3], c.pread(fd, 3, 0))
    t.expect(pattern(3)[:3], shared[0:3])
    t.expect(None, shared.flush())
    reader = os.open("f", os.O_RDONLY)
    t.expect(-EACCES, c.attempt(mmap.mmap, reader, 100))
    view = mmap.mmap(reader, 100, prot=mmap.PROT_READ)
    t.expect(pattern(3)[:3], view[:3])
    os.close(fd)
    shared[1:2] = b"!"
    t.expect(b"!", c.pread(reader, 1, 1), "the mapping outlives the descriptor")
    t.expect(0, c.unlink("f"))
    shared[2:3] = b"?"
    t.expect(b"?", c.pread(reader, 1, 2))
    # The tail of the last page is zero and stays out of the file.
    os.close(reader)
    fd = os.open("g", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"abc")
    tail = c.libc.mmap(None, 4096, 3, 1, fd, 0)
    import ctypes
    bytes_ = (ctypes.c_char * 4096).from_address(tail)
    t.expect(b"abc" + b"\0" * 4093, bytes_.raw)
    bytes_[100:101] = b"z"
    c.libc.msync(tail, 4096, 4)
    t.expect(0, c.ftruncate(fd, 200))
    t.expect(b"abc" + b"\0" * 197, t.content("g"))
    c.libc.munmap(tail, 4096)
    os.close(fd)


@test
def mappings_and_the_end_of_file(t):
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x" * 8192)

    def touch(offset):
        view = mmap.mmap(fd, 8192)
        os.ftruncate(fd, 4096)
        return view[offset]
    t.expect(ord("x"), t.child(touch, 100))
    os.pwrite(fd, b"y" * 8192, 0)
    t.expect(("signal", signal.SIGBUS), t.child(touch, 5000))
    t.expect(4096, t.size("f"))
    view = mmap.mmap(fd, 4096)
    t.expect(0, c.ftruncate(fd, 100))
    t.expect(b"\0", view[100:101])
    t.expect(0, c.ftruncate(fd, 4096))
    t.expect(b"\0", view[100:101])
    t.expect(b"y", view[99:100])
    os.close(fd)


@test
def mapped_writes_between_processes(t):
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 65_536)
    view = mmap.mmap(fd, 65_536)

    def writer():
        own = mmap.mmap(os.open("f", os.O_RDWR), 65_536)
        for page in range(16):
            own[page * 4096:page * 4096 + 5] = b"child"
        return own[4096:4101]
    t.expect(b"child", t.child(writer))
    for page in range(16):
        t.expect(b"child", view[page * 4096:page * 4096 + 5])
        t.expect(b"child", c.pread(fd, 5, page * 4096))
    view.flush()
    view.close()
    t.expect(b"child", t.content("f")[61_440:61_445])
    os.close(fd)


@test
def mapped_writes_change_times(t):
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x" * 4096)
    os.fsync(fd)
    view = mmap.mmap(fd, 4096)

    def change():
        view[0:1] = b"y"
        view.flush()
        return c.fsync(fd)
    t.expect(["mc"], t.changed(["f"], change))
    os.close(fd)
