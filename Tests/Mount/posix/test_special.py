# Locks, file handles, inode flags, inotify and leases.
import ctypes
import errno
import fcntl
import os
import signal
import struct
import time
from errno import EACCES, EAGAIN, EBADF, EDEADLK, EINVAL, ENOMEM, ENOTTY, EPERM, ESTALE

import calls as c
from suite import ALICE, BOB, test

F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38


def lock(fd, kind, start=0, length=0, command=fcntl.F_SETLK):
    return c.attempt(lambda: fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, 0, start, length, 0)) and None)


def held(fd, kind=fcntl.F_WRLCK, start=0, length=0, command=fcntl.F_GETLK):
    """What stands in the way of a lock: (kind, start, length, pid), or None."""
    answer = c.attempt(fcntl.fcntl, fd, command, struct.pack("hhqqi4x", kind, 0, start, length, 0))
    if not isinstance(answer, bytes):
        return answer
    kind, _, start, length, pid = struct.unpack("hhqqi4x", answer)
    return None if kind == fcntl.F_UNLCK else (kind, start, length, pid)


@test
def whole_file_locks(t):
    """flock(2): bound to the open file description."""
    t.file("f")
    a, b = os.open("f", os.O_RDWR), os.open("f", os.O_RDONLY)
    def flock(fd, how): return c.attempt(fcntl.flock, fd, how | fcntl.LOCK_NB)
    for first, second, wanted in ((fcntl.LOCK_EX, fcntl.LOCK_EX, -EAGAIN), (fcntl.LOCK_EX, fcntl.LOCK_SH, -EAGAIN),
                                  (fcntl.LOCK_SH, fcntl.LOCK_EX, -EAGAIN),
                                  (fcntl.LOCK_SH, fcntl.LOCK_SH, 0)):
        with t.case(first, second):
            t.expect(0, flock(a, first))
            t.expect(wanted, flock(b, second))
            t.expect(wanted, t.child(lambda: flock(os.open("f", os.O_RDWR), second)))
            t.expect(0, t.child(lambda: flock(a, first)), "the child shares it")
            t.expect(0, flock(a, fcntl.LOCK_UN))
            t.expect(0, flock(b, second))
            t.expect(0, flock(b, fcntl.LOCK_UN))
    t.expect(0, flock(a, fcntl.LOCK_SH))
    t.expect(0, flock(a, fcntl.LOCK_EX), "raised")
    again = os.dup(a)
    os.close(a)
    t.expect(-EAGAIN, flock(b, fcntl.LOCK_SH), "a duplicate still holds it")
    os.close(again)
    t.expect(0, flock(b, fcntl.LOCK_EX))
    t.expect(-EINVAL, c.attempt(fcntl.flock, b, 0))
    os.close(b)
    t.expect(0, t.child(lambda: flock(os.open("f", os.O_RDWR), fcntl.LOCK_EX)))
    t.expect(0, flock(os.open("f", os.O_RDWR), fcntl.LOCK_EX), "a lock ends with its process")
    d = os.open(".", os.O_RDONLY)
    t.expect(0, flock(d, fcntl.LOCK_EX))
    t.expect(-EAGAIN, flock(os.open(".", os.O_RDONLY), fcntl.LOCK_SH))
    os.close(d)


