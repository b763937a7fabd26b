# Who may do what: every call with every class of user and every set of permission bits (POSIX: file access permissions;
# path_resolution(7), and the man page of each call).
import os
import socket
from errno import EACCES, EPERM

import calls as c
from suite import ALICE, BOB, GROUPMATE, MEMBER, ROOT, test

R, W, X = 4, 2, 1
# class: (user, shift of its bits). The bits of the other classes are the opposite ones, so that only the right class gives the
# expected answer.
CLASSES = {
    "owner": (ALICE, 6), "group": (GROUPMATE, 3), "supplementary group": (MEMBER, 3), "others": (BOB, 0),
}


def mode_for(shift, bits):
    return sum((bits if s == shift else 7 - bits) << s for s in (6, 3, 0))


def closed(result):
    if isinstance(result, int) and result >= 0:
        os.close(result)
        return 0
    return result


def done(result): return result if isinstance(result, int) and result < 0 else 0


# What is done to a file, and the bits that it needs; None: only the owner may, whatever the bits say.
FILE_CALLS = [
    ("open O_RDONLY", R, lambda p: closed(c.open_(p, os.O_RDONLY))),
    ("open O_WRONLY", W, lambda p: closed(c.open_(p, os.O_WRONLY))),
    ("open O_RDWR", R | W, lambda p: closed(c.open_(p, os.O_RDWR))),
    ("open O_WRONLY|O_APPEND", W, lambda p: closed(c.open_(p, os.O_WRONLY | os.O_APPEND))),
    ("open O_RDONLY|O_TRUNC", R | W, lambda p: closed(c.open_(p, os.O_RDONLY | os.O_TRUNC))),
    ("open O_WRONLY|O_CREAT", W, lambda p: closed(c.open_(p, os.O_WRONLY | os.O_CREAT))),
    ("open O_PATH", 0, lambda p: closed(c.open_(p, os.O_PATH))),
    ("stat", 0, lambda p: done(c.stat(p))),
    ("truncate", W, lambda p: c.truncate(p, 3)),
    ("access R_OK", R, lambda p: c.access(p, R, c.AT_EACCESS)),
    ("access W_OK", W, lambda p: c.access(p, W, c.AT_EACCESS)),
    ("access X_OK", X, lambda p: c.access(p, X, c.AT_EACCESS)),
    ("access R_OK|W_OK|X_OK", R | W | X, lambda p: c.access(p, 7, c.AT_EACCESS)),
    ("getxattr user.", R, lambda p: done(c.getxattr(p, "user.a"))),
    ("setxattr user.", W, lambda p: c.setxattr(p, "user.a", b"2")),
    ("removexattr user.", W, lambda p: c.removexattr(p, "user.a")),
    ("listxattr", 0, lambda p: done(c.listxattr(p))),
    ("getxattr of the ACL", 0, lambda p: 0 if c.getxattr(p, c.ACCESS) == -61 else 1),
    ("chmod", None, lambda p: c.chmod(p, os.stat(p).st_mode & 0o777)),
    ("utimensat with times", None, lambda p: c.utimensat(p, (1, 0), (2, 0))),
]


@test
def permissions_of_files(t):
    for label, (user, shift) in CLASSES.items():
        for bits in range(8):
            path = t.file("f", b"text", mode_for(shift, bits), ALICE)
            c.setxattr(path, "user.a", b"1")
            for call, needed, do in FILE_CALLS:
                with t.case(label, oct(mode_for(shift, bits)), call):
                    allowed = user is ALICE if needed is None else bits & needed == needed
                    with t.user(user):
                        result = do(path)
                    t.expect(0 if allowed else -(EPERM if needed is None else EACCES), result)
                c.setxattr(path, "user.a", b"1")
            os.unlink(path)


@test
def utimensat_now_by_owner_or_writer(t):
    for label, (user, shift) in CLASSES.items():
        for bits in range(8):
            path = t.file("f", b"text", mode_for(shift, bits), ALICE)
            with t.case(label, bits):
                allowed = user is ALICE or bits & W
                with t.user(user):
                    t.expect(0 if allowed else -EACCES, c.utimensat(path, None, None))
                    t.expect(0 if allowed else -EACCES, c.utimensat(path, (0, c.UTIME_NOW), (0, c.UTIME_NOW)))
                    # One now and one kept is a change that only the owner may make.
                    t.expect(0 if user is ALICE else -EPERM, c.utimensat(path, (0, c.UTIME_NOW), (0, c.UTIME_OMIT)))
                    t.expect(0, c.utimensat(path, (0, c.UTIME_OMIT), (0, c.UTIME_OMIT)))
            os.unlink(path)


