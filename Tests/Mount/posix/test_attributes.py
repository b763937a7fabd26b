# chmod(2), chown(2), umask, the clearing of suid and sgid, stat(2) and statx(2).
import mmap
import os
import stat
from errno import EACCES, EINVAL, ENOENT, EPERM

import calls as c
from suite import ALICE, BOB, GROUPMATE, MEMBER, ROOT, User, test


@test
def every_mode(t):
    t.file("f")
    t.dir("d")
    fd = t.opened(c.open_("f"))
    for bits in list(range(0, 0o1000, 0o7)) + [0o1000, 0o2000, 0o4000, 0o7000, 0o7777, 0o4711, 0o2750, 0o1777, 0]:
        t.expect(0, c.chmod("f", bits))
        t.expect(stat.S_IFREG | bits, os.stat("f").st_mode)
        t.expect(0, c.fchmod(fd, bits ^ 0o777))
        t.expect(bits ^ 0o777, t.mode("f"))
        t.expect(0, c.chmod("d", bits))
        t.expect(stat.S_IFDIR | bits, os.stat("d").st_mode)
    # Bits outside 07777 are left out.
    t.expect(0, c.chmod("f", 0o170644))
    t.expect(0o644, t.mode("f"))
    os.close(fd)


@test
def chmod_by_whom(t):
    for user, allowed in ((ALICE, True), (GROUPMATE, False), (MEMBER, False), (BOB, False), (ROOT, True)):
        t.file("f", b"", 0o666, ALICE)
        with t.case(user.uid):
            with t.user(user):
                t.expect(0 if allowed else -EPERM, c.chmod("f", 0o640))
                fd = c.open_("f", os.O_PATH)
                t.expect(-9, c.fchmod(fd, 0o640))
                os.close(fd)
            t.expect(0o640 if allowed else 0o666, t.mode("f"))
        os.unlink("f")


@test
def chmod_drops_sgid_for_strangers_of_the_group(t):
    """chmod(2): without CAP_FSETID the setgid bit is turned off where the file's group is none of the caller's."""
    for gid, kept in ((ALICE.gid, True), (BOB.gid, False), (0, False)):
        for kind in ("file", "dir"):
            t.file("x", b"", 0o644) if kind == "file" else t.dir("x")
            os.chown("x", ALICE.uid, gid)
            with t.case(gid, kind):
                with t.user(ALICE):
                    t.expect(0, c.chmod("x", 0o2755))
                t.expect(0o2755 if kept else 0o755, t.mode("x"))
                with t.user(ALICE):
                    t.expect(0, c.chmod("x", 0o6711))
                t.expect(0o6711 if kept else 0o4711, t.mode("x"))
                with t.user(User(ALICE.uid, 9999, (gid,))):
                    t.expect(0, c.chmod("x", 0o2700))
                t.expect(0o2700, t.mode("x"))
                t.expect(0, c.chmod("x", 0o6755))
                t.expect(0o6755, t.mode("x"), "root keeps it")
            os.unlink("x") if kind == "file" else os.rmdir("x")


@test
def chown_by_whom(t):
    for kind in ("file", "dir", "symlink", "fifo"):
        for user, uid, gid, wanted in (
                (ROOT, 5, 6, 0), (ROOT, -1, 6, 0), (ROOT, 5, -1, 0), (ROOT, -1, -1, 0), (ALICE, -1, ALICE.gid, 0), (ALICE, ALICE.uid, ALICE.gid, 0),
                (ALICE, -1, -1, 0), (ALICE, BOB.uid, -1, -EPERM), (ALICE, -1, BOB.gid, -EPERM), (ALICE, BOB.uid, BOB.gid, -EPERM),
                (ALICE, 0, -1, -EPERM), (BOB, BOB.uid, -1, -EPERM), (BOB, -1, BOB.gid, -EPERM), (BOB, -1, -1, 0),
                (User(ALICE.uid, ALICE.gid, (777,)), -1, 777, 0), (User(ALICE.uid, ALICE.gid, (777,)), ALICE.uid, 777, 0),
                (GROUPMATE, -1, ALICE.gid, -EPERM), (ROOT, 2**32 - 2, 2**31, 0)):
            if kind == "file":
                t.file("x")
            elif kind == "dir":
                t.dir("x")
            elif kind == "symlink":
                os.symlink("t", "x")
            else:
                os.mkfifo("x")
            os.lchown("x", ALICE.uid, ALICE.gid)
            with t.case(kind, user.uid, uid, gid):
                with t.user(user):
                    t.expect(wanted, c.lchown("x", uid, gid))
                after = (ALICE.uid if uid == -1 or wanted else uid, ALICE.gid if gid == -1 or wanted else gid)
                t.expect(after, t.owner("x"))
            os.rmdir("x") if kind == "dir" else os.unlink("x")


