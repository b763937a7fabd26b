# rename(2), renameat2(2): over what is there, in all kinds, with flags; link counts, times, and what stays open.
import os
import stat
from errno import EACCES, EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY

import calls as c
from suite import BOB, test

KINDS = ("file", "dir", "symlink", "fifo", "char", "socket")


def make(t, path, kind, mark):
    """Something of the kind; `mark` tells it from others by its owner."""
    if kind == "file":
        t.file(path, b"content of " + str(mark).encode())
    elif kind == "dir":
        t.dir(path)
    elif kind == "symlink":
        os.symlink("target", path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "char":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, mark))
    else:
        os.mknod(path, stat.S_IFSOCK | 0o600)
    os.lchown(path, mark, mark)


def seen(path):
    s = os.lstat(path)
    return (stat.S_IFMT(s.st_mode), s.st_ino, s.st_uid)


def take(path):
    os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)


@test
def every_kind_over_every_kind(t):
    for old in KINDS:
        for new in (None,) + KINDS:
            for across in (False, True):
                t.dir("a")
                target = "b/new" if across else "a/new"
                t.dir("b")
                make(t, "a/old", old, 3)
                if new:
                    make(t, target, new, 4)
                before = seen("a/old")
                wanted = 0
                if new == "dir" and old != "dir":
                    wanted = -EISDIR
                elif old == "dir" and new not in (None, "dir"):
                    wanted = -ENOTDIR
                with t.case(old, new, "across" if across else "within"):
                    t.expect(wanted, c.rename("a/old", target))
                    if wanted == 0:
                        t.expect(False, t.exists("a/old"))
                        t.expect(before, seen(target))
                    else:
                        t.expect((before[0], 4), (seen("a/old")[0], seen(target)[2]))
                    directories = {place: sum(stat.S_ISDIR(os.lstat(f"{place}/{n}").st_mode) for n in os.listdir(place)) for place in "ab"}
                    t.expect({place: 2 + count for place, count in directories.items()}, {p: t.links(p) for p in "ab"})
                for place in "ab":
                    for name in os.listdir(place):
                        take(f"{place}/{name}")
                    os.rmdir(place)


@test
def exchange_of_every_kind(t):
    for old in KINDS:
        for new in KINDS:
            for across in (False, True):
                t.dir("a")
                t.dir("b")
                target = "b/new" if across else "a/new"
                make(t, "a/old", old, 3)
                make(t, target, new, 4)
                before = seen("a/old"), seen(target)
                with t.case(old, new, across):
                    t.expect(0, c.renameat2("a/old", target, c.RENAME_EXCHANGE))
                    t.expect(before, (seen(target), seen("a/old")))
                    directories = {place: sum(stat.S_ISDIR(os.lstat(f"{place}/{n}").st_mode) for n in os.listdir(place)) for place in "ab"}
                    t.expect({place: 2 + count for place, count in directories.items()}, {p: t.links(p) for p in "ab"})
                    if old == "dir":
                        t.expect(os.stat(os.path.dirname(target)).st_ino, os.stat(target + "/..").st_ino)
                for place in "ab":
                    for name in os.listdir(place):
                        take(f"{place}/{name}")
                    os.rmdir(place)


@test
def flags_of_renameat2(t):
    t.file("f", b"f")
    t.file("g", b"g")
    t.dir("d")
    t.dir("e")
    for flags in (c.RENAME_NOREPLACE | c.RENAME_EXCHANGE, c.RENAME_EXCHANGE | c.RENAME_WHITEOUT, 8, 0x80, -1 & 0xFFFFFFF8):
        with t.case(flags):
            t.expect(-EINVAL, c.renameat2("f", "g", flags))
    t.expect(-EEXIST, c.renameat2("f", "g", c.RENAME_NOREPLACE))
    t.expect(-EEXIST, c.renameat2("f", "d", c.RENAME_NOREPLACE))
    t.expect(-EEXIST, c.renameat2("d", "e", c.RENAME_NOREPLACE))
    t.expect(-EEXIST, c.renameat2("f", "f", c.RENAME_NOREPLACE))
    t.expect(0, c.renameat2("f", "h", c.RENAME_NOREPLACE))
    t.expect(b"f", t.content("h"))
    t.expect(-ENOENT, c.renameat2("f", "g", c.RENAME_NOREPLACE))
    t.expect(-ENOENT, c.renameat2("h", "absent", c.RENAME_EXCHANGE))
    t.expect(-ENOENT, c.renameat2("absent", "h", c.RENAME_EXCHANGE))
    t.expect(0, c.renameat2("h", "h", c.RENAME_EXCHANGE))
    t.expect(0, c.link("h", "h2"))
    t.expect(0, c.renameat2("h", "h2", c.RENAME_EXCHANGE))
    t.expect(["d", "e", "g", "h", "h2"], c.listdir("."))
    t.dir("d/sub")
    t.expect(-EINVAL, c.renameat2("d", "d/sub", c.RENAME_EXCHANGE))
    t.expect(-EINVAL, c.renameat2("d/sub", "d", c.RENAME_EXCHANGE))


