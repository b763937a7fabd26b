# Making and removing names: mkdir, rmdir, link, symlink, readlink, unlink, and the link counts and times that follow.
import os
import stat
from errno import EACCES, EEXIST, EINVAL, EISDIR, EMLINK, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EPERM

import calls as c
from suite import ALICE, BOB, GROUPMATE, MEMBER, test


@test
def directories_and_link_counts(t):
    t.dir("d")
    t.expect(2, t.links("d"))
    for number in range(5):
        t.expect(0, c.mkdir(f"d/{number}"))
        t.expect(3 + number, t.links("d"))
        t.expect(2, t.links(f"d/{number}"))
    t.file("d/f")
    os.symlink("x", "d/s")
    t.expect(7, t.links("d"), "files do not count")
    for number in range(5):
        t.expect(0, c.rmdir(f"d/{number}"))
        t.expect(6 - number, t.links("d"))
    t.expect(-ENOTEMPTY, c.rmdir("d"))
    t.expect(0, c.unlink("d/f"))
    t.expect(-ENOTEMPTY, c.rmdir("d"))
    t.expect(0, c.unlink("d/s"))
    t.expect(0, c.rmdir("d"))
    t.expect(-ENOENT, c.rmdir("d"))


@test
def removing_what_is_no_directory(t):
    t.file("file", b"x")
    t.dir("dir")
    os.symlink("dir", "link")
    c.mkfifo("fifo")
    for name in ("file", "link", "fifo"):
        t.expect(-ENOTDIR, c.rmdir(name))
    t.expect(-EISDIR, c.unlink("dir"))
    with t.user(ALICE):
        t.expect(lambda r: r in (-EISDIR, -EACCES), c.unlink("dir"))
    for name in ("file", "link", "fifo"):
        t.expect(0, c.unlink(name))
        t.expect(-ENOENT, c.unlink(name))
    t.expect(["dir"], c.listdir("."))


@test
def owners_of_new_entries(t):
    makers = {
        "file": lambda p: os.close(os.open(p, os.O_CREAT | os.O_EXCL, 0o2770)), "dir": lambda p: os.mkdir(p, 0o770),
        "fifo": lambda p: os.mkfifo(p, 0o660), "symlink": lambda p: os.symlink("t", p), "node": lambda p: os.mknod(p, 0o100660),
    }
    for bits, group_from_directory in ((0o777, False), (0o2777, True), (0o1777, False), (0o3777, True)):
        t.dir("d", 0o777)
        os.chown("d", BOB.uid, 4321)
        os.chmod("d", bits)
        for user in (ALICE, GROUPMATE, MEMBER):
            for name, make in makers.items():
                with t.case(oct(bits), user.uid, name), t.user(user):
                    make(f"d/{name}")
                    t.expect((user.uid, 4321 if group_from_directory else user.gid), t.owner(f"d/{name}"))
                    if name == "dir":
                        t.expect(0o2770 if group_from_directory else 0o770, t.mode("d/dir"), "setgid is inherited")
                    if name == "file":
                        # A setgid bit for a group that one is not a member of is dropped.
                        t.expect(0o770 if group_from_directory else 0o2770, t.mode("d/file"))
                    os.rmdir(f"d/{name}") if name == "dir" else os.unlink(f"d/{name}")
        os.rmdir("d")


