# POSIX ACLs (acl(5)): access and default lists, the mask and the mode in step, inheritance, who is let in.
import os
from errno import EACCES, EINVAL, ENODATA, ENOTSUP, EPERM

import calls as c
from calls import ACCESS, DEFAULT, GROUP, GROUP_OBJ, MASK, OTHER, USER, USER_OBJ
from suite import ALICE, BOB, GROUPMATE, MEMBER, test

MINIMAL = [(USER_OBJ, 6), (GROUP_OBJ, 4), (OTHER, 0)]


def entries(path, kind=ACCESS): return c.acl_entries(c.getxattr(path, kind))
def put(path, *list_, kind=ACCESS): return c.setxattr(path, kind, c.acl(*list_))


@test
def a_minimal_list_is_the_mode(t):
    t.file("f", b"", 0o777)
    t.dir("d", 0o777)
    for path in ("f", "d"):
        for owner in (0, 4, 6, 7):
            for group in (0, 4, 5):
                with t.case(path, owner, group):
                    t.expect(0, put(path, (USER_OBJ, owner), (GROUP_OBJ, group), (OTHER, 1)))
                    t.expect(owner << 6 | group << 3 | 1, t.mode(path))
                    t.expect(-ENODATA, entries(path))
                    t.expect([], c.listxattr(path))


@test
def mask_and_mode_in_step(t):
    t.file("f", b"", 0o640)
    list_ = [(USER_OBJ, 6), (USER, 7, BOB.uid), (GROUP_OBJ, 4), (GROUP, 5, 99), (MASK, 6), (OTHER, 1)]
    t.expect(0, put("f", *list_))
    t.expect(list_, entries("f"))
    t.expect(0o661, t.mode("f"))
    t.expect([ACCESS], c.listxattr("f"))
    for mode in (0o600, 0o777, 0o750, 0o014, 0o4711):
        with t.case(oct(mode)):
            t.expect(0, c.chmod("f", mode))
            t.expect(mode, t.mode("f"))
            t.expect([(USER_OBJ, mode >> 6 & 7), (USER, 7, BOB.uid), (GROUP_OBJ, 4), (GROUP, 5, 99), (MASK, mode >> 3 & 7), (OTHER, mode & 7)],
                     entries("f"))
    t.expect(0, c.removexattr("f", ACCESS))
    t.expect(-ENODATA, entries("f"))
    with t.case("the mask stays as the group's bits"):
        t.expect(0o4711, t.mode("f"))
    t.expect(lambda r: r in (0, -ENODATA), c.removexattr("f", ACCESS))


@test
def lists_at_fault(t):
    t.file("f", b"", 0o644)
    t.dir("d")
    os.symlink("f", "s")
    bad = {
        "no owner": [(GROUP_OBJ, 4), (OTHER, 0)], "no group": [(USER_OBJ, 4), (OTHER, 0)], "no others": [(USER_OBJ, 4), (GROUP_OBJ, 0)],
        "no mask": [(USER_OBJ, 6), (USER, 4, 5), (GROUP_OBJ, 4), (OTHER, 0)], "order": [(GROUP_OBJ, 4), (USER_OBJ, 6), (OTHER, 0)],
        "two owners": [(USER_OBJ, 6), (USER_OBJ, 6), (GROUP_OBJ, 4), (OTHER, 0)], "permissions": [(USER_OBJ, 8), (GROUP_OBJ, 4), (OTHER, 0)],
        "tag": [(USER_OBJ, 6), (GROUP_OBJ, 4), (OTHER, 0), (64, 0)], "two masks": [(USER_OBJ, 6), (GROUP_OBJ, 4), (MASK, 4), (MASK, 4), (OTHER, 0)],
    }
    for name, list_ in bad.items():
        with t.case(name):
            t.expect(-EINVAL, put("f", *list_))
            t.expect(-EINVAL, put("d", *list_, kind=DEFAULT))
    for raw in (b"x", b"\x02\0\0", b"\x01\0\0\0" + c.acl(*MINIMAL)[4:], c.acl(*MINIMAL) + b"x", c.acl(*MINIMAL)[:-1]):
        with t.case(raw[:8]):
            t.expect(lambda r: r in (-EINVAL, -ENOTSUP), c.setxattr("f", ACCESS, raw))
    t.expect(0o644, t.mode("f"))
    t.expect(-EACCES, put("f", *MINIMAL, kind=DEFAULT))
    t.expect(-ENODATA, entries("f", DEFAULT))
    t.expect(-ENOTSUP, c.setxattr("s", ACCESS, c.acl(*MINIMAL), 0, False))
    t.expect(-ENOTSUP, c.getxattr("s", ACCESS, False))
    with t.user(BOB):
        t.expect(-EPERM, put("f", *MINIMAL))
        t.expect(-EPERM, c.removexattr("f", ACCESS))
        t.expect(-EPERM, put("d", *MINIMAL, kind=DEFAULT))


