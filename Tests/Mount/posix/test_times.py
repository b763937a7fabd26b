# utimensat(2) in all its forms, and which calls change which times (POSIX: file times update; relatime as mount(8) has it).
import os
import time
from errno import EACCES, EINVAL, EPERM

import calls as c
from suite import ALICE, BOB, test

NOW, OMIT = (0, c.UTIME_NOW), (0, c.UTIME_OMIT)
DAY = 86400


def times(path):
    s = os.lstat(path) if not isinstance(path, int) else os.fstat(path)
    return s.st_atime_ns, s.st_mtime_ns


def ns(pair): return pair[0] * 1_000_000_000 + pair[1]


@test
def every_time(t):
    """Seconds and nanoseconds as given: before 1970, after 2038 and 2106, to what ext4's 34 bits hold."""
    t.file("f")
    t.dir("d")
    os.symlink("f", "s")
    os.mkfifo("p")
    values = [(0, 0), (1, 1), (-1, 0), (-1, 999_999_999), (-315_619_200, 123_456_789), (-(2**31) + 1, 0), (2**31 - 1, 999_999_999), (2**31, 5),
              (2**32 - 1, 7), (2**32, 8), (2**33, 123), (981_173_106, 1), (1_700_000_000, 999_999_999), (2**33 + 2**32 + 2**31 - 2, 1)]
    for path in ("f", "d", "s", "p"):
        for value in values:
            with t.case(path, value):
                t.expect(0, c.utimensat(path, value, (value[0], 42), c.AT_SYMLINK_NOFOLLOW))
                t.expect((ns(value), ns((value[0], 42))), times(path))
    with t.differs("treering", "times are kept in 64 bits and not cut to what ext4 can hold"):
        t.expect(0, c.utimensat("f", (2**40, 5), (2**40, 6)))
        t.expect((ns((15032385535, 0)), ns((15032385535, 0))), times("f"))
        t.expect(0, c.utimensat("f", (-(2**40), 5), (-(2**40), 6)))
        t.expect((ns((-(2**31), 0)), ns((-(2**31), 0))), times("f"))


@test
def now_and_omit(t):
    t.file("f")
    for path in ("f", ):
        c.utimensat(path, (5, 6), (7, 8))
        before = time.time_ns() - 20_000_000
        t.expect(0, c.utimensat(path, NOW, OMIT))
        t.true(before <= times(path)[0] <= time.time_ns() + 20_000_000, "atime is now")
        t.expect(ns((7, 8)), times(path)[1])
        t.expect(0, c.utimensat(path, (1, 2), NOW))
        t.expect(ns((1, 2)), times(path)[0])
        t.true(before <= times(path)[1] <= time.time_ns() + 20_000_000, "mtime is now")
        t.expect(0, c.utimensat(path, OMIT, (3, 4)))
        t.expect((ns((1, 2)), ns((3, 4))), times(path))
        t.expect([""], t.changed([path], lambda: c.utimensat(path, OMIT, OMIT)))
        t.expect(0, t.result)
        t.expect(["c"], t.changed([path], lambda: c.utimensat(path, (1, 2), (3, 4))))
        t.expect(["amc"], t.changed([path], lambda: c.utimensat(path, None, None)))
        t.expect(["amc"], t.changed([path], lambda: c.utimensat(path, NOW, NOW)))
        a, m = times(path)
        with t.differs_with_writeback("mtime is the kernel's, atime the server's"):
            t.expect(a, m, "both at one time")
        t.expect(["mc"], t.changed([path], lambda: c.utimensat(path, OMIT, NOW)))
        t.expect(["ac"], t.changed([path], lambda: c.utimensat(path, (9, 9), OMIT)))
    for bad in (-1, 1_000_000_000, 2**30 - 3, 2**31):
        with t.case(bad):
            t.expect(-EINVAL, c.utimensat("f", (1, bad), (1, 0)))
            t.expect(-EINVAL, c.utimensat("f", (1, 0), (1, bad)))
            t.expect(-EINVAL, c.utimensat("f", OMIT, (1, bad)))
    t.expect(-EINVAL, c.utimensat("f", None, None, 0x8000))
    fd = t.opened(c.open_("f"))
    t.expect(0, c.utimensat(None, (11, 12), (13, 14), at=fd))
    t.expect((ns((11, 12)), ns((13, 14))), times("f"))
    os.close(fd)


@test
def who_may_set_times(t):
    for mode, user, explicit, now in ((0o666, BOB, -EPERM, 0), (0o644, BOB, -EPERM, -EACCES), (0o000, ALICE, 0, 0), (0o444, ALICE, 0, 0)):
        t.file("f", b"", mode, ALICE)
        with t.case(oct(mode), user.uid):
            with t.user(user):
                t.expect(explicit, c.utimensat("f", (1, 0), (2, 0)))
                t.expect(explicit, c.utimensat("f", (1, 0), OMIT))
                t.expect(explicit, c.utimensat("f", NOW, (2, 0)))
                t.expect(explicit, c.utimensat("f", NOW, OMIT))
                t.expect(now, c.utimensat("f", NOW, NOW))
                t.expect(now, c.utimensat("f", None, None))
        os.unlink("f")


