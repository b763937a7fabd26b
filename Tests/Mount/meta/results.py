"""System calls whose results are text: what they gave, `ok`, or the name of the error. And the list of tests that make them."""
import ctypes
import errno
import fcntl
import os
import struct
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "posix"))
from calls import ACCESS, AT_FDCWD, FS_APPEND, FS_IMMUTABLE, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_NOATIME, FS_NODUMP, libc  # noqa: E402

# All tests, in the order of their definitions: generators of results, each a name and what came of it.
tests = []
# The tags of an access control list: owner, a user, group, a group, mask, others.
U, u, G, g, M, O = 1, 2, 4, 8, 16, 32  # noqa: E741
ALL_FLAGS = FS_IMMUTABLE | FS_APPEND | FS_NODUMP | FS_NOATIME


def test(function):
    """Makes a function a test."""
    tests.append(function)
    return function


def name_of(number):
    """The name of an error's number."""
    return errno.errorcode.get(number, str(number))


def call(function, *arguments, **more):
    """The result, or the name of the error."""
    try:
        return function(*arguments, **more)
    except OSError as error:
        return name_of(error.errno)


def ok(function, *arguments, **more):
    """"ok" or the name of the error."""
    result = call(function, *arguments, **more)
    if isinstance(result, int) and function is os.open:
        os.close(result)
    return result if isinstance(result, str) and result.startswith("E") else "ok"


def raw(function, *arguments):
    """A function of libc: `ok`, or the name of the error."""
    return "ok" if function(*arguments) >= 0 else name_of(ctypes.get_errno())


def renameat2(old, new, flags):
    """rename with flags."""
    return raw(libc.renameat2, AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags)


def touch(path, content=b"", mode=0o644):
    """A file with this content and mode, synced."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    os.write(descriptor, content)
    os.fsync(descriptor)
    os.close(descriptor)
    os.chmod(path, mode)


def mode(path):
    """Type and mode of what a name stands for."""
    return oct(os.lstat(path).st_mode)


def owner(path):
    """Its user and group."""
    status = os.lstat(path)
    return f"{status.st_uid}:{status.st_gid}"


def as_user(uid, gid, groups, function, *arguments):
    """Runs a function in a process of that user and gives what it gave, as text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            os.umask(0o022)
            text = str(function(*arguments))
        except Exception as error:
            text = f"raised {error!r}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    text = b""
    while chunk := os.read(reading, 4096):
        text += chunk
    os.close(reading)
    os.waitpid(pid, 0)
    return text.decode()


def acl(*entries):
    """Entries as (tag, permissions, id)."""
    none = 0xFFFFFFFF
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, permissions, identity if tag in (2, 8) else none) for tag, permissions, identity in entries)


def show_acl(path, kind=ACCESS):
    """An access control list as text, or the name of the error."""
    value = call(os.getxattr, path, kind)
    if isinstance(value, str):
        return value
    entries = [struct.unpack_from("<HHI", value, offset) for offset in range(4, len(value), 8)]
    return " ".join(f"{t}:{p}:{i if t in (2, 8) else ''}" for t, p, i in entries)


def get_flags(path, mask=ALL_FLAGS):
    """The inode flags of a file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return hex(struct.unpack("i", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, b"\0" * 4)[:4])[0] & mask)
    finally:
        os.close(descriptor)


def set_flags(path, flags):
    """Sets the inode flags that this test knows."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        old = struct.unpack("i", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, b"\0" * 4)[:4])[0]
        keep = old & ~ALL_FLAGS
        fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("i", keep | flags) + b"\0" * 4)
        return "ok"
    except OSError as error:
        return name_of(error.errno)
    finally:
        os.close(descriptor)


def times(path):
    """The times of access, modification and change."""
    status = os.lstat(path)
    return status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns


def drop_caches():
    """Inodes that nobody uses are forgotten: what is done with them next begins with the file system."""
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")
