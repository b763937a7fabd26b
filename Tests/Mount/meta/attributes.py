"""Extended attributes and times."""
import ctypes
import mmap
import os
import struct
import time

from results import as_user, call, drop_caches, ok, raw, set_flags, test, times, touch

# Found by way of results.
from calls import AT_FDCWD, FS_NOATIME, FS_NODUMP, libc


@test
def extended_attributes():
    touch("f")
    os.mkdir("d")
    os.symlink("f", "l")
    os.mkfifo("p")
    for path in ("f", "d", "l", "p"):
        for name in (
            "user.a", "trusted.a", "security.a", "system.a", "other.a", "a", "user.", "trusted.", "", "user." + "n" * 250,
            "user." + "n" * 251
        ):
            yield (
                f"set {path} {name[:20]} {len(name)}", ok(os.setxattr, path, name, b"value", follow_symlinks=False),
                call(os.getxattr, path, name, follow_symlinks=False), ok(os.removexattr, path, name, follow_symlinks=False)
            )
    yield "create", ok(os.setxattr, "f", "user.c", b"1", os.XATTR_CREATE), ok(os.setxattr, "f", "user.c", b"2", os.XATTR_CREATE)
    yield "replace", ok(os.setxattr, "f", "user.c", b"3", os.XATTR_REPLACE), ok(os.setxattr, "f", "user.r", b"2", os.XATTR_REPLACE)
    yield (
        "both", ok(os.setxattr, "f", "user.c", b"3", os.XATTR_REPLACE | os.XATTR_CREATE),
        ok(os.setxattr, "f", "user.new", b"3", os.XATTR_REPLACE | os.XATTR_CREATE)
    )
    yield "empty value", ok(os.setxattr, "f", "user.e", b""), call(os.getxattr, "f", "user.e")
    yield "absent", call(os.getxattr, "f", "user.absent"), ok(os.removexattr, "f", "user.absent")
    buffer = ctypes.create_string_buffer(2)
    os.setxattr("f", "user.long", b"four")
    yield "short buffer", raw(libc.getxattr, b"f", b"user.long", buffer, 2), raw(libc.listxattr, b"f", buffer, 2)
    yield "length", libc.getxattr(b"f", b"user.long", None, 0)
    yield "too big", raw(libc.setxattr, b"f", b"user.big", ctypes.create_string_buffer(65537), 65537, 0)
    os.setxattr("f", "trusted.t", b"x")
    os.setxattr("f", "security.s", b"x")
    yield "names for root", sorted(os.listxattr("f"))
    yield "names for others", as_user(1000, 1000, [], lambda: sorted(os.listxattr("f")))
    yield (
        "trusted for others", as_user(1000, 1000, [], call, os.getxattr, "f", "trusted.t"),
        as_user(1000, 1000, [], ok, os.setxattr, "f", "trusted.u", b"")
    )
    yield (
        "security for others", as_user(1000, 1000, [], call, os.getxattr, "f", "security.s"),
        as_user(1000, 1000, [], ok, os.setxattr, "f", "security.u", b"")
    )
    yield "user without permission", as_user(1000, 1000, [], ok, os.setxattr, "f", "user.u", b"")
    os.chmod("f", 0o600)
    yield "read without permission", as_user(1000, 1000, [], call, os.getxattr, "f", "user.c")
    os.mkdir("t")
    os.chmod("t", 0o1777)
    yield "user.* on another's sticky directory", as_user(1000, 1000, [], ok, os.setxattr, "t", "user.u", b"")
    descriptor = os.open("f", os.O_RDONLY)
    os.unlink("f")
    yield "unlinked", ok(os.setxattr, descriptor, "user.z", b"1"), call(os.getxattr, descriptor, "user.z"), ok(os.removexattr, descriptor, "user.z")