@test
def who_is_let_in(t):
    """acl(5), access check algorithm: the owner, then the named users, then the groups, masked; the first class that fits decides."""
    cases = [
        # (list, {user: bits granted})
        ([(USER_OBJ, 6), (USER, 4, BOB.uid), (GROUP_OBJ, 0), (MASK, 7), (OTHER, 7)], {ALICE: 6, BOB: 4, GROUPMATE: 0, MEMBER: 0}),
        ([(USER_OBJ, 0), (USER, 7, BOB.uid), (GROUP_OBJ, 7), (MASK, 5), (OTHER, 0)], {ALICE: 0, BOB: 5, GROUPMATE: 5, MEMBER: 5}),
        ([(USER_OBJ, 7), (GROUP_OBJ, 0), (GROUP, 6, BOB.gid), (MASK, 7), (OTHER, 1)], {BOB: 6, GROUPMATE: 0, MEMBER: 0}),
        ([(USER_OBJ, 7), (GROUP_OBJ, 4), (GROUP, 2, MEMBER.gid), (MASK, 7), (OTHER, 0)], {MEMBER: (4, 2), GROUPMATE: 4, BOB: 0}),
        ([(USER_OBJ, 7), (USER, 0, MEMBER.uid), (GROUP_OBJ, 7), (MASK, 7), (OTHER, 7)], {MEMBER: 0, GROUPMATE: 7, BOB: 7}),
        # Linux does not look at a list whose mask is empty, but at the mode alone: a named group then counts as others.
        ([(USER_OBJ, 7), (GROUP_OBJ, 7), (GROUP, 7, BOB.gid), (MASK, 0), (OTHER, 4)], {BOB: 4, GROUPMATE: 0, MEMBER: 0}),
        ([(USER_OBJ, 7), (USER, 6, ALICE.uid), (GROUP_OBJ, 0), (MASK, 7), (OTHER, 0)], {ALICE: 7, BOB: 0}),
        ([(USER_OBJ, 7), (GROUP_OBJ, 0), (MASK, 7), (OTHER, 6)], {GROUPMATE: 0, BOB: 6}),
    ]
    for list_, wanted in cases:
        t.file("f", b"text", 0o600, ALICE)
        t.expect(0, put("f", *list_))
        for user, granted in wanted.items():
            sets = granted if isinstance(granted, tuple) else (granted,)
            for bits, flags in ((4, os.O_RDONLY), (2, os.O_WRONLY), (6, os.O_RDWR)):
                with t.case(list_, user.uid, bits):
                    # Of several matching groups one alone must grant all that is asked.
                    allowed = any(bits & s == bits for s in sets)
                    with t.user(user):
                        result = c.open_("f", flags)
                        t.expect(0 if allowed else -EACCES, result if result < 0 else os.close(result) or 0)
                        t.expect(0 if allowed else -EACCES, c.access("f", bits, c.AT_EACCESS))
        os.unlink("f")


@test
def default_lists_are_inherited(t):
    default = [(USER_OBJ, 7), (USER, 6, BOB.uid), (GROUP_OBJ, 5), (GROUP, 3, 99), (MASK, 7), (OTHER, 2)]
    t.dir("d", 0o755)
    t.expect(0, put("d", *default, kind=DEFAULT))
    t.expect(default, entries("d", DEFAULT))
    t.expect(-ENODATA, entries("d"))
    t.expect(0o755, t.mode("d"))
    t.expect([DEFAULT], c.listxattr("d"))
    for mask in (0o000, 0o022, 0o077, 0o777):
        os.umask(mask)
        for mode in (0o666, 0o640, 0o777, 0o600, 0o000, 0o4755):
            with t.case(oct(mask), oct(mode)):
                os.close(t.opened(c.open_("d/f", os.O_CREAT | os.O_EXCL, mode)))
                # The umask has no say; the mode's bits are cut by the list's, the group's being the mask.
                owner, group, other = mode >> 6 & 7, mode >> 3 & 7, mode & 7 & 2
                t.expect(mode & 0o7000 | owner << 6 | group << 3 | other, t.mode("d/f"))
                t.expect([(USER_OBJ, owner), (USER, 6, BOB.uid), (GROUP_OBJ, 5), (GROUP, 3, 99), (MASK, group), (OTHER, other)], entries("d/f"))
                t.expect([ACCESS], c.listxattr("d/f"))
                os.unlink("d/f")
                t.expect(0, c.mkdir("d/sub", mode & 0o777))
                t.expect(default, entries("d/sub", DEFAULT))
                t.expect([(USER_OBJ, owner), (USER, 6, BOB.uid), (GROUP_OBJ, 5), (GROUP, 3, 99), (MASK, group), (OTHER, other)], entries("d/sub"))
                os.rmdir("d/sub")
                t.expect(0, c.mkfifo("d/p", mode & 0o777))
                t.expect((MASK, group), entries("d/p")[4] if isinstance(entries("d/p"), list) else entries("d/p"))
                os.unlink("d/p")
                os.symlink("x", "d/s")
                t.expect(0o777, t.mode("d/s"))
                os.unlink("d/s")
    os.umask(0)


