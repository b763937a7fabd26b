#!/usr/bin/python3
"""Metadata calls, one line of results for each: run in a directory of ext4 and in one of Treering, the lines must be the same.

    meta.py DIRECTORY        Everything is made below DIRECTORY. Root; users 1000 to 1002 need not exist.
"""
import ctypes, errno, fcntl, mmap, os, signal, socket, stat, struct, sys, time

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_FOLLOW = -100, 0x1000, 0x400
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
GETFLAGS, SETFLAGS, FSGETXATTR, FSSETXATTR = 0x80086601, 0x40086602, 0x801C581F, 0x401C5820
IMMUTABLE, APPEND, NODUMP, NOATIME = 0x10, 0x20, 0x40, 0x80
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
tests = []


def test(function):
    tests.append(function)
    return function


def name_of(number):
    return errno.errorcode.get(number, str(number))


def call(function, *arguments, **more):
    """The result, or the name of the error."""
    try:
        return function(*arguments, **more)
    except OSError as error:
        return name_of(error.errno)


def ok(function, *arguments, **more):
    """"ok" or the name of the error."""
    result = call(function, *arguments, **more)
    if isinstance(result, int) and function is os.open:
        os.close(result)
    return result if isinstance(result, str) and result.startswith("E") else "ok"


def raw(function, *arguments):
    return "ok" if function(*arguments) >= 0 else name_of(ctypes.get_errno())


def renameat2(old, new, flags):
    return raw(libc.renameat2, AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags)


def touch(path, content=b"", mode=0o644):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    os.write(descriptor, content)
    os.fsync(descriptor)
    os.close(descriptor)
    os.chmod(path, mode)


def mode(path):
    return oct(os.lstat(path).st_mode)


def owner(path):
    status = os.lstat(path)
    return f"{status.st_uid}:{status.st_gid}"


