"""Renaming, linking, files without a name, handles."""
import ctypes
import os
import stat

from results import as_user, call, drop_caches, mode, name_of, ok, owner, raw, renameat2, test, touch

# Found by way of results.
from calls import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, libc


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
    yield "noreplace", renameat2("f", "g", RENAME_NOREPLACE), renameat2("f", "new", RENAME_NOREPLACE)
    os.rename("new", "f")
    yield "exchange file and directory", renameat2("g", "d", RENAME_EXCHANGE), os.path.isdir("g/sub"), open("d").read()
    yield "exchange across", renameat2("d", "g/sub", RENAME_EXCHANGE), os.stat("g").st_nlink, os.path.isdir("d")
    yield "exchange with absent", renameat2("d", "none", RENAME_EXCHANGE)
    yield "exchange with what is below", renameat2("g", "g/sub", RENAME_EXCHANGE)
    yield (
        "both flags", renameat2("f", "g", RENAME_EXCHANGE | RENAME_NOREPLACE), renameat2("f", "g", RENAME_EXCHANGE | RENAME_WHITEOUT),
        renameat2("f", "g", 64)
    )
    yield "dot", ok(os.rename, ".", "x"), ok(os.rename, "d/.", "x"), ok(os.rename, "f", "d/..")
    yield "slash on a file", ok(os.rename, "f", "x/"), ok(os.rename, "f/", "x")
    yield "long name", ok(os.rename, "f", "n" * 256), ok(os.rename, "f", "n" * 255), ok(os.rename, "n" * 255, "f")


@test
def whiteouts():
    os.mkdir("a"), os.mkdir("b"), touch("a/f", b"f"), touch("a/g"), os.mkdir("a/d"), touch("b/over")
    yield (
        "in one directory", renameat2("a/f", "a/f2", RENAME_WHITEOUT), mode("a/f"), os.lstat("a/f").st_rdev, os.lstat("a/f").st_nlink,
        sorted(os.listdir("a"))
    )
    yield "over a file elsewhere", renameat2("a/f2", "b/over", RENAME_WHITEOUT), mode("a/f2"), open("b/over").read()
    yield "of a directory", renameat2("a/d", "b/d", RENAME_WHITEOUT), mode("a/d"), os.stat("a").st_nlink, os.stat("b").st_nlink
    yield (
        "noreplace", renameat2("a/g", "b/over", RENAME_WHITEOUT | RENAME_NOREPLACE),
        renameat2("a/g", "b/g", RENAME_WHITEOUT | RENAME_NOREPLACE), mode("a/g")
    )
    os.unlink("a/f")
    yield "removed", sorted(os.listdir("a")), owner("a/f2")
    os.chmod("a", 0o2777), os.chown("a", 0, 1005), touch("a/h")
    os.chown("a/h", 1000, 1000), os.chmod("b", 0o777)
    yield "of a user", as_user(1000, 1000, [], renameat2, "a/h", "b/h", RENAME_WHITEOUT), owner("a/h"), mode("a/h")


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
    yield (
        "long path", ok(os.stat, "./" * 2047 + "f"), ok(os.stat, "./" * 2048 + "f"), ok(os.symlink, "x" * 4095, "y"),
        ok(os.symlink, "x" * 4096, "z"), ok(os.symlink, "", "w")
    )
    os.mkdir("n")
    for i in range(5):
        os.mkdir(f"n/{i}")
    yield "directory links", os.stat("n").st_nlink, (os.rmdir("n/0"), os.stat("n").st_nlink)[1]
    descriptor = os.open("f", os.O_RDONLY)
    os.unlink("f")
    yield "unlinked", raw(libc.linkat, descriptor, b"", AT_FDCWD, b"back", AT_EMPTY_PATH)
    path = os.open("p", os.O_PATH)
    yield (
        "O_PATH", ok(os.read, path, 1), ok(os.fchmod, path, 0o600), stat.S_ISFIFO(os.fstat(path).st_mode),
        raw(libc.linkat, path, b"", AT_FDCWD, b"p3", AT_EMPTY_PATH), ok(os.open, f"/proc/self/fd/{path}", os.O_RDWR | os.O_NONBLOCK)
    )
    os.mkdir("gone")
    inside = os.open("gone", os.O_RDONLY)
    os.rmdir("gone")
    yield (
        "in a removed directory", ok(os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=inside), ok(os.mkdir, "x", dir_fd=inside),
        os.listdir(inside), os.fstat(inside).st_nlink, ok(os.stat, "..", dir_fd=inside)
    )


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
    yield (
        "by /proc", raw(libc.linkat, AT_FDCWD, b"/proc/self/fd/%d" % descriptor, AT_FDCWD, b"d/proc", AT_SYMLINK_FOLLOW),
        os.fstat(descriptor).st_nlink
    )
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