@test
def record_locks(t):
    """fcntl(2), F_SETLK: bound to the process."""
    t.file("f", b"x" * 100)
    fd = os.open("f", os.O_RDWR)
    pid = os.getpid()
    t.expect(0, lock(fd, fcntl.F_WRLCK, 10, 20))
    t.expect(0, lock(fd, fcntl.F_RDLCK, 50, 10))
    other = lambda kind, start, length: t.child(lambda: lock(os.open("f", os.O_RDWR), kind, start, length))
    for kind, start, length, free in ((fcntl.F_WRLCK, 0, 10, True), (fcntl.F_WRLCK, 0, 11, False), (fcntl.F_RDLCK, 29, 1, False),
                                      (fcntl.F_WRLCK, 30, 20, True),
                                      (fcntl.F_RDLCK, 50, 10, True), (fcntl.F_WRLCK, 59, 1, False), (fcntl.F_WRLCK, 60, 0, True),
                                      (fcntl.F_WRLCK, 0, 0, False),
                                      (fcntl.F_RDLCK, 0, 0, False)):
        with t.case(kind, start, length):
            t.expect(lambda r: r == 0 if free else r in (-EAGAIN, -EACCES), other(kind, start, length))
    t.expect((fcntl.F_WRLCK, 10, 20, pid), t.child(lambda: held(os.open("f", os.O_RDWR), fcntl.F_WRLCK, 0, 0)))
    t.expect((fcntl.F_RDLCK, 50, 10, pid), t.child(lambda: held(os.open("f", os.O_RDWR), fcntl.F_WRLCK, 40, 0)))
    t.expect(None, t.child(lambda: held(os.open("f", os.O_RDWR), fcntl.F_RDLCK, 50, 10)))
    t.expect(None, held(fd), "one's own is not in the way")
    # Splitting, joining, changing kind.
    t.expect(0, lock(fd, fcntl.F_UNLCK, 15, 5))
    t.expect(0, other(fcntl.F_WRLCK, 15, 5))
    t.expect((fcntl.F_WRLCK, 20, 10, pid), t.child(lambda: held(os.open("f", os.O_RDWR), fcntl.F_WRLCK, 15, 0)))
    t.expect(0, lock(fd, fcntl.F_RDLCK, 20, 10))
    t.expect(0, other(fcntl.F_RDLCK, 20, 10))
    # Closing any descriptor of the file lets all go.
    os.close(os.open("f", os.O_RDONLY))
    t.expect(0, other(fcntl.F_WRLCK, 0, 0))
    reader, writer = os.open("f", os.O_RDONLY), os.open("f", os.O_WRONLY)
    t.expect(-EBADF, lock(reader, fcntl.F_WRLCK))
    t.expect(-EBADF, lock(writer, fcntl.F_RDLCK))
    t.expect(-EINVAL, lock(fd, 77))
    t.expect(-EINVAL, lock(fd, fcntl.F_WRLCK, -1, 1))
    t.expect(0, lock(fd, fcntl.F_WRLCK, 50, -10))
    t.expect((fcntl.F_WRLCK, 40, 10, pid), t.child(lambda: held(os.open("f", os.O_RDWR))))
    os.close(fd)


@test
def locks_end_with_their_process(t):
    t.file("f", b"x" * 10)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        fd = os.open("f", os.O_RDWR)
        lock(fd, fcntl.F_WRLCK)
        fcntl.flock(os.open("f", os.O_RDWR), fcntl.LOCK_EX)
        os.write(writer, b"x")
        time.sleep(20)
        os._exit(0)
    os.read(reader, 1)
    fd = os.open("f", os.O_RDWR)
    t.expect((fcntl.F_WRLCK, 0, 0, pid), held(fd))
    t.expect(-EAGAIN, c.attempt(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    t.expect(None, held(fd))
    t.expect(0, lock(fd, fcntl.F_WRLCK))
    t.expect(0, c.attempt(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB))
    for one in (fd, reader, writer):
        os.close(one)


@test
def waiting_for_locks_and_deadlocks(t):
    t.file("f", b"x" * 10)
    fd = os.open("f", os.O_RDWR)
    t.expect(0, lock(fd, fcntl.F_WRLCK, 0, 1))
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        own = os.open("f", os.O_RDWR)
        lock(own, fcntl.F_WRLCK, 1, 1)
        os.write(writer, b"x")
        # Waits for the parent's byte, while the parent will ask for this process's.
        os._exit(0 if lock(own, fcntl.F_WRLCK, 0, 1, fcntl.F_SETLKW) == 0 else 1)
    os.read(reader, 1)
    time.sleep(0.1)
    t.expect(-EDEADLK, lock(fd, fcntl.F_WRLCK, 1, 1, fcntl.F_SETLKW))
    t.expect(0, lock(fd, fcntl.F_UNLCK, 0, 1))
    t.expect(0, os.waitpid(pid, 0)[1])
    t.expect(0, lock(fd, fcntl.F_WRLCK, 1, 1, fcntl.F_SETLKW))
    # A signal ends the waiting.
    def interrupted():
        signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(InterruptedError(errno.EINTR, "")))
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        return lock(os.open("f", os.O_RDWR), fcntl.F_WRLCK, 1, 1, fcntl.F_SETLKW)
    t.expect(-errno.EINTR, t.child(interrupted))
    for one in (fd, reader, writer):
        os.close(one)


@test
def locks_of_open_file_descriptions(t):
    t.file("f", b"x" * 10)
    a, b = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)
    t.expect(0, lock(a, fcntl.F_WRLCK, 0, 5, F_OFD_SETLK))
    t.expect(-EAGAIN, lock(b, fcntl.F_WRLCK, 4, 1, F_OFD_SETLK))
    t.expect(0, lock(b, fcntl.F_WRLCK, 5, 5, F_OFD_SETLK))
    t.expect((fcntl.F_WRLCK, 0, 5, -1), held(b, fcntl.F_WRLCK, 0, 5, F_OFD_GETLK))
    t.expect(-EAGAIN, lock(b, fcntl.F_WRLCK, 0, 1), "classic locks conflict with them")
    os.close(os.open("f", os.O_RDWR))
    t.expect(-EAGAIN, lock(b, fcntl.F_WRLCK, 0, 1, F_OFD_SETLK), "another close leaves them")
    os.close(a)
    t.expect(0, lock(b, fcntl.F_WRLCK, 0, 1, F_OFD_SETLK))
    os.close(b)