@test
def whiteouts(t):
    """renameat2(2): RENAME_WHITEOUT leaves a character device 0:0 at the old name."""
    t.file("f", b"f")
    t.file("g", b"g")
    t.dir("d")
    if not t.expect(0, c.renameat2("f", "new", c.RENAME_WHITEOUT)):
        return
    t.expect((stat.S_IFCHR, 0), (stat.S_IFMT(os.lstat("f").st_mode), os.lstat("f").st_rdev))
    t.expect(0, t.mode("f"))
    t.expect(b"f", t.content("new"))
    t.expect(0, c.renameat2("new", "g", c.RENAME_WHITEOUT))
    t.expect(b"f", t.content("g"))
    t.expect(-EEXIST, c.renameat2("g", "f", c.RENAME_WHITEOUT | c.RENAME_NOREPLACE))
    t.expect(0, c.renameat2("g", "g2", c.RENAME_WHITEOUT | c.RENAME_NOREPLACE))
    t.expect(0, c.renameat2("d", "d2", c.RENAME_WHITEOUT))
    t.expect((1, 2), (t.links("d"), t.links("d2")))
    t.expect(True, stat.S_ISCHR(os.lstat("d").st_mode))
    for name in ("f", "new", "g", "d"):
        t.expect(0, c.unlink(name))
    t.expect(["d2", "g2"], c.listdir("."))


@test
def into_itself(t):
    os.makedirs("a/b/c")
    t.file("a/f")
    for target in ("a/x", "a/b", "a/b/x", "a/b/c", "a/b/c/x"):
        with t.case(target):
            t.expect(lambda r: r == -EINVAL, c.rename("a", target))
    for target in ("a", ):
        t.expect(-ENOTEMPTY, c.rename("a/b", target))
        t.expect(-ENOTEMPTY, c.rename("a/b/c", target))
    t.expect(-EISDIR, c.rename("a/f", "a/b"))
    t.expect(lambda r: r in (-ENOTEMPTY, -EISDIR), c.rename("a/f", "a"))
    t.expect(0, c.rename("a", "a"))
    t.expect(0, c.rename("a/b/c", "a/c"))
    t.expect(0, c.rename("a/b", "a/c/b"))
    t.expect(0, c.rename("a/c", "c"))
    t.expect(["f"], c.listdir("a"))
    t.expect((2, 3, 2), (t.links("a"), t.links("c"), t.links("c/b")))


@test
def directories_over_directories(t):
    for inside in ("file", "dir", "symlink"):
        t.dir("a")
        t.dir("b")
        make(t, "b/x", inside, 3)
        with t.case(inside):
            t.expect(-ENOTEMPTY, c.rename("a", "b"))
            t.expect(["x"], c.listdir("b"))
            take("b/x")
            number = os.stat("a").st_ino
            t.expect(0, c.rename("a", "b"))
            t.expect(number, os.stat("b").st_ino)
            t.expect(False, t.exists("a"))
        os.rmdir("b")
    t.dir("p")
    t.dir("q")
    t.dir("p/a")
    t.file("p/a/in", b"1")
    t.dir("q/a")
    t.expect(0, c.rename("p/a", "q/a"))
    t.expect((2, 3), (t.links("p"), t.links("q")))
    t.expect(["in"], c.listdir("q/a"))
    t.expect(os.stat("q").st_ino, os.stat("q/a/..").st_ino)


@test
def two_names_of_one_file(t):
    t.file("f", b"x")
    os.link("f", "g")
    t.dir("d")
    os.link("f", "d/h")
    before = os.stat(".").st_mtime_ns
    t.expect(0, c.rename("f", "g"))
    t.expect(0, c.rename("f", "d/h"))
    t.expect(0, c.rename("f", "f"))
    t.expect(3, t.links("f"))
    t.expect(["d", "f", "g"], c.listdir("."))
    t.expect(before, os.stat(".").st_mtime_ns, "nothing happened")
    t.expect(0, c.renameat2("f", "g", c.RENAME_EXCHANGE))
    t.expect(3, t.links("f"))


@test
def times_of_renames(t):
    t.dir("a")
    t.dir("b")
    for kind in KINDS:
        make(t, "a/x", kind, 3)
        with t.case(kind):
            t.expect(["mc", "", "c"], t.changed(["a", "b", fd_of("a/x")], lambda: c.rename("a/x", "a/y")))
            t.expect(["mc", "mc", "c"], t.changed(["a", "b", fd_of("a/y")], lambda: c.rename("a/y", "b/z")))
            make(t, "b/victim", kind, 4)
            t.expect(["", "mc", "c", "c"], t.changed(["a", "b", fd_of("b/z"), fd_of("b/victim")], lambda: c.rename("b/z", "b/victim")))
            take("b/victim")
    t.file("a/f")
    t.dir("b/g")
    t.expect(["mc", "mc", "c", "c"], t.changed(["a", "b", fd_of("a/f"), fd_of("b/g")], lambda: c.renameat2("a/f", "b/g", c.RENAME_EXCHANGE)))


