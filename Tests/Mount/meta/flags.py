"""Inode flags."""
import fcntl
import os
import struct

from results import acl, as_user, call, G, get_flags, O, ok, renameat2, set_flags, test, touch, U

# Found by way of results.
from calls import (
    ACCESS, FS_APPEND, FS_IMMUTABLE, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FS_NOATIME, FS_NODUMP, RENAME_EXCHANGE, RENAME_WHITEOUT,
)


@test
def inode_flags():
    touch("f", b"content"), os.mkdir("d"), touch("d/x"), os.mkdir("d/sub")
    yield "none", get_flags("f"), get_flags("d")
    os.chown("f", 1000, 1000)
    by_owner = [as_user(1000, 1000, [], set_flags, "f", flag) for flag in (FS_IMMUTABLE, FS_NODUMP)]
    yield "of a user", (*by_owner, get_flags("f"))
    yield "of another user", as_user(1001, 1001, [], set_flags, "f", FS_NODUMP)
    for flag, text in ((FS_IMMUTABLE, "immutable"), (FS_APPEND, "append")):
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
            "exchange": lambda: renameat2("f", "d/x", RENAME_EXCHANGE), "stat": lambda: os.stat("f"),
        }
        for what, operation in operations.items():
            result = call(operation)
            yield f"{text} {what}", result if isinstance(result, str) and result.startswith("E") else "ok"
        if flag == FS_IMMUTABLE:
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
            "whiteout": lambda: renameat2("d/x", "w", RENAME_WHITEOUT),
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
    set_flags("d", FS_NODUMP | FS_NOATIME)
    touch("d/child"), os.mkdir("d/childd")
    yield "inherited", get_flags("d/child"), get_flags("d/childd")
    descriptor = os.open("f", os.O_RDONLY)
    value = bytearray(28)
    fcntl.ioctl(descriptor, FS_IOC_FSGETXATTR, value, True)
    yield "fsxattr", struct.unpack("IIIII", value[:20])
    struct.pack_into("I", value, 0, 0x88)
    yield "set by fsxattr", ok(fcntl.ioctl, descriptor, FS_IOC_FSSETXATTR, bytes(value)), get_flags("f")
    struct.pack_into("I", value, 0, 0)
    yield "cleared by fsxattr", ok(fcntl.ioctl, descriptor, FS_IOC_FSSETXATTR, bytes(value)), get_flags("f")
    struct.pack_into("I", value, 12, 7)
    yield "a project", ok(fcntl.ioctl, descriptor, FS_IOC_FSSETXATTR, bytes(value))
    yield "unknown ioctl", ok(fcntl.ioctl, descriptor, 0x40046677, b"\0\0\0\0")
    os.close(descriptor)