@test
def file_handles(t):
    """name_to_handle_at(2), open_by_handle_at(2)."""
    t.file("f", b"text")
    t.dir("d")
    os.symlink("f", "s")
    mount = os.open(".", os.O_RDONLY)
    for name in ("f", "d", "s"):
        with t.case(name):
            handle = c.name_to_handle(name)
            if not t.expect(True, isinstance(handle, tuple)):
                continue
            flags = os.O_RDONLY if name != "s" else os.O_PATH | os.O_NOFOLLOW
            fd = t.opened(c.open_by_handle(mount, handle[1], flags))
            t.expect(os.lstat(name).st_ino, os.fstat(fd).st_ino)
            os.close(fd)
            t.expect(handle, c.name_to_handle(name))
    handle = c.name_to_handle("f")
    if isinstance(handle, tuple):
        fd = t.opened(c.open_by_handle(mount, handle[1], os.O_RDWR))
        t.expect(b"text", c.read(fd, 10))
        t.expect(0, c.rename("f", "d/g"))
        again = t.opened(c.open_by_handle(mount, handle[1]))
        t.expect(os.stat("d/g").st_ino, os.fstat(again).st_ino)
        os.close(again)
        t.expect(0, c.unlink("d/g"))
        os.close(fd)
        # With open=handle the kernel tells of the close behind the program's back, and the inode lives until that is answered.
        for _ in range(500 if "open=handle" in t.options.options else 0):
            if (fd := c.open_by_handle(mount, handle[1])) < 0:
                break
            os.close(fd)
            time.sleep(0.01)
        # ext4 says ENOMEM now and then, as far as the inode's number was taken again: that is for ext4 to know.
        stale = (-ESTALE, -ENOMEM) if t.is_oracle else (-ESTALE,)
        t.expect(lambda result: result in stale, c.open_by_handle(mount, handle[1]))
        for _ in range(20):
            t.file("n", b"new")
            t.expect(lambda result: result in stale, c.open_by_handle(mount, handle[1]), "a new file is not taken for the old one")
            os.unlink("n")
        with t.user(ALICE):
            t.expect(-EPERM, c.open_by_handle(mount, handle[1]))
    os.close(mount)