def fd_of(path): return os.open(path, os.O_PATH | os.O_NOFOLLOW)


@test
def open_files_follow_their_names(t):
    t.file("f", b"old")
    t.file("g", b"new")
    f, g = t.opened(c.open_("f", os.O_RDWR)), t.opened(c.open_("g", os.O_RDWR))
    t.expect(0, c.rename("g", "f"))
    t.expect(b"old", c.pread(f, 10, 0))
    t.expect(b"new", c.pread(g, 10, 0))
    t.expect((0, 1), (os.fstat(f).st_nlink, os.fstat(g).st_nlink))
    t.expect(3, c.pwrite(f, b"OLD", 0))
    t.expect(b"new", t.content("f"))
    t.expect(b"OLD", c.pread(f, 3, 0))
    t.dir("d")
    t.file("d/x", b"inner")
    x = t.opened(c.open_("d/x"))
    d = t.opened(c.open_("d", os.O_DIRECTORY))
    t.expect(0, c.rename("d", "e"))
    t.expect(b"inner", c.read(x, 10))
    t.expect(["x"], c.listdir(d))
    t.expect(-ENOENT, c.stat("d/x"))
    t.expect(5, t.size("e/x"))
    # The directory that is renamed over goes on, empty.
    t.dir("h")
    h = t.opened(c.open_("h", os.O_DIRECTORY))
    t.expect(0, c.rename("e", "h"))
    t.expect([], c.listdir(h))
    t.expect(0, os.fstat(h).st_nlink)
    t.expect(-ENOENT, c.open_("x", os.O_CREAT, at=h))
    for fd in (f, g, x, d, h):
        os.close(fd)


@test
def a_working_directory_is_moved(t):
    os.makedirs("a/b")
    place = os.getcwd()
    os.chdir("a/b")
    t.expect(0, c.rename("../../a", "../../z"))
    t.expect(place + "/z/b", os.getcwd())
    t.expect(0, c.mknod("f"))
    t.expect(os.stat(place + "/z").st_ino, os.stat("..").st_ino)
    os.chdir(place)
    t.expect(["f"], c.listdir("z/b"))


@test
def renames_without_rights(t):
    t.dir("a", 0o755)
    t.dir("open", 0o777)
    t.file("a/f", b"1", 0o666, BOB)
    t.file("open/g", b"2", 0o666, BOB)
    t.dir("open/own", 0o755, BOB)
    with t.user(BOB):
        t.expect(-EACCES, c.rename("a/f", "open/f"))
        t.expect(-EACCES, c.rename("open/g", "a/g"))
        t.expect(-EACCES, c.rename("open/g", "a/f"))
        t.expect(-EACCES, c.rename("a/f", "a/g"))
        t.expect(-EACCES, c.rename("open/own", "a/own"))
        t.expect(-EACCES, c.renameat2("open/g", "a/f", c.RENAME_EXCHANGE))
        t.expect(-EEXIST, c.renameat2("a/f", "open/g", c.RENAME_NOREPLACE))
        t.expect(-EACCES, c.renameat2("a/f", "open/new", c.RENAME_NOREPLACE))
        t.expect(-ENOENT, c.rename("a/absent", "open/x"))
        t.expect(0, c.rename("open/g", "open/h"))
    t.expect((["f"], ["h", "own"]), (c.listdir("a"), c.listdir("open")))


@test
def replacing_a_link_keeps_the_other(t):
    t.file("f", b"f")
    os.link("f", "f2")
    t.file("g", b"g")
    t.expect(["c", "c"], t.changed(["g", "f2"], lambda: (c.rename("g", "f"), os.link("f", "g"))))
    t.expect((1, 2), (t.links("f2"), t.links("f")))
    t.expect((b"f", b"g"), (t.content("f2"), t.content("f")))


@test
def long_names_in_renames(t):
    long = ["r" * 254 + letter for letter in "ab"]
    t.file(long[0], b"0")
    t.expect(0, c.rename(long[0], long[1]))
    t.expect(-36, c.rename(long[1], long[1] + "x"))
    t.expect(-36, c.rename(long[1] + "x", "short"))
    t.expect([long[1]], c.listdir("."))
    t.expect(b"0", t.content(long[1]))


@test
def many_renames_keep_the_tree(t):
    """A file that is handed round through directories is always under one name."""
    for number in range(5):
        t.dir(str(number))
    t.file("0/f", b"token")
    for turn in range(60):
        old, new = f"{turn % 5}/f", f"{(turn + 1) % 5}/f"
        t.expect(0, c.rename(old, new))
        found = [n for n in range(5) if os.listdir(str(n))]
        t.expect([(turn + 1) % 5], found)
    t.expect(b"token", t.content("0/f"))