@test
def changing_times():
    """Which of atime, mtime and ctime move: of the file, of its directory, of another directory."""
    os.mkdir("a"), os.mkdir("b"), os.mkdir("a/sub")
    touch("a/f", b"content"), touch("a/g"), os.symlink("f", "a/l")
    descriptor = os.open("a/f", os.O_RDWR)
    steps = [
        ("chmod", "a/f", lambda: os.chmod("a/f", 0o600)), ("chown", "a/f", lambda: os.chown("a/f", 1, 1)),
        ("write", "a/f", lambda: os.pwrite(descriptor, b"x", 0)), ("write nothing", "a/f", lambda: os.pwrite(descriptor, b"", 0)),
        ("truncate", "a/f", lambda: os.truncate("a/f", 2)), ("truncate to the same", "a/f", lambda: os.truncate("a/f", 2)),
        ("ftruncate to the same", "a/f", lambda: os.ftruncate(descriptor, 2)), ("extend", "a/f", lambda: os.truncate("a/f", 10)),
        ("link", "a/f", lambda: os.link("a/f", "b/h")), ("setxattr", "a/f", lambda: os.setxattr("a/f", "user.a", b"1")),
        ("removexattr", "a/f", lambda: os.removexattr("a/f", "user.a")), ("unlink one", "a/f", lambda: os.unlink("b/h")),
        ("rename", "a/f", lambda: os.rename("a/f", "a/f2")), ("rename back", "a/f2", lambda: os.rename("a/f2", "a/f")),
        ("rename across", "a/g", lambda: os.rename("a/g", "b/g")), ("create", "a/f", lambda: touch("a/new")),
        ("open trunc", "a/f", lambda: os.close(os.open("a/f", os.O_WRONLY | os.O_TRUNC))),
        ("open trunc empty", "a/f", lambda: os.close(os.open("a/f", os.O_WRONLY | os.O_TRUNC))),
        ("mkdir", "a/f", lambda: os.mkdir("a/d")), ("rmdir", "a/f", lambda: os.rmdir("a/d")),
        ("symlink", "a/f", lambda: os.symlink("x", "a/s")), ("mknod", "a/f", lambda: os.mkfifo("a/p")),
        ("stat", "a/f", lambda: os.stat("a/f")), ("utime now", "a/f", lambda: os.utime("a/f")),
        ("utime", "a/f", lambda: os.utime("a/f", ns=(5, 6))), ("failing unlink", "a/f", lambda: ok(os.unlink, "a/none")),
        ("rename directory", "a/sub", lambda: os.rename("a/sub", "b/sub")), ("chattr", "a/f", lambda: set_flags("a/f", FS_NODUMP)),
        ("same chmod", "a/f", lambda: os.chmod("a/f", 0o600)), ("rename to itself", "a/f", lambda: os.rename("a/f", "a/f")),
    ]
    for what, path, action in steps:
        before = {p: times(p) for p in (path, "a", "b")}
        time.sleep(0.011)
        action()
        moved = []
        for p in (path, "a", "b"):
            if os.path.lexists(p):
                moved.append("".join(letter for letter, old, new in zip("amc", before[p], times(p)) if old != new))
        yield what, moved
    os.close(descriptor)


@test
def setting_times():
    touch("f")
    extremes = (-1, 0, 1, -2147483647, 2147483647, 2147483648, 4294967295, 4294967296, 12670115039)
    for seconds in extremes:
        os.utime("f", ns=(seconds * 10**9 + 123456789, seconds * 10**9 + 987654321))
        status = os.stat("f")
        yield f"{seconds}", status.st_atime_ns, status.st_mtime_ns
    now, omit = (1 << 30) - 1, (1 << 30) - 2

    def utimensat(a, m, flags=0):
        spec = struct.pack("qqqq", 0, a, 0, m)
        return raw(libc.utimensat, AT_FDCWD, b"f", spec, flags)

    os.utime("f", ns=(1, 2))
    yield "omit both", utimensat(omit, omit), times("f")[:2]
    yield "omit atime", utimensat(omit, 7), times("f")[:2]
    yield "omit mtime", utimensat(8, omit), times("f")[:2]
    before = time.time() - 1
    yield "now", utimensat(now, now), os.stat("f").st_mtime > before and os.stat("f").st_atime > before
    yield "bad", utimensat(10**9, 0), utimensat(-1, 0)
    os.chmod("f", 0o666)
    yield "others to now", as_user(1000, 1000, [], ok, os.utime, "f")
    yield "others to a time", as_user(1000, 1000, [], lambda: ok(os.utime, "f", ns=(1, 2)))
    os.chmod("f", 0o644)
    yield "others to now without permission", as_user(1000, 1000, [], ok, os.utime, "f")
    os.symlink("f", "l")
    os.utime("l", ns=(3, 4), follow_symlinks=False)
    yield "of a symlink", os.lstat("l").st_mtime_ns, os.stat("f").st_mtime_ns == 4


@test
def access_times():
    """Reading what was not read since it changed moves the time of the last access; not twice (relatime)."""
    touch("f", b"content" * 1000)
    os.symlink("f", "l")
    os.mkdir("d")
    touch("d/x")

    def read(path, flags=0):
        # Past the kernel's cache, whose reads nobody is told of.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT | flags)
        os.readv(descriptor, [mmap.mmap(-1, 4096)])
        os.close(descriptor)

    for path, action in (("f", lambda: read("f")), ("l", lambda: os.readlink("l")), ("d", lambda: os.listdir("d"))):
        before = times(path)[0]
        time.sleep(0.02)
        action()
        first = times(path)[0]
        time.sleep(0.02)
        drop_caches()
        action()
        yield path, first > before, times(path)[0] == first
    touch("n", b"content")
    set_flags("n", FS_NOATIME)
    before = times("n")[0]
    read("n")
    yield "noatime flag", times("n")[0] == before
    touch("o", b"content")
    before = times("o")[0]
    read("o", os.O_NOATIME)
    yield "O_NOATIME", times("o")[0] == before


@test
def time_of_birth():
    buffer = ctypes.create_string_buffer(256)
    before = time.time()
    touch("f")
    os.utime("f", (1, 1))
    result = raw(libc.statx, AT_FDCWD, b"f", 0, 0xFFF, buffer)
    mask, = struct.unpack_from("<I", buffer, 0)
    born, = struct.unpack_from("<q", buffer, 80)
    size_mode = struct.unpack_from("<H", buffer, 28)[0]
    yield result, bool(mask & 0x800), before - 2 < born < before + 5, oct(size_mode)