@test
def a_minimal_default_list_replaces_the_umask(t):
    t.dir("d", 0o777)
    t.expect(0, put("d", (USER_OBJ, 7), (GROUP_OBJ, 6), (OTHER, 4), kind=DEFAULT))
    os.umask(0o077)
    os.close(t.opened(c.open_("d/f", os.O_CREAT | os.O_EXCL, 0o777)))
    t.expect(0o764, t.mode("d/f"))
    t.expect(-ENODATA, entries("d/f"))
    t.expect(0, c.mkdir("d/sub", 0o755))
    t.expect(0o744, t.mode("d/sub"))
    t.expect([(USER_OBJ, 7), (GROUP_OBJ, 6), (OTHER, 4)], entries("d/sub", DEFAULT))
    t.expect(0, c.removexattr("d", DEFAULT))
    os.close(t.opened(c.open_("d/g", os.O_CREAT | os.O_EXCL, 0o777)))
    t.expect(0o700, t.mode("d/g"))
    t.expect(-ENODATA, entries("d", DEFAULT))
    os.umask(0)


@test
def lists_and_setgid(t):
    """Setting a list as a stranger of the group drops setgid, as chmod does."""
    for gid, kept in ((ALICE.gid, True), (BOB.gid, False)):
        t.file("f", b"", 0o644)
        os.chown("f", ALICE.uid, gid)
        os.chmod("f", 0o2755)
        with t.case(gid):
            with t.user(ALICE):
                t.expect(0, put("f", (USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 5)))
            t.expect(0o2755 if kept else 0o755, t.mode("f"))
            os.chmod("f", 0o2755)
            with t.user(ALICE):
                t.expect(0, put("f", (USER_OBJ, 7), (USER, 4, 5), (GROUP_OBJ, 5), (MASK, 5), (OTHER, 5)))
            t.expect(0o2755 if kept else 0o755, t.mode("f"))
        os.unlink("f")


@test
def lists_in_directories(t):
    t.dir("d", 0o700, ALICE)
    t.file("d/f", b"x", 0o644, ALICE)
    t.expect(0, put("d", (USER_OBJ, 7), (USER, 5, BOB.uid), (GROUP_OBJ, 0), (MASK, 5), (OTHER, 0)))
    with t.user(BOB):
        t.expect(["f"], c.listdir("d"))
        t.expect(b"x", t.content("d/f"))
        t.expect(-EACCES, c.unlink("d/f"))
        t.expect(-EACCES, c.mkdir("d/n"))
    with t.user(GROUPMATE):
        t.expect(-EACCES, c.listdir("d"))
    t.expect(0, put("d", (USER_OBJ, 7), (USER, 7, BOB.uid), (GROUP_OBJ, 0), (MASK, 7), (OTHER, 0)))
    with t.user(BOB):
        t.expect(0, c.mkdir("d/n"))
        t.expect(0, c.rename("d/n", "d/m"))
        t.expect(0, c.unlink("d/f"))
    t.expect(["m"], c.listdir("d"))


@test
def lists_follow_the_inode(t):
    list_ = [(USER_OBJ, 6), (USER, 4, BOB.uid), (GROUP_OBJ, 4), (MASK, 4), (OTHER, 0)]
    t.file("f", b"text")
    t.expect(0, put("f", *list_))
    for do in (lambda: c.rename("f", "g"), lambda: c.link("g", "f"), lambda: c.unlink("g"), lambda: c.chown("f", 5, 6), lambda: c.truncate("f", 0)):
        t.expect(0, do())
        t.expect(list_, entries("f" if t.exists("f") else "g"))
    # As many entries as ext4 takes in its block are taken.
    long = [(USER_OBJ, 6)] + [(USER, 4, 1000 + n) for n in range(100)] + [(GROUP_OBJ, 4), (MASK, 4), (OTHER, 0)]
    t.expect(0, put("f", *long))
    t.expect(long, entries("f"))
    t.expect(0, c.setxattr("f", "user.x", b"1"))
    t.expect([ACCESS, "user.x"], c.listxattr("f"))


@test
def flags_of_setxattr_for_lists(t):
    t.file("f")
    list_ = [(USER_OBJ, 6), (USER, 4, BOB.uid), (GROUP_OBJ, 4), (MASK, 4), (OTHER, 0)]
    # The flags are not heeded for ACLs.
    t.expect(0, c.setxattr("f", ACCESS, c.acl(*list_), os.XATTR_REPLACE))
    t.expect(0, c.setxattr("f", ACCESS, c.acl(*list_), os.XATTR_CREATE))
    t.expect(list_, entries("f"))
    t.expect(0, c.setxattr("f", ACCESS, b""))
    t.expect(-ENODATA, entries("f"))
    t.expect(-ENODATA, c.getxattr("f", ACCESS))