@test
def inode_flags(t):
    """ioctl_iflags(2): immutable and append-only files."""
    t.file("f", b"text")
    t.dir("d")
    t.file("d/in", b"x")
    fd = os.open("f", os.O_RDWR)
    d = os.open("d", os.O_RDONLY)
    if not t.expect(lambda r: r >= 0, c.get_flags(fd)):
        return
    for bit in (c.FS_NODUMP, c.FS_NOATIME):
        t.expect(0, c.add_flags(fd, bit))
        t.expect(bit, c.get_flags(fd) & bit)
        t.expect(0, c.drop_flags(fd, bit))
        t.expect(0, c.get_flags(fd) & bit)
    with t.user(BOB):
        t.expect(lambda r: r in (-EPERM, -EACCES), c.add_flags(fd, c.FS_NODUMP))
        t.expect(-EPERM, c.add_flags(fd, c.FS_IMMUTABLE))
    t.expect(0, c.add_flags(fd, c.FS_IMMUTABLE))
    with t.differs("treering", "the kernel's FUSE client does not pass on the attributes that a server answers STATX with"):
        t.expect(True, c.statx("f").attributes & 0x10 != 0)
    calls = {
        "unlink": lambda: c.unlink("f"), "rename": lambda: c.rename("f", "g"), "link": lambda: c.link("f", "g"), "chmod": lambda: c.chmod("f", 0o600),
        "chown": lambda: c.chown("f", 1, 1), "truncate": lambda: c.truncate("f", 0), "setxattr": lambda: c.setxattr("f", "user.a", b""),
        "utimensat": lambda: c.utimensat("f", (1, 1), (1, 1)), "now": lambda: c.utimensat("f", None, None), "over": lambda: c.rename("d/in", "f"),
        "fallocate": lambda: c.fallocate(fd, 0, 0, 100), "setfacl": lambda: c.setxattr("f", c.ACCESS, c.acl((1, 6), (4, 4), (32, 0))),
    }
    # With the writeback cache the kernel has stamped the file before it asks for the range; it may not bring in that time either, and
    # answers EIO at close.
    if "writeback_cache=on" in t.options.options:
        del calls["fallocate"]
    for name, do in calls.items():
        with t.case("immutable", name):
            t.expect(-EPERM, do())
    with t.differs("treering", "with open=none the kernel opens by itself; writing then fails instead"):
        t.expect(-EPERM, c.open_("f", os.O_WRONLY))
        t.expect(-EPERM, c.open_("f", os.O_RDONLY | os.O_TRUNC))
    # With the writeback cache the kernel takes the write, learns of EPERM too late, and answers EIO from then on.
    if "writeback_cache=on" not in t.options.options:
        t.expect(-EPERM, c.pwrite(fd, b"more", 4))
    t.expect(b"text", c.pread(fd, 4, 0))
    t.expect(0, c.drop_flags(fd, c.FS_IMMUTABLE))
    t.expect(0, c.chmod("f", 0o644))
    t.expect(0, c.truncate("f", 4))
    t.expect(0, c.add_flags(d, c.FS_IMMUTABLE))
    for name, do in {"create": lambda: c.mknod("d/n"), "mkdir": lambda: c.mkdir("d/n"), "unlink": lambda: c.unlink("d/in"),
                     "rename out": lambda: c.rename("d/in", "n"),
                     "rename in": lambda: c.rename("f", "d/f"), "link in": lambda: c.link("f", "d/f"), "rmdir": lambda: c.rmdir("d"),
                     "chmod": lambda: c.chmod("d", 0o700),
                     "symlink": lambda: c.symlink("x", "d/s")}.items():
        with t.case("immutable directory", name):
            t.expect(-EPERM, do())
    t.expect(0, c.chmod("d/in", 0o600))
    t.expect(0, c.truncate("d/in", 5))
    t.expect(0, c.drop_flags(d, c.FS_IMMUTABLE))
    # Append-only.
    t.expect(0, c.add_flags(fd, c.FS_APPEND))
    os.close(fd)
    appending = t.opened(c.open_("f", os.O_WRONLY | os.O_APPEND))
    t.expect(2, c.write(appending, b"!!"))
    punch = {} if "writeback_cache=on" in t.options.options else {"punch": lambda: c.fallocate(appending, 3, 0, 2)}
    for name, do in {"truncate": lambda: c.truncate("f", 0), "ftruncate": lambda: c.ftruncate(appending, 0),
                     "unlink": lambda: c.unlink("f"), "rename": lambda: c.rename("f", "g"),
                     "link": lambda: c.link("f", "g"), "chmod": lambda: c.chmod("f", 0o600), **punch}.items():
        with t.case("append-only", name):
            t.expect(-EPERM, do())
    with t.differs("treering", "with open=none the kernel opens by itself; writing then fails instead"):
        t.expect(-EPERM, c.open_("f", os.O_WRONLY))
        t.expect(-EPERM, c.open_("f", os.O_WRONLY | os.O_APPEND | os.O_TRUNC))
    t.expect(b"text!!", t.content("f"))
    reader = os.open("f", os.O_RDONLY)
    t.expect(0, c.drop_flags(reader, c.FS_APPEND))
    t.expect(0, c.add_flags(d, c.FS_APPEND))
    t.expect(0, c.mknod("d/n"))
    t.expect(-EPERM, c.unlink("d/n"))
    t.expect(-EPERM, c.rename("d/n", "d/m"))
    t.expect(0, c.drop_flags(d, c.FS_APPEND))
    t.expect(0, c.unlink("d/n"))
    os.close(d)