@test
def setgid_at_creation_for_members(t):
    t.dir("d", 0o777)
    os.chown("d", BOB.uid, ALICE.gid)
    os.chmod("d", 0o2777)
    for user, kept in ((ALICE, True), (GROUPMATE, True), (MEMBER, True), (BOB, False)):
        with t.case(user.uid), t.user(user):
            os.close(t.opened(c.open_("d/f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o2755)))
            t.expect(0o2755 if kept else 0o755, t.mode("d/f"))
            t.expect(0, c.mknod("d/n", stat.S_IFREG | 0o2711))
            t.expect(0o2711 if kept else 0o711, t.mode("d/n"))
            t.expect((user.uid, ALICE.gid), t.owner("d/n"))
            # Without group execution the bit is no privilege, and stays.
            t.expect(0, c.mknod("d/m", stat.S_IFREG | 0o2744))
            t.expect(0o2744, t.mode("d/m"))
            for name in ("f", "n", "m"):
                os.unlink(f"d/{name}")


@test
def times_of_making_and_removing(t):
    t.dir("d")
    t.file("out", b"x")
    makers = [("mkdir", lambda: c.mkdir("d/x"), c.rmdir), ("create", lambda: os.close(c.open_("d/x", os.O_CREAT)), c.unlink),
              ("symlink", lambda: c.symlink("t", "d/x"), c.unlink), ("mkfifo", lambda: c.mkfifo("d/x"), c.unlink),
              ("mknod", lambda: c.mknod("d/x"), c.unlink), ("link", lambda: c.link("out", "d/x"), c.unlink)]
    for name, make, take in makers:
        with t.case(name):
            t.expect(["mc"], t.changed(["d"], make))
            if name != "link":
                made, parent = os.lstat("d/x"), os.stat("d")
                t.true(made.st_atime_ns == made.st_mtime_ns == made.st_ctime_ns, "one time at birth")
                t.true(abs(made.st_mtime_ns - parent.st_mtime_ns) < 20_000_000, "the directory's is the same")
            t.expect(["mc", "c" if name == "link" else ""], t.changed(["d", "out"], lambda: take("d/x")))
    t.expect(["", "c"], t.changed([".", "d"], lambda: c.chmod("d", 0o755)))


@test
def failing_calls_change_no_times(t):
    t.dir("d")
    t.file("d/f", b"x")
    t.dir("d/full")
    t.file("d/full/x")
    actions = [lambda: c.mkdir("d/f"), lambda: c.rmdir("d/full"), lambda: c.unlink("d/absent"), lambda: c.rename("d/absent", "d/y"),
               lambda: c.link("d/f", "d/full"), lambda: c.symlink("x", "d/f"), lambda: c.open_("d/f", os.O_CREAT | os.O_EXCL),
               lambda: c.rename("d/f", "d/full"), lambda: c.renameat2("d/f", "d/full", 1), lambda: c.rmdir("d/f"), lambda: c.unlink("d/full"),
               lambda: c.mknod("d/f"), lambda: c.truncate("d/f", -1), lambda: c.removexattr("d/f", "user.none"),
               lambda: c.setxattr("d/f", "user.none", b"", os.XATTR_REPLACE), lambda: c.readlink("d/f")]
    for number, action in enumerate(actions):
        with t.case(number):
            t.expect(["", "", ""], t.changed(["d", "d/f", "d/full"], action))
            t.expect(lambda r: r < 0, t.result)


@test
def hard_links(t):
    t.file("f", b"text", 0o640, ALICE)
    t.dir("d")
    inode = os.stat("f").st_ino
    for number in range(10):
        t.expect(0, c.link("f", f"d/{number}"))
        t.expect(number + 2, t.links("f"))
        t.expect(inode, os.stat(f"d/{number}").st_ino)
    t.expect(3, c.pwrite(t.opened(c.open_("d/3", os.O_RDWR)), b"new", 0))
    t.expect(b"newt", t.content("d/7"))
    t.expect(0, c.chmod("d/1", 0o600))
    t.expect(0o600, t.mode("f"))
    t.expect(0, c.setxattr("d/2", "user.x", b"y"))
    t.expect(b"y", c.getxattr("f", "user.x"))
    t.expect(0, c.unlink("f"))
    t.expect(10, t.links("d/0"))
    t.expect(b"newt", t.content("d/0"))
    t.expect(-EPERM, c.link("d", "dd"))
    t.expect(-EEXIST, c.link("d/0", "d/1"))
    t.expect(-EEXIST, c.link("d/0", "d/0"))
    for number in range(10):
        t.expect(0, c.unlink(f"d/{number}"))


@test
def links_to_everything_but_directories(t):
    os.symlink("target", "symlink")
    c.mkfifo("fifo")
    c.mknod("device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    c.mknod("socket", stat.S_IFSOCK | 0o600)
    for name in ("symlink", "fifo", "device", "socket"):
        with t.case(name):
            t.expect(0, c.link(name, name + "2"))
            t.expect((os.lstat(name).st_ino, 2), (os.lstat(name + "2").st_ino, t.links(name + "2")))
            t.expect(0, c.unlink(name))
            t.expect(1, t.links(name + "2"))
    t.expect(b"target", c.readlink("symlink2"))
    t.file("target", b"x")
    # linkat follows only when it is told to.
    t.expect(0, c.link("symlink2", "followed", c.AT_SYMLINK_FOLLOW))
    t.expect(os.stat("target").st_ino, os.lstat("followed").st_ino)
    t.expect(-EINVAL, c.link("target", "x", 0x8000))


@test
def many_links(t):
    """EMLINK: ext4 takes 65,000 names of a file."""
    t.file("f")
    t.dir("d")
    place = os.open("d", os.O_RDONLY)
    made = 0
    result = 0
    while result == 0 and made < 70_000:
        result = c.linkat(c.AT_FDCWD, "f", place, str(made), 0)
        made += result == 0
        if made == 2000 and t.options.quick:
            break
    if not t.options.quick:
        t.expect(-EMLINK, result)
        t.expect(64_999, made)
    t.expect(made + 1, t.links("f"))
    t.expect(made, len(os.listdir(place)))
    if not t.options.quick:
        t.expect(0, c.unlink("d/5"))
        t.expect(0, c.link("f", "d/5"))
    os.close(place)


@test
def symbolic_links(t):
    for target in ("x", "/absolute/path", "../up", "a" * 255, "b/" * 2000 + "c", "ü\n", " ", ".", "..", "/", "c" * 59, "d" * 60, "e" * 4095):
        with t.case(target[:10], len(target)):
            t.expect(0, c.symlink(target, "s"))
            t.expect(os.fsencode(target), c.readlink("s"))
            t.expect(len(os.fsencode(target)), os.lstat("s").st_size)
            t.expect(stat.S_IFLNK | 0o777, os.lstat("s").st_mode)
            t.expect(1, t.links("s"))
            t.expect(0, c.unlink("s"))
    t.expect(-ENAMETOOLONG, c.symlink("x" * 4096, "s"))
    t.expect(-ENOENT, c.symlink("", "s"))
    t.expect([], c.listdir("."))
    t.file("file", b"x")
    t.dir("dir")
    for name in ("file", "dir"):
        t.expect(-EINVAL, c.readlink(name))
    t.expect(-ENOENT, c.readlink("absent"))
    # A short buffer takes the beginning.
    os.symlink("abcdefgh", "s")
    import ctypes
    buffer = ctypes.create_string_buffer(b"........")
    t.expect(3, c.libc.readlink(b"s", buffer, ctypes.c_size_t(3)))
    t.expect(b"abc.....", buffer.value)


@test
def modes_and_owners_of_symlinks(t):
    t.file("target", b"", 0o640)
    os.symlink("target", "s")
    t.expect(0, c.lchown("s", 77, 88))
    t.expect((77, 88), t.owner("s"))
    t.expect((0, 0), t.owner("target"))
    t.expect(0, c.chown("s", 5, 6))
    t.expect((5, 6), t.owner("target"))
    t.expect((77, 88), t.owner("s"))
    t.expect(0, c.chmod("s", 0o600))
    t.expect(0o600, t.mode("target"))
    t.expect(0o777, t.mode("s"))
    t.expect(-95, c.fchmodat2(c.AT_FDCWD, "s", 0o600, c.AT_SYMLINK_NOFOLLOW))
    t.expect(0, c.utimensat("s", (11, 12), (13, 14), c.AT_SYMLINK_NOFOLLOW))
    t.expect((11_000_000_012, 13_000_000_014), (os.lstat("s").st_atime_ns, os.lstat("s").st_mtime_ns))
    t.expect(True, os.stat("target").st_mtime > 1_000_000)


@test
def umask_and_default_group_of_a_directory_tree(t):
    os.umask(0o022)
    os.makedirs("a/b/c")
    for path in ("a", "a/b", "a/b/c"):
        t.expect(0o755, t.mode(path))
    os.umask(0)
    t.expect(0, c.chmod("a", 0o2755))
    t.expect(0, c.chown("a", -1, 99))
    t.expect(0, c.chmod("a", 0o2755))
    os.makedirs("a/x/y")
    t.expect((0, 99), t.owner("a/x/y"))
    t.expect(0o2777, t.mode("a/x/y"))


@test
def reading_directories(t):
    t.dir("d")
    names = [f"entry-{number:04}" for number in range(1500)]
    for name in names:
        os.mknod("d/" + name)
    os.mkdir("d/dir")
    os.symlink("x", "d/link")
    os.mkfifo("d/fifo")
    os.mknod("d/char", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod("d/block", stat.S_IFBLK | 0o600, os.makedev(7, 3))
    os.mknod("d/socket", stat.S_IFSOCK | 0o600)
    kinds = {b"dir": 4, b"link": 10, b"fifo": 1, b"char": 2, b"block": 6, b"socket": 12, b".": 4, b"..": 4}
    stream = c.Directory("d")
    found = {}
    while (entry := stream.next()) is not None:
        t.true(entry[0] not in found, "no name twice") if entry[0] in found else None
        found[entry[0]] = entry
    t.expect(sorted([os.fsencode(n) for n in names] + list(kinds)), sorted(found))
    for name, (_, kind, inode) in found.items():
        if name in kinds or name.endswith(b"00"):
            with t.case(name):
                t.expect(kinds.get(name, 8), kind)
                t.expect(os.lstat(b"d/" + name).st_ino, inode)
    t.expect(os.stat(".").st_ino, found[b".."][2])
    stream.rewind()
    t.expect(len(names) + 8, len(stream.rest()))
    t.expect(0, stream.close())


@test
def positions_in_directories(t):
    """telldir(3): a position stays good while other entries come and go."""
    t.dir("d")
    names = [f"n{number:03}" for number in range(400)]
    for name in names:
        os.mknod("d/" + name)
    stream = c.Directory("d")
    order, places = [], []
    while True:
        places.append(stream.tell())
        entry = stream.next()
        if entry is None:
            break
        order.append(entry[0])
    t.expect(len(order), len(set(places[:-1])), "positions are distinct")
    for index in (0, 1, 2, 57, 200, 399, len(order) - 1):
        with t.case(index):
            stream.seek(places[index])
            t.expect(order[index], stream.next()[0])
            stream.seek(places[index])
            t.expect(order[index:], stream.rest())
    for index in range(0, len(order), 3):
        name = order[index]
        if name not in (b".", b".."):
            os.unlink(b"d/" + name)
    for number in range(100):
        os.mknod(f"d/new{number}")
    alive = {name for index, name in enumerate(order) if index % 3 or name in (b".", b"..")}
    # Ask the kernel anew, at the old positions.
    for index in (1, 100, 250):
        for begins in (True, False):
            fresh = c.Directory("d")
            if begins:
                fresh.next()
            fresh.seek(places[index])
            rest = [name for name in fresh.rest() if not name.startswith(b"new")]
            fresh.close()
            wanted = [name for name in order[index:] if name in alive]
            with t.case("after changes", index, begins):
                if begins:
                    t.expect(wanted, rest)
                else:
                    with t.differs("treering", "the kernel looks for a change of a listing that it keeps only at its beginning"):
                        t.expect(wanted, rest)
    stream.close()


@test
def entries_removed_while_reading(t):
    t.dir("d")
    names = {b"%04d" % number for number in range(1200)}
    for name in names:
        os.mknod(b"d/" + name)
    stream = c.Directory("d")
    seen = []
    while (entry := stream.next()) is not None:
        if entry[0] in (b".", b".."):
            continue
        seen.append(entry[0])
        if c.unlink(b"d/" + entry[0]) not in (0, -ENOENT):
            t.expect(0, -1)
        # A name that is still to come goes too; it may be seen or not, but no other may be missed.
        if len(seen) % 10 == 0 and (rest := names - set(seen)):
            victim = max(rest)
            c.unlink(b"d/" + victim)
            names.discard(victim)
    t.expect(len(seen), len(set(seen)), "none twice")
    t.expect(set(), names - set(seen), "none missed")
    t.expect([], c.listdir("d"))
    stream.close()
    t.expect(0, c.rmdir("d"))


@test
def a_renamed_entry_is_not_seen_twice(t):
    t.dir("d")
    for number in range(300):
        os.mknod(f"d/{number:03}")
    stream = c.Directory("d")
    stream.next(), stream.next(), stream.next()
    for number in range(300):
        if number % 50 != 0:
            os.unlink(f"d/{number:03}")
    rest = stream.rest()
    t.expect(len(rest), len(set(rest)))
    stream.rewind()
    t.expect(sorted([b".", b".."] + [b"%03d" % n for n in range(0, 300, 50)]), sorted(stream.rest()))
    stream.close()


@test
def getdents_with_small_buffers(t):
    import ctypes
    t.dir("d")
    os.mknod("d/" + "n" * 255)
    os.mknod("d/short")
    fd = os.open("d", os.O_RDONLY)
    small = ctypes.create_string_buffer(24)
    t.expect(-EINVAL, c.raw("getdents64", fd, small, 10))
    names = set()
    os.lseek(fd, 0, 0)
    buffer = ctypes.create_string_buffer(300)
    while (count := c.raw("getdents64", fd, buffer, 300)) > 0:
        offset = 0
        while offset < count:
            length = int.from_bytes(buffer.raw[offset + 16:offset + 18], "little")
            names.add(buffer.raw[offset + 19:offset + length].split(b"\0")[0])
            offset += length
    t.expect(0, count)
    t.expect({b".", b"..", b"n" * 255, b"short"}, names)
    t.expect(-ENOTDIR, c.raw("getdents64", t.opened(c.open_("d/short")), buffer, 300))
    os.rename("d/short", "out")
    os.unlink("d/" + "n" * 255)
    os.rmdir("d")
    os.lseek(fd, 0, 0)
    t.expect(lambda r: r in (0, -ENOENT), c.raw("getdents64", fd, buffer, 300))
    os.close(fd)
