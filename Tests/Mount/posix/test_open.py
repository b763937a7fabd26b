# open(2): flags, kinds of files, modes and umask, O_APPEND, O_TMPFILE, descriptors.
import fcntl
import os
import stat
from errno import EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO, EPERM, ETXTBSY

import calls as c
from suite import ALICE, BOB, test


@test
def creation_modes_and_umask(t):
    for mask in (0o000, 0o022, 0o077, 0o777, 0o027, 0o111):
        os.umask(mask)
        for mode in (0o000, 0o600, 0o644, 0o666, 0o777, 0o4755, 0o2755, 0o1777, 0o7777, 0o421):
            with t.case(oct(mask), oct(mode)):
                os.close(t.opened(c.open_("f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)))
                t.expect(mode & ~mask, t.mode("f"))
                t.expect(0, c.mknod("n", stat.S_IFREG | mode))
                t.expect(mode & ~mask, t.mode("n"))
                t.expect(0, c.mkfifo("p", mode))
                t.expect(mode & ~mask & 0o7777, t.mode("p") | mode & ~mask & 0o7000)
                # mkdir takes the permission and sticky bits only.
                t.expect(0, c.mkdir("d", mode))
                t.expect(mode & ~mask & 0o1777, t.mode("d"))
            for name in ("f", "n", "p"):
                os.unlink(name)
            os.rmdir("d")
    os.umask(0)


@test
def an_existing_file_keeps_mode_and_owner(t):
    t.file("f", b"text", 0o606, ALICE)
    with t.user(BOB):
        os.close(t.opened(c.open_("f", os.O_CREAT | os.O_RDWR, 0o777)))
        os.close(t.opened(c.open_("f", os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o777)))
    t.expect(0o606, t.mode("f"))
    t.expect((ALICE.uid, ALICE.gid), t.owner("f"))
    t.expect(0, t.size("f"))
    t.expect(-EEXIST, c.open_("f", os.O_CREAT | os.O_EXCL))


@test
def truncation_at_open(t):
    for flags, left in ((os.O_RDONLY, 4), (os.O_WRONLY, 4), (os.O_WRONLY | os.O_TRUNC, 0), (os.O_RDWR | os.O_TRUNC, 0),
                        (os.O_WRONLY | os.O_CREAT, 4), (os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0), (os.O_WRONLY | os.O_APPEND, 4),
                        (os.O_RDWR | os.O_APPEND | os.O_TRUNC, 0), (os.O_PATH | os.O_TRUNC, 4), (os.O_RDONLY | os.O_TRUNC, 0)):
        t.file("f", b"text")
        with t.case(oct(flags)):
            os.close(t.opened(c.open_("f", flags)))
            t.expect(left, t.size("f"))
            t.expect(b"text"[:left], t.content("f"))
        os.unlink("f")


@test
def truncation_changes_times_even_of_an_empty_file(t):
    t.file("f")
    t.expect(["mc"], t.changed(["f"], lambda: os.close(c.open_("f", os.O_WRONLY | os.O_TRUNC))))
    t.file("g", b"text")
    t.expect(["mc"], t.changed(["g"], lambda: os.close(c.open_("g", os.O_WRONLY | os.O_TRUNC))))
    t.expect([""], t.changed(["g"], lambda: os.close(c.open_("g", os.O_WRONLY))))
    t.expect([""], t.changed(["g"], lambda: os.close(c.open_("g", os.O_WRONLY | os.O_CREAT))))


@test
def kinds_of_files(t):
    t.file("file")
    t.dir("dir")
    os.symlink("file", "link")
    os.symlink("dir", "dirlink")
    c.mkfifo("fifo")
    t.expect(-EISDIR, c.open_("dir", os.O_WRONLY))
    t.expect(-EISDIR, c.open_("dir", os.O_RDWR))
    t.expect(-EISDIR, c.open_("dir", os.O_RDONLY | os.O_CREAT))
    t.expect(-EISDIR, c.open_("dir", os.O_RDONLY | os.O_TRUNC))
    t.expect(-EISDIR, c.open_("dirlink", os.O_WRONLY))
    t.expect(-EISDIR, c.open_("dir", os.O_WRONLY | os.O_APPEND))
    t.expect(-ENOTDIR, c.open_("file", os.O_DIRECTORY))
    t.expect(-ENOTDIR, c.open_("link", os.O_DIRECTORY))
    t.expect(-ENOTDIR, c.open_("fifo", os.O_DIRECTORY))
    t.expect(-ENOTDIR, c.open_("link", os.O_DIRECTORY | os.O_NOFOLLOW))
    t.expect(-ELOOP, c.open_("link", os.O_NOFOLLOW))
    t.expect(-ELOOP, c.open_("link", os.O_NOFOLLOW | os.O_CREAT))
    t.expect(-EEXIST, c.open_("link", os.O_CREAT | os.O_EXCL))
    t.expect(-ENXIO, c.open_("fifo", os.O_WRONLY | os.O_NONBLOCK))
    t.expect(-EINVAL, c.open_("new", os.O_CREAT | os.O_DIRECTORY))
    t.expect(False, t.exists("new"))
    fd = t.opened(c.open_("link", os.O_PATH | os.O_NOFOLLOW))
    t.expect(True, stat.S_ISLNK(os.fstat(fd).st_mode))
    t.expect(b"file", c.attempt(os.readlink, b"", dir_fd=fd))
    os.close(fd)
    fd = t.opened(c.open_("dir"))
    t.expect(-EISDIR, c.read(fd, 1))
    t.expect(-EISDIR, c.pread(fd, 1, 0))
    t.expect(-EINVAL, c.ftruncate(fd, 0))
    os.close(fd)
    fd = t.opened(c.open_("fifo", os.O_RDONLY | os.O_NONBLOCK))
    t.expect(b"", c.read(fd, 1))
    writer = t.opened(c.open_("fifo", os.O_WRONLY | os.O_NONBLOCK))
    t.expect(3, c.write(writer, b"abc"))
    t.expect(b"abc", c.read(fd, 10))
    t.expect(-29, c.lseek(fd, 0))
    t.expect(-29, c.pread(fd, 1, 0))
    os.close(fd)
    os.close(writer)


@test
def sockets_and_devices(t):
    import socket
    with socket.socket(socket.AF_UNIX) as server:
        t.expect(0, c.attempt(server.bind, "sock"))
        t.expect(True, stat.S_ISSOCK(os.lstat("sock").st_mode))
        t.expect(-98, c.attempt(socket.socket(socket.AF_UNIX).bind, "sock"))
        server.listen()
        with socket.socket(socket.AF_UNIX) as client:
            t.expect(0, c.attempt(client.connect, "sock"))
    t.expect(-ENXIO, c.open_("sock"))
    t.expect(-ENXIO, c.open_("sock", os.O_WRONLY))
    os.close(t.opened(c.open_("sock", os.O_PATH)))
    with socket.socket(socket.AF_UNIX) as client:
        t.expect(-111, c.attempt(client.connect, "sock"))
    for kind, device in ((stat.S_IFCHR, os.makedev(1, 3)), (stat.S_IFBLK, os.makedev(259, 70000)), (stat.S_IFCHR, os.makedev(4095, 1048575)),
                         (stat.S_IFCHR, 0), (stat.S_IFBLK, os.makedev(7, 255))):
        with t.case(kind, device):
            t.expect(0, c.mknod("dev", kind | 0o640, device))
            t.expect((kind, 0o640, device, 0), (stat.S_IFMT(os.lstat("dev").st_mode), t.mode("dev"), os.lstat("dev").st_rdev, t.size("dev")))
            seen = c.statx("dev")
            t.expect((os.major(device), os.minor(device)), (seen.rdev_major, seen.rdev_minor))
            t.expect(0, c.rename("dev", "dev2"))
            t.expect(device, os.lstat("dev2").st_rdev)
            t.expect(0, c.unlink("dev2"))
    t.dir("d", 0o777)
    with t.user(BOB):
        t.expect(-EPERM, c.mknod("d/dev", stat.S_IFCHR | 0o666, os.makedev(1, 3)))
        t.expect(-EPERM, c.mknod("d/dev", stat.S_IFBLK | 0o666, os.makedev(7, 0)))
        t.expect(0, c.mknod("d/sock", stat.S_IFSOCK | 0o666))
        t.expect(0, c.mknod("d/fifo", stat.S_IFIFO | 0o666))
    t.expect(-EPERM, c.mknod("x", stat.S_IFDIR | 0o755))
    t.expect(-EINVAL, c.mknod("x", stat.S_IFLNK | 0o755))
    t.expect(0, c.mknod("zero", 0o644))
    t.expect(True, stat.S_ISREG(os.lstat("zero").st_mode))
    t.expect(["fifo", "sock"], c.listdir("d"))


@test
def appending(t):
    t.file("f", b"0123456789")
    a = t.opened(c.open_("f", os.O_WRONLY | os.O_APPEND))
    b = t.opened(c.open_("f", os.O_RDWR | os.O_APPEND))
    t.expect(0, c.lseek(a, 0))
    t.expect(2, c.write(a, b"ab"))
    t.expect(12, c.lseek(a, 0, os.SEEK_CUR))
    t.expect(2, c.write(b, b"cd"))
    t.expect(14, c.lseek(b, 0, os.SEEK_CUR))
    # pwrite(2), BUGS: on Linux, O_APPEND wins over the offset.
    t.expect(2, c.pwrite(b, b"ef", 0))
    t.expect(14, c.lseek(b, 0, os.SEEK_CUR))
    t.expect(b"0123456789abcdef", t.content("f"))
    t.expect(0, c.ftruncate(b, 4))
    t.expect(1, c.write(a, b"!"))
    t.expect(b"0123!", t.content("f"))
    plain = t.opened(c.open_("f", os.O_RDWR))
    t.expect(0, fcntl.fcntl(plain, fcntl.F_SETFL, os.O_APPEND))
    t.expect(1, c.write(plain, b"?"))
    t.expect(b"0123!?", t.content("f"))
    t.expect(2, c.pwritev2(t.opened(c.open_("f", os.O_RDWR)), b"++", 0, c.RWF_APPEND))
    t.expect(b"0123!?++", t.content("f"))
    for fd in (a, b, plain):
        os.close(fd)


@test
def appending_from_several_processes(t):
    t.file("log")

    def writer(number):
        fd = os.open("log", os.O_WRONLY | os.O_APPEND)
        for turn in range(100):
            if os.write(fd, b"%02d %05d\n" % (number, turn)) != 9:
                return False
        return True
    pids = []
    for number in range(6):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if writer(number) else 1)
        pids.append(pid)
    for pid in pids:
        t.expect(0, os.waitpid(pid, 0)[1])
    lines = t.content("log").splitlines()
    t.expect(600, len(lines))
    t.expect(600, len(set(lines)))
    for number in range(6):
        own = [line for line in lines if line.startswith(b"%02d" % number)]
        t.expect(sorted(own), own, "each writer's lines are in order")


@test
def temporary_files(t):
    """open(2), O_TMPFILE: a file without a name, that linkat may give one."""
    t.dir("d", 0o777)
    t.file("f")
    fd = c.open_("d", c.O_TMPFILE | os.O_RDWR, 0o640)
    if not t.expect(True, isinstance(fd, int) and fd >= 0):
        return
    t.expect([], c.listdir("d"))
    t.expect((0, 0o640, 0), (os.fstat(fd).st_nlink, stat.S_IMODE(os.fstat(fd).st_mode), os.fstat(fd).st_size))
    t.expect(5, c.write(fd, b"hello"))
    t.expect(0, c.linkat(c.AT_FDCWD, f"/proc/self/fd/{fd}", c.AT_FDCWD, "d/named", c.AT_SYMLINK_FOLLOW))
    t.expect(b"hello", t.content("d/named"))
    t.expect(1, os.fstat(fd).st_nlink)
    t.expect(0, c.unlink("d/named"))
    # A file that had a name and lost it cannot be linked again.
    t.expect(-ENOENT, c.linkat(c.AT_FDCWD, f"/proc/self/fd/{fd}", c.AT_FDCWD, "d/again", c.AT_SYMLINK_FOLLOW))
    os.close(fd)
    fd = t.opened(c.open_("d", c.O_TMPFILE | os.O_WRONLY | os.O_EXCL))
    t.expect(-ENOENT, c.linkat(c.AT_FDCWD, f"/proc/self/fd/{fd}", c.AT_FDCWD, "d/excl", c.AT_SYMLINK_FOLLOW))
    os.close(fd)
    t.expect(-EINVAL, c.open_("d", c.O_TMPFILE | os.O_RDONLY))
    t.expect(-ENOTDIR, c.open_("f", c.O_TMPFILE | os.O_RDWR))
    t.expect(-ENOENT, c.open_("absent", c.O_TMPFILE | os.O_RDWR))
    t.dir("gone")
    place = os.open("gone", os.O_RDONLY)
    os.rmdir("gone")
    t.expect(-EPERM, c.open_(f"/proc/self/fd/{place}", c.O_TMPFILE | os.O_RDWR))
    os.close(place)
    os.umask(0o027)
    fd = t.opened(c.open_("d", c.O_TMPFILE | os.O_RDWR, 0o777))
    t.expect(0o750, stat.S_IMODE(os.fstat(fd).st_mode))
    os.close(fd)
    os.umask(0)
    os.chown("d", -1, 4321)
    os.chmod("d", 0o2777)
    with t.user(ALICE):
        fd = t.opened(c.open_("d", c.O_TMPFILE | os.O_RDWR, 0o666))
        t.expect((ALICE.uid, 4321), (os.fstat(fd).st_uid, os.fstat(fd).st_gid))
        t.expect(0, c.linkat(c.AT_FDCWD, f"/proc/self/fd/{fd}", c.AT_FDCWD, "d/g", c.AT_SYMLINK_FOLLOW))
        t.expect(["m" "c"], t.changed(["d"], lambda: c.unlink("d/g")))
        os.close(fd)
    t.expect([""], t.changed(["d"], lambda: os.close(c.open_("d", c.O_TMPFILE | os.O_RDWR))))
    t.expect([], c.listdir("d"))


@test
def a_running_program_cannot_be_written(t):
    import shutil
    shutil.copy("/bin/sleep", "program")
    os.chmod("program", 0o755)
    fd = t.opened(c.open_("program", os.O_WRONLY))
    t.expect(-ETXTBSY, t.child(lambda: c.attempt(os.execv, "./program", ["program", "0"])))
    os.close(fd)
    pid = os.posix_spawn("./program", ["program", "5"], {})
    try:
        t.expect(-ETXTBSY, c.open_("program", os.O_WRONLY))
        t.expect(-ETXTBSY, c.open_("program", os.O_RDWR | os.O_TRUNC))
        t.expect(-ETXTBSY, c.truncate("program", 0))
        t.expect(True, t.size("program") > 1000)
        os.close(t.opened(c.open_("program")))
        t.expect(0, c.unlink("program"))
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@test
def flags_of_open_descriptors(t):
    t.file("f", b"text")
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_RDWR | os.O_NONBLOCK, os.O_WRONLY | os.O_DSYNC,
                  os.O_WRONLY | os.O_SYNC, os.O_RDWR | os.O_DIRECT, os.O_RDONLY | os.O_NOATIME):
        fd = t.opened(c.open_("f", flags))
        with t.case(oct(flags)):
            t.expect(flags, fcntl.fcntl(fd, fcntl.F_GETFL) & ~0o100000)
        os.close(fd)
    with t.user(BOB):
        t.expect(-EPERM, c.open_("f", os.O_RDONLY | os.O_NOATIME))
    for first, second, third in ((1, 2, 3),):
        one = t.opened(c.open_("f"))
        two = t.opened(c.attempt(os.dup, one))
        t.expect(b"te", c.read(one, 2))
        t.expect(b"xt", c.read(two, 2))
        t.expect(b"", c.read(one, 2))
        os.close(one)
        t.expect(0, c.lseek(two, 0))
        os.close(two)


@test
def unlinked_open_files(t):
    t.file("f", b"before")
    fd = t.opened(c.open_("f", os.O_RDWR))
    t.expect(0, c.setxattr("f", "user.a", b"1"))
    t.expect(0, c.unlink("f"))
    t.expect(0, os.fstat(fd).st_nlink)
    t.expect(6, c.pwrite(fd, b" after", 6))
    t.expect(b"before after", c.pread(fd, 100, 0))
    t.expect(0, c.ftruncate(fd, 8))
    t.expect(8, os.fstat(fd).st_size)
    t.expect(0, c.fchmod(fd, 0o604))
    t.expect(0o604, stat.S_IMODE(os.fstat(fd).st_mode))
    t.expect(0, c.fchown(fd, 12, 34))
    t.expect((12, 34), (os.fstat(fd).st_uid, os.fstat(fd).st_gid))
    t.expect(0, c.utimensat(None, (5, 6), (7, 8), at=fd))
    t.expect((5_000_000_006, 7_000_000_008), (os.fstat(fd).st_atime_ns, os.fstat(fd).st_mtime_ns))
    t.expect(b"1", c.getxattr(fd, "user.a"))
    t.expect(0, c.setxattr(fd, "user.b", b"2"))
    t.expect(["user.a", "user.b"], c.listxattr(fd))
    t.expect(0, c.removexattr(fd, "user.a"))
    t.expect(0, c.fallocate(fd, 0, 0, 10000))
    t.expect(10000, os.fstat(fd).st_size)
    t.expect(8, c.lseek(fd, 8))
    t.expect(0, c.fsync(fd))
    t.expect(0, c.attempt(fcntl.flock, fd, fcntl.LOCK_EX))
    t.file("f", b"another")
    t.expect(b"before a", c.pread(fd, 8, 0))
    t.expect(b"another", t.content("f"))
    again = t.opened(c.open_(f"/proc/self/fd/{fd}", os.O_RDWR))
    t.expect(1, c.write(again, b"B"))
    t.expect(b"Before a", c.pread(fd, 8, 0))
    t.expect(-ENOENT, c.linkat(c.AT_FDCWD, f"/proc/self/fd/{fd}", c.AT_FDCWD, "back", c.AT_SYMLINK_FOLLOW))
    os.close(fd)
    os.close(again)


@test
def a_removed_working_directory(t):
    t.dir("d")
    place = os.getcwd()
    os.chdir("d")
    t.expect(0, c.rmdir("../d"))
    t.expect(-ENOENT, c.attempt(os.getcwd))
    t.expect(-ENOENT, c.mkdir("x"))
    t.expect(-ENOENT, c.open_("x", os.O_CREAT))
    t.expect(-ENOENT, c.symlink("a", "x"))
    t.expect([], c.listdir("."))
    t.expect(0, os.stat(".").st_nlink)
    t.expect(-ENOENT, c.stat("x"))
    t.expect(True, os.stat("..").st_ino == os.stat(place).st_ino)
    t.expect(0, c.chmod(".", 0o700))
    t.expect(0o700, t.mode("."))
    os.chdir(place)


@test
def opening_through_openat2_and_large_offsets(t):
    t.dir("d")
    t.file("d/f", b"1")
    fd = t.opened(c.open_("d/f", os.O_RDWR))
    t.expect(-EINVAL, c.lseek(fd, -1))
    t.expect(-EINVAL, c.lseek(fd, 0, 99))
    t.expect(1, c.lseek(fd, 0, os.SEEK_END))
    t.expect(11, c.lseek(fd, 10, os.SEEK_END))
    t.expect(b"", c.read(fd, 5))
    t.expect(1, c.write(fd, b"x"))
    t.expect(b"1" + b"\0" * 10 + b"x", t.content("d/f"))
    t.expect(-EINVAL, c.pread(fd, 1, -1))
    t.expect(-EINVAL, c.pwrite(fd, b"x", -1))
    t.expect(-EINVAL, c.ftruncate(fd, -1))
    t.expect(-EINVAL, c.truncate("d/f", -5))
    os.close(fd)
