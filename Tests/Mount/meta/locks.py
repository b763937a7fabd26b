"""Locks, leases, watching, special files."""
import fcntl
import os
import signal
import socket
import stat
import struct
import time

from results import as_user, mode, ok, test, touch

# Found by way of results.
from calls import libc


@test
def locks():
    touch("f", b"0123456789")

    def record(command, kind, start, length):
        def act():
            descriptor = os.open("f", os.O_RDWR)
            return ok(fcntl.fcntl, descriptor, command, struct.pack("hhqqi4x", kind, 0, start, length, 0))
        return act

    SETLK, OFD_SETLK = fcntl.F_SETLK, 37
    one, two = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)
    yield (
        "flock", ok(fcntl.flock, one, fcntl.LOCK_EX | fcntl.LOCK_NB), ok(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB),
        ok(fcntl.flock, two, fcntl.LOCK_SH | fcntl.LOCK_NB)
    )
    yield "downgraded", ok(fcntl.flock, one, fcntl.LOCK_SH | fcntl.LOCK_NB), ok(fcntl.flock, two, fcntl.LOCK_SH | fcntl.LOCK_NB)
    copy = os.dup(one)
    os.close(one)
    yield "kept by a copy", ok(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(copy)
    yield "released", ok(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield "not against fcntl", as_user(0, 0, [], record(SETLK, fcntl.F_WRLCK, 0, 0))
    yield "mine", ok(fcntl.fcntl, two, SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 2, 3, 0))
    for start, length in ((0, 2), (2, 1), (4, 1), (5, 0), (0, 0)):
        yield (
            f"another's {start}+{length}", as_user(0, 0, [], record(SETLK, fcntl.F_RDLCK, start, length)),
            as_user(0, 0, [], record(OFD_SETLK, fcntl.F_WRLCK, start, length))
        )
    other = os.open("f", os.O_RDWR)
    os.close(other)
    yield "gone with any descriptor's close", as_user(0, 0, [], record(SETLK, fcntl.F_WRLCK, 0, 0))
    three = os.open("f", os.O_RDWR)
    yield (
        "OFD", ok(fcntl.fcntl, two, OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)),
        ok(fcntl.fcntl, three, OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 1, 0))
    )
    os.close(three), os.close(two)

    # Two processes that wait for each other: one is told.
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        descriptor = os.open("f", os.O_RDWR)
        fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, 1)
        os.write(ready[1], b"x"), os.read(go[0], 1)
        os._exit(0 if ok(fcntl.lockf, descriptor, fcntl.LOCK_EX, 1, 0) == "ok" else 1)
    descriptor = os.open("f", os.O_RDWR)
    fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, 0)
    os.read(ready[0], 1), os.write(go[1], b"x")
    time.sleep(0.15)
    result = ok(fcntl.lockf, descriptor, fcntl.LOCK_EX, 1, 1)
    os.close(descriptor)
    yield "deadlock", result, os.waitpid(pid, 0)[1]

    # A killed process keeps nothing.
    pid = os.fork()
    if pid == 0:
        descriptor = os.open("f", os.O_RDWR)
        fcntl.lockf(descriptor, fcntl.LOCK_EX), fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(ready[1], b"x")
        signal.pause()
    os.read(ready[0], 1)
    held = as_user(0, 0, [], record(SETLK, fcntl.F_WRLCK, 0, 0))
    os.kill(pid, 9), os.waitpid(pid, 0)
    yield "released on exit", held, as_user(0, 0, [], record(SETLK, fcntl.F_WRLCK, 0, 0))
    mandatory = os.open("f", os.O_RDONLY)
    yield "write lock on a read-only descriptor", ok(fcntl.fcntl, mandatory, SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    yield (
        "lease", ok(fcntl.fcntl, mandatory, fcntl.F_SETLEASE, fcntl.F_RDLCK), fcntl.fcntl(mandatory, fcntl.F_GETLEASE),
        ok(fcntl.fcntl, mandatory, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    )
    os.close(mandatory)


@test
def watching():
    os.mkdir("d")
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    libc.inotify_add_watch(descriptor, b"d", 0xFFF)
    touch("d/f", b"x")
    os.rename("d/f", "d/g")
    os.unlink("d/g")
    data, masks = os.read(descriptor, 8192), []
    offset = 0
    while offset < len(data):
        _, mask, _, length = struct.unpack_from("iIII", data, offset)
        masks.append(hex(mask))
        offset += 16 + length
    yield "inotify", masks
    os.close(descriptor)


@test
def special_files():
    for kind, device in (
        (stat.S_IFCHR, os.makedev(1, 3)), (stat.S_IFBLK, os.makedev(4095, 1048575)), (stat.S_IFIFO, 0), (stat.S_IFSOCK, 0),
        (stat.S_IFREG, 0)
    ):
        path = f"node{kind}"
        yield oct(kind), ok(os.mknod, path, kind | 0o640, device), mode(path), os.lstat(path).st_rdev
    yield "of a user", as_user(1000, 1000, [], ok, os.mknod, "x", stat.S_IFCHR | 0o600, 0)
    yield "directory by mknod", ok(os.mknod, "y", stat.S_IFDIR | 0o600, 0)
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    server.listen(1)
    client = socket.socket(socket.AF_UNIX)
    yield "socket", ok(client.connect, "socket"), ok(os.open, "socket", os.O_RDONLY), ok(os.truncate, "socket", 0)
    os.mkfifo("fifo")
    yield "fifo", ok(os.open, "fifo", os.O_WRONLY | os.O_NONBLOCK), ok(os.truncate, "fifo", 0)
