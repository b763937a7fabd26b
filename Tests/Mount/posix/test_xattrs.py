# Extended attributes (xattr(7), setxattr(2), listxattr(2)): namespaces, flags, sizes, many names, and what follows the inode.
import os
from errno import E2BIG, EACCES, EEXIST, EINVAL, ENODATA, ENOTSUP, EPERM, ERANGE

import calls as c
from suite import ALICE, BOB, test


@test
def set_get_replace_remove(t):
    t.file("f")
    t.dir("d")
    for path in ("f", "d"):
        for name in ("user.a", "user.with space", "user.ü", "user." + "n" * 250, "user.a.b.c", "trusted.t", "security.s"):
            with t.case(path, name):
                t.expect(-ENODATA, c.getxattr(path, name))
                t.expect(-ENODATA, c.removexattr(path, name))
                t.expect(-ENODATA, c.setxattr(path, name, b"0", os.XATTR_REPLACE))
                t.expect(0, c.setxattr(path, name, b"one", os.XATTR_CREATE))
                t.expect(b"one", c.getxattr(path, name))
                t.expect(-EEXIST, c.setxattr(path, name, b"two", os.XATTR_CREATE))
                t.expect(b"one", c.getxattr(path, name))
                t.expect(0, c.setxattr(path, name, b"three", os.XATTR_REPLACE))
                t.expect(0, c.setxattr(path, name, b"", 0))
                t.expect(b"", c.getxattr(path, name))
                t.expect(0, c.setxattr(path, name, b"\0\xff\0"))
                t.expect(b"\0\xff\0", c.getxattr(path, name))
                t.expect([name], c.listxattr(path))
                t.expect(0, c.removexattr(path, name))
                t.expect([], c.listxattr(path))
    t.expect(-EINVAL, c.setxattr("f", "user.a", b"", 4))
    with t.differs("ext4", "no XATTR_CREATE|XATTR_REPLACE in one call is defined"):
        t.expect(lambda r: r < 0, c.setxattr("f", "user.a", b"", 3))


@test
def names_at_fault(t):
    t.file("f")
    for name, wanted in (("user." + "n" * 251, -ERANGE), ("n" * 300, -ERANGE), ("", -ERANGE), ("plain", -ENOTSUP), ("user", -ENOTSUP),
                         ("system.x", -ENOTSUP),
                         ("other.x", -ENOTSUP), ("USER.x", -ENOTSUP), ("user.", -EINVAL), ("trusted.", -EINVAL), ("security.", -EINVAL),
                         ("system.posix_acl_accessx", -ENOTSUP)):
        with t.case(name[:20], len(name)):
            t.expect(wanted, c.setxattr("f", name, b"1"))
            t.expect(wanted, c.getxattr("f", name))
            t.expect(wanted, c.removexattr("f", name))
    t.expect([], c.listxattr("f"))


@test
def namespaces_and_rights(t):
    t.file("f", b"", 0o644, ALICE)
    for name in ("trusted.t", "security.s", "user.u"):
        c.setxattr("f", name, b"1")
    with t.user(ALICE):
        t.expect(-ENODATA, c.getxattr("f", "trusted.t"))
        t.expect(-EPERM, c.setxattr("f", "trusted.t", b"2"))
        t.expect(-EPERM, c.removexattr("f", "trusted.t"))
        t.expect(b"1", c.getxattr("f", "security.s"))
        t.expect(-EPERM, c.setxattr("f", "security.s", b"2"))
        t.expect(-EPERM, c.removexattr("f", "security.s"))
        t.expect(0, c.setxattr("f", "user.u", b"2"))
        with t.differs("treering", "the kernel passes a FUSE server's list on whole; ext4 leaves out trusted.* for those without CAP_SYS_ADMIN"):
            t.expect(["security.s", "user.u"], c.listxattr("f"))
    with t.user(BOB):
        t.expect(b"2", c.getxattr("f", "user.u"))
        t.expect(-EACCES, c.setxattr("f", "user.u", b"3"))
        t.expect(-EACCES, c.removexattr("f", "user.u"))
    t.expect(["security.s", "trusted.t", "user.u"], c.listxattr("f"))
    # user.* belongs to files and directories only.
    os.symlink("f", "s")
    os.mkfifo("p")
    os.mknod("dev", 0o20600, os.makedev(1, 3))
    for path in ("s", "p", "dev"):
        with t.case(path):
            t.expect(-EPERM, c.setxattr(path, "user.x", b"1", 0, False))
            t.expect(-ENODATA, c.getxattr(path, "user.x", False))
            t.expect(0, c.setxattr(path, "trusted.x", b"1", 0, False))
            t.expect(b"1", c.getxattr(path, "trusted.x", False))
            t.expect(["trusted.x"], c.listxattr(path, False))
            t.expect(0, c.removexattr(path, "trusted.x", False))
    t.expect(0, c.setxattr("s", "user.through", b"1"))
    t.expect(b"1", c.getxattr("f", "user.through"))
    # In a sticky directory only its owner sets user.*.
    t.dir("sticky", 0o1777, ALICE)
    with t.user(BOB):
        t.expect(-EPERM, c.setxattr("sticky", "user.x", b"1"))
    with t.user(ALICE):
        t.expect(0, c.setxattr("sticky", "user.x", b"1"))


