"""Permissions, owners, groups and access control lists."""
import mmap
import os
import stat
import time

from results import acl, as_user, G, g, M, mode, O, ok, owner, show_acl, test, touch, U, u

# Found by way of results.
from calls import ACCESS, DEFAULT


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
    yield (
        "empty", ok(os.setxattr, "f", ACCESS, acl((U, 6, 0), (u, 6, 1000), (G, 7, 0), (M, 5, 0), (O, 4, 0))),
        ok(os.setxattr, "f", ACCESS, acl()), show_acl("f"), mode("f")
    )
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
    yield (
        "non-member loses sgid",
        as_user(1000, 1000, [], lambda: (os.setxattr("f", ACCESS, acl((U, 7, 0), (u, 7, 9), (G, 5, 0), (M, 7, 0), (O, 5, 0))), mode("f")))
    )
    os.chmod("f", 0o2755)
    yield (
        "member keeps sgid",
        as_user(1000, 1000, [1001], lambda: (os.setxattr("f", ACCESS, acl((U, 7, 0), (u, 7, 9), (G, 5, 0), (M, 7, 0), (O, 5, 0))), mode("f")))
    )
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
