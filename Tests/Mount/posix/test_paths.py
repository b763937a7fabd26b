# What every call that takes a path answers when the path itself is at fault (path_resolution(7)).
import os
from errno import EEXIST, ELOOP, EINVAL, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EBUSY, EXDEV, EACCES

import calls as c
from suite import BOB, test

# Each takes a path that should exist ...
EXISTING = {
    "open": lambda p: c.open_(p), "open O_PATH": lambda p: c.open_(p, os.O_PATH), "open O_DIRECTORY": lambda p: c.open_(p, os.O_DIRECTORY),
    "open O_WRONLY": lambda p: c.open_(p, os.O_WRONLY), "open O_TRUNC": lambda p: c.open_(p, os.O_WRONLY | os.O_TRUNC),
    "stat": c.stat, "statx": c.statx, "access": lambda p: c.access(p, 0), "chmod": lambda p: c.chmod(p, 0o644),
    "chown": lambda p: c.chown(p, 0, 0), "truncate": lambda p: c.truncate(p, 0), "utimensat": lambda p: c.utimensat(p, None, None),
    "getxattr": lambda p: c.getxattr(p, "user.x"), "setxattr": lambda p: c.setxattr(p, "user.x", b""),
    "listxattr": c.listxattr, "removexattr": lambda p: c.removexattr(p, "user.x"), "statfs": c.statfs, "chdir": c.chdir,
    "readdir": c.listdir,
}
# ... these do not follow a symlink at its end ...
NOT_FOLLOWING = {
    "lstat": c.lstat, "lchown": lambda p: c.lchown(p, 0, 0), "readlink": c.readlink, "unlink": c.unlink, "rmdir": c.rmdir,
    "lgetxattr": lambda p: c.getxattr(p, "user.x", False), "lsetxattr": lambda p: c.setxattr(p, "trusted.x", b"", 0, False),
    "llistxattr": lambda p: c.listxattr(p, False), "rename from": lambda p: c.rename(p, "fresh"), "link from": lambda p: c.link(p, "fresh"),
    "utimensat nofollow": lambda p: c.utimensat(p, None, None, c.AT_SYMLINK_NOFOLLOW), "name_to_handle_at": c.name_to_handle,
    "exchange": lambda p: c.renameat2(p, "file", c.RENAME_EXCHANGE), "open O_NOFOLLOW": lambda p: c.open_(p, os.O_NOFOLLOW | os.O_PATH),
}
# ... and these one that should not.
MAKING = {
    "open O_CREAT|O_EXCL": lambda p: c.open_(p, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "mkdir": c.mkdir, "mknod": c.mknod, "mkfifo": c.mkfifo,
    "symlink": lambda p: c.symlink("t", p), "link to": lambda p: c.link("file", p), "rename to": lambda p: c.rename("file", p),
    "rename NOREPLACE": lambda p: c.renameat2("file", p, c.RENAME_NOREPLACE), "rename a directory to": lambda p: c.rename("dir", p),
}
ALL = {**EXISTING, **NOT_FOLLOWING, **MAKING}


def error(result):
    """The errno of a call that had to fail; what it opened is closed."""
    if isinstance(result, int) and result > 2:
        os.close(result)
    return result if isinstance(result, int) else type(result).__name__


def furnish(t):
    t.file("file", b"text")
    t.dir("dir")


@test
def a_missing_component(t):
    furnish(t)
    before = c.listdir(".")
    for name, do in ALL.items():
        with t.case(name):
            t.expect(-ENOENT, error(do("absent/x")))
            t.expect(-ENOENT, error(do("dir/absent/x")))
            t.expect(-ENOENT, error(do("")))
    t.expect(before, c.listdir("."))
    t.expect([], c.listdir("dir"))
    t.expect(b"text", t.content("file"))


@test
def a_missing_last_component(t):
    furnish(t)
    for name, do in {**EXISTING, **NOT_FOLLOWING}.items():
        with t.case(name):
            t.expect(-ENOENT, error(do("absent")))
            t.expect(-ENOENT, error(do("dir/absent")))
            t.expect(-ENOENT, error(do("dir/../absent")))
    t.expect(["dir", "file"], c.listdir("."))


@test
def a_file_where_a_directory_should_be(t):
    furnish(t)
    c.mkfifo("fifo")
    for name, do in ALL.items():
        with t.case(name):
            t.expect(-ENOTDIR, error(do("file/x")))
            t.expect(-ENOTDIR, error(do("dir/../file/x/y")))
            t.expect(-ENOTDIR, error(do("fifo/x")))
    for name, do in {**EXISTING, **NOT_FOLLOWING}.items():
        with t.case(name, "slash"):
            t.expect(lambda r: r in (-ENOTDIR,) or name == "readlink" and r == -EINVAL, error(do("file/")))
            t.expect(lambda r: r in (-ENOTDIR,) or name == "readlink" and r == -EINVAL, error(do("file/.")))
    t.expect(b"text", t.content("file"))
    t.expect(["dir", "fifo", "file"], c.listdir("."))


@test
def names_too_long(t):
    furnish(t)
    for name, do in ALL.items():
        with t.case(name):
            t.expect(-ENAMETOOLONG, error(do("n" * 256)))
            t.expect(-ENAMETOOLONG, error(do("n" * 256 + "/x")))
            t.expect(-ENAMETOOLONG, error(do("dir/" + "n" * 300)))
            t.expect(-ENAMETOOLONG, error(do("./" * 2048 + "file")))
    t.expect(["dir", "file"], c.listdir("."))


@test
def names_of_255_bytes(t):
    for byte in (b"n", b"\xff", "ü".encode()):
        name = (byte * 255)[:255 // len(byte) * len(byte)]
        with t.case(len(name), name[:4]):
            t.expect(0, c.mkdir(name))
            t.expect(0, c.rmdir(name))
            t.expect(0, c.mknod(name))
            t.expect([name], sorted(os.listdir(b".")))
            t.expect(0, c.rename(name, name[:-1] + b"x"))
            t.expect(0, c.link(name[:-1] + b"x", name))
            t.expect(2, t.links(name))
            t.expect(0, c.unlink(name))
            t.expect(0, c.unlink(name[:-1] + b"x"))
            t.expect(0, c.symlink(name, name))
            t.expect(name, c.readlink(name))
            t.expect(0, c.unlink(name))
    t.expect([], c.listdir("."))


@test
def names_with_any_bytes(t):
    names = [bytes([b]) for b in range(1, 256) if b not in b"./"] + [b"...", b"..x", b"a\nb", b"\xf0\x9f\x8c\xb2", b"  ", b"\xff\xfe"]
    for name in names:
        with t.case(name):
            t.expect(0, c.mknod(name))
    t.expect(sorted(names), sorted(os.listdir(b".")))
    for name in names:
        with t.case(name):
            t.expect(True, os.lstat(name).st_ino > 0)
            t.expect(0, c.unlink(name))
    # Names that some systems think equal are not.
    for name in ("a", "A", "é", "e\u0301", "a ", "a."):
        t.expect(0, c.mknod(name))
    t.expect(6, len(os.listdir(".")))


@test
def long_paths(t):
    # 4096 bytes with the NUL is the longest path.
    deep = "/".join(["d" * 200] * 19)
    os.makedirs(deep)
    room = 4095 - len(deep) - 1
    name = "x" * min(room, 255)
    t.expect(0, c.mknod(deep + "/" + "./" * ((room - len(name)) // 2) + name))
    t.expect(-ENAMETOOLONG, c.mknod(deep + "/" + "./" * 200 + name))
    t.expect([name], c.listdir(deep))
    # Deeper than a path can say, step by step.
    place = os.getcwd()
    for level in range(60):
        t.expect(0, c.mkdir("y" * 100))
        t.expect(0, c.chdir("y" * 100))
    t.expect(0, c.mknod("bottom"))
    t.expect(lambda path: len(path) > 6000, c.attempt(os.getcwd))
    for level in range(60):
        os.chdir("..")
    t.expect(place, os.getcwd())


@test
def loops_of_symlinks(t):
    furnish(t)
    os.symlink("loop", "loop")
    os.symlink("b", "a")
    os.symlink("a", "b")
    for name, do in ALL.items():
        with t.case(name):
            t.expect(-ELOOP, error(do("loop/x")))
            t.expect(-ELOOP, error(do("a/x")))
    for name, do in EXISTING.items():
        with t.case(name):
            t.expect(-ELOOP, error(do("loop")))
            t.expect(-ELOOP, error(do("b")))
    for name, do in MAKING.items():
        with t.case(name):
            if name.startswith("rename"):
                continue
            t.expect(-EEXIST, error(do("loop")))
    t.expect(b"loop", c.readlink("loop"))


@test
def chains_of_symlinks(t):
    furnish(t)
    os.symlink("file", "s0")
    for number in range(1, 41):
        os.symlink(f"s{number - 1}", f"s{number}")
    for number in (0, 1, 20, 39):
        with t.case(number):
            t.expect(4, os.stat(f"s{number}").st_size)
    t.expect(-ELOOP, c.stat("s40"))
    t.expect(0, c.unlink("s20"))
    t.expect(-ENOENT, c.stat("s39"))


@test
def calls_through_a_dangling_symlink(t):
    os.symlink("absent", "dangling")
    for name, do in EXISTING.items():
        with t.case(name):
            t.expect(-ENOENT, error(do("dangling")))
    for name, do in MAKING.items():
        if not name.startswith(("rename", "link")):
            with t.case(name):
                t.expect(-EEXIST, error(do("dangling")))
    # Only open without O_EXCL makes what the link names.
    t.expect(False, t.exists("absent"))
    os.close(t.opened(c.open_("dangling", os.O_CREAT | os.O_WRONLY)))
    t.expect(True, t.exists("absent"))


@test
def dot_and_dot_dot(t):
    furnish(t)
    t.dir("dir/sub")
    t.expect(-EINVAL, c.rmdir("dir/."))
    t.expect(-ENOTEMPTY, c.rmdir("dir/sub/.."))
    t.expect(-EISDIR, c.unlink("dir/."))
    t.expect(-EISDIR, c.unlink("dir/.."))
    t.expect(-EBUSY, c.rename("dir/.", "x"))
    t.expect(-EBUSY, c.rename("dir/..", "x"))
    t.expect(-EBUSY, c.rename("dir", "dir/sub/."))
    t.expect(-EBUSY, c.rename("file", "dir/.."))
    t.expect(-EEXIST, c.mkdir("dir/."))
    t.expect(-EEXIST, c.mkdir("dir/.."))
    t.expect(-EEXIST, c.mkdir("."))
    t.expect(-EEXIST, c.symlink("x", "dir/."))
    t.expect(-EEXIST, c.link("file", "dir/.."))
    t.expect(-EEXIST, c.mknod("dir/."))
    t.expect(-EISDIR, c.open_("dir/.", os.O_CREAT | os.O_WRONLY))
    t.expect(os.stat("dir").st_ino, os.stat("dir/.").st_ino)
    t.expect(os.stat("dir").st_ino, os.stat("dir/sub/..").st_ino)
    t.expect(os.stat(".").st_ino, os.stat("dir/sub/../..").st_ino)
    t.expect(["sub"], c.listdir("dir"))


@test
def trailing_slashes(t):
    furnish(t)
    os.symlink("dir", "to_dir")
    os.symlink("absent", "dangling")
    t.expect(0, c.mkdir("new/"))
    t.expect(0, c.rmdir("new///"))
    t.expect(-ENOENT, c.mknod("new/"))
    t.expect(-ENOENT, c.symlink("x", "new/"))
    t.expect(-ENOENT, c.link("file", "new/"))
    t.expect(-EISDIR, c.open_("new/", os.O_CREAT | os.O_WRONLY))
    t.expect(-ENOTDIR, c.rename("file", "new/"))
    t.expect(-ENOTDIR, c.rename("file/", "new"))
    t.expect(0, c.rename("dir/", "moved/"))
    t.expect(0, c.rename("moved", "dir"))
    t.expect(-ENOTDIR, c.rmdir("to_dir/"))
    t.expect(-ENOTDIR, c.rename("to_dir/", "x"))
    t.expect(-EEXIST, c.mkdir("dangling/"))
    t.expect(os.stat("dir").st_ino, os.lstat("to_dir/").st_ino)
    t.expect(-EINVAL, c.readlink("to_dir/"))
    t.expect(-ENOTDIR, c.unlink("file/"))
    t.expect(["dangling", "dir", "file", "to_dir"], c.listdir("."))


@test
def what_exists_already(t):
    furnish(t)
    os.symlink("file", "symlink")
    c.mkfifo("fifo")
    for target in ("file", "dir", "symlink", "fifo"):
        before = os.lstat(target)
        for name, do in MAKING.items():
            if name in ("rename to", "rename a directory to"):
                continue
            with t.case(name, target):
                t.expect(-EEXIST, error(do(target)))
        t.expect((before.st_ino, before.st_mode, before.st_nlink), (lambda s: (s.st_ino, s.st_mode, s.st_nlink))(os.lstat(target)))
    t.expect(b"text", t.content("file"))


@test
def existence_is_told_before_missing_rights(t):
    """EEXIST where the name is there, EACCES where it is not: both without write permission on the directory."""
    t.dir("d", 0o755)
    t.file("d/f")
    t.dir("d/sub")
    with t.user(BOB):
        t.expect(-EEXIST, c.mkdir("d/f"))
        t.expect(-EEXIST, c.mkdir("d/sub"))
        t.expect(-EEXIST, c.symlink("x", "d/f"))
        t.expect(-EEXIST, c.mknod("d/f"))
        t.expect(-EEXIST, c.open_("d/f", os.O_CREAT | os.O_EXCL))
        t.expect(-EACCES, c.mkdir("d/new"))
        t.expect(-EACCES, c.unlink("d/f"))
        t.expect(-ENOENT, c.unlink("d/absent"))
        t.expect(-ENOENT, c.rmdir("d/absent"))
        t.expect(-EACCES, c.rmdir("d/sub"))
        t.expect(-EACCES, c.open_("d/new", os.O_CREAT))
        t.expect(-ENOENT, c.open_("d/new"))


@test
def across_mounts(t):
    furnish(t)
    with open("/proc/self/mounts") as stream:
        other = "/dev/shm" if any(line.split()[1] == "/dev/shm" for line in stream) else "/proc"
    away = f"{other}/posix-suite-{os.getpid()}"
    t.expect(-EXDEV, c.link("file", away))
    t.expect(-EXDEV, c.rename("file", away))
    t.expect(-EXDEV, c.rename("dir", away))
    t.expect(-EXDEV, c.renameat2("file", away, c.RENAME_NOREPLACE))
    t.expect(["dir", "file"], c.listdir("."))


@test
def empty_paths_with_a_descriptor(t):
    furnish(t)
    fd = t.opened(c.open_("file", os.O_PATH))
    t.expect(4, c.statx("", c.AT_EMPTY_PATH, at=fd).size)
    t.expect(-ENOENT, c.statx("", 0, at=fd))
    t.expect(0, c.utimensat("", (7, 8), (9, 10), c.AT_EMPTY_PATH, fd))
    t.expect((7_000_000_008, 9_000_000_010), (os.stat("file").st_atime_ns, os.stat("file").st_mtime_ns))
    t.expect(0, c.fchmodat2(fd, "", 0o600, c.AT_EMPTY_PATH))
    t.expect(0o600, t.mode("file"))
    t.expect(0, c.linkat(fd, "", c.AT_FDCWD, "linked", c.AT_EMPTY_PATH))
    t.expect(2, t.links("file"))
    os.close(fd)


@test
def relative_to_descriptors(t):
    furnish(t)
    t.file("dir/inner", b"inner")
    at = t.opened(c.open_("dir", os.O_RDONLY | os.O_DIRECTORY))
    file = t.opened(c.open_("file"))
    t.expect(5, os.stat("inner", dir_fd=at).st_size)
    t.expect(-ENOTDIR, c.open_("inner", at=file))
    t.expect(-9, c.open_("inner", at=999))
    t.expect(0, c.linkat(at, "inner", c.AT_FDCWD, "out", 0))
    t.expect(0, c.unlinkat(at, "inner", 0))
    t.expect(-ENOENT, c.unlinkat(at, "inner", 0))
    t.expect(0, c.attempt(os.mkdir, "sub", dir_fd=at))
    t.expect(-EISDIR, c.unlinkat(at, "sub", 0))
    t.expect(-ENOTDIR, c.unlinkat(c.AT_FDCWD, "file", c.AT_REMOVEDIR))
    t.expect(0, c.unlinkat(at, "sub", c.AT_REMOVEDIR))
    t.expect(-EINVAL, c.unlinkat(at, "sub", 0x1))
    t.expect(0, c.rename("dir", "moved"))
    t.expect(0, c.attempt(os.mknod, "after", dir_fd=at))
    t.expect(["after"], c.listdir("moved"))
    t.expect(0, c.unlinkat(at, "after", 0))
    t.expect(0, c.rmdir("moved"))
    # In a directory that is gone nothing can be made.
    t.expect(-ENOENT, c.attempt(os.mknod, "x", dir_fd=at))
    t.expect(-ENOENT, c.attempt(os.mkdir, "x", dir_fd=at))
    t.expect(-ENOENT, c.open_("x", os.O_CREAT, at=at))
    t.expect(-ENOENT, c.linkat(c.AT_FDCWD, "out", at, "x", 0))
    t.expect(-ENOENT, c.attempt(os.symlink, "a", "x", dir_fd=at))
    t.expect(-ENOENT, c.attempt(os.rename, "out", "x", dst_dir_fd=at))
    t.expect([], c.listdir(at))
    t.expect(0, os.fstat(at).st_nlink)
    for fd in (at, file):
        os.close(fd)