@test
def what_changes_a_files_times(t):
    t.file("f", b"text" * 100)
    t.dir("d")
    t.file("from", b"data" * 5000)
    fd = os.open("f", os.O_RDWR)
    source = os.open("from", os.O_RDONLY)
    cases = [
        ("write", "mc", lambda: c.pwrite(fd, b"x", 0)), ("write of nothing", "", lambda: c.write(fd, b"")),
        ("writing at the end", "mc", lambda: c.pwrite(fd, b"x", 400)), ("chmod", "c", lambda: c.chmod("f", 0o600)),
        ("chmod to the same", "c", lambda: c.chmod("f", 0o600)), ("chown", "c", lambda: c.chown("f", 1, 1)),
        ("chown to the same", "c", lambda: c.chown("f", 1, 1)), ("chown -1 -1", "c", lambda: c.chown("f", -1, -1)),
        ("link", "c", lambda: c.link("f", "g")), ("unlink of the other name", "c", lambda: c.unlink("g")),
        ("rename", "c", lambda: c.rename("f", "f2")), ("rename back", "c", lambda: c.rename("f2", "f")),
        ("truncate", "mc", lambda: c.truncate("f", 100)), ("truncate to the same", "mc", lambda: c.truncate("f", 100)),
        ("truncate up", "mc", lambda: c.truncate("f", 300)), ("ftruncate to the same", "mc", lambda: c.ftruncate(fd, 300)),
        ("setxattr", "c", lambda: c.setxattr("f", "user.a", b"1")), ("setxattr again", "c", lambda: c.setxattr("f", "user.a", b"2")),
        ("removexattr", "c", lambda: c.removexattr("f", "user.a")), ("getxattr", "", lambda: c.getxattr("f", "user.a")),
        ("stat", "", lambda: c.stat("f")), ("access", "", lambda: c.access("f", 4)),
        ("open and close", "", lambda: os.close(os.open("f", os.O_RDWR))),
        ("fsync", "", lambda: c.fsync(fd)), ("lseek", "", lambda: c.lseek(fd, 10)),
        ("O_TRUNC", "mc", lambda: os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))),
        ("fallocate", "mc", lambda: c.fallocate(fd, 0, 0, 4096)), ("fallocate within", "c|mc|", lambda: c.fallocate(fd, 0, 0, 4096)),
        ("punch", "mc", lambda: c.fallocate(fd, 3, 0, 4096)), ("zero", "mc", lambda: c.fallocate(fd, 16, 0, 4096)),
        ("copy into", "mc", lambda: c.copy_file_range(source, 0, fd, 0, 4096)), ("flock", "", lambda: c.attempt(__import__("fcntl").flock, fd, 2)),
        ("setfacl", "c", lambda: c.setxattr("f", c.ACCESS, c.acl((1, 6), (2, 4, 5), (4, 4), (16, 4), (32, 0)))),
        ("FS_IOC_SETFLAGS", "c", lambda: c.add_flags(fd, c.FS_NODUMP)),
    ]
    for name, wanted, do in cases:
        with t.case(name):
            changes = t.changed(["f" if t.exists("f") else "f2"] if name.startswith("rename") is False else [fd], do)[0]
            kernels = name in ("truncate to the same", "ftruncate to the same", "FS_IOC_SETFLAGS")
            with t.differs_with_writeback("the kernel shows its own mtime and ctime") if kernels else t.case():
                t.expect(lambda r: r in wanted.split("|"), changes, f"wanted {wanted!r}")
            t.expect(lambda r: not isinstance(r, int) or r >= 0 or name == "getxattr", t.result)
    os.close(fd)


@test
def what_changes_a_directorys_times(t):
    t.dir("d")
    t.file("d/f", b"x")
    t.dir("d/sub")
    cases = [("writing a file in it", "", lambda: c.pwrite(os.open("d/f", os.O_WRONLY), b"y", 0)),
             ("chmod of an entry", "", lambda: c.chmod("d/f", 0o600)),
             ("truncating an entry", "", lambda: c.truncate("d/f", 0)),
             ("opening an entry with O_CREAT", "", lambda: os.close(c.open_("d/f", os.O_CREAT))),
             ("a new file in a subdirectory", "", lambda: c.mknod("d/sub/x")), ("xattr of an entry", "", lambda: c.setxattr("d/f", "user.a", b"")),
             ("an xattr of its own", "c", lambda: c.setxattr("d", "user.a", b"")), ("chmod", "c", lambda: c.chmod("d", 0o700)),
             ("rename of itself", "c", lambda: c.rename("d", "e")), ("back", "c", lambda: c.rename("e", "d")),
             ("rename within", "mc", lambda: c.rename("d/f", "d/g")), ("link within", "mc", lambda: c.link("d/g", "d/h")),
             ("rename onto the same file", "", lambda: c.rename("d/g", "d/h")), ("stat", "", lambda: c.stat("d/sub"))]
    fd = os.open("d", os.O_RDONLY)
    for name, wanted, do in cases:
        with t.case(name):
            t.expect([wanted], t.changed([fd], do))
            t.expect(lambda r: not isinstance(r, int) or r >= 0, t.result)
    os.close(fd)