@test
def chown_clears_privileges(t):
    """chown(2): set-user-ID and set-group-ID go when the owner or group of an executable file is changed, by root too on Linux."""
    for bits, after in ((0o6755, 0o755), (0o4755, 0o755), (0o2755, 0o755), (0o6711, 0o711), (0o2745, 0o2745), (0o6744, 0o2744),
                        (0o4644, 0o644), (0o2644, 0o2644), (0o1755, 0o1755), (0o7777, 0o1777), (0o755, 0o755)):
        for user, uid, gid in ((ROOT, 5, -1), (ROOT, -1, 6), (ROOT, 5, 6), (ALICE, -1, ALICE.gid), (ALICE, ALICE.uid, -1)):
            t.file("x", b"", 0o644, ALICE)
            os.chmod("x", bits)
            with t.case(oct(bits), user.uid, uid, gid):
                with t.user(user):
                    t.expect(0, c.chown("x", uid, gid))
                t.expect(after, t.mode("x"))
            os.unlink("x")
    # A call that changes neither clears them too.
    t.file("x", b"", 0o644, ALICE)
    os.chmod("x", 0o6755)
    t.expect(0, c.chown("x", -1, -1))
    t.expect(0o755, t.mode("x"))
    # Directories keep theirs.
    t.dir("d")
    os.chmod("d", 0o6755)
    t.expect(0, c.chown("d", 5, 6))
    t.expect(0o6755, t.mode("d"))


WRITES = {
    "write": lambda: c.write(os.open("x", os.O_WRONLY), b"new"), "pwrite": lambda: c.pwrite(os.open("x", os.O_WRONLY), b"n", 0),
    "append": lambda: c.write(os.open("x", os.O_WRONLY | os.O_APPEND), b"new"), "truncate": lambda: c.truncate("x", 1),
    "ftruncate": lambda: c.ftruncate(os.open("x", os.O_WRONLY), 2), "O_TRUNC": lambda: os.open("x", os.O_WRONLY | os.O_TRUNC),
    "truncate to the same size": lambda: c.truncate("x", 4), "fallocate": lambda: c.fallocate(os.open("x", os.O_WRONLY), 0, 0, 100),
    "punch": lambda: c.fallocate(os.open("x", os.O_WRONLY), 3, 0, 2), "O_DIRECT": lambda: direct_write(),
    "copy_file_range": lambda: c.copy_file_range(os.open("from", os.O_RDONLY), 0, os.open("x", os.O_WRONLY), 0, 4),
    "zero": lambda: c.fallocate(os.open("x", os.O_WRONLY), 16, 0, 2), "O_SYNC": lambda: c.write(os.open("x", os.O_WRONLY | os.O_SYNC), b"new"),
}


def direct_write():
    return c.attempt(os.write, os.open("x", os.O_WRONLY | os.O_DIRECT), mmap.mmap(-1, 4096))


@test
def writing_clears_privileges(t):
    """inode(7): a write by a process without CAP_FSETID clears set-user-ID, and set-group-ID of group-executable files."""
    t.file("from", b"data")
    for name, do in WRITES.items():
        for bits, after in ((0o6777, 0o777), (0o4777, 0o777), (0o2777, 0o777), (0o2767, 0o2767), (0o6767, 0o2767), (0o1777, 0o1777), (0o4666, 0o666)):
            for user in (ALICE, BOB, ROOT):
                t.file("x", b"text", 0o644, ALICE)
                os.chmod("x", bits)
                with t.case(name, oct(bits), user.uid):
                    with t.user(user):
                        t.expect(lambda r: r >= 0, do())
                    # Without group execution the bit stays for members of the group alone.
                    expected = bits if user is ROOT else after & ~0o2000 if user is BOB else after
                    t.expect(expected, t.mode("x"))
                os.unlink("x")


@test
def writing_clears_file_capabilities(t):
    """capabilities(7): security.capability goes with a write, by whomever; with chown too."""
    value = b"\x01\x00\x00\x02" + b"\x00\x04\x00\x00" + b"\x00" * 12
    for name, do in (("write", WRITES["write"]), ("truncate", WRITES["truncate"]), ("chown", lambda: c.chown("x", 5, 5)),
                     ("fallocate", WRITES["fallocate"])):
        t.file("from", b"data")
        t.file("x", b"text", 0o755)
        t.expect(0, c.setxattr("x", "security.capability", value))
        t.expect(value, c.getxattr("x", "security.capability"))
        with t.case(name):
            t.expect(0, c.chmod("x", 0o711))
            t.expect(value, c.getxattr("x", "security.capability"))
            t.expect(lambda r: r >= 0, do())
            t.expect(-61, c.getxattr("x", "security.capability"))
        os.unlink("x")
        os.unlink("from")