@test
def sizes(t):
    t.file("f")
    for size in (0, 1, 2, 40, 100, 255, 256, 1000, 2000, 3000, 3900):
        value = bytes(i & 0xFF for i in range(size))
        with t.case(size):
            t.expect(0, c.setxattr("f", "user.a", value))
            t.expect(value, c.getxattr("f", "user.a"))
            t.expect(size, c.getxattr_sized("f", "user.a", 0))
            t.expect(size, c.getxattr_sized("f", "user.a", size + 1))
            if size > 1:
                t.expect(-ERANGE, c.getxattr_sized("f", "user.a", size - 1))
                t.expect(-ERANGE, c.getxattr_sized("f", "user.a", 1))
            t.expect(size, c.getxattr_sized("f", "user.a", 70000))
    with t.differs("ext4", "without the feature ea_inode, attributes of an inode share one block there"):
        for size in (4097, 10_000, 65_535, 65_536):
            value = os.urandom(size)
            with t.case(size):
                t.expect(0, c.setxattr("f", "user.big", value))
                t.expect(value, c.getxattr("f", "user.big"))
                t.expect(size, c.getxattr_sized("f", "user.big", 0))
                t.expect(-ERANGE, c.getxattr_sized("f", "user.big", size - 1))
        t.expect(["user.a", "user.big"], c.listxattr("f"))
        t.expect(0, c.removexattr("f", "user.big"))
    t.expect(-E2BIG, c.setxattr("f", "user.a", b"x" * 65_537))
    t.expect(-E2BIG, c.setxattr("f", "user.a", b"x" * 100_000))
    t.expect(3900, c.getxattr_sized("f", "user.a", 0))


@test
def listing(t):
    t.file("f")
    t.expect(0, c.listxattr_sized("f", 0))
    t.expect(0, c.listxattr_sized("f", 100))
    for name in ("user.one", "user.two"):
        c.setxattr("f", name, b"")
    t.expect(18, c.listxattr_sized("f", 0))
    t.expect(18, c.listxattr_sized("f", 18))
    t.expect(-ERANGE, c.listxattr_sized("f", 17))
    t.expect(-ERANGE, c.listxattr_sized("f", 1))
    t.expect(18, c.listxattr_sized("f", 65536))
    for number in range(20):
        t.expect(0, c.setxattr("f", f"user.n{number}", b"%d" % number))
    t.expect(22, len(c.listxattr("f")))
    for number in range(0, 20, 2):
        t.expect(0, c.removexattr("f", f"user.n{number}"))
    t.expect(sorted(["user.one", "user.two"] + [f"user.n{n}" for n in range(1, 20, 2)]), c.listxattr("f"))
    with t.differs("ext4", "without the feature ea_inode, attributes of an inode share one block there"):
        for number in range(1000):
            t.expect(0, c.setxattr("f", f"user.many{number:04}", b"v%d" % number))
        t.expect(1012, len(c.listxattr("f")))
        for number in range(0, 1000, 37):
            t.expect(b"v%d" % number, c.getxattr("f", f"user.many{number:04}"))
        t.expect(0, c.unlink("f"))


@test
def what_attributes_follow(t):
    t.file("f", b"text")
    c.setxattr("f", "user.a", b"1")
    t.expect(0, c.rename("f", "g"))
    t.expect(b"1", c.getxattr("g", "user.a"))
    t.expect(0, c.link("g", "h"))
    t.expect(0, c.setxattr("h", "user.b", b"2"))
    t.expect(["user.a", "user.b"], c.listxattr("g"))
    t.expect(0, c.truncate("g", 0))
    t.expect(0, c.chmod("g", 0o600))
    t.expect(0, c.chown("g", 5, 5))
    t.expect(["user.a", "user.b"], c.listxattr("h"))
    t.expect(0, c.unlink("g"))
    t.expect(b"2", c.getxattr("h", "user.b"))
    t.file("h2")
    t.expect(0, c.rename("h2", "h"))
    t.expect([], c.listxattr("h"))
    fd = os.open("h", os.O_RDONLY)
    t.expect(0, c.setxattr(fd, "user.c", b"3"))
    t.expect(b"3", c.getxattr(fd, "user.c"))
    t.expect(0, c.removexattr(fd, "user.c"))
    t.expect(-ENODATA, c.getxattr("h", "user.c"))
    os.close(fd)
    t.expect(-9, c.getxattr(fd, "user.c"))