def bind(path):
    with socket.socket(socket.AF_UNIX) as s:
        return c.attempt(s.bind, path)


# What is done in directory "d" (with a file "f", an empty directory "e", a symlink "s"), and the bits of "d" that it needs.
DIRECTORY_CALLS = [
    ("open O_CREAT|O_EXCL", W | X, lambda: closed(c.open_("d/n", os.O_CREAT | os.O_EXCL | os.O_WRONLY)), "d/n"),
    ("mkdir", W | X, lambda: c.mkdir("d/n"), "d/n"),
    ("mknod", W | X, lambda: c.mknod("d/n"), "d/n"),
    ("mkfifo", W | X, lambda: c.mkfifo("d/n"), "d/n"),
    ("symlink", W | X, lambda: c.symlink("t", "d/n"), "d/n"),
    ("bind", W | X, lambda: bind("d/n"), "d/n"),
    ("link into", W | X, lambda: c.link("own", "d/n"), "d/n"),
    ("rename into", W | X, lambda: c.rename("own", "d/n"), "d/n"),
    ("rename out of", W | X, lambda: c.rename("d/f", "out/n"), "-d/f"),
    ("rename within", W | X, lambda: c.rename("d/f", "d/n"), "d/n"),
    ("rename over", W | X, lambda: c.rename("own", "d/f"), None),
    ("exchange", W | X, lambda: c.renameat2("own", "d/f", c.RENAME_EXCHANGE), None),
    ("unlink", W | X, lambda: c.unlink("d/f"), "-d/f"),
    ("rmdir", W | X, lambda: c.rmdir("d/e"), "-d/e"),
    ("O_TMPFILE", W | X, lambda: closed(c.open_("d", c.O_TMPFILE | os.O_RDWR)), None),
    ("readdir", R, lambda: done(c.listdir("d")), None),
    ("stat of an entry", X, lambda: done(c.stat("d/f")), None),
    ("readlink", X, lambda: done(c.readlink("d/s")), None),
    ("open an entry", X, lambda: closed(c.open_("d/f")), None),
    ("chdir", X, lambda: c.chdir("d"), None),
    ("chmod of an entry", X, lambda: c.chmod("d/mine", 0o600), None),
    ("truncate of an entry", X, lambda: c.truncate("d/f", 1), None),
    ("name_to_handle_at", X, lambda: done(c.name_to_handle("d/f")), None),
    ("link out of", X, lambda: c.link("d/mine", "out/n"), "out/n"),
]


@test
def permissions_of_directories(t):
    place = os.getcwd()
    for label, (user, shift) in CLASSES.items():
        for bits in range(8):
            for call, needed, do, effect in DIRECTORY_CALLS:
                t.dir("d", 0o777)
                t.dir("out", 0o777)
                t.file("d/f", b"text", 0o666, user)
                t.file("d/mine", b"text", 0o666, user)
                t.dir("d/e", 0o777)
                os.symlink("target", "d/s")
                t.file("own", b"", 0o666, user)
                os.chown("d", ALICE.uid, ALICE.gid)
                os.chmod("d", mode_for(shift, bits))
                allowed = bits & needed == needed
                with t.case(label, oct(mode_for(shift, bits)), call):
                    with t.user(user):
                        result = do()
                    os.chdir(place)
                    same = t.expect(0 if allowed else -EACCES, result)
                    if effect and same:
                        t.expect((effect[0] != "-") == allowed, t.exists(effect.lstrip("-")), effect)
                wipe()


def wipe():
    os.chmod("d", 0o777)
    for base, directories, files in os.walk(".", topdown=False):
        for name in files:
            os.unlink(os.path.join(base, name))
        for name in directories:
            path = os.path.join(base, name)
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)


@test
def root_is_not_bound_by_bits(t):
    t.dir("d", 0o000, ALICE)
    t.file("d/f", b"text", 0o000, ALICE)
    t.opened(c.open_("d/f", os.O_RDWR))
    t.expect(["f"], c.listdir("d"))
    t.expect(0, c.access("d/f", 6))
    # Execution needs one bit even for root.
    t.expect(-EACCES, c.access("d/f", 1))
    t.expect(0, c.chmod("d/f", 0o001))
    t.expect(0, c.access("d/f", 1))
    t.expect(0, c.mkdir("d/n"))
    t.expect(0, c.unlink("d/f"))
    t.expect(0, c.utimensat("d/n", (5, 0), (6, 0)))