@test
def relatime(t):
    """mount(8): atime is renewed by a read if it is not later than mtime or ctime, or is older than a day."""
    import mmap
    buffer = mmap.mmap(-1, 4096)

    def read_file(path):
        # Not from the page cache: the kernel does not tell a FUSE server of such reads.
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        os.preadv(fd, [buffer], 0)
        os.close(fd)

    def make(kind, path):
        """Something new, for the kernel may answer the second reading of a directory or symlink itself."""
        if kind == "file":
            os.close(os.open(t.file(path, b"text"), os.O_RDWR))
        elif kind == "directory":
            t.dir(path)
            t.file(path + "/x")
        else:
            os.symlink("f", path)
    readers = {"file": read_file, "directory": os.listdir, "symlink": os.readlink}
    now = int(time.time())
    for kind, read in readers.items():
        # ctime is now, so that an atime of the past is renewed.
        for name, atime, mtime, moves in (("older than ctime", now - 100, now - 200, True), ("later than both", now + 1000, now + 500, False),
                                          ("older than mtime", now + 400, now + 500, True), ("older than a day", now - 100_000, now - 200_000, True)):
            path = f"{kind} {name}"
            make(kind, path)
            c.utimensat(path, (atime, 0), (mtime, 0), c.AT_SYMLINK_NOFOLLOW)
            with t.case(path):
                t.expect(["a" if moves else ""], t.changed([path], lambda: read(path)))
                if moves:
                    t.true(abs(os.lstat(path).st_atime - time.time()) < 5, "it is now")
                    t.tick()
                    if name != "older than mtime":
                        t.expect([""], t.changed([path], lambda: read(path)), "once")
    t.file("f", b"text")
    fd = os.open("f", os.O_RDONLY | os.O_NOATIME)
    c.utimensat("f", (5, 0), (6, 0))
    t.expect([""], t.changed(["f"], lambda: os.pread(fd, 4, 0)), "O_NOATIME")
    os.close(fd)


@test
def reads_from_the_cache(t):
    t.file("f", b"text" * 2000)
    os.close(read_all("f"))
    c.utimensat("f", (5, 0), (6, 0))
    with t.differs("treering", "the kernel does not tell a FUSE server of reads from its page cache"):
        t.expect(["a"], t.changed(["f"], lambda: os.close(read_all("f"))))


def read_all(path):
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 100)
    return fd


@test
def times_survive_other_changes(t):
    t.file("f", b"text")
    c.utimensat("f", (5, 6), (7, 8))
    for do in (lambda: c.chmod("f", 0o600), lambda: c.chown("f", 3, 4), lambda: c.rename("f", "g") or c.rename("g", "f"),
               lambda: c.link("f", "g"), lambda: c.unlink("g"), lambda: c.setxattr("f", "user.x", b"1"),
               lambda: c.fsync(os.open("f", os.O_RDONLY))):
        t.expect(0, do())
        t.expect((ns((5, 6)), ns((7, 8))), times("f"))
    t.file("n", b"data")
    t.expect(0, c.rename("n", "f"))
    t.true(times("f")[1] > ns((1000, 0)))


@test
def written_times_settle(t):
    """What utimensat sets after a write stays, also when the data goes to the store later."""
    for size in (1, 5000, 200_000):
        with t.case(size):
            fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.write(fd, b"x" * size)
            t.expect(0, c.utimensat("f", (21, 22), (23, 24)))
            t.expect(0, c.fsync(fd))
            t.expect((ns((21, 22)), ns((23, 24))), times("f"))
            os.close(fd)
            t.expect((ns((21, 22)), ns((23, 24))), times("f"))
            t.tick()
            os.close(os.open("f", os.O_RDWR))
            t.expect((ns((21, 22)), ns((23, 24))), times("f"))


@test
def mtime_never_runs_backwards(t):
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    last = 0
    for turn in range(30):
        os.pwrite(fd, b"x", turn)
        seen = os.fstat(fd)
        t.true(seen.st_mtime_ns >= last, "not before the last")
        t.true(seen.st_ctime_ns >= seen.st_mtime_ns - 1 and abs(seen.st_mtime_ns - time.time_ns()) < 2_000_000_000, "and near the clock")
        last = seen.st_mtime_ns
    os.close(fd)