def as_user(uid, gid, groups, function, *arguments):
    """Runs a function in a process of that user and gives what it gave, as text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            os.umask(0o022)
            text = str(function(*arguments))
        except Exception as error:
            text = f"raised {error!r}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    text = b""
    while chunk := os.read(reading, 4096):
        text += chunk
    os.close(reading)
    os.waitpid(pid, 0)
    return text.decode()


def acl(*entries):
    """Entries as (tag, permissions, id)."""
    none = 0xFFFFFFFF
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, permissions, identity if tag in (2, 8) else none) for tag, permissions, identity in entries)


def show_acl(path, kind=ACCESS):
    value = call(os.getxattr, path, kind)
    if isinstance(value, str):
        return value
    entries = [struct.unpack_from("<HHI", value, offset) for offset in range(4, len(value), 8)]
    return " ".join(f"{t}:{p}:{i if t in (2, 8) else ''}" for t, p, i in entries)


def get_flags(path, mask=IMMUTABLE | APPEND | NODUMP | NOATIME):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return hex(struct.unpack("i", fcntl.ioctl(descriptor, GETFLAGS, b"\0" * 4)[:4])[0] & mask)
    finally:
        os.close(descriptor)


def set_flags(path, flags):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        old = struct.unpack("i", fcntl.ioctl(descriptor, GETFLAGS, b"\0" * 4)[:4])[0]
        keep = old & ~(IMMUTABLE | APPEND | NODUMP | NOATIME)
        fcntl.ioctl(descriptor, SETFLAGS, struct.pack("i", keep | flags) + b"\0" * 4)
        return "ok"
    except OSError as error:
        return name_of(error.errno)
    finally:
        os.close(descriptor)


# MARK: Permissions and ownership


@test
def privileges_end():
    """suid and sgid after writing, truncating, changing owners, by others and by root."""
    for bits in (0o6777, 0o4777, 0o2777, 0o2767, 0o6767):
        for what in ("write", "append", "truncate", "ftruncate", "open trunc", "write root", "chown", "chown nothing",
                     "chown root", "chgrp owner", "write member", "write odirect"):
            path = "privileged"
            touch(path, b"content")
            os.chown(path, 1000, 1001)
            os.chmod(path, bits)

            def act():
                if what.startswith("write") or what == "append":
                    flags = os.O_WRONLY | (os.O_APPEND if what == "append" else 0)
                    descriptor = os.open(path, flags | (os.O_DIRECT if what == "write odirect" else 0))
                    if what == "write odirect":
                        os.writev(descriptor, [mmap.mmap(-1, 4096)])
                    else:
                        os.write(descriptor, b"x")
                elif what == "truncate":
                    os.truncate(path, 3)
                elif what == "ftruncate":
                    os.ftruncate(os.open(path, os.O_WRONLY), 3)
                elif what == "open trunc":
                    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
                elif what == "chown nothing":
                    os.chown(path, -1, -1)
                elif what == "chown root":
                    os.chown(path, 1000, 1001)
                elif what == "chgrp owner":
                    os.chown(path, -1, 1000)
                return mode(path)

            if what in ("write root", "chown", "chown root", "chown nothing"):
                if what == "chown":
                    os.chown(path, 1002, -1)
                result = as_user(0, 0, [], act) if what != "chown" else mode(path)
            elif what == "write member":
                result = as_user(1002, 1002, [1001], act)
            elif what == "chgrp owner":
                result = as_user(1000, 1000, [], act)
            else:
                result = as_user(1002, 1002, [], act)
            yield f"{oct(bits)} {what}", result, mode(path)
            os.unlink(path)


@test
def chmod_and_groups():
    touch("f")
    os.chown("f", 1000, 1001)
    yield "member sets sgid", as_user(1000, 1000, [1001], lambda: (os.chmod("f", 0o2755), mode("f")))
    os.chmod("f", 0o755)
    yield "non-member sets sgid", as_user(1000, 1000, [], lambda: (os.chmod("f", 0o2755), mode("f")))
    yield "another user", as_user(1001, 1001, [], ok, os.chmod, "f", 0o700)
    yield "sticky on a file", as_user(1000, 1000, [], lambda: (os.chmod("f", 0o1755), mode("f")))
    yield "gives away", as_user(1000, 1000, [], ok, os.chown, "f", 1001, -1)
    yield "to a group of one's own", as_user(1000, 1000, [1002], lambda: (os.chown("f", -1, 1002), owner("f")))
    yield "to a foreign group", as_user(1000, 1000, [1002], ok, os.chown, "f", -1, 1)
    yield "supplementary group reads", (os.chmod("f", 0o640), as_user(1001, 1001, [5, 1002], ok, os.open, "f", os.O_RDONLY))
    yield "others do not", as_user(1001, 1001, [5], ok, os.open, "f", os.O_RDONLY)
    yield "more than 32 groups", as_user(1001, 1001, list(range(2000, 2040)) + [1002], ok, os.open, "f", os.O_RDONLY)


@test
def directories_with_bits():
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    touch("sticky/mine")
    os.chown("sticky/mine", 1000, 1000)
    yield "unlink another's", as_user(1001, 1001, [], ok, os.unlink, "sticky/mine")
    yield "rename another's", as_user(1001, 1001, [], ok, os.rename, "sticky/mine", "sticky/other")
    yield "unlink one's own", as_user(1000, 1000, [], ok, os.unlink, "sticky/mine")
    os.mkdir("group")
    os.chown("group", 0, 1005)
    os.chmod("group", 0o2777)

    def fill():
        os.close(os.open("group/f", os.O_CREAT | os.O_WRONLY, 0o666))
        os.close(os.open("group/s", os.O_CREAT | os.O_WRONLY, 0o2775))
        os.mkdir("group/d", 0o777)
        os.mknod("group/p", 0o600 | stat.S_IFIFO)
        os.symlink("x", "group/l")
        return [(n, mode("group/" + n), owner("group/" + n)) for n in sorted(os.listdir("group"))]

    yield "inherits the group", as_user(1000, 1000, [], fill)
    yield "read-only file made writable by O_CREAT", as_user(1000, 1000, [], ok, os.open, "group/ro", os.O_CREAT | os.O_RDWR, 0o400)
    for mask in (0, 0o022, 0o077, 0o777):
        before = os.umask(mask)
        os.close(os.open("masked", os.O_CREAT | os.O_WRONLY, 0o6777))
        os.mkdir("masked.d", 0o1777)
        os.mknod("masked.p", 0o666 | stat.S_IFIFO)
        os.umask(before)
        yield f"umask {oct(mask)}", mode("masked"), mode("masked.d"), mode("masked.p")
        os.unlink("masked"), os.rmdir("masked.d"), os.unlink("masked.p")


# MARK: Access control lists

U, u, G, g, M, O = 1, 2, 4, 8, 16, 32


@test
def access_lists():
    touch("f", mode=0o640)
    yield "none", show_acl("f")
    yield "set", ok(os.setxattr, "f", ACCESS, acl((U, 7, 0), (u, 6, 1000), (G, 4, 0), (M, 6, 0), (O, 0, 0))), show_acl("f"), mode("f")
    yield "the named user writes", as_user(1000, 1000, [], ok, os.open, "f", os.O_RDWR)
    yield "and does not execute", as_user(1000, 1000, [], os.access, "f", os.X_OK)
    yield "others do not", as_user(1001, 1001, [], ok, os.open, "f", os.O_RDONLY)
    os.chmod("f", 0o604)
    yield "chmod changes the mask", show_acl("f"), mode("f")
    yield "masked", as_user(1000, 1000, [], ok, os.open, "f", os.O_RDWR)
    os.chmod("f", 0o6771)
    yield "chmod again", show_acl("f"), mode("f")
    yield "listed", os.listxattr("f")
    yield "only what a mode says", ok(os.setxattr, "f", ACCESS, acl((U, 6, 0), (G, 4, 0), (O, 4, 0))), show_acl("f"), mode("f"), os.listxattr("f")
    yield "a mask alone", ok(os.setxattr, "f", ACCESS, acl((U, 6, 0), (G, 7, 0), (M, 5, 0), (O, 4, 0))), show_acl("f"), mode("f")
    yield "removed", ok(os.removexattr, "f", ACCESS), show_acl("f"), mode("f"), ok(os.removexattr, "f", ACCESS)
    yield "empty", ok(os.setxattr, "f", ACCESS, acl((U, 6, 0), (u, 6, 1000), (G, 7, 0), (M, 5, 0), (O, 4, 0))), ok(os.setxattr, "f", ACCESS, acl()), show_acl("f"), mode("f")
    for what, value in {
        "no owner": acl((G, 4, 0), (O, 4, 0)), "no mask": acl((U, 6, 0), (u, 4, 5), (G, 4, 0), (O, 4, 0)),
        "twice": acl((U, 6, 0), (U, 6, 0), (G, 4, 0), (O, 4, 0)), "out of order": acl((G, 4, 0), (U, 6, 0), (O, 4, 0)),
        "odd permissions": acl((U, 8, 0), (G, 4, 0), (O, 4, 0)), "odd tag": acl((U, 6, 0), (G, 4, 0), (O, 4, 0), (64, 1, 0)),
        "short": b"\2\0", "cut": acl((U, 6, 0), (G, 4, 0), (O, 4, 0))[:-1], "version": b"\3\0\0\0" + acl((U, 6, 0), (G, 4, 0), (O, 4, 0))[4:],
    }.items():
        yield "invalid: " + what, ok(os.setxattr, "f", ACCESS, value)
    yield "default on a file", ok(os.setxattr, "f", DEFAULT, acl((U, 6, 0), (G, 4, 0), (O, 4, 0)))
    yield "another's file", as_user(1001, 1001, [], ok, os.setxattr, "f", ACCESS, acl((U, 6, 0), (G, 4, 0), (O, 4, 0)))
    os.symlink("f", "l")
    yield "a symlink", ok(os.setxattr, "l", ACCESS, acl((U, 6, 0), (G, 4, 0), (O, 4, 0)), follow_symlinks=False)
    os.chown("f", 1000, 1001)
    os.chmod("f", 0o2755)
    yield "non-member loses sgid", as_user(1000, 1000, [], lambda: (os.setxattr("f", ACCESS, acl((U, 7, 0), (u, 7, 9), (G, 5, 0), (M, 7, 0), (O, 5, 0))), mode("f")))
    os.chmod("f", 0o2755)
    yield "member keeps sgid", as_user(1000, 1000, [1001], lambda: (os.setxattr("f", ACCESS, acl((U, 7, 0), (u, 7, 9), (G, 5, 0), (M, 7, 0), (O, 5, 0))), mode("f")))
    before = os.stat("f").st_ctime_ns
    time.sleep(0.02)
    os.setxattr("f", ACCESS, acl((U, 7, 0), (u, 7, 10), (G, 5, 0), (M, 7, 0), (O, 5, 0)))
    yield "ctime moves", os.stat("f").st_ctime_ns > before
    many = acl((U, 7, 0), *[(u, 7, 3000 + i) for i in range(100)], (G, 5, 0), (M, 7, 0), (O, 5, 0))
    yield "100 users", ok(os.setxattr, "f", ACCESS, many), len(os.getxattr("f", ACCESS))


@test
def default_lists():
    os.mkdir("d")
    os.chmod("d", 0o2777)
    os.chown("d", 0, 1005)
    wanted = acl((U, 7, 0), (u, 7, 1000), (G, 5, 0), (g, 6, 1001), (M, 7, 0), (O, 1, 0))
    yield "set", ok(os.setxattr, "d", DEFAULT, wanted), show_acl("d", DEFAULT), mode("d"), os.listxattr("d")
    for mask in (0, 0o022, 0o777):
        before = os.umask(mask)
        os.close(os.open("d/f", os.O_CREAT | os.O_WRONLY, 0o640))
        os.close(os.open("d/x", os.O_CREAT | os.O_WRONLY, 0o777))
        os.mkdir("d/d", 0o750)
        os.mknod("d/p", 0o666 | stat.S_IFIFO)
        os.mknod("d/c", 0o660 | stat.S_IFCHR, os.makedev(1, 3))
        os.symlink("f", "d/l")
        unnamed = os.open("d", os.O_TMPFILE | os.O_RDWR, 0o622)
        os.umask(before)
        for name in ("f", "x", "d", "p", "c", "l"):
            path = "d/" + name
            if name != "l":
                yield f"{oct(mask)} {name}", mode(path), owner(path), show_acl(path), show_acl(path, DEFAULT)
            else:
                yield f"{oct(mask)} {name}", mode(path), owner(path)
        yield f"{oct(mask)} unnamed", oct(os.fstat(unnamed).st_mode), show_acl(f"/proc/self/fd/{unnamed}")
        os.close(unnamed)
        for name in ("f", "x", "p", "c", "l"):
            os.unlink("d/" + name)
        os.rmdir("d/d")
    os.setxattr("d", DEFAULT, acl((U, 7, 0), (G, 5, 0), (O, 0, 0)))
    os.close(os.open("d/plain", os.O_CREAT | os.O_WRONLY, 0o666))
    os.mkdir("d/sub")
    yield "a minimal default", mode("d/plain"), show_acl("d/plain"), mode("d/sub"), show_acl("d/sub", DEFAULT)
    yield "removed", ok(os.removexattr, "d", DEFAULT), show_acl("d", DEFAULT)
    os.close(os.open("d/after", os.O_CREAT | os.O_WRONLY, 0o666))
    yield "after it", mode("d/after"), show_acl("d/after")


# MARK: Extended attributes


@test
def extended_attributes():
    touch("f")
    os.mkdir("d")
    os.symlink("f", "l")
    os.mkfifo("p")
    for path in ("f", "d", "l", "p"):
        for name in ("user.a", "trusted.a", "security.a", "system.a", "other.a", "a", "user.", "trusted.", "", "user." + "n" * 250, "user." + "n" * 251):
            yield f"set {path} {name[:20]} {len(name)}", ok(os.setxattr, path, name, b"value", follow_symlinks=False), call(os.getxattr, path, name, follow_symlinks=False), ok(os.removexattr, path, name, follow_symlinks=False)
    yield "create", ok(os.setxattr, "f", "user.c", b"1", os.XATTR_CREATE), ok(os.setxattr, "f", "user.c", b"2", os.XATTR_CREATE)
    yield "replace", ok(os.setxattr, "f", "user.c", b"3", os.XATTR_REPLACE), ok(os.setxattr, "f", "user.r", b"2", os.XATTR_REPLACE)
    yield "both", ok(os.setxattr, "f", "user.c", b"3", os.XATTR_REPLACE | os.XATTR_CREATE), ok(os.setxattr, "f", "user.new", b"3", os.XATTR_REPLACE | os.XATTR_CREATE)
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
    yield "trusted for others", as_user(1000, 1000, [], call, os.getxattr, "f", "trusted.t"), as_user(1000, 1000, [], ok, os.setxattr, "f", "trusted.u", b"")
    yield "security for others", as_user(1000, 1000, [], call, os.getxattr, "f", "security.s"), as_user(1000, 1000, [], ok, os.setxattr, "f", "security.u", b"")
    yield "user without permission", as_user(1000, 1000, [], ok, os.setxattr, "f", "user.u", b"")
    os.chmod("f", 0o600)
    yield "read without permission", as_user(1000, 1000, [], call, os.getxattr, "f", "user.c")
    os.mkdir("t")
    os.chmod("t", 0o1777)
    yield "user.* on another's sticky directory", as_user(1000, 1000, [], ok, os.setxattr, "t", "user.u", b"")
    descriptor = os.open("f", os.O_RDONLY)
    os.unlink("f")
    yield "unlinked", ok(os.setxattr, descriptor, "user.z", b"1"), call(os.getxattr, descriptor, "user.z"), ok(os.removexattr, descriptor, "user.z")


# MARK: Times


def times(path):
    status = os.lstat(path)
    return status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns


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
        ("rename directory", "a/sub", lambda: os.rename("a/sub", "b/sub")), ("chattr", "a/f", lambda: set_flags("a/f", NODUMP)),
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
    set_flags("n", NOATIME)
    before = times("n")[0]
    read("n")
    yield "noatime flag", times("n")[0] == before
    touch("o", b"content")
    before = times("o")[0]
    read("o", os.O_NOATIME)
    yield "O_NOATIME", times("o")[0] == before


def drop_caches():
    # Inodes that nobody uses are forgotten: what is done with them next begins with the file system.
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


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


# MARK: Names and links


@test
def renaming():
    touch("f", b"f"), touch("g", b"g")
    os.mkdir("d"), os.mkdir("e"), os.mkdir("full"), touch("full/x"), os.mkdir("d/sub")
    yield "file over directory", ok(os.rename, "f", "d")
    yield "directory over file", ok(os.rename, "d", "f")
    yield "over a full directory", ok(os.rename, "e", "full")
    yield "into itself", ok(os.rename, "d", "d/sub/x")
    yield "over its parent", ok(os.rename, "d/sub", "d")
    yield "absent", ok(os.rename, "none", "x")
    yield "over itself", ok(os.rename, "f", "f")
    os.link("f", "h")
    yield "over another link of itself", ok(os.rename, "f", "h"), os.path.exists("f"), os.stat("h").st_nlink
    yield "noreplace", renameat2("f", "g", NOREPLACE), renameat2("f", "new", NOREPLACE)
    os.rename("new", "f")
    yield "exchange file and directory", renameat2("g", "d", EXCHANGE), os.path.isdir("g/sub"), open("d").read()
    yield "exchange across", renameat2("d", "g/sub", EXCHANGE), os.stat("g").st_nlink, os.path.isdir("d")
    yield "exchange with absent", renameat2("d", "none", EXCHANGE)
    yield "exchange with what is below", renameat2("g", "g/sub", EXCHANGE)
    yield "both flags", renameat2("f", "g", EXCHANGE | NOREPLACE), renameat2("f", "g", EXCHANGE | WHITEOUT), renameat2("f", "g", 64)
    yield "dot", ok(os.rename, ".", "x"), ok(os.rename, "d/.", "x"), ok(os.rename, "f", "d/..")
    yield "slash on a file", ok(os.rename, "f", "x/"), ok(os.rename, "f/", "x")
    yield "long name", ok(os.rename, "f", "n" * 256), ok(os.rename, "f", "n" * 255), ok(os.rename, "n" * 255, "f")


@test
def whiteouts():
    os.mkdir("a"), os.mkdir("b"), touch("a/f", b"f"), touch("a/g"), os.mkdir("a/d"), touch("b/over")
    yield "in one directory", renameat2("a/f", "a/f2", WHITEOUT), mode("a/f"), os.lstat("a/f").st_rdev, os.lstat("a/f").st_nlink, sorted(os.listdir("a"))
    yield "over a file elsewhere", renameat2("a/f2", "b/over", WHITEOUT), mode("a/f2"), open("b/over").read()
    yield "of a directory", renameat2("a/d", "b/d", WHITEOUT), mode("a/d"), os.stat("a").st_nlink, os.stat("b").st_nlink
    yield "noreplace", renameat2("a/g", "b/over", WHITEOUT | NOREPLACE), renameat2("a/g", "b/g", WHITEOUT | NOREPLACE), mode("a/g")
    os.unlink("a/f")
    yield "removed", sorted(os.listdir("a")), owner("a/f2")
    os.chmod("a", 0o2777), os.chown("a", 0, 1005), touch("a/h")
    os.chown("a/h", 1000, 1000), os.chmod("b", 0o777)
    yield "of a user", as_user(1000, 1000, [], renameat2, "a/h", "b/h", WHITEOUT), owner("a/h"), mode("a/h")


@test
def linking():
    touch("f")
    os.mkdir("d")
    os.symlink("f", "s"), os.symlink("loop", "loop"), os.mkfifo("p")
    yield "directory", ok(os.link, "d", "x")
    yield "existing", ok(os.link, "f", "d")
    yield "symlink itself", ok(os.link, "s", "s2", follow_symlinks=False), os.path.islink("s2"), os.lstat("s").st_nlink
    yield "fifo", ok(os.link, "p", "p2"), os.stat("p").st_nlink
    yield "loop", ok(os.open, "loop", os.O_RDONLY), ok(os.open, "s", os.O_RDONLY | os.O_NOFOLLOW)
    for i in range(41):
        os.symlink(f"c{i}" if i else "f", f"c{i + 1}")
    yield "40 links", ok(os.open, "c40", os.O_RDONLY), ok(os.open, "c41", os.O_RDONLY)
    yield "long path", ok(os.stat, "./" * 2047 + "f"), ok(os.stat, "./" * 2048 + "f"), ok(os.symlink, "x" * 4095, "y"), ok(os.symlink, "x" * 4096, "z"), ok(os.symlink, "", "w")
    os.mkdir("n")
    for i in range(5):
        os.mkdir(f"n/{i}")
    yield "directory links", os.stat("n").st_nlink, (os.rmdir("n/0"), os.stat("n").st_nlink)[1]
    descriptor = os.open("f", os.O_RDONLY)
    os.unlink("f")
    yield "unlinked", raw(libc.linkat, descriptor, b"", AT_FDCWD, b"back", AT_EMPTY_PATH)
    path = os.open("p", os.O_PATH)
    yield "O_PATH", ok(os.read, path, 1), ok(os.fchmod, path, 0o600), stat.S_ISFIFO(os.fstat(path).st_mode), raw(libc.linkat, path, b"", AT_FDCWD, b"p3", AT_EMPTY_PATH), ok(os.open, f"/proc/self/fd/{path}", os.O_RDWR | os.O_NONBLOCK)
    os.mkdir("gone")
    inside = os.open("gone", os.O_RDONLY)
    os.rmdir("gone")
    yield "in a removed directory", ok(os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=inside), ok(os.mkdir, "x", dir_fd=inside), os.listdir(inside), os.fstat(inside).st_nlink, ok(os.stat, "..", dir_fd=inside)


@test
def unnamed_files():
    os.mkdir("d")
    descriptor = os.open("d", os.O_TMPFILE | os.O_RDWR, 0o666)
    os.write(descriptor, b"text")
    yield "made", oct(os.fstat(descriptor).st_mode), os.fstat(descriptor).st_nlink, os.listdir("d")
    yield "given a name", raw(libc.linkat, descriptor, b"", AT_FDCWD, b"d/name", AT_EMPTY_PATH), os.stat("d/name").st_nlink, open("d/name").read()
    os.unlink("d/name")
    yield "and back again", raw(libc.linkat, descriptor, b"", AT_FDCWD, b"d/name", AT_EMPTY_PATH)
    os.close(descriptor)
    descriptor = os.open("d", os.O_TMPFILE | os.O_RDWR, 0o600)
    yield "by /proc", raw(libc.linkat, AT_FDCWD, b"/proc/self/fd/%d" % descriptor, AT_FDCWD, b"d/proc", AT_SYMLINK_FOLLOW), os.fstat(descriptor).st_nlink
    os.close(descriptor)
    descriptor = os.open("d", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    yield "exclusive", raw(libc.linkat, AT_FDCWD, b"/proc/self/fd/%d" % descriptor, AT_FDCWD, b"d/excl", AT_SYMLINK_FOLLOW)
    os.close(descriptor)
    yield "read-only", ok(os.open, "d", os.O_TMPFILE | os.O_RDONLY)
    yield "on a file", (touch("f"), ok(os.open, "f", os.O_TMPFILE | os.O_RDWR))[1]
    os.chmod("d", 0o755)
    yield "without permission", as_user(1000, 1000, [], ok, os.open, "d", os.O_TMPFILE | os.O_RDWR)
    descriptor = os.open("d", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.setxattr(descriptor, "user.a", b"1"), os.fchmod(descriptor, 0o640), os.fchown(descriptor, 5, 6), os.ftruncate(descriptor, 99)
    status = os.fstat(descriptor)
    yield "everything works on it", oct(status.st_mode), status.st_uid, status.st_size, os.listxattr(descriptor)
    os.close(descriptor)


@test
def file_handles():
    class Handle(ctypes.Structure):
        _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]

    os.mkdir("d"), os.mkdir("d/e"), touch("d/e/f", b"content"), os.symlink("x", "d/l")
    mount = os.open(".", os.O_RDONLY)
    handles = {}
    for path in ("d", "d/e", "d/e/f", "d/l"):
        handle, number = Handle(bytes=128), ctypes.c_int()
        yield "name " + path, raw(libc.name_to_handle_at, AT_FDCWD, path.encode(), ctypes.byref(handle), ctypes.byref(number), 0)
        handles[path] = handle
    drop_caches()

    def open_handle(handle, flags):
        descriptor = libc.open_by_handle_at(mount, ctypes.byref(handle), flags)
        return descriptor if descriptor >= 0 else name_of(ctypes.get_errno())

    descriptor = open_handle(handles["d/e/f"], os.O_RDWR)
    yield "file", os.read(descriptor, 100) if isinstance(descriptor, int) else descriptor
    directory = open_handle(handles["d/e"], os.O_RDONLY)
    yield "directory", os.listdir(directory) if isinstance(directory, int) else directory
    parent = call(os.open, "..", os.O_RDONLY, dir_fd=directory)
    yield "its parent", sorted(os.listdir(parent)) if isinstance(parent, int) else parent
    link = open_handle(handles["d/l"], os.O_PATH)
    yield "symlink", stat.S_ISLNK(os.fstat(link).st_mode) if isinstance(link, int) else link
    os.unlink("d/e/f")
    yield "unlinked and open", isinstance(open_handle(handles["d/e/f"], os.O_RDONLY), int)
    for number in (descriptor, directory, parent, link):
        if isinstance(number, int):
            os.close(number)
    handles["d/l"].data[0] ^= 0x55
    os.unlink("d/l")
    yield "a handle of nothing", open_handle(handles["d/l"], os.O_PATH)
    yield "of a user", as_user(1000, 1000, [], open_handle, handles["d"], os.O_RDONLY)
    os.close(mount)


# MARK: Flags


@test
def inode_flags():
    touch("f", b"content"), os.mkdir("d"), touch("d/x"), os.mkdir("d/sub")
    yield "none", get_flags("f"), get_flags("d")
    yield "of a user", (os.chown("f", 1000, 1000), as_user(1000, 1000, [], set_flags, "f", IMMUTABLE), as_user(1000, 1000, [], set_flags, "f", NODUMP), get_flags("f"))[1:]
    yield "of another user", as_user(1001, 1001, [], set_flags, "f", NODUMP)
    for flag, text in ((IMMUTABLE, "immutable"), (APPEND, "append")):
        descriptor = os.open("f", os.O_RDWR)
        appending = os.open("f", os.O_WRONLY | os.O_APPEND)
        yield text, set_flags("f", flag), get_flags("f")
        operations = {
            "read": lambda: open("f").read(), "append": lambda: os.write(appending, b"+"),
            "truncate": lambda: os.truncate("f", 1), "extend": lambda: os.truncate("f", 1000),
            "chmod": lambda: os.chmod("f", 0o600), "chown": lambda: os.chown("f", 5, 5), "utime": lambda: os.utime("f", (1, 1)),
            "utime now": lambda: os.utime("f"), "link": lambda: os.link("f", "f2"), "unlink": lambda: os.unlink("f"),
            "rename": lambda: os.rename("f", "f3"), "rename over": lambda: os.rename("d/x", "f"),
            "setxattr": lambda: os.setxattr("f", "user.a", b"1"), "removexattr": lambda: os.removexattr("f", "user.a"),
            "setacl": lambda: os.setxattr("f", ACCESS, acl((U, 6, 0), (G, 4, 0), (O, 4, 0))),
            "getxattr": lambda: os.getxattr("f", "user.none"), "open trunc": lambda: os.open("f", os.O_WRONLY | os.O_TRUNC),
            "exchange": lambda: renameat2("f", "d/x", EXCHANGE), "stat": lambda: os.stat("f"),
        }
        for what, operation in operations.items():
            result = call(operation)
            yield f"{text} {what}", result if isinstance(result, str) and result.startswith("E") else "ok"
        if flag == IMMUTABLE:
            yield f"{text} write by an open descriptor", ok(os.pwrite, descriptor, b"x", 0)
        set_flags("f", 0)
        yield f"{text} gone", ok(os.pwrite, descriptor, b"x", 0), get_flags("f")
        os.close(descriptor), os.close(appending)
        touch("d/x") if not os.path.exists("d/x") else None
        yield f"{text} directory", set_flags("d", flag)
        operations = {
            "create": lambda: os.close(os.open("d/new", os.O_CREAT | os.O_WRONLY)), "mkdir": lambda: os.mkdir("d/newd"),
            "symlink": lambda: os.symlink("x", "d/news"), "link in": lambda: os.link("f", "d/newl"), "unlink": lambda: os.unlink("d/x"),
            "rmdir": lambda: os.rmdir("d/sub"), "rename out": lambda: os.rename("d/x", "out"),
            "rename in": lambda: (touch("in"), os.rename("in", "d/in")), "rename within": lambda: os.rename("d/x", "d/y"),
            "tmpfile": lambda: os.close(os.open("d", os.O_TMPFILE | os.O_RDWR)), "rmdir itself": lambda: os.rmdir("d"),
            "write inside": lambda: touch("d/x", b"1"), "chmod inside": lambda: os.chmod("d/x", 0o600), "list": lambda: os.listdir("d"),
            "rename itself": lambda: os.rename("d", "d2"), "chmod": lambda: os.chmod("d", 0o700), "existing": lambda: os.mkdir("d/sub"),
            "whiteout": lambda: renameat2("d/x", "w", WHITEOUT),
        }
        for what, operation in operations.items():
            result = call(operation)
            yield f"{text} directory: {what}", result if isinstance(result, str) and result.startswith("E") else "ok"
        set_flags("d", 0)
        for name in ("new", "news", "newl", "in"):
            if os.path.lexists("d/" + name):
                os.unlink("d/" + name)
        if os.path.exists("d/newd"):
            os.rmdir("d/newd")
    set_flags("d", NODUMP | NOATIME)
    touch("d/child"), os.mkdir("d/childd")
    yield "inherited", get_flags("d/child"), get_flags("d/childd")
    descriptor = os.open("f", os.O_RDONLY)
    value = bytearray(28)
    fcntl.ioctl(descriptor, FSGETXATTR, value, True)
    yield "fsxattr", struct.unpack("IIIII", value[:20])
    struct.pack_into("I", value, 0, 0x88)
    yield "set by fsxattr", ok(fcntl.ioctl, descriptor, FSSETXATTR, bytes(value)), get_flags("f")
    struct.pack_into("I", value, 0, 0)
    yield "cleared by fsxattr", ok(fcntl.ioctl, descriptor, FSSETXATTR, bytes(value)), get_flags("f")
    struct.pack_into("I", value, 12, 7)
    yield "a project", ok(fcntl.ioctl, descriptor, FSSETXATTR, bytes(value))
    yield "unknown ioctl", ok(fcntl.ioctl, descriptor, 0x40046677, b"\0\0\0\0")
    os.close(descriptor)


# MARK: Locks, leases, watching


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
    yield "flock", ok(fcntl.flock, one, fcntl.LOCK_EX | fcntl.LOCK_NB), ok(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB), ok(fcntl.flock, two, fcntl.LOCK_SH | fcntl.LOCK_NB)
    yield "downgraded", ok(fcntl.flock, one, fcntl.LOCK_SH | fcntl.LOCK_NB), ok(fcntl.flock, two, fcntl.LOCK_SH | fcntl.LOCK_NB)
    copy = os.dup(one)
    os.close(one)
    yield "kept by a copy", ok(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(copy)
    yield "released", ok(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield "not against fcntl", as_user(0, 0, [], record(SETLK, fcntl.F_WRLCK, 0, 0))
    yield "mine", ok(fcntl.fcntl, two, SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 2, 3, 0))
    for start, length in ((0, 2), (2, 1), (4, 1), (5, 0), (0, 0)):
        yield f"another's {start}+{length}", as_user(0, 0, [], record(SETLK, fcntl.F_RDLCK, start, length)), as_user(0, 0, [], record(OFD_SETLK, fcntl.F_WRLCK, start, length))
    other = os.open("f", os.O_RDWR)
    os.close(other)
    yield "gone with any descriptor's close", as_user(0, 0, [], record(SETLK, fcntl.F_WRLCK, 0, 0))
    three = os.open("f", os.O_RDWR)
    yield "OFD", ok(fcntl.fcntl, two, OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)), ok(fcntl.fcntl, three, OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 1, 0))
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
    yield "lease", ok(fcntl.fcntl, mandatory, fcntl.F_SETLEASE, fcntl.F_RDLCK), fcntl.fcntl(mandatory, fcntl.F_GETLEASE), ok(fcntl.fcntl, mandatory, fcntl.F_SETLEASE, fcntl.F_UNLCK)
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
    for kind, device in ((stat.S_IFCHR, os.makedev(1, 3)), (stat.S_IFBLK, os.makedev(4095, 1048575)), (stat.S_IFIFO, 0), (stat.S_IFSOCK, 0), (stat.S_IFREG, 0)):
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


def main():
    os.umask(0o022)
    chosen = sys.argv[2:]
    base = os.path.realpath(sys.argv[1])
    for function in tests:
        if chosen and function.__name__ not in chosen:
            continue
        directory = os.path.join(base, function.__name__)
        os.mkdir(directory)
        os.chmod(directory, 0o777)
        os.chdir(directory)
        try:
            for result in function():
                print(f"{function.__name__}: " + " | ".join(str(part) for part in (result if isinstance(result, tuple) else (result,))), flush=True)
        except Exception as error:
            line = error.__traceback__
            while line.tb_next:
                line = line.tb_next
            print(f"{function.__name__}: raised {error!r} in line {line.tb_lineno}", flush=True)
    return 0


sys.exit(main())