@test
def every_component_needs_search(t):
    t.dir("a", 0o755)
    t.dir("a/b", 0o755)
    t.dir("a/b/c", 0o755)
    t.file("a/b/c/f", b"x", 0o644)
    for closed_directory in ("a", "a/b", "a/b/c"):
        os.chmod(closed_directory, 0o644)
        with t.case(closed_directory), t.user(BOB):
            t.expect(-EACCES, done(c.stat("a/b/c/f")))
            t.expect(-EACCES, c.open_("a/b/c/f"))
            t.expect(-EACCES, c.open_("a/b/c/absent"))
            t.expect(-EACCES, c.chdir("a/b/c"))
            t.expect(-EACCES, c.readlink("a/b/c/f"))
        os.chmod(closed_directory, 0o755)
        with t.user(BOB):
            t.expect(b"x", t.content("a/b/c/f"))


@test
def an_open_file_keeps_its_rights(t):
    t.file("f", b"text", 0o600, ALICE)
    with t.user(ALICE):
        fd = t.opened(c.open_("f", os.O_RDWR))
        t.expect(0, c.chmod("f", 0))
        t.expect(-EACCES, c.open_("f"))
    with t.user(BOB):
        t.expect(b"text", c.pread(fd, 10, 0))
        t.expect(3, c.pwrite(fd, b"new", 0))
        t.expect(0, c.ftruncate(fd, 2))
        t.expect(0, c.fsync(fd))
        t.expect(-EPERM, c.fchmod(fd, 0o777))
        t.expect(-EPERM, c.fchown(fd, BOB.uid, -1))
    t.expect(b"ne", t.content("f"))
    t.expect(0, t.mode("f"))
    os.close(fd)


@test
def the_mode_at_creation_does_not_bind_the_creator(t):
    os.umask(0)
    t.dir("d", 0o777)
    with t.user(ALICE):
        fd = t.opened(c.open_("d/f", os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o000))
        t.expect(3, c.write(fd, b"abc"))
        t.expect(b"abc", c.pread(fd, 3, 0))
        t.expect(-EACCES, c.open_("d/f"))
    t.expect(0, t.mode("d/f"))
    t.expect((ALICE.uid, ALICE.gid), t.owner("d/f"))
    os.close(fd)


@test
def sticky_directories(t):
    """unlink(2), rename(2): in a sticky directory only the entry's owner, the directory's owner and root remove and rename."""
    cases = [("entry's owner", BOB, True), ("directory's owner", ALICE, True), ("root", ROOT, True), ("group", GROUPMATE, False),
             ("others", MEMBER, False)]
    actions = [
        ("unlink", lambda: c.unlink("d/f")), ("rmdir", lambda: c.rmdir("d/e")), ("rename out", lambda: c.rename("d/f", "out/f")),
        ("rename within", lambda: c.rename("d/f", "d/g")), ("rename over", lambda: c.rename("own", "d/f")),
        ("rename a directory", lambda: c.rename("d/e", "out/e")), ("exchange", lambda: c.renameat2("own", "d/f", c.RENAME_EXCHANGE)),
        ("exchange the other way", lambda: c.renameat2("d/f", "own", c.RENAME_EXCHANGE)),
    ]
    for label, user, allowed in cases:
        for name, do in actions:
            t.dir("d", 0o777)
            t.dir("out", 0o777)
            t.file("d/f", b"1", 0o666, BOB)
            t.dir("d/e", 0o777, BOB)
            t.file("own", b"2", 0o666, user)
            os.chown("d", ALICE.uid, ALICE.gid)
            os.chmod("d", 0o1777)
            with t.case(label, name):
                before = t.exists("d/f"), t.exists("d/e")
                with t.user(user):
                    t.expect(0 if allowed else -EPERM, do())
                if not allowed:
                    t.expect(before, (t.exists("d/f"), t.exists("d/e")))
            wipe()


@test
def sticky_allows_making_and_writing(t):
    t.dir("d", 0o1777, ALICE)
    t.file("d/f", b"1", 0o666, BOB)
    with t.user(MEMBER):
        t.expect(0, c.mkdir("d/n"))
        t.expect(0, c.rmdir("d/n"))
        t.expect(0, c.symlink("x", "d/s"))
        t.expect(0, c.rename("d/s", "d/s2"))
        t.expect(0, c.unlink("d/s2"))
        t.expect(0, closed(c.open_("d/f", os.O_RDWR)))
    with t.user(BOB):
        t.expect(0, c.unlink("d/f"))
    t.expect([], c.listdir("d"))


