# What a read-only mount answers: everything that would change it is refused with EROFS, the rest goes on. `prepare` makes the
# tree while it can still be written.
import os
from errno import EACCES, EEXIST, ENODATA, ENOENT, ENOTDIR, EROFS

import calls as c
from suite import ALICE, BOB


def prepare(directory):
    os.chdir(directory)
    os.umask(0)
    os.makedirs("ro/dir/sub")
    for name, mode in (("ro/file", 0o666), ("ro/dir/in", 0o644), ("ro/shut", 0o600)):
        with open(name, "wb") as stream:
            stream.write(b"text" * 1000)
        os.chmod(name, mode)
    os.chmod("ro", 0o777)
    os.symlink("file", "ro/symlink")
    os.mkfifo("ro/fifo", 0o666)
    os.mknod("ro/null", 0o20666, os.makedev(1, 3))
    os.setxattr("ro/file", "user.a", b"1")
    os.utime("ro/file", (5, 5))


def closed(result):
    if isinstance(result, int) and result > 2:
        os.close(result)
        return 0
    return result


def read_only_mount(t):
    os.chdir("ro")
    refused = {
        "open O_WRONLY": lambda: c.open_("file", os.O_WRONLY), "open O_RDWR": lambda: c.open_("file", os.O_RDWR),
        "open O_TRUNC": lambda: c.open_("file", os.O_RDONLY | os.O_TRUNC), "open O_APPEND": lambda: c.open_("file", os.O_WRONLY | os.O_APPEND),
        "open O_CREAT": lambda: c.open_("new", os.O_CREAT | os.O_WRONLY), "open O_CREAT|O_EXCL": lambda: c.open_("new", os.O_CREAT | os.O_EXCL),
        "O_TMPFILE": lambda: c.open_("dir", c.O_TMPFILE | os.O_RDWR), "mkdir": lambda: c.mkdir("new"), "rmdir": lambda: c.rmdir("dir/sub"),
        "unlink": lambda: c.unlink("file"), "mknod": lambda: c.mknod("new"), "mkfifo": lambda: c.mkfifo("new"),
        "symlink": lambda: c.symlink("x", "new"),
        "link": lambda: c.link("file", "new"), "rename": lambda: c.rename("file", "new"), "rename over": lambda: c.rename("file", "dir/in"),
        "rename a directory": lambda: c.rename("dir", "new"), "NOREPLACE": lambda: c.renameat2("file", "new", 1),
        "EXCHANGE": lambda: c.renameat2("file", "dir", 2),
        "chmod": lambda: c.chmod("file", 0o600), "chown": lambda: c.chown("file", 1, 1), "lchown": lambda: c.lchown("symlink", 1, 1),
        "truncate": lambda: c.truncate("file", 0), "utimensat": lambda: c.utimensat("file", (1, 1), (2, 2)),
        "utimensat now": lambda: c.utimensat("file", None, None),
        "utimensat of the link": lambda: c.utimensat("symlink", (1, 1), (2, 2), c.AT_SYMLINK_NOFOLLOW),
        "setxattr": lambda: c.setxattr("file", "user.b", b""),
        "removexattr": lambda: c.removexattr("file", "user.a"), "removexattr of none": lambda: c.removexattr("file", "user.none"),
        "setfacl": lambda: c.setxattr("file", c.ACCESS, c.acl((1, 6), (4, 4), (32, 0))), "access W_OK": lambda: c.access("file", 2),
        "access W_OK of a directory": lambda: c.access("dir", 2), "fchmod": lambda: c.fchmod(reader, 0o600), "fchown": lambda: c.fchown(reader, 1, 1),
        "futimens": lambda: c.utimensat(None, (1, 1), (2, 2), at=reader), "fsetxattr": lambda: c.setxattr(reader, "user.b", b""),
    }
    reader = t.opened(c.open_("file"))
    names = c.listdir("."), c.listdir("dir")
    for user in (None, ALICE):
        for name, do in refused.items():
            if user and name in ("chmod", "chown", "lchown", "fchmod", "fchown", "utimensat", "utimensat of the link", "futimens",
                                 "setfacl", "rename over", "EXCHANGE",
                                 "access W_OK of a directory", "rmdir", "O_TMPFILE", "rename a directory"):
                continue
            with t.case(name, user.uid if user else 0):
                if user:
                    with t.user(user):
                        t.expect(-EROFS, closed(do()))
                else:
                    t.expect(-EROFS, closed(do()))
    for name, wanted, do in (
            ("mkdir of what is there", -EEXIST, lambda: c.mkdir("dir")), ("open O_CREAT of what is there", 0, lambda: c.open_("file", os.O_CREAT)),
            ("open O_CREAT|O_EXCL of what is there", -EEXIST, lambda: c.open_("file", os.O_CREAT | os.O_EXCL)),
            ("open of nothing", -ENOENT, lambda: c.open_("absent")),
            ("write through a FIFO", 0, lambda: c.open_("fifo", os.O_RDWR)), ("write to a device", 0, lambda: c.open_("null", os.O_WRONLY)),
            ("read", 0, lambda: c.open_("file")), ("getxattr of none", -ENODATA, lambda: c.getxattr("file", "user.none")),
            ("stat", 0, lambda: len(c.stat("file")) * 0),
            ("access R_OK", 0, lambda: c.access("file", 4)), ("access W_OK of a FIFO", 0, lambda: c.access("fifo", 2)),
            ("readdir of a file", -ENOTDIR, lambda: c.listdir("file")),
            ("fsync", 0, lambda: c.fsync(reader)), ("flock", 0, lambda: c.attempt(__import__("fcntl").flock, reader, 2))):
        with t.case(name):
            t.expect(wanted, closed(do()))
    with t.user(BOB):
        t.expect(-EACCES, c.open_("shut"))
        t.expect(-EACCES, c.access("shut", 4, c.AT_EACCESS))
    t.expect(names, (c.listdir("."), c.listdir("dir")))
    t.expect(b"text", c.pread(reader, 4, 0))
    t.expect(b"1", c.getxattr("file", "user.a"))
    t.expect((5, 5), (os.stat("file").st_atime, os.stat("file").st_mtime))
    t.expect(1, c.statfs(".").f_flag & os.ST_RDONLY)
    os.close(reader)
    os.chdir("..")