@test
def mapped_writes_do_not_clear_privileges_of_others_silently(t):
    t.file("x", b"t" * 4096, 0o666, ALICE)
    os.chmod("x", 0o4777)
    with t.user(BOB):
        fd = t.opened(c.open_("x", os.O_RDWR))
        with mmap.mmap(fd, 4096) as view:
            view[0:1] = b"m"
            view.flush()
        os.close(fd)
    t.expect(b"m", t.content("x")[:1])


@test
def statx_and_stat_agree(t):
    t.file("f", b"text" * 3000, 0o640, ALICE)
    os.utime("f", ns=(1_000_000_001, 2_000_000_002))
    os.link("f", "g")
    s, x = os.stat("f"), c.statx("f")
    t.expect((s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_ino, s.st_size, s.st_blocks, s.st_blksize),
             (x.mode, x.nlink, x.uid, x.gid, x.ino, x.size, x.blocks, x.blksize))
    t.expect((s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns), (x.atime.ns, x.mtime.ns, x.ctime.ns))
    t.expect(s.st_dev, os.makedev(x.dev_major, x.dev_minor))
    t.expect(0x7FF, x.mask & 0x7FF)
    t.expect(-EINVAL, c.statx("f", 0x10000))
    t.expect(-EINVAL, c.statx("f", 0, 1 << 31))
    t.expect(True, s.st_blocks * 512 >= 12000)
    t.expect(True, s.st_blksize >= 512)
    for sync in (0, 0x2000, 0x4000):
        t.expect(12000, c.statx("f", sync).size)


@test
def birth_times(t):
    """statx(2), STATX_BTIME."""
    makers = {"file": lambda: t.file("x"), "dir": lambda: t.dir("x"), "symlink": lambda: os.symlink("t", "x"), "fifo": lambda: os.mkfifo("x")}
    import time
    for kind, make in makers.items():
        before = time.time_ns()
        make()
        after = time.time_ns()
        with t.case(kind):
            seen = c.statx("x", c.AT_SYMLINK_NOFOLLOW)
            if not t.expect(0x800, seen.mask & 0x800):
                continue
            born = seen.btime.ns
            t.true(before - 20_000_000 <= born <= after + 20_000_000, "born between the calls")
            t.expect(0, c.utimensat("x", (5, 0), (6, 0), c.AT_SYMLINK_NOFOLLOW))
            t.expect(0, c.lchown("x", 5, 5))
            t.expect(0, c.rename("x", "y"))
            t.expect(born, c.statx("y", c.AT_SYMLINK_NOFOLLOW).btime.ns)
        os.rmdir("y") if kind == "dir" else os.unlink("y")


@test
def statfs_tells_the_limits(t):
    seen = c.statfs(".")
    t.expect(255, seen.f_namemax)
    t.true(seen.f_bsize >= 512 and seen.f_frsize >= 512)
    t.true(0 < seen.f_bavail <= seen.f_bfree <= seen.f_blocks, "blocks")
    t.true(0 < seen.f_favail <= seen.f_files, "inodes")
    for name, value in (("PC_NAME_MAX", 255), ("PC_PATH_MAX", 4096), ("PC_PIPE_BUF", 4096)):
        t.expect(value, os.pathconf(".", name))
    t.expect(0, seen.f_flag & os.ST_RDONLY)


@test
def inode_numbers_are_stable(t):
    t.file("f")
    t.dir("d")
    numbers = os.stat("f").st_ino, os.stat("d").st_ino, os.stat(".").st_ino
    t.expect(3, len(set(numbers)))
    t.expect(0, c.rename("f", "d/g"))
    t.expect(numbers[0], os.stat("d/g").st_ino)
    for _ in range(50):
        os.mknod("tmp")
        t.true(os.stat("tmp").st_ino not in numbers)
        os.unlink("tmp")
    t.expect(numbers[1], os.stat("d").st_ino)
    t.expect(os.stat(".").st_dev, os.stat("d/g").st_dev)


@test
def access_uses_the_real_ids(t):
    t.file("f", b"", 0o600, ALICE)
    with t.user(ALICE):
        # The real ids are root's still: access(2) asks for those.
        t.expect(0, c.access("f", 6))
        t.expect(0, c.access("f", 6, c.AT_EACCESS))
        t.expect(-EACCES, c.access("f", 1, c.AT_EACCESS))
    with t.user(BOB):
        t.expect(-EACCES, c.access("f", 4, c.AT_EACCESS))
        t.expect(0, c.access("f", 0, c.AT_EACCESS))
    t.expect(-EINVAL, c.access("f", 8))
    t.expect(-ENOENT, c.access("absent", 0))