@test
def changing_the_parent_needs_write_on_the_directory(t):
    """rename(2): moving a directory changes its "..", so the mover needs write permission on the directory itself."""
    t.dir("a", 0o777)
    t.dir("b", 0o777)
    t.dir("a/d", 0o555, ALICE)
    t.dir("a/mine", 0o755, BOB)
    with t.user(BOB):
        t.expect(-EACCES, c.rename("a/d", "b/d"))
        t.expect(0, c.rename("a/d", "a/d2"))
        t.expect(0, c.rename("a/mine", "b/mine"))
        t.expect(-EACCES, c.renameat2("a/d2", "b/mine", c.RENAME_EXCHANGE))
    with t.user(ALICE):
        t.expect(-EACCES, c.rename("a/d2", "b/d"))
        t.expect(0, c.chmod("a/d2", 0o755))
        t.expect(0, c.rename("a/d2", "b/d"))
    t.expect(True, t.exists("b/d"))


@test
def execution(t):
    data = b"#!/bin/sh\nexit 7\n"
    for label, (user, shift) in CLASSES.items():
        for bits in (0, X, R, R | X):
            t.file("f", data, mode_for(shift, bits) & ~0o222, ALICE)
            with t.case(label, bits):
                def execute():
                    os.setgroups(list(user.groups))
                    os.setresgid(user.gid, user.gid, user.gid)
                    os.setresuid(user.uid, user.uid, user.uid)
                    try:
                        quiet = [(os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)]
                        pid = os.posix_spawn("./f", ["f"], {}, file_actions=quiet)
                        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    except OSError as error:
                        return -error.errno
                wanted = 7 if bits == R | X else 126 if bits == X else -EACCES
                t.expect(lambda r: r == wanted or bits == X and r in (2, 126, 127), t.child(execute))
            os.unlink("f")


@test
def protected_links_follow_the_kernel_setting(t):
    with open("/proc/sys/fs/protected_hardlinks") as stream:
        protected = stream.read().strip() == "1"
    t.dir("d", 0o777)
    t.file("rw", b"", 0o666, ALICE)
    t.file("ro", b"", 0o644, ALICE)
    t.file("suid", b"", 0o4777, ALICE)
    t.file("sgid", b"", 0o2777, ALICE)
    with t.user(BOB):
        t.expect(0, c.link("rw", "d/1"))
        t.expect(-EPERM if protected else 0, c.link("ro", "d/2"))
        t.expect(-EPERM if protected else 0, c.link("suid", "d/3"))
        t.expect(-EPERM if protected else 0, c.link("sgid", "d/4"))
    with t.user(ALICE):
        t.expect(0, c.link("ro", "d/5"))
        t.expect(0, c.link("suid", "d/6"))
    t.expect([2, 2, 2, 1] if protected else [2, 3, 3, 2], [t.links(name) for name in ("rw", "ro", "suid", "sgid")])


@test
def read_and_write_on_descriptors_of_the_wrong_kind(t):
    from errno import EBADF
    t.file("f", b"text")
    reader = t.opened(c.open_("f", os.O_RDONLY))
    writer = t.opened(c.open_("f", os.O_WRONLY))
    path = t.opened(c.open_("f", os.O_PATH))
    t.expect(-EBADF, c.write(reader, b"x"))
    t.expect(-EBADF, c.read(writer, 1))
    t.expect(-EBADF, c.pwrite(reader, b"x", 0))
    t.expect(-EBADF, c.pread(writer, 1, 0))
    t.expect(lambda r: r in (-EBADF, -22), c.ftruncate(reader, 0))
    t.expect(-EBADF, c.fallocate(reader, 0, 0, 10))
    t.expect(-EBADF, c.copy_file_range(writer, 0, writer, 10, 5))
    t.expect(-EBADF, c.copy_file_range(reader, 0, reader, 10, 5))
    for call in (lambda: c.read(path, 1), lambda: c.write(path, b""), lambda: c.fsync(path), lambda: c.fchmod(path, 0o600),
                 lambda: c.fchown(path, 1, 1), lambda: c.ftruncate(path, 0), lambda: c.lseek(path, 0), lambda: c.get_flags(path)):
        t.expect(-EBADF, call())
    t.expect(4, os.fstat(path).st_size)
    t.expect(b"text", t.content("f"))
    for fd in (reader, writer, path):
        os.close(fd)