@test
def ioctls_that_are_not_there(t):
    t.file("f", b"text")
    fd = os.open("f", os.O_RDWR)
    t.expect(-ENOTTY, c.ioctl(fd, 0x5401))
    t.expect(-ENOTTY, c.ioctl(fd, 0xDEADBEEF, ctypes.create_string_buffer(16_384)))
    with t.differs("treering", "the kernel's FUSE client copies an ioctl's argument before it asks whether there is such an ioctl"):
        t.expect(-ENOTTY, c.ioctl(fd, 0xDEADBEEF))
    value = ctypes.c_int(0)
    t.expect(0, c.ioctl(fd, c.FIONREAD, ctypes.byref(value)))
    t.expect(4, value.value)
    t.expect(0, c.ioctl(fd, c.FIGETBSZ, ctypes.byref(value)))
    t.true(value.value >= 512)
    os.close(fd)


@test
def inotify(t):
    t.dir("d")
    fd = c.libc.inotify_init1(0o4000)
    t.expect(lambda r: r > 0, c.libc.inotify_add_watch(fd, b"d", 0xFFF))

    def events():
        data = c.read(fd, 65536)
        found, offset = [], 0
        while isinstance(data, bytes) and offset < len(data):
            _, mask, _, length = struct.unpack_from("iIII", data, offset)
            found.append((mask & 0xFFF, data[offset + 16:offset + 16 + length].rstrip(b"\0")))
            offset += 16 + length
        return found
    file = os.open("d/f", os.O_CREAT | os.O_WRONLY)
    t.expect([(0x100, b"f"), (0x20, b"f")], events())
    os.write(file, b"x")
    t.expect([(0x2, b"f")], events())
    os.close(file)
    t.expect([(0x8, b"f")], events())
    os.rename("d/f", "d/g")
    t.expect([(0x40, b"f"), (0x80, b"g")], events())
    os.chmod("d/g", 0o600)
    t.expect([(0x4, b"g")], events())
    os.unlink("d/g")
    t.expect((0x200, b"g"), events()[-1])
    os.mkdir("d/sub")
    t.expect((0x100, b"sub"), events()[0])
    os.close(fd)


@test
def capacity_of_a_name_space(t):
    """Many kinds of entries in one directory, listed with their types and removed again."""
    t.dir("d")
    for number in range(300):
        (os.mkdir if number % 3 == 0 else os.mknod if number % 3 == 1 else lambda p: os.symlink("x" * 30, p))(f"d/{number}")
    with os.scandir("d") as entries:
        kinds = {e.name: (e.is_dir(follow_symlinks=False), e.is_symlink()) for e in entries}
    for number in range(300):
        t.expect((number % 3 == 0, number % 3 == 2), kinds.get(str(number)))
    t.expect(102, t.links("d"))
    for number in range(300):
        t.expect(0, (c.rmdir if number % 3 == 0 else c.unlink)(f"d/{number}"))
    t.expect(2, t.links("d"))
    t.expect(0, c.rmdir("d"))
